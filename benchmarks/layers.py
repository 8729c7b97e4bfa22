"""What statistics of a thousand layers at a hundred thousand steps cost at rest and to read: heat map, one layer."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypedDict

from figures import Spread, number
from fresh import fresh, scratch
from report import Bar, Report, progress, reporting
from store import size_bytes

LAYERS, STEPS, STATISTICS = 1_000, 100_000, ("norm", "max")
_STARTED = 1_750_000_000.0
_TOGETHER = 1_000


class Done(TypedDict):
    """What a fresh process needed for its work on the store."""

    wall_s: float
    cpu_s: float
    memory_mb: float


def names(layers: int) -> list[str]:
    """Return layers called as those of a transformer are."""
    kinds = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight", "ln_1.weight")
    return [f"transformer.h.{at // len(kinds)}.{kinds[at % len(kinds)]}" for at in range(layers)]


def record(layers: int, steps: int, store: str) -> int:
    """Write one run through the real recorder; return the bytes of its journal.

    A norm is log-normal: a slow walk of its layer with noise of a tenth from step to step, born as float32.
    """
    import numpy as np

    import tracer
    from tracer.events import Axis, LayerValues

    run = tracer.init(
        project="layers", run_name="thousand", storage_path=store, maintain="off", track_system_metrics=False,
        track_git=False, track_environment=False, quiet=True,
    )  # fmt: skip
    axis = Axis("gradients", names(layers), STATISTICS, [(768, 768)] * layers)
    random = np.random.default_rng(0)
    level = random.normal(-2, 1, layers).astype(np.float32)
    put = run.recorder.append_layers
    now = _STARTED
    for start in range(0, steps, _TOGETHER):
        count = min(_TOGETHER, steps - start)
        walk = level + np.cumsum(random.standard_normal((count, layers), np.float32) * np.float32(0.01), axis=0)
        level = walk[-1]
        noise = random.standard_normal((count, len(STATISTICS), layers), np.float32) * np.float32(0.1)
        values = np.exp(walk[:, None, :] + noise)
        for at in range(count):
            now += 0.05 + 0.002 * random.standard_normal()
            put(LayerValues(axis, values[at].tobytes(), start + at, now))
    run.finish()
    return sum(path.stat().st_size for path in Path(run.folder, "journal").iterdir())


def fold(store: str) -> Done:
    """Turn the journal into Parquet and catalog."""
    from tracer.storage import Store

    with Store.open(store) as opened:
        return _measured(opened.fold)


def compact(store: str) -> Done:
    """Merge what the folds wrote, and remove what was merged."""
    from tracer.storage import Store

    with Store.open(store) as opened:
        return _measured(partial(opened.compact, grace_s=0))


def rebuild(store: str) -> Done:
    """Build the catalog anew, the overview with it."""
    from tracer.storage import Store

    with Store.open(store) as opened:
        return _measured(opened.rebuild)


def queries(store: str, repeats: int, steps: int) -> dict[str, list[float]]:
    """Ask a fresh process's store what a page of layers asks; ms, the first asked includes opening."""
    began = time.perf_counter()
    from tracer.storage import Store

    found: dict[str, list[float]] = {}
    with Store.open(store) as opened:
        uid = opened.run("@last").uid
        opened.layer_overview(uid, "norm")
        found["open, find the run, first heat map"] = [(time.perf_counter() - began) * 1e3]
        found["heat map"] = [
            _ms(partial(opened.layer_overview, uid, name)) for name in STATISTICS for _ in range(repeats)
        ]
        layers = opened.layer_names(uid)
        first = _ms(partial(opened.layers, uid, "norm", layers=layers[:1]))
        found["one layer, the first of a process"] = [first]
        asked = [layers[len(layers) * at // repeats] for at in range(repeats)]
        for layer in asked:  # a file's bytes are compared with their checksum the first time a process reads it
            opened.layers(uid, "norm", layers=[layer])
        found["one layer, all its steps"] = [_ms(partial(opened.layers, uid, "norm", layers=[one])) for one in asked]
        found["eight layers"] = [_ms(partial(opened.layers, uid, "norm", layers=layers[:8])) for _ in range(repeats)]
        one_step = partial(opened.layers, uid, "norm", start=steps // 2, stop=steps // 2 + 1)
        found["all layers at one step"] = [_ms(one_step) for _ in range(3)][1:]
        found["which axes, statistics, layers"] = [_ms(partial(opened.layer_axes, uid)) for _ in range(repeats)]
        series = opened.layers(uid, "norm", layers=asked[:1])
        if series.values.shape != (steps, 1):
            message = f"A layer has {series.values.shape} values instead of {steps}."
            raise RuntimeError(message)
        overview = opened.layer_overview(uid, "norm")
        if int(overview.n.sum()) != steps * len(layers):
            message = f"The heat map counts {int(overview.n.sum())} values."
            raise RuntimeError(message)
    return found


def _measured(work: Callable[[], object]) -> Done:
    """Return what a piece of work took."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall_s": wall, "cpu_s": cpu, "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _ms(ask: Callable[[], object]) -> float:
    """Return how long an answer takes."""
    began = time.perf_counter()
    ask()
    return (time.perf_counter() - began) * 1e3


def measure(report: Report, layers: int, steps: int, repeats: int, folder: Path) -> None:
    """Record, fold, ask, merge, weigh, ask again."""
    store = folder / ".tracer"
    values = layers * steps * len(STATISTICS)
    progress("layers: recording")
    journal = fresh(record, layers, steps, str(store), folder=folder)
    progress("layers: fold")
    folded = fresh(fold, str(store), folder=folder)
    progress("layers: queries before the merge")
    early = fresh(queries, str(store), repeats, steps, folder=folder)
    progress("layers: merge")
    merged = fresh(compact, str(store), folder=folder)
    rest = size_bytes(store) / values
    table = report.table(f"Writing {values / 1e6:g} million values", "what", "figure")
    table.add("journal, bytes a value", number(journal / values))
    for what, work in (("fold: journal → Parquet and catalog", folded), ("merge, afterwards", merged)):
        table.add(f"{what}, million values/s", number(values / work["wall_s"] / 1e6))
        table.add("the same, per second of CPU", number(values / work["cpu_s"] / 1e6))
        table.add("peak memory of its process, MB", number(work["memory_mb"]))
    table.add("at rest, bytes a value, everything", number(rest))
    catalog = sum(path.lstat().st_blocks * 512 for path in store.glob("tracer.db*"))
    table.add("… of it catalog, with the overview", number(catalog / values))
    progress("layers: queries")
    asked = fresh(queries, str(store), repeats, steps, folder=folder)
    answers = report.table(
        f"Reading {layers:,} layers, {steps:,} steps, page cache warm", "question", "ms min / median / max",
        "before the merge",
    )  # fmt: skip
    for question, times in asked.items():
        answers.add(question, str(Spread.of(times)), str(Spread.of(early[question])))
    progress("layers: rebuild")
    table.add("rebuild of the catalog, s", number(fresh(rebuild, str(store), folder=folder)["wall_s"]))
    heat, one = Spread.of(asked["heat map"]), Spread.of(asked["one layer, all its steps"])
    title = f"{layers:,} layers, {steps:,} steps"
    speed = values / folded["wall_s"] / 1e6
    report.bars += [
        Bar.at_most(f"{title}: heat map", 100, "ms", heat.median, heat.min),
        Bar.at_most(f"{title}: one layer", 15, "ms", one.median, one.min),
        Bar.at_most(f"{title}: at rest", 4, "B a value", rest),
        Bar.at_least(f"{title}: fold", 5, "M values/s", speed, values / folded["cpu_s"] / 1e6),
    ]


def main() -> None:
    """Measure, judge, print."""
    how = (
        f"One run of {LAYERS:,} layers with {STEPS:,} steps of the statistics {' and '.join(STATISTICS)}, from a fixed "
        "seed, recorded by the real recorder and folded by a process of its own; values are float32, log-normal walks "
        "with noise. Bytes are the blocks on the disk, catalog included."
    )
    with reporting("layers", "Statistics of a thousand layers", how) as report, scratch("layers") as folder:
        layers, steps, repeats = (100, 5_000, 2) if report.quick else (LAYERS, STEPS, 9)
        measure(report, layers, steps, repeats, folder)
        report.notes += [
            "A heat map comes from the overview in the catalog: up to 256 buckets of steps for each layer.",
            "Before the merge a layer lies in every file of a fold; while a run lives, eight are merged at a time.",
        ]


if __name__ == "__main__":
    main()
