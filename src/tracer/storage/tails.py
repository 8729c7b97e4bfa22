"""What the journals of a run hold beyond a position: which bytes, and which of them may be trusted.

Standard library only. Readers and the fold both begin here; the fold then decodes whole columns (`columns.py`),
`tracer list` and `show` step through the records (`recent.py`).

What is read of a segment, and what is set aside:

    closed, or written since this boot     everything that is committed; sealed blocks only if their CRC fits
    another boot, another machine          sealed blocks whose CRC fits, nothing else
    a bad block in the middle              that block is lost, reading goes on at the next one
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tracer import clock, journal
from tracer.errors import JournalCorrupt, StoreError

_NAME = re.compile(r"([0-9a-f]{32})\.(\d{6,})\.trj")
_PIECE = 256 * 1024
#: A preallocated segment ends in zeros; a commit word is never zero, so this many mean that nothing follows.
_ZEROS = bytes(4096)
_WORD = 8
_FIRST = 1 << 16


class Place(NamedTuple):
    """Where the next unread record of a writer lies; `declared` are the offsets of schemas and axes before it."""

    segment: int
    offset: int
    declared: bytes = b""


class Lost(NamedTuple):
    """A range of a segment that cannot be trusted."""

    path: str
    start: int
    stop: int
    reason: str


class Span(NamedTuple):
    """A trusted range; `is_exact` when records fill it to its end, so that falling short is damage."""

    start: int
    stop: int
    is_exact: bool
    is_sealed: bool


@dataclass(slots=True)
class Tail:
    """The unread part of one segment; offsets are those of the file, `data` begins at `base`."""

    path: str
    writer: str
    number: int
    header: journal.Header
    start: int
    base: int = 0
    data: bytes = b""
    spans: list[Span] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    end: int = 0
    size: int = 0
    schemas: dict[int, tuple[str, ...]] = field(default_factory=dict)
    axes: dict[int, dict[str, object]] = field(default_factory=dict)
    declared: list[int] = field(default_factory=list)

    @property
    def rank(self) -> int:
        """Return the rank that wrote it."""
        rank = self.header.identity.get("rank", 0)
        return rank if isinstance(rank, int) else 0

    def declare(self, record: journal.Record) -> None:
        """Remember a schema or an axis; a payload that makes no sense leaves its rows unreadable, no more."""
        try:
            found = record.json()
        except ValueError:
            return
        self.declared.append(record.offset)
        keys, layers = found.get("keys"), found.get("layers")
        if record.schema == journal.Kind.SCHEMA and isinstance(keys, list):
            self.schemas[_number(found.get("schema"))] = tuple(map(str, keys))
        elif record.schema == journal.Kind.AXIS and isinstance(layers, list):
            self.axes[_number(found.get("axis"))] = found

    def missed(self, reached: int, span: Span) -> int:
        """Tell where reading goes on after it stopped at an offset; bytes between are noted as lost."""
        if reached >= span.stop or not span.is_exact:
            return span.stop
        following = span.stop if span.is_sealed else self._resync(reached, span.stop)
        self.lost.append(Lost(self.path, reached, following, "a damaged record"))
        return following

    def extend(self, reached: int) -> bool:
        """Read on when the record at an offset goes beyond what was read; tell whether there is more now."""
        have = self.base + len(self.data)
        if have >= self.size:
            return False
        at = reached - self.base
        length = (
            int.from_bytes(self.data[at : at + 4], "little") if at + 4 <= len(self.data) else journal.RECORD_OVERHEAD
        )
        if (
            length < journal.RECORD_OVERHEAD
            or length % _WORD
            or reached + length <= have
            or reached + length > self.size
        ):
            return False
        with open(self.path, "rb", buffering=0) as file:
            # From the record's beginning: what was read of it before may be from before it was written.
            more = settled(file.fileno(), reached, os.pread(file.fileno(), length + _PIECE, reached))
        self.data = self.data[:at] + more
        if len(more) < length:
            self.size = reached + len(more)
        return len(more) >= length

    def _resync(self, reached: int, stop: int) -> int:
        """Return the next offset where a record is whole, or the end."""
        for offset in range(reached + _WORD, stop - journal.RECORD_OVERHEAD + 1, _WORD):
            at = offset - self.base
            length = int.from_bytes(self.data[at : at + 4], "little")
            if length < journal.RECORD_OVERHEAD or length % _WORD or offset + length > stop:
                continue
            if next(journal.scan(self.data, at, at + length, self.header.generation), None) is not None:
                return offset
        return stop


def list_segments(folder: str) -> dict[str, list[tuple[int, str]]]:
    """Return the numbers and paths of each writer's segments in a journal folder."""
    found: dict[str, list[tuple[int, str]]] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name)
                if match:
                    found.setdefault(match[1], []).append((int(match[2]), entry.path))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    for segments in found.values():
        segments.sort()
    return found


def sealed_blocks(folder: str, writer: str) -> list[journal.Block]:
    """Return the whole block headers of a writer's seal file."""
    try:
        with open(os.path.join(folder, f"{writer}.seal"), "rb") as file:
            return journal.read_blocks(file.read())
    except FileNotFoundError:
        return []


