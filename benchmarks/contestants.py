"""Who is measured: Tracer, its peers in their cheapest local mode, and the cheapest thing that Python can do.

Each opens in a folder and gives a `log(metrics, step=...)` and a function that ends the run. Peers are imported where
they are opened: each is measured in a process that has never seen the others.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Log = Callable[..., object]
Opened = tuple[Log, Callable[[], object]]


@dataclass(frozen=True, slots=True)
class Contestant:
    """One logger; `safe` says what a returned call promises, `steps` reads back what was kept of each metric."""

    title: str
    safe: str
    open: Callable[[Path], Opened]
    steps: Callable[[Path], Iterator[tuple[str, Sequence[int]]]] | None = None


def open_tracer(folder: Path) -> Opened:
    """Begin a run with the settings a user has who sets none."""
    import tracer

    tracer.init(project="benchmark", storage_path=str(folder / ".tracer"), quiet=True)
    return tracer.log, tracer.finish


def tracer_steps(folder: Path) -> Iterator[tuple[str, Sequence[int]]]:
    """Read through the store, as the commands do."""
    from tracer.storage import Store

    with Store.open(folder / ".tracer") as store:
        for run in store.runs():
            for row in store.metrics(run.uid):
                if not row.metric.startswith("system/"):
                    yield row.metric, store.series(run.uid, row.metric).step.tolist()


def open_tensorboard(folder: Path) -> Opened:
    """Open torch's writer as it comes: ten pending events at most."""
    return _open_tensorboard(folder, max_queue=10)


def open_tensorboard_queued(folder: Path) -> Opened:
    """Open torch's writer with the longer queue that its documentation offers."""
    return _open_tensorboard(folder, max_queue=1000)


def _open_tensorboard(folder: Path, *, max_queue: int) -> Opened:
    """Give the loop over the keys that its users write."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"), max_queue=max_queue)
    add_scalar = writer.add_scalar

    def log(metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            add_scalar(name, value, step)

    return log, writer.close


def tensorboard_steps(folder: Path) -> Iterator[tuple[str, Sequence[int]]]:
    """Read with TensorBoard's own reader, all events kept."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    for name in events.Tags()["scalars"]:
        yield name, [event.step for event in events.Scalars(name)]


def open_wandb(folder: Path) -> Opened:
    """Begin an offline run with system statistics, metadata, console and code capture off."""
    import wandb

    settings = wandb.Settings(
        mode="offline",
        console="off",
        disable_git=True,
        disable_code=True,
        silent=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
    )
    run = wandb.init(project="benchmark", dir=str(folder), settings=settings)
    return run.log, run.finish


def wandb_steps(folder: Path) -> Iterator[tuple[str, Sequence[int]]]:
    """Read the offline files: blocks as in a LevelDB log, protocol buffers in them."""
    from wandb.proto import wandb_internal_pb2 as messages

    steps: dict[str, list[int]] = {}
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for body in _wandb_records(path.read_bytes()):
            record = messages.Record()  # type: ignore[attr-defined]  # made at run time
            record.ParseFromString(body)
            if record.WhichOneof("record_type") == "history":
                values = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                step = int(values.pop("_step", record.history.step.num))
                for name in values:
                    if not name.startswith("_"):
                        steps.setdefault(name, []).append(step)
    yield from steps.items()


def _wandb_records(data: bytes) -> Iterator[bytes]:
    """Yield the whole records of an offline file; a torn tail ends it."""
    block, header, at, body = 32_768, struct.Struct("<IHB"), 7, b""
    while at + header.size <= len(data):
        left = block - at % block
        if left < header.size:
            at += left
            continue
        _, length, kind = header.unpack_from(data, at)
        begin, at = at + header.size, at + header.size + length
        if kind == 0 or at > len(data):
            return
        body = data[begin:at] if kind in (1, 2) else body + data[begin:at]
        if kind in (1, 4):  # a whole record, or the last part of one
            yield body


def open_trackio(folder: Path) -> Opened:
    """Begin a local run without monitors and without a page in a notebook."""
    os.environ["TRACKIO_DIR"] = str(folder / "trackio")
    import trackio

    trackio.init(project="benchmark", name="run", embed=False, auto_log_gpu=False, auto_log_cpu=False)
    return trackio.log, trackio.finish


def trackio_steps(folder: Path) -> Iterator[tuple[str, Sequence[int]]]:
    """Read its database."""
    import json
    import sqlite3

    steps: dict[str, list[int]] = {}
    path = folder / "trackio" / "benchmark.db"
    if path.exists():
        with sqlite3.connect(path) as connection:
            for step, metrics in connection.execute("SELECT step, metrics FROM metrics ORDER BY id"):
                for name in json.loads(metrics):
                    steps.setdefault(name, []).append(step)
    yield from steps.items()


def open_append(folder: Path) -> Opened:  # noqa: ARG001 -- it keeps nothing
    """Append to a list: what recording could cost at least, if nothing had to last."""
    rows: list[tuple[int, float, Mapping[str, float]]] = []
    now = time.time

    def log(metrics: Mapping[str, float], step: int) -> None:
        rows.append((step, now(), metrics))

    return log, rows.clear


CONTESTANTS = {
    "append": Contestant("`list.append`", "nothing", open_append),
    "tracer": Contestant("Tracer", "safe from `kill -9`", open_tracer, tracer_steps),
    "tensorboard": Contestant(
        "TensorBoard", "in a queue of 10, then a file buffer", open_tensorboard, tensorboard_steps
    ),
    "tensorboard-queued": Contestant(
        "TensorBoard, `max_queue=1000`",
        "in a queue of 1,000, then a file buffer",
        open_tensorboard_queued,
        tensorboard_steps,
    ),
    "wandb": Contestant("W&B offline", "on its way to a service process", open_wandb, wandb_steps),
    "trackio": Contestant("trackio", "in a list, written each 0.5 s", open_trackio, trackio_steps),
}
PEERS = ("tensorboard", "wandb", "trackio")


def counted(which: str, folder: str) -> dict[str, tuple[int, int]]:
    """Return how many values of each metric were kept, and of how many different steps."""
    read = CONTESTANTS[which].steps
    kept = () if read is None else read(Path(folder))
    return {name: (len(steps), len(set(steps))) for name, steps in kept}


def pool(keys: int, size: int = 64) -> list[dict[str, float]]:
    """Return prepared dictionaries of floats: what is measured is logging, not making numbers."""
    import random

    numbers = random.Random(keys)
    names = ["loss"] if keys == 1 else [f"train/metric_{i}" for i in range(keys)]
    return [{name: numbers.random() for name in names} for _ in range(size)]
