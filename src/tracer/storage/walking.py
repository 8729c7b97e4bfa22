"""The journals of a run, read on and on, segment by segment; standard library.

Whoever reads what comes decides how much at a time and how it is decoded: the follower record by record, the feed
whole columns. A segment is kept open while it is read: when it is folded and removed, its last records can still be
read.

    written since this boot, open       as it grows: committed records, of which a second reading says the same
    closed, or of another boot          as the fold reads it: what seals vouch for, and past what is damaged
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

from tracer import clock, journal
from tracer.errors import StoreError
from tracer.storage import held, liveness, tails
from tracer.storage.tails import Place, Tail


@dataclass(slots=True)
class Reading:
    """A segment that is being read, at an offset that whoever decodes its pieces moves on."""

    tail: Tail
    fd: int
    at: int
    is_whole: bool
    is_over: bool = False
    _done: int = field(default=0)

    @property
    def place(self) -> Place:
        """Where reading goes on: in the next segment when this one was read to its end."""
        return Place(self.tail.number + 1, 0) if self.is_over else Place(self.tail.number, self.at)

    def piece(self, size: int) -> bytes:
        """Return bytes from `at` on that begin with a committed record, or none; the last record may be cut.

        A record longer than the size comes whole.
        """
        return self._fixed(size) if self.is_whole else self._growing(size)

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(OSError):
            os.close(self.fd)

    def _growing(self, size: int) -> bytes:
        """Read from the file, as far as a second reading confirms."""
        while True:
            data = tails.settled(self.fd, self.at, os.pread(self.fd, size, self.at))
            if self._is_committed(data):
                return data
            length = int.from_bytes(data[:4], "little")
            if len(data) < size or not size < length <= os.fstat(self.fd).st_size - self.at:
                return b""
            size = length

    def _fixed(self, size: int) -> bytes:
        """Take from what was read when the segment was entered; what is damaged is stepped over."""
        tail = self.tail
        while self._done < len(tail.spans):
            span = tail.spans[self._done]
            self.at = max(self.at, span.start)
            if self.at >= span.stop:
                self._done += 1
                continue
            begin, stop = self.at - tail.base, span.stop - tail.base
            length = int.from_bytes(tail.data[begin : begin + 4], "little")
            data = tail.data[begin : min(stop, begin + max(size, length))]
            if self._is_committed(data):
                return data
            self.at = tail.missed(self.at, span)
        return b""

    def _is_committed(self, data: bytes) -> bool:
        """Tell whether the first record is all there."""
        return next(journal.scan(data, 0, len(data), self.tail.header.generation), None) is not None


class Walker:
    """Goes through all journals of a run, writer by writer.

    Args:
        folder: The run's folder.
        places: Where each writer's journal goes on; one that is missing is read from its beginning.
    """

    def __init__(self, folder: str, places: Mapping[str, tuple[int, int] | Place]) -> None:
        self.places = {writer: Place(*place) for writer, place in places.items()}
        #: A segment that comes next was given back before it was read.
        self.gap = False
        self._folder = os.path.join(folder, "journal")
        self._open: dict[str, Reading] = {}
        self._gone: dict[str, int] = {}
        self._last = ""

    def readings(self) -> Generator[Reading]:
        """Yield the segments that may hold more, to be read to their end; whoever has enough stops asking.

        The writers take turns, so that one who says much does not keep the others waiting.
        """
        listed = {writer: dict(found) for writer, found in tails.list_segments(self._folder).items()}
        writers = sorted(listed.keys() | self._open.keys())
        self._gone = held.released(self._folder)
        self.gap |= any(number >= self._needed(writer) for writer, number in self._gone.items())
        after = sum(writer <= self._last for writer in writers)
        for writer in writers[after:] + writers[:after]:
            self._last = writer
            yield from self._of_writer(writer, listed.get(writer, {}))

    def close(self) -> None:
        """Let go of the segments."""
        for writer in list(self._open):
            self._leave(writer)

    def position(self) -> str:
        """Return where to go on, as text."""
        self.mark()
        return json.dumps({writer: [place.segment, place.offset] for writer, place in self.places.items()})

    def mark(self) -> None:
        """Note how far the segments that are open were read."""
        for writer, one in self._open.items():
            self.places[writer] = one.place

    def _of_writer(self, writer: str, listed: dict[int, str]) -> Generator[Reading]:
        """Yield a writer's segments from its place on."""
        while True:
            one = self._open.get(writer)
            if one is not None and one.is_whole and not one.tail.header.closed and one.tail.number in listed:
                # Of another boot: seals may vouch for more by now.
                place = Place(one.tail.number, one.at, tails.pack_offsets(one.tail.declared))
                self._leave(writer)
                one = self._enter(writer, listed, place)
            elif one is None:
                one = self._enter(writer, listed, self._place(writer))
            if one is None:
                return
            # Before its end is read: one that is over gets no more records.
            is_over = self._is_over(one, listed)
            yield one
            one.is_over = is_over
            self.places[writer] = one.place
            if not is_over or max(listed, default=-1) == one.tail.number:
                return
            self._leave(writer)

    def _needed(self, writer: str) -> int:
        """Return the number of the first segment that has to be there; an open one is read though it is removed."""
        one = self._open.get(writer)
        return self._place(writer).segment if one is None else one.tail.number + 1

    def _place(self, writer: str) -> Place:
        """Return where a writer's journal goes on."""
        return self.places.get(writer, Place(-1, 0))

    def _is_over(self, one: Reading, listed: dict[int, str]) -> bool:
        """Tell whether nothing will be added to a segment: it is closed, left, folded, or its writer is gone."""
        if one.tail.header.closed or one.tail.number not in listed:
            return True
        if liveness.is_finished(one.tail.path):
            return True
        later = [number for number in listed if number > one.tail.number]
        return bool(later) and tails.has_records(listed[min(later)])

    def _enter(self, writer: str, listed: dict[int, str], place: Place) -> Reading | None:
        """Open the segment in which reading goes on, if it is there."""
        for number in sorted(number for number in listed if number >= place.segment):
            next_one = max(place.segment, self._gone.get(writer, -1) + 1, 0)
            if number > next_one and liveness.may_follow_late(listed[number]):
                return None  # one that is missing before it may still come
            start = place if number == place.segment else Place(number, 0)
            try:
                one = _reading(listed[number], start, self._folder)
            except FileNotFoundError:
                continue
            except (OSError, StoreError):
                return None
            self._open[writer] = one
            return one
        return None

    def _leave(self, writer: str) -> None:
        """Close a writer's segment."""
        one = self._open.pop(writer, None)
        if one is not None:
            one.close()


def _reading(path: str, place: Place, folder: str) -> Reading:
    """Open a segment, and decide how it is to be read."""
    boot = clock.boot_id()
    header = tails.read_header(path)
    is_whole = header.closed or header.identity.get("boot") != boot
    with contextlib.ExitStack() as stack:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        if is_whole:
            blocks = tails.sealed_blocks(folder, header.writer.hex())
            tail = tails.load(path, place, blocks, boot, whole=True)
        else:
            tail = tails.enter(path, place)
        stack.pop_all()  # from here on the reading closes it
    return Reading(tail, descriptor, tail.start, is_whole)


__all__ = ["Reading", "Walker"]