def read_header(path: str) -> journal.Header:
    """Return the header of a segment."""
    with open(path, "rb", buffering=0) as file:
        return journal.Header.unpack(file.read(journal.HEADER_SIZE), path)


def read_tails(folder: str, places: Mapping[str, Place], boot: str | None = None) -> Iterator[Tail]:
    """Yield what lies beyond the places, writer by writer, in the order of each writer's segments.

    A writer's segments are read from the last to the first: it leaves one before it begins the next, so what is read of
    an earlier one is never older than what was read of a later one, and nothing is missing in between. A segment whose
    header cannot be read is left to the maintainer; one that vanished was folded meanwhile, which a reader notices by
    its positions.
    """
    boot = boot or clock.boot_id()
    for writer, segments in sorted(list_segments(folder).items()):
        place = places.get(writer, Place(-1, 0))
        blocks = sealed_blocks(folder, writer)
        found: list[Tail] = []
        for number, path in reversed(segments):
            if number < place.segment:
                break
            with contextlib.suppress(FileNotFoundError, JournalCorrupt):
                found.append(load(path, place if number == place.segment else Place(number, 0), blocks, boot))
        yield from reversed(found)


def has_records(path: str) -> bool:
    """Tell whether a segment holds a committed record: its writer has left the one before."""
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read(journal.HEADER_SIZE + _FIRST)
            header = journal.Header.unpack(data, path)
    except (OSError, StoreError):
        return False
    length = int.from_bytes(data[header.first : header.first + 4], "little")
    if header.first + length > len(data):
        return length > 0
    return next(journal.scan(data, header.first, len(data), header.generation), None) is not None


def enter(path: str, place: Place) -> Tail:
    """Return a segment that grows, without what it holds beyond an offset; what was declared before is known.

    Raises:
        JournalCorrupt: The header cannot be read.
        SchemaTooNew: A newer Tracer wrote it.
    """
    with open(path, "rb", buffering=0) as file:
        header = journal.Header.unpack(os.pread(file.fileno(), journal.HEADER_SIZE, 0), path)
        start = max(place.offset, header.first)
        tail = Tail(path, header.writer.hex(), header.number, header, start, start, end=start)
        if start > header.first:
            _load_declarations(tail, file.fileno(), place.declared)
    return tail


def load(path: str, place: Place, blocks: list[journal.Block], boot: str, *, whole: bool = False) -> Tail:
    """Read a segment from an offset on and decide what of it is trusted.

    Args:
        path: The segment's file.
        place: Where to begin; offset 0 is the first record.
        blocks: The writer's seals, read before the segment so that they vouch for bytes that are there.
        boot: This machine's boot.
        whole: Read a preallocated segment to its last byte at once.

    Raises:
        JournalCorrupt: The header cannot be read.
        SchemaTooNew: A newer Tracer wrote it.
    """
    with open(path, "rb", buffering=0) as file:
        descriptor = file.fileno()
        header = journal.Header.unpack(os.pread(descriptor, journal.HEADER_SIZE, 0), path)
        size = os.fstat(descriptor).st_size
        if header.closed and not header.first <= header.end <= (header.size or header.end):
            header.closed = False  # this part of the header has no check of its own
        start = max(place.offset, header.first)
        own = sorted(
            (block for block in blocks if _vouches(block, header) and block.start + block.length > start),
            key=lambda block: block.start,
        )
        base = min([start, *(block.start for block in own[:1])])
        stop = min(header.end, size) if header.closed else size
        # A damaged end in the header must not hide what seals vouch for.
        stop = min(max([stop, *(block.start + block.length for block in own[-1:])]), size)
        data = _read(descriptor, base, stop, whole=whole or header.closed)
        if not header.closed:
            confirmed = settled(descriptor, base, data)
            if len(confirmed) < len(data):  # what follows is being written; the next reading has it
                data, stop = confirmed, base + len(confirmed)
        tail = Tail(path, header.writer.hex(), header.number, header, start, base, data, size=stop, end=start)
        if start > header.first:
            _load_declarations(tail, descriptor, place.declared)
    is_trusted = header.closed or header.identity.get("boot") == boot
    _divide(tail, own, is_trusted=is_trusted)
    if header.closed and header.end > size:
        tail.lost.append(Lost(path, size, header.end, "the file is cut short"))
    return tail


def walk(tail: Tail) -> Iterator[journal.Record]:
    """Yield the records of a tail with their offsets in the file; schemas and axes are remembered on the way."""
    for span in tail.spans:
        at = span.start
        while at < span.stop:
            stop = min(span.stop, tail.base + len(tail.data))
            for record in journal.scan(tail.data, at - tail.base, stop - tail.base, tail.header.generation):
                record.offset += tail.base
                at = record.offset + record.length
                if record.schema in (journal.Kind.SCHEMA, journal.Kind.AXIS):
                    tail.declare(record)
                tail.end = at
                yield record
            if not span.is_sealed and tail.extend(at):
                continue
            at = tail.missed(at, span)
        if span.is_exact:
            tail.end = span.stop
    tail.end = max([tail.end, *(lost.stop for lost in tail.lost)])


