"""What a run's journals hold, read by the format alone: the oracle that tests compare with.

The rules of recovery are written here once more, on purpose, and independently of `tracer.storage`:
a segment of this boot counts up to its first uncommitted record, one of another boot where a seal vouches for it,
and a sealed range whose checksum is wrong does not count.
"""

from __future__ import annotations

import fcntl
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tracer import clock, journal
from tracer.errors import JournalCorrupt

_PATIENCE_S = 30.0


class Row(NamedTuple):
    """One call of `log`, or the numeric part of one."""

    who: dict[str, Any]
    writer: str
    number: int
    step: int
    time: float
    values: dict[str, float]


class Said(NamedTuple):
    """A record that is not a row."""

    who: dict[str, Any]
    kind: int
    step: int
    content: dict[str, Any]


def runs(store: Path) -> list[Path]:
    """Return the folders of a store's runs."""
    return sorted(path for path in (store / "runs").iterdir() if path.is_dir())


def only_run(store: Path) -> Path:
    """Return the folder of the one run of a store."""
    (folder,) = runs(store)
    return folder


def segments(folder: Path) -> list[Path]:
    """Return the segments of a run, writer by writer in their order."""
    return sorted((folder / "journal").glob("[0-9a-f]*.trj"))


def read(folder: Path, boot: str | None = None) -> Iterator[Row | Said]:
    """Yield every record that a reader must see after a restart on this boot, or on another."""
    boot = clock.boot_id() if boot is None else boot
    for path in segments(folder):
        data = path.read_bytes()
        try:
            header = journal.Header.unpack(data)
        except JournalCorrupt:
            continue
        yield from _read_segment(data, header, _ranges(folder, data, header, boot))


def rows(folder: Path, boot: str | None = None) -> list[Row]:
    """Return the rows of a run."""
    return [found for found in read(folder, boot) if isinstance(found, Row)]


def said(folder: Path, kind: int) -> list[Said]:
    """Return the records of one kind."""
    return [found for found in read(folder) if isinstance(found, Said) and found.kind == kind]


def points(folder: Path) -> list[tuple[str, int, float]]:
    """Return (metric, step, value) of every number, in the order in which each writer wrote them."""
    return [(name, row.step, value) for row in rows(folder) for name, value in row.values.items()]


def typed(folder: Path) -> dict[str, object]:
    """Return the last text, None or long whole number of each name."""
    return {
        name: value for found in said(folder, journal.Kind.TYPED) for name, value in found.content["values"].items()
    }


def identities(folder: Path) -> list[dict[str, Any]]:
    """Return what the header of each segment says of its writer."""
    return [journal.Header.unpack(path.read_bytes()).identity for path in segments(folder)]


def wait_until_released(folder: Path) -> None:
    """Wait until no process holds a segment: the writers are gone."""
    deadline = time.monotonic() + _PATIENCE_S
    for path in segments(folder):
        with path.open("rb") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    assert time.monotonic() < deadline, f"{path.name} is still held"
                    time.sleep(0.005)


def _ranges(folder: Path, data: bytes, header: journal.Header, boot: str) -> list[tuple[int, int]]:
    """Return the ranges of a segment that count."""
    seal = folder / "journal" / journal.seal_name(header.writer)
    blocks = journal.read_blocks(seal.read_bytes()) if seal.exists() else []
    mine = sorted(
        (block for block in blocks if (block.number, block.generation) == (header.number, header.generation)),
        key=lambda block: (block.start, -block.length),
    )
    is_trusted = header.closed or header.identity["boot"] == boot
    end = header.end if header.closed else len(data)
    ranges, at = [], header.first
    for block in mine:
        stop = block.start + block.length
        if block.start > at and is_trusted:
            ranges.append((at, block.start))
        if stop > at and zlib.crc32(data[block.start : stop]) == block.crc:
            ranges.append((max(at, block.start), stop))
        at = max(at, stop)
    if is_trusted and at < end:
        ranges.append((at, end))
    return ranges


def _read_segment(data: bytes, header: journal.Header, ranges: list[tuple[int, int]]) -> Iterator[Row | Said]:
    """Yield the records of a segment's ranges."""
    who, writer = header.identity, header.writer.hex()
    schemas: dict[int, list[str]] = {}
    for start, stop in ranges:
        for record in journal.scan(data, start, stop, header.generation):
            if record.schema == journal.Kind.SCHEMA:
                declared = record.json()
                schemas[declared["schema"]] = declared["keys"]
            elif record.schema >= journal.FIRST_ROW_SCHEMA:
                if record.schema in schemas:
                    values = dict(zip(schemas[record.schema], record.values(), strict=True))
                    yield Row(who, writer, header.number, record.step, record.time, values)
            elif record.schema not in (journal.Kind.FILLER, journal.Kind.AXIS, journal.Kind.LAYERS):
                yield Said(who, record.schema, record.step, record.json())


def series(folder: Path, name: str) -> list[tuple[int, float]]:
    """Return step and value of all points of a metric, as the store reads them."""
    from tracer.storage import Store

    with Store.open(folder.parent.parent) as store:
        found = store.series(folder.name, name)
    return list(zip(map(int, found.step), map(float, found.value), strict=True))
