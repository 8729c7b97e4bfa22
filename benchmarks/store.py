"""What ten million points cost at rest and to read: fold, bytes, one series, overview, last values, summaries."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypedDict

from contestants import CONTESTANTS, PEERS
from figures import Spread, number
from fresh import fresh, scratch
from report import Bar, Report, progress, reporting
from series_data import METRICS, RUNS, STEPS, record, record_with


class Folded(TypedDict):
    """What a fresh process needed to fold every journal of the store."""

    points: int
    wall_s: float
    cpu_s: float
    memory_mb: float


def fold(store: str) -> Folded:
    """Turn every journal into Parquet and catalog."""
    from tracer.storage import Store

    wall, cpu = time.perf_counter(), time.process_time()
    with Store.open(store) as opened:
        points = opened.fold()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"points": points, "wall_s": wall, "cpu_s": cpu, "memory_mb": peak}


def queries(store: str, repeats: int, steps: int) -> dict[str, list[float]]:
    """Ask a fresh process's store the questions of a table and of a chart; ms, the first asked includes opening."""
    began = time.perf_counter()
    from tracer.storage import Store

    found: dict[str, list[float]] = {}
    with Store.open(store) as opened:
        uids = [row.uid for row in opened.runs()]
        asked = [(uid, METRICS[i % len(METRICS)]) for i, uid in enumerate(uids)]
        if len(opened.series(*asked[0])) != steps:
            message = f"A series has {len(opened.series(*asked[0]))} points instead of {steps}."
            raise RuntimeError(message)
        found["open, list the runs, first series"] = [(time.perf_counter() - began) * 1e3]
        others = asked[1 : repeats + 1]
        found["one series, all its points"] = [_ms(partial(opened.series, *one)) for one in others]
        found["the same again"] = [_ms(partial(opened.series, *one)) for one in others]
        overviews = [_ms(partial(opened.overview, *one)) for one in others]
        found[f"overview in {len(opened.overview(*asked[0])):,} buckets"] = overviews
        found["last value of every series"] = [_ms(opened.last_values) for _ in range(repeats)]
        whole = [_ms(lambda: [opened.metrics(uid) for uid in uids]) for _ in range(repeats)]
        found["n, min, max, mean of every series"] = whole
        question = "SELECT run, metric, count(*), min(value), max(value), avg(value) FROM points GROUP BY ALL"
        found["the same in SQL over all points"] = [_ms(lambda: opened.sql(question)) for _ in range(3)]
        if sum(len(of_run) for of_run in opened.last_values().values()) != len(uids) * len(METRICS):
            message = "Some series have no last value."
            raise RuntimeError(message)
    return found


def _ms(ask: Callable[[], object]) -> float:
    """Return how long an answer takes."""
    began = time.perf_counter()
    ask()
    return (time.perf_counter() - began) * 1e3