def pack_offsets(offsets: list[int]) -> bytes:
    """Return offsets as the catalog keeps them."""
    return b"".join(offset.to_bytes(_WORD, "little") for offset in offsets)


def unpack_offsets(data: bytes) -> list[int]:
    """Read offsets as the catalog keeps them."""
    return [int.from_bytes(data[at : at + _WORD], "little") for at in range(0, len(data), _WORD)]


def _vouches(block: journal.Block, header: journal.Header) -> bool:
    """Tell whether a block belongs to this life of this segment."""
    return (block.writer, block.number, block.generation) == (header.writer, header.number, header.generation)


def _read(descriptor: int, start: int, stop: int, *, whole: bool) -> bytes:
    """Return the bytes of a range; of a segment that is being filled, only as far as there is something."""
    if whole:
        return _pread(descriptor, stop - start, start)
    pieces = []
    while start < stop:
        piece = _pread(descriptor, min(_PIECE, stop - start), start)
        pieces.append(piece)
        start += len(piece)
        if len(piece) < _PIECE or piece.endswith(_ZEROS):
            break
    return b"".join(pieces)


def settled(descriptor: int, start: int, data: bytes) -> bytes:
    """Return as much of what was read as a second reading confirms.

    The writer does not wait for readers. A reading can meet a record while it is being packed: its values are copied
    before they are stored, its commit word after. What was committed in the first reading is whole in the second.
    """
    again = _pread(descriptor, len(data), start)
    if again == data:
        return data
    low, high = 0, min(len(data), len(again))
    while low < high:
        middle = (low + high + 1) // 2
        if data[low:middle] == again[low:middle]:
            low = middle
        else:
            high = middle - 1
    return data[:low]


def _pread(descriptor: int, size: int, offset: int) -> bytes:
    """Read exactly so many bytes where the file has them."""
    data = os.pread(descriptor, size, offset) if size > 0 else b""
    while 0 < len(data) < size:
        more = os.pread(descriptor, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def _load_declarations(tail: Tail, descriptor: int, declared: bytes) -> None:
    """Read the schemas and axes that were declared before the tail begins."""
    generation, first = tail.header.generation, tail.header.first
    offsets = unpack_offsets(declared)
    if not offsets:
        before = Tail(tail.path, tail.writer, tail.number, tail.header, first, first)
        before.data = _pread(descriptor, tail.start - first, first)
        before.spans = [Span(first, tail.start, is_exact=True, is_sealed=False)]
        for _ in walk(before):
            pass
        tail.schemas, tail.axes, tail.declared = before.schemas, before.axes, before.declared
        return
    for offset in offsets:
        length = int.from_bytes(os.pread(descriptor, 4, offset), "little")
        record = next(journal.scan(_pread(descriptor, length, offset), 0, length, generation), None)
        if record is not None:
            record.offset = offset
            tail.declare(record)


def _divide(tail: Tail, blocks: list[journal.Block], *, is_trusted: bool) -> None:
    """Part a tail into ranges that are trusted and ranges that are lost."""
    header, have = tail.header, tail.base + len(tail.data)
    view = memoryview(tail.data)
    at = tail.start
    for block in blocks:
        stop = block.start + block.length
        if block.start > at:
            _unsealed(tail, at, block.start, is_trusted=is_trusted, is_exact=True)
            at = block.start
        if stop <= at:
            continue
        if stop <= have and zlib.crc32(view[block.start - tail.base : stop - tail.base]) == block.crc:
            tail.spans.append(Span(at, stop, is_exact=True, is_sealed=True))
        else:
            tail.lost.append(Lost(tail.path, at, stop, f"block {block.sequence} fails its check"))
        at = stop
    rest = max(min(header.end, tail.size), at) if header.closed else tail.size
    if rest > at:
        _unsealed(tail, at, rest, is_trusted=is_trusted, is_exact=header.closed)


def _unsealed(tail: Tail, start: int, stop: int, *, is_trusted: bool, is_exact: bool) -> None:
    """Note a range that no seal vouches for."""
    if is_trusted:
        tail.spans.append(Span(start, stop, is_exact=is_exact, is_sealed=False))
        return
    committed = start
    for record in journal.scan(tail.data, start - tail.base, stop - tail.base, tail.header.generation):
        committed = tail.base + record.offset + record.length
    if is_exact:
        committed = stop
    if committed > start:
        tail.lost.append(Lost(tail.path, start, committed, "written before the machine went down, and not sealed"))


def _number(value: object) -> int:
    """Return a declared number; none is ever negative."""
    return value if isinstance(value, int) else -1


def json_of(record: journal.Record) -> dict[str, object]:
    """Return the object of a record of text; one that is damaged counts as empty."""
    try:
        return record.json()
    except (ValueError, json.JSONDecodeError):
        return {}


__all__ = [
    "Lost",
    "Place",
    "Span",
    "Tail",
    "enter",
    "has_records",
    "json_of",
    "list_segments",
    "load",
    "pack_offsets",
    "read_header",
    "read_tails",
    "sealed_blocks",
    "settled",
    "unpack_offsets",
    "walk",
]
