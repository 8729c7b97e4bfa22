"""A run as an event file of TensorBoard: written by its own package, flushed to the disk with each batch."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace as changed
from typing import ClassVar

from tracer import events
from tracer.backends import tensorboard_events as made
from tracer.backends.base import Backend, Limits, Rejected, RemoteIds
from tracer.backends.files_appending import Appending, told
from tracer.backends.files_places import OWNER, claimed, owner_of
from tracer.backends.names import ranked
from tracer.transfer import FACTS, HISTOGRAM, LAYER, MEDIA, POINTS, TEXT, Event, Histogram, Media, Points, RunInfo, Text

_HEADER, _FOOTER = 12, 4


class TensorBoardBackend(Backend):
    """Writes one event file in a folder of the run's own, `<log_dir>/<project>/<name>`.

    Args:
        options: `log_dir`, what `tensorboard --logdir` is given; the folder `tensorboard` of the store without it.
    """

    name: ClassVar[str] = "tensorboard"
    kinds: ClassVar[frozenset[str]] = frozenset({POINTS, LAYER, TEXT, MEDIA, HISTOGRAM, FACTS})
    limits: ClassVar[Limits] = Limits(
        batch=10_000,
        losses={
            "numbers that need 64 bits": "kept as double tensors; TensorBoard draws them as 32-bit floats",
            "parameters that change after the first batch": "the HParams tab keeps the first; `tracer/run` has all",
            "log lines, artifacts, spans": "not sent",
            "meshes, layouts, embeddings, videos other than GIF": "not sent",
            "HTML and tables": "shown as text",
        },
    )

    _folder = ""

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Begin the event file, or go on with it behind the last batch that was acknowledged."""
        store = str(self.options.get("storage_path") or ".tracer")
        root = str(self.options.get("log_dir") or os.path.join(store, self.name))
        self._run, self._latest = run, run.started
        with told(root):
            kept = remote.get("folder", "")
            self._folder = kept if kept and owner_of(kept) == run.uid else claimed(root, run)
            name = f"events.out.tfevents.{run.started // 1_000_000:010d}.tracer"
            path = os.path.join(self._folder, name)
            self._file = Appending(path, os.path.join(self._folder, f"{OWNER}.mark"), _records)
            if self._file.size == 0:
                session = [made.session_start(run.params, run.started)] if run.params else []
                first = [made.beginning(run.started), *session, *made.of_facts(run, run.started)]
                self._file.append(made.framed(first))
        return {"folder": self._folder, "file": name}

    def write(self, events: Sequence[Event]) -> None:
        """Append a batch; what is in the file already is not written again."""
        with told(self._file.path):
            messages = [message for event in events for message in self._messages(event)]
            self._file.append(made.framed(messages))

    def close(self, status: str, ended: int | None) -> None:
        """Say how the run ended, for the HParams tab and for an import; `running` leaves it open."""
        with told(self._file.path):
            if status != events.RUNNING:
                self._run = changed(self._run, status=status, ended=ended)
                at = self._latest if ended is None else ended
                last = [*made.of_facts(self._run, at), made.session_end(status, at)]
                self._file.append(made.framed(last))
            self._file.close()

    def url(self) -> str | None:
        """Return the run's folder."""
        return self._folder or None

    def readable(self) -> str:
        """Return the run's folder."""
        return self._folder

    def _messages(self, event: Event) -> Iterator[bytes]:
        """Yield the events for one of ours."""
        if isinstance(event, RunInfo):
            if event.params and not self._run.params:  # the HParams tab takes them once
                yield made.session_start(event.params, event.started)
            self._run = event
            yield from made.of_facts(event, self._latest)
            return
        if isinstance(event, Points):
            if len(event):
                self._latest = max(self._latest, int(event.times.max()))
            yield from made.of_points(ranked(event.name, event.rank), event)
        elif isinstance(event, (Text, Histogram, Media)):
            self._latest = max(self._latest, event.time)
            message = _message(event)
            yield from () if message is None else (message,)


def _message(event: Text | Histogram | Media) -> bytes | None:
    """Return the event for something that is no number; None where TensorBoard has no place for it.

    Raises:
        Rejected: Its file is gone.
    """
    tag = ranked(event.name, event.rank)
    if isinstance(event, Text):
        return made.of_text(tag, event)
    if isinstance(event, Histogram):
        is_whole = event.counts and len(event.edges) == len(event.counts) + 1
        return made.of_histogram(tag, event) if is_whole else None
    if event.path is not None and event.data is None and not os.path.isfile(event.path):
        message = f"{event.name!r} is left out: {event.path} is not there any more."
        raise Rejected(message)
    return made.of_media(tag, event)


def _records(data: bytes) -> Iterator[bytes]:
    """Yield the records of an event file."""
    at = 0
    while at + _HEADER <= len(data):
        end = at + _HEADER + struct.unpack_from("<Q", data, at)[0] + _FOOTER
        yield data[at:end]
        at = end


__all__ = ["TensorBoardBackend"]
