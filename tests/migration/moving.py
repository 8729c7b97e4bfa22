"""What the tests of moving share: odd runs, a source that is a list, a peer in memory that can be read and fails."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from tracer.backends.base import Limits, RemoteIds, Source
from tracer.backends.memory import MemoryBackend
from tracer.storage import Store
from tracer.transfer import Event, File, Histogram, LogLine, Media, Part, Points, RunInfo, Text

START = 1_767_225_600_123_456
SECOND = 1_000_000
ODD = (0.5, float("nan"), float("inf"), float("-inf"), -0.0, 1e-300, 5e-324, 1.7e308, 0.1, float(2**53 + 2))


def info(number: int = 0, **more: object) -> RunInfo:
    """Return what is known of a run."""
    said: dict[str, object] = {
        "uid": "", "project": "vision", "name": f"run {number}: Größe", "started": START + number * 60 * SECOND,
        "ended": START + number * 60 * SECOND + 30 * SECOND, "steps": 100, "notes": "A note.\nWith two lines.",
        "tags": ("odd", "zwei"), "params": {"lr": 1e-3, "model": {"depth": 3, "name": "Süß"}, "amp": True},
        "summary": {"best": 0.25}, "origin": f"list:{number}",
    }  # fmt: skip
    return RunInfo(**{**said, **more})  # type: ignore[arg-type]


def series(name: str, count: int = 100, first: int = 0, stride: int = 1, rank: int = 0, seed: int = 0) -> Points:
    """Return a series that begins with every odd value."""
    steps = first + stride * np.arange(count, dtype=np.int64)
    values = np.random.default_rng(seed).normal(size=count)
    values[: len(ODD)] = ODD[:count]
    return Points(name, steps, START + SECOND * np.arange(count, dtype=np.int64), values, rank)


def all_series(number: int = 0, count: int = 100) -> list[Points]:
    """Return the series of a run: plain, odd in name, far in steps, of two ranks."""
    return [
        series("loss", count, seed=number),
        series("val/acc", count, seed=number + 1),
        series("größe [km²]", count, seed=number + 2),
        series("far", count, first=2**40, stride=2**30, seed=number + 3),
        series("loss", count, rank=1, seed=number + 4),
    ]


def odd_events(number: int = 0, folder: Path | None = None, count: int = 100) -> Iterator[Event]:
    """Yield what happened in a run; with a folder, an artifact of two files as well."""
    yield from all_series(number, count)
    yield Text("phase", 0, START, "warm-up ✓")
    yield Text("phase", 10, START + 10 * SECOND, "training")
    yield LogLine("line", START + SECOND, "hello", name="stdout")
    yield LogLine("log", START + 2 * SECOND, "careful", name="train", level="warning")
    if folder is not None:
        yield artifact(folder, number)


def artifact(folder: Path, number: int = 0) -> File:
    """Return an artifact of two files."""
    parts = []
    for name, data in (("weights.bin", bytes(range(256)) * (number + 1)), ("sub/notes.txt", b"words\n")):
        path = folder / f"artifact-{number}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        parts.append(Part(name, str(path), len(data), hashlib.sha256(data).hexdigest()))
    return File("model", "model", "v0", tuple(parts), time=START + 20 * SECOND, metadata={"epoch": 1})


def histogram() -> Histogram:
    """Return a histogram."""
    return Histogram("weights/fc", 5, START, (-1.0, 0.0, 1.0), (3.0, 4.0))


def picture() -> Media:
    """Return something to look at."""
    return Media("shown", "html", 3, START, data=b"<b>bold</b>", suffix=".html", caption="Bold")


class ListSource(Source):
    """Runs that stand in a list; counts how often each was read."""

    name: ClassVar[str] = "list"

    def __init__(self, runs: Mapping[str, tuple[RunInfo, Sequence[Event]]], uri: str = "") -> None:
        super().__init__(uri)
        self.of = dict(runs)
        self.read: list[str] = []

    def runs(self) -> Iterator[RunInfo]:
        """Yield the runs."""
        yield from (one for one, _ in self.of.values())

    def events(self, run: RunInfo) -> Iterator[Event]:
        """Yield what happened in one."""
        self.read.append(run.origin)
        for event in self.of[run.origin][1]:
            if isinstance(event, Exception):
                raise event
            yield event


class PeerBackend(MemoryBackend):
    """A peer in memory whose limits, kinds and failures a test sets."""

    limits: ClassVar[Limits] = Limits(batch=64, losses={"±Inf": "stored as 1e308"})
    #: Raised by the next calls of `write`, one each; None lets one pass.
    failures: ClassVar[list[Exception | None]] = []
    opened: ClassVar[list[dict[str, str]]] = []
    written: ClassVar[list[int]] = []
    folder: ClassVar[Path]

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Begin a run, or go on with one."""
        type(self).opened.append(dict(remote))
        return super().open(run, remote)

    def write(self, events: Sequence[Event]) -> None:
        """Keep a batch, unless it is time to fail."""
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure
        type(self).written.append(sum(len(one) for one in events if isinstance(one, Points)))
        super().write([self._kept_file(one) if isinstance(one, File) else one for one in events])

    def _kept_file(self, event: File) -> File:
        """Copy the files of an artifact, as a peer does."""
        parts = []
        for one in event.parts:
            path = self.folder / one.digest
            path.write_bytes(Path(one.local).read_bytes())
            parts.append(replace(one, local=str(path)))
        return replace(event, parts=tuple(parts))


class PeerSource(Source):
    """Reads what `PeerBackend` keeps."""

    name: ClassVar[str] = "peer"

    def runs(self) -> Iterator[RunInfo]:
        """Yield the runs."""
        for uid, kept in PeerBackend.runs.items():
            run: RunInfo = kept["info"]  # type: ignore[assignment]
            yield RunInfo(
                **{name: getattr(run, name) for name in RunInfo.__slots__}
                | {"origin": f"peer:{uid}", "status": kept["status"], "ended": kept.get("ended", run.ended)}
            )

    def events(self, run: RunInfo) -> Iterator[Event]:
        """Yield what happened in one."""
        kept: list[Event] = PeerBackend.runs[run.origin.removeprefix("peer:")]["events"]  # type: ignore[assignment]
        series: dict[tuple[str, int], list[Points]] = {}
        for event in kept:
            if isinstance(event, Points):
                series.setdefault((event.name, event.rank), []).append(event)
        for (name, rank), chunks in series.items():
            arrays = (np.concatenate([getattr(one, field) for one in chunks]) for field in ("steps", "times", "values"))
            yield Points(name, *arrays, rank)
        yield from (event for event in kept if not isinstance(event, (Points, RunInfo)))


def taken_in(store: Store, number: int = 0, folder: Path | None = None, **more: object) -> str:
    """Take an odd run into a store, and return its id."""
    return store.take_in(info(number, **more), odd_events(number, folder)).uid
