"""The journal's format: the one thing that the writer (`record`) and the readers (`storage`, `backends`) share.

A writer is one thread of one process of one run. It owns a chain of segments, `journal/<writer>.<number>.trj`,
and one seal file, `journal/<writer>.seal`. A segment is a header and then records, end to end:

    0        magic "TRJ1" · u32 CRC of bytes 8 … 64 + n
    8        u16 format · u16 byte order mark · u32 reserved
    16       writer id, 16 bytes
    32       u32 number of the segment · u32 generation
    40       u64 size of the segment · u64 offset of the first record
    56       u32 n · u32 reserved
    64       n bytes of JSON: whose segment it is (`Identity`)
    4032     u32 flags (1 = closed) · u32 reserved · u64 end of the records, once closed
    4048     u64 heartbeat, monotonic ns · u64 heartbeat, wall µs · i64 steps so far      (rewritten in place)
    4096     records

    record   u32 length · u32 schema · i64 step · f64 time · payload · u32 sequence · u32 commit

Schemas from 256 up are rows: k doubles, in the order of the key tuple that a schema record declared before.
Below 256 they are kinds (`Kind`), their payload is UTF-8 JSON padded with zeros to 8 bytes, but for layer values and
histograms:

    layers     u32 axis · u32 0 · f32 statistics x layers
    histogram  u32 axis · i32 lowest · u32 bins · u32 0 · u32 signs (negative first) x layers x bins

The commit word is stored last and depends on the sequence and the generation: a torn record has the wrong one, and
what a recycled file held in an earlier life is never read. Everything is little-endian.

A seal file is a row of 64-byte block headers; each vouches for a range of bytes of a segment by CRC-32. Once the
machine has crashed, only sealed bytes are trusted: the page with a commit word may have reached the disk and the page
before it not.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from typing_extensions import Buffer

import json
import struct
import zlib

from tracer import clock
from tracer.errors import JournalCorrupt, SchemaTooNew

MAGIC = b"TRJ1"
FORMAT = 1
HEADER_SIZE = 4096
FIRST_ROW_SCHEMA = 256
#: A program that puts the step into the key would make schemas without end; from here on it is one schema per name.
MAX_SCHEMAS = 4096
RECORD_OVERHEAD = 32

_FIXED = struct.Struct("<4sIHHI16sIIQQII")
_TAIL = struct.Struct("<IIQQQq")
_TAIL_AT = 4032
_BYTE_ORDER = 0xFEFF
_CLOSED = 1
_COMMIT = 0x54524A31
_PREFIX = struct.Struct("<IIqd")
_SUFFIX = struct.Struct("<II")
_LAYER_PREFIX = struct.Struct("<II")
_HISTOGRAM_PREFIX = struct.Struct("<IiII")
_PACKERS: dict[int, struct.Struct] = {}


class Kind:
    """The record kinds below the row schemas; a reader steps over one it does not know and counts it."""

    FILLER = 0
    SCHEMA = 1
    TYPED = 2
    AXIS = 3
    LAYERS = 4
    HISTOGRAM = 5
    SPANS = 6
    OPEN_SPAN = 7
    LOG = 8
    MEDIA = 9
    SAMPLES = 10
    CHECKPOINT = 11
    FINDING = 12
    METADATA = 13
    TOMBSTONE = 14
    HEARTBEAT = 15
    DROPPED = 16
    END = 17
    CLOCK = 18


class Header:
    """What the first 4,096 bytes of a segment say."""

    __slots__ = (
        "closed",
        "end",
        "first",
        "generation",
        "heartbeat_ns",
        "heartbeat_us",
        "identity",
        "number",
        "size",
        "steps",
        "writer",
    )

    def __init__(self, writer: bytes, number: int, generation: int, size: int, identity: Mapping[str, object]) -> None:
        self.writer, self.number, self.generation, self.size = writer, number, generation, size
        self.identity = dict(identity)
        self.first = HEADER_SIZE
        self.closed, self.end, self.heartbeat_ns, self.heartbeat_us, self.steps = False, 0, 0, 0, 0

    def pack(self) -> bytes:
        """Return the header's bytes; the tail is all zeros, as in a segment that just opened."""
        text = json.dumps(self.identity, separators=(",", ":")).encode()
        if len(text) > _TAIL_AT - _FIXED.size:
            message = (
                f"The identity of a journal segment takes {len(text)} bytes; at most {_TAIL_AT - _FIXED.size} fit."
            )
            raise ValueError(message)
        fixed = _FIXED.pack(
            MAGIC,
            0,
            FORMAT,
            _BYTE_ORDER,
            0,
            self.writer,
            self.number,
            self.generation,
            self.size,
            HEADER_SIZE,
            len(text),
            0,
        )
        body = fixed[8:] + text
        return (MAGIC + struct.pack("<I", zlib.crc32(body)) + body).ljust(HEADER_SIZE, b"\0")

    @classmethod
    def unpack(cls, data: Buffer, name: str = "a journal segment") -> Header:
        """Read a header, or say why it cannot be one."""
        view = bytes(memoryview(data)[:HEADER_SIZE])
        if len(view) < HEADER_SIZE:
            message = f"{name} holds {len(view)} bytes, less than the {HEADER_SIZE} of a header."
            raise JournalCorrupt(message)
        magic, crc, version, order, _, writer, number, generation, size, first, length, _ = _FIXED.unpack_from(view)
        if magic != MAGIC or order != _BYTE_ORDER:
            message = f"{name} does not begin like a journal segment (found {view[:4]!r}, expected {MAGIC!r})."
            raise JournalCorrupt(message)
        if version > FORMAT:
            newer = f"{name} has journal format {version}; this Tracer reads up to {FORMAT}."
            message = f"{newer} Update: pip install -U ml-tracer"
            raise SchemaTooNew(message)
        end = _FIXED.size + length
        if end > _TAIL_AT or zlib.crc32(view[8:end]) != crc:
            message = f"The header of {name} fails its check."
            raise JournalCorrupt(message)
        header = cls(writer, number, generation, size, json.loads(view[_FIXED.size : end]))
        flags, _, header.end, header.heartbeat_ns, header.heartbeat_us, header.steps = _TAIL.unpack_from(view, _TAIL_AT)
        header.first, header.closed = first, bool(flags & _CLOSED)
        return header