def tensorboard_series(folder: str) -> float:
    """Return how long TensorBoard's reader takes to load a run's file, in ms."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    began = time.perf_counter()
    events = EventAccumulator(str(Path(folder) / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    found = len(events.Scalars(METRICS[0]))
    took = (time.perf_counter() - began) * 1e3
    return took if found else 0.0


def one_series_file(steps: int, folder: str) -> None:
    """Write one series with TensorBoard."""
    log, finish = CONTESTANTS["tensorboard-queued"].open(Path(folder))
    for step in range(steps):
        log({METRICS[0]: 1 / (1 + step)}, step=step)
    finish()


def size_bytes(folder: Path) -> int:
    """Return the blocks that a folder takes on the disk."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def ours(report: Report, runs: int, steps: int, repeats: int, folder: Path) -> None:
    """Record, fold, weigh, ask."""
    store, points = folder / ".tracer", runs * steps * len(METRICS)
    journal = 0
    for number_ in range(runs):
        progress(f"store: recording run {number_ + 1} of {runs}")
        journal += fresh(record, number_, steps, str(store), folder=folder)
    progress("store: fold")
    folded = fresh(fold, str(store), folder=folder)
    if folded["points"] != points:
        message = f"{folded['points']} of {points} points were folded."
        raise RuntimeError(message)
    speed, rest = points / folded["wall_s"] / 1e6, size_bytes(store) / points
    table = report.table(f"Writing {points / 1e6:g} million points", "what", "figure")
    table.add("journal, bytes a point", journal / points)
    table.add("fold: journal → Parquet and catalog, million points/s", speed)
    table.add("the same, per second of CPU", points / folded["cpu_s"] / 1e6)
    table.add("peak memory of the folding process, MB", folded["memory_mb"])
    table.add("at rest, bytes a point, everything", number(rest))
    by_kind = {kind: sum(map(size_bytes, store.glob(f"runs/*/{kind}"))) for kind in ("points", "rollup", "journal")}
    catalog = sum(path.lstat().st_blocks * 512 for path in store.glob("tracer.db*"))
    for kind, size in {**by_kind, "catalog": catalog}.items():
        table.add(f"… of it {kind}", number(size / points))
    progress("store: queries")
    asked = fresh(queries, str(store), repeats, steps, folder=folder)
    answers = report.table("Reading, store open, page cache warm", "question", "ms min / median / max")
    for question, times in asked.items():
        answers.add(question, str(Spread.of(times)))
    named = {question: Spread.of(times) for question, times in asked.items()}
    overview = next(spread for question, spread in named.items() if question.startswith("overview"))
    series, last = named["one series, all its points"], named["last value of every series"]
    title = f"{points / 1e6:g} M points"
    report.bars += [
        Bar.at_least(f"{title}: write", 5, "M points/s", speed, points / folded["cpu_s"] / 1e6),
        Bar.at_most(f"{title}: at rest", 6, "B a point", rest),
        Bar.at_most(f"{title}: one {steps:,} series", 15, "ms", series.median, series.min),
        Bar.at_most(f"{title}: overview", 0.5, "ms", overview.median, overview.min),
        Bar.at_most(f"{title}: last of all series", 0.5, "ms", last.median, last.min),
    ]


def peers(report: Report, steps: int, folder: Path) -> None:
    """Weigh what the peers wrote of one run, and read one long series with TensorBoard's own reader."""
    table = report.table(
        f"The peers' files: one run of {len(METRICS)} metrics, {steps:,} steps", "logger", "bytes a point"
    )
    for which in PEERS:
        progress(f"store: {which}")
        place = folder / which
        fresh(record_with, which, steps, str(place), folder=place)
        kept = {"tensorboard": place / "tensorboard", "wandb": place / "wandb", "trackio": place / "trackio"}[which]
        table.add(CONTESTANTS[which].title, size_bytes(kept) / steps / len(METRICS))
    place = folder / "one-series"
    fresh(one_series_file, 5 * steps, str(place), folder=place)
    times = [fresh(tensorboard_series, str(place), folder=place) for _ in range(3)]
    reading = report.table("The peers' readers", "question", "ms min / median / max")
    reading.add(f"TensorBoard's `EventAccumulator`, one series of {5 * steps:,} points", str(Spread.of(times)))


def main() -> None:
    """Measure, judge, print."""
    how = (
        f"{RUNS} runs of {len(METRICS)} metrics with {STEPS:,} steps each, from a fixed seed, each run recorded by a "
        "process of its own; three metrics born as float32, a smooth cosine, a full mantissa; times with 2 ms of "
        "jitter. Bytes are the blocks on the disk, catalog included. Times of the queries are wall time."
    )
    with reporting("store", "Ten million points", how) as report, scratch("store") as folder:
        runs, steps, repeats = (3, 5_000, 2) if report.quick else (RUNS, STEPS, 9)
        ours(report, runs, steps, repeats, folder)
        peers(report, 1_000 if report.quick else 20_000, folder)
        report.notes += [
            "Overview, last values and summaries come from the catalog; the SQL row is the honest scan.",
            "A peer's file holds that peer's own times; Tracer's holds the times of the data.",
        ]


if __name__ == "__main__":
    main()
