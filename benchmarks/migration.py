"""How fast whole runs move: a million points in from TensorBoard and MLflow, a project there and back through each."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import TypedDict

from figures import number
from fresh import fresh, scratch
from report import Report, progress, reporting
from series_data import METRICS, columns

#: Target → how people call it.
PAIRS = {
    "tensorboard:there": "TensorBoard",
    "jsonl:there/": "JSON Lines",
    "csv:there/": "CSV",
    "parquet:there/": "Parquet",
    "mlflow:sqlite:///there.db": "MLflow, SQLite",
    "wandb:there": "W&B, offline",
    "aim:there": "Aim",
    "trackio:there": "trackio",
    "clearml:there": "ClearML, offline",
}


class Import(TypedDict):
    """What one import took."""

    points: int
    wall_s: float
    memory_mb: float
    good: bool


class Round(TypedDict):
    """What a project took: into a tracker, and out of it into another store."""

    points: int
    out_s: float
    in_s: float
    again_s: float
    equal: bool
    errors: list[str]


def make_project(runs: int, steps: int, store: str) -> int:
    """Take a project of made-up runs into a store; return how many points it has."""
    import numpy as np

    from tracer.storage import Store
    from tracer.transfer import Points, RunInfo

    points = 0
    with Store.open(store, create=True) as opened:
        for at in range(runs):
            made = columns(at, steps)
            times = (made.pop("") * 1e6).astype(np.int64)
            made["train/loss"][steps // 2] = np.nan
            series = [Points(name, np.arange(steps), times, values) for name, values in made.items()]
            info = RunInfo(
                "", "moved", f"run-{at:03d}", int(times[0]), ended=int(times[-1]), steps=steps,
                params={"lr": at / 100}, tags=("made",), origin=f"made:{at}",
            )  # fmt: skip
            points += opened.take_in(info, series).points
    return points


def import_from(source: str, store: str) -> Import:
    """Take everything at a source into a new store."""
    from tracer.migration import import_runs
    from tracer.storage import Store

    began = time.perf_counter()
    with Store.open(store, create=True) as opened:
        report = import_runs(opened, source)
    wall = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"points": report.points, "wall_s": wall, "memory_mb": peak, "good": report.is_good}


def write_tensorboard(folder: str, points: int) -> None:
    """Write two series with TensorBoard's own writer."""
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
    from tensorboard.summary.writer.event_file_writer import EventFileWriter  # type: ignore[import-untyped]

    writer = EventFileWriter(folder, max_queue_size=1000)
    for step in range(points // 2):
        for tag in ("loss", "accuracy"):  # an event for each value, as `add_scalar` writes it
            summary = Summary(value=[Summary.Value(tag=tag, simple_value=1 / (1 + step))])
            writer.add_event(Event(wall_time=1.75e9 + step / 20, step=step, summary=summary))
    writer.close()


def write_mlflow(database: str, points: int) -> None:
    """Write two series with MLflow's own client; the rows themselves go in by SQL, its client would take minutes."""
    import sqlite3

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    run = client.create_run(client.create_experiment("benchmark"), run_name="long").info.run_id
    for name in ("loss", "accuracy"):
        client.log_metric(run, name, 0.5, timestamp=1_750_000_000_000, step=0)
    client.set_terminated(run)
    with sqlite3.connect(database) as connection:
        for name in ("loss", "accuracy"):
            connection.executemany(
                "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, 0)",
                ((name, 1 / (1 + step), 1_750_000_000_000 + 50 * step, run, step) for step in range(1, points // 2)),
            )


def there_and_back(target: str, store: str) -> Round:
    """Send a project to a tracker, take it back into a new store, and compare every series by its checksum."""
    from tracer.migration import export_runs, import_runs
    from tracer.storage import Store

    with Store.open(store) as one, Store.open("back", create=True) as two:
        uids = [run.uid for run in one.runs()]
        out_s, sent = _timed(lambda: export_runs(one, uids, target))
        again_s, _ = _timed(lambda: export_runs(one, uids, target))
        in_s, back = _timed(lambda: import_runs(two, target, verify=True))
        ours = {one.info(uid).name: one.digests(uid) for uid in uids}
        theirs = {run.name: two.digests(run.uid) for run in back.runs}
    errors = [str(error) for run in back.runs for error in run.errors]
    errors += [note for run in sent.runs for note in run.notes]
    return {
        "points": sent.points, "out_s": out_s, "in_s": in_s, "again_s": again_s, "equal": ours == theirs,
        "errors": errors[:5],
    }  # fmt: skip


def _timed(work):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Return how long some work took, and its answer."""
    began = time.perf_counter()
    answer = work()
    return time.perf_counter() - began, answer


def imports(report: Report, points: int, folder: Path) -> None:
    """Measure two imports."""
    table = report.table(f"A run of {points:,} points comes in", "source", "points/s", "wall s", "peak memory, MB")
    for title, write, place, source in (
        ("TensorBoard, event files", write_tensorboard, "events", "tensorboard:events"),
        ("MLflow, SQLite", write_mlflow, "ml.db", "mlflow:sqlite:///ml.db"),
    ):
        progress(f"migration: import from {title}")
        fresh(write, place, points, folder=folder)
        found = fresh(import_from, source, f"into-{place}", folder=folder)
        if not found["good"] or found["points"] != points // 2 * 2:
            message = f"{found['points']:,} of {points:,} points came in from {title}."
            raise RuntimeError(message)
        table.add(title, f"{found['points'] / found['wall_s']:,.0f}", found["wall_s"], number(found["memory_mb"]))


def rounds(report: Report, runs: int, steps: int, folder: Path) -> None:
    """Measure a project there and back."""
    store = folder / "project"
    progress(f"migration: a project of {runs} runs")
    points = fresh(make_project, runs, steps, str(store), folder=folder)
    table = report.table(
        f"A project of {runs} runs with {points:,} points goes out and comes back",
        "tracker", "out, s", "out again, s", "in and compared, s", "lossless",
    )  # fmt: skip
    for target, title in PAIRS.items():
        progress(f"migration: {title}")
        found = fresh(there_and_back, target, str(store), folder=folder / target.partition(":")[0])
        whole = found["equal"] and not found["errors"] and found["points"] == points
        table.add(title, found["out_s"], found["again_s"], found["in_s"], "yes" if whole else "NO")
        report.notes += [f"{title}: {error}" for error in found["errors"]]


def main() -> None:
    """Measure, print."""
    how = (
        f"A run of two series written by the tracker's own writer, read into an empty store; then a project whose runs "
        f"have {len(METRICS)} metrics and a NaN each, sent to each tracker on this machine and taken back into another "
        "store, where a checksum of the steps and values of every series is compared with the first. Each in a fresh "
        "process, wall time, imports of the trackers' clients included."
    )
    with reporting("migration", "Moving whole runs", how) as report, scratch("migration") as folder:
        imports(report, 20_000 if report.quick else 1_000_000, folder)
        rounds(report, *((3, 200) if report.quick else (50, 4_000)), folder)


if __name__ == "__main__":
    main()