def stamp(buffer: Buffer, *, closed: bool, end: int, steps: int) -> None:
    """Rewrite the tail of a header in place: the heartbeat, the steps, and the end once the segment is closed."""
    wall_us = max(clock.now_us(), 0)  # a clock before 1970 is no reason to fail
    _TAIL.pack_into(buffer, _TAIL_AT, _CLOSED if closed else 0, 0, end, clock.monotonic_ns(), wall_us, steps)


#: `stamp_steps(buffer, STEPS_AT, steps)` rewrites the steps in a header: a run that is killed is known to its last one.
stamp_steps = struct.Struct("<q").pack_into
STEPS_AT = _TAIL_AT + 32


def commit_key(generation: int) -> int:
    """Return what the sequence is combined with to give the commit word: never zero for any sequence."""
    return (_COMMIT ^ (generation * 0x9E3779B1)) & 0x7FFFFFFF | 0x80000000


def row_struct(keys: int) -> struct.Struct:
    """Return the packer of a row of so many values; one for all schemas of that length."""
    packer = _PACKERS.get(keys)
    if packer is None:
        packer = _PACKERS[keys] = struct.Struct(f"<IIqd{keys}dII")
    return packer


def json_payload(value: object) -> bytes:
    """Return a payload of text; NaN and ±Inf are written as Python's JSON writes them."""
    return json.dumps(value, separators=(",", ":")).encode()


def layers_payload(axis: int, matrix: Buffer) -> bytes:
    """Return the payload of layer values: the axis' number, then float32, one statistic after the other."""
    return _LAYER_PREFIX.pack(axis, 0) + bytes(memoryview(matrix).cast("B"))


def histogram_payload(axis: int, lowest: int, bins: int, counts: Buffer) -> bytes:
    """Return the payload of histograms: axis, lowest exponent, bins, then counts by sign (negative first) and layer."""
    return _HISTOGRAM_PREFIX.pack(axis, lowest, bins, 0) + bytes(memoryview(counts).cast("B"))


def record_bytes(kind: int, payload: bytes, step: int, time: float, sequence: int, key: int) -> bytes:
    """Return a whole record of a kind that is not a row."""
    padded = payload + b"\0" * (-len(payload) % 8)
    length = RECORD_OVERHEAD + len(padded)
    return _PREFIX.pack(length, kind, step, time) + padded + _SUFFIX.pack(sequence, key ^ sequence)


def record_size(payload: bytes) -> int:
    """Return how long the record of this payload will be."""
    return RECORD_OVERHEAD + len(payload) + (-len(payload) % 8)


