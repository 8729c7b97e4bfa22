"""Samples are written on a thread of their own: Parquet takes milliseconds that no training step should pay."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path

from tracer import events, journal
from tracer.sink import Guard
from tracer.storage.samples import write_samples

#: Batches that may wait; a program that gives them faster than a disk takes them loses the newest, counted.
_WAITING = 64
_STOP_WITHIN_S = 2.0


class SampleWriter:
    """Writes the samples of one run: the file first, then the record that names it.

    Args:
        folder: The run's folder.
        uid: The run's id.
        rank: The rank of this process.
        append: Writes a record into the journal.
        guard: Takes what goes wrong.
    """

    def __init__(
        self, folder: str, uid: str, rank: int, append: Callable[[int, object, int], None], guard: Guard
    ) -> None:
        self._folder, self._uid, self._rank = Path(folder), uid, rank
        self._append, self._guard = append, guard
        self._waiting: queue.Queue[events.Samples | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="tracer-samples", daemon=True)
        self._thread.start()

    def put(self, samples: events.Samples) -> None:
        """Have samples written; never waits."""
        try:
            self._waiting.put_nowait(samples)
        except queue.Full:
            self._guard.counters.add("records_lost")
            self._guard.say(
                "samples", f"samples come faster than the disk takes them; those of step {samples.step} are not kept."
            )

    def stop(self) -> None:
        """Write what waits, within a bound."""
        try:
            self._waiting.put(None, timeout=_STOP_WITHIN_S)
        except queue.Full:
            return
        self._thread.join(_STOP_WITHIN_S)

    def _run(self) -> None:
        """Write until stopped."""
        while (samples := self._waiting.get()) is not None:
            with self._guard("writing samples"):
                self._write(samples)

    def _write(self, samples: events.Samples) -> None:
        """Write one file and its record; a second batch of the same step replaces the first."""
        name = f"{samples.step}-{self._rank}.parquet"
        path = self._folder / "samples" / name
        path.parent.mkdir(exist_ok=True)
        write_samples(path, f"{self._uid}_step_{samples.step}", samples.columns)
        self._append(journal.Kind.SAMPLES, {"path": f"samples/{name}", "count": samples.count}, samples.step)
