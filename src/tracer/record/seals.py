"""Sealing: once a second what was committed gets a checksum and is synced, off the caller's thread.

First the segment is synced, then the seal file: a seal on the disk therefore vouches for bytes on the disk.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tracer.record.segments import Segment
    from tracer.record.writer import Writer

import contextlib
import errno
import os
import zlib

from tracer import events, journal

#: There is no room or no place for a seal just now, which says nothing about the records.
_NO_PLACE = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        *(errno.ENOENT, errno.ENOTDIR, errno.EROFS, errno.EACCES, errno.EMFILE, errno.ENFILE),
    }
)


class SealFile:
    """The block headers of one writer; opened with its first block."""

    __slots__ = ("_fd", "_folder", "_sequence", "_writer")

    def __init__(self, folder: str, writer: bytes) -> None:
        self._folder, self._writer = folder, writer
        self._fd, self._sequence = -1, 0

    def seal(self, segment: Segment, end: int, *, sync: bool) -> None:
        """Vouch for the bytes of a segment up to `end`; raises `OSError` when the disk refuses."""
        segment.flush(end)
        if end <= segment.sealed:
            return
        length = end - segment.sealed
        with memoryview(segment.buffer) as view:
            crc = zlib.crc32(view[segment.sealed : end])
        if sync:
            segment.sync()
        try:
            self._append(segment, length, crc, sync=sync)
        except OSError as error:
            if error.errno not in _NO_PLACE:
                raise
            return  # the records have their place already; a later seal vouches for them too
        segment.sealed = end

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def _append(self, segment: Segment, length: int, crc: int, *, sync: bool) -> None:
        """Append one block header."""
        if self._fd < 0:
            path = os.path.join(self._folder, journal.seal_name(self._writer))
            self._fd = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        generation = segment.header.generation
        self._sequence += 1
        block = journal.Block(
            self._writer, segment.number, generation, self._sequence, segment.sealed, length, crc
        ).pack()
        at = os.fstat(self._fd).st_size
        if os.write(self._fd, block) != len(block):
            os.ftruncate(self._fd, at)  # half a header would shift all that follow
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if sync:
            os.fdatasync(self._fd)


def rescue(writer: Writer, segment: Segment) -> int:
    """Write again what a segment holds behind its last seal, because the disk refused to sync it.

    A failed sync is never repeated on the same file: the kernel may have dropped the pages and marked them clean.
    The old segment ends at its last seal; schemas and axes are declared again in the writer that takes the records.

    Returns:
        How many records were written again.
    """
    rescued = 0
    declared: dict[str, dict[int, Any]] = {"schema": {}, "axis": {}}
    with memoryview(segment.buffer) as view:
        for record in journal.scan(view, journal.HEADER_SIZE, segment.end, segment.header.generation):
            if record.schema in (journal.Kind.SCHEMA, journal.Kind.AXIS):
                _remember(record.json(), declared)
            elif record.offset >= segment.sealed:
                _write_again(writer, record, declared)
                rescued += 1
            record.payload.release()
    segment.end = segment.sealed
    return rescued


def _remember(declaration: dict[str, Any], declared: dict[str, dict[int, Any]]) -> None:
    """Keep a declaration for the records that refer to it."""
    if "schema" in declaration:
        declared["schema"][declaration["schema"]] = declaration["keys"]
    else:
        axis = events.Axis(declaration["what"], declaration["layers"], declaration["statistics"], declaration["shapes"])
        declared["axis"][declaration["axis"]] = axis


def _write_again(writer: Writer, record: journal.Record, declared: dict[str, dict[int, Any]]) -> None:
    """Append one record of a suspect segment to another writer."""
    if record.schema >= journal.FIRST_ROW_SCHEMA:
        names = declared["schema"][record.schema]
        writer.row(dict(zip(names, record.values(), strict=True)), record.step, record.time)
    elif record.schema == journal.Kind.LAYERS:
        number, matrix = record.layers()
        writer.append_layers(declared["axis"][number], bytes(matrix), record.step, record.time)
        matrix.release()
    elif record.schema == journal.Kind.HISTOGRAM:
        number, lowest, bins, counts = record.histograms()
        histograms = (lowest, bins, bytes(counts))
        writer.append_histograms(declared["axis"][number], histograms, record.step, record.time)
        counts.release()
    else:
        writer.append(record.schema, bytes(record.payload), record.step, record.time)