class Record:
    """One record as a reader meets it; `payload` is a view that lives as long as the buffer."""

    __slots__ = ("length", "offset", "payload", "schema", "step", "time")

    def __init__(self, offset: int, length: int, schema: int, step: int, time: float, payload: memoryview) -> None:
        self.offset, self.length, self.schema = offset, length, schema
        self.step, self.time, self.payload = step, time, payload

    def values(self) -> tuple[float, ...]:
        """Return the doubles of a row."""
        return struct.unpack(f"<{len(self.payload) // 8}d", self.payload)

    def json(self) -> dict[str, object]:
        """Return the object that a payload of text holds."""
        found = json.loads(bytes(self.payload).rstrip(b"\0"))
        return found if isinstance(found, dict) else {}

    def layers(self) -> tuple[int, memoryview[float]]:
        """Return the axis' number and the float32 matrix of a record of layer values."""
        return _LAYER_PREFIX.unpack_from(self.payload)[0], self.payload[_LAYER_PREFIX.size :].cast("f")

    def histograms(self) -> tuple[int, int, int, memoryview[int]]:
        """Return the axis' number, the lowest exponent, the number of bins and the counts of a record of histograms."""
        axis, lowest, bins, _ = _HISTOGRAM_PREFIX.unpack_from(self.payload)
        return axis, lowest, bins, self.payload[_HISTOGRAM_PREFIX.size :].cast("I")


def scan(data: Buffer, start: int, stop: int, generation: int) -> Iterator[Record]:
    """Yield the committed records between two offsets; the first that is not committed ends it.

    `start` must be the beginning of a record. Standard library only: `tracer list` and `show` use it on live tails.
    """
    view = memoryview(data)
    key, offset, prefix, suffix = commit_key(generation), start, _PREFIX.unpack_from, _SUFFIX.unpack_from
    stop = min(stop, len(view))
    while offset + RECORD_OVERHEAD <= stop:
        length, schema, step, time = prefix(view, offset)
        end = offset + length
        if length < RECORD_OVERHEAD or length % 8 or end > stop:
            return
        sequence, commit = suffix(view, end - 8)
        if commit != key ^ sequence:
            return
        yield Record(offset, length, schema, step, time, view[offset + 24 : end - 8])
        offset = end


def schema_payload(number: int, keys: Sequence[str]) -> bytes:
    """Return the payload that declares a row schema."""
    return json_payload({"schema": number, "keys": list(keys)})


def axis_payload(
    number: int, what: str, layers: Sequence[str], statistics: Sequence[str], shapes: Sequence[Sequence[int]]
) -> bytes:
    """Return the payload that declares an axis of layers."""
    declared = {"axis": number, "what": what, "layers": list(layers), "statistics": list(statistics)}
    return json_payload({**declared, "shapes": [list(shape) for shape in shapes]})


class Block:
    """A sealed range of a segment: header of 64 bytes in the seal file, the bytes themselves in the segment."""

    SIZE = 64
    _STRUCT = struct.Struct("<4sHH16sIIQQIIII")
    _MAGIC = b"TRBK"

    __slots__ = ("crc", "generation", "length", "number", "sequence", "start", "writer")

    def __init__(
        self, writer: bytes, number: int, generation: int, sequence: int, start: int, length: int, crc: int
    ) -> None:
        self.writer, self.number, self.generation, self.sequence = writer, number, generation, sequence
        self.start, self.length, self.crc = start, length, crc

    def pack(self) -> bytes:
        """Return the 64 bytes of this block's header."""
        body = self._STRUCT.pack(
            self._MAGIC,
            1,
            0,
            self.writer,
            self.number,
            self.generation,
            self.sequence,
            self.start,
            self.length,
            self.crc,
            0,
            0,
        )[:56]
        return body + struct.pack("<II", zlib.crc32(body), 0)

    @classmethod
    def unpack(cls, data: Buffer, offset: int = 0) -> Block | None:
        """Read a block header, or return None where none is whole."""
        view = memoryview(data)[offset : offset + cls.SIZE]
        if len(view) < cls.SIZE:
            return None
        magic, _, _, writer, number, generation, sequence, start, length, crc, check, _ = cls._STRUCT.unpack(view)
        if magic != cls._MAGIC or zlib.crc32(view[:56]) != check:
            return None
        return cls(writer, number, generation, sequence, start, length, crc)


def read_blocks(data: Buffer) -> list[Block]:
    """Return the whole block headers of a seal file; one that fails its check is left out."""
    blocks = (Block.unpack(data, offset) for offset in range(0, len(memoryview(data)), Block.SIZE))
    return [block for block in blocks if block is not None]


def segment_name(writer: bytes, number: int) -> str:
    """Return the file name of a segment."""
    return f"{writer.hex()}.{number:06d}.trj"


def seal_name(writer: bytes) -> str:
    """Return the file name of a writer's seal file."""
    return f"{writer.hex()}.seal"
