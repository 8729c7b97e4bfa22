"""W&B's `.wandb` file: a log of LevelDB's framing, read as it grows, whatever its tail and its bytes.

header: one byte, "W&B", u16 0xbee1, u8 version
then blocks of 32 KiB counted from the file's first byte, each a row of fragments, little-endian:
    u32 crc32(type + data) · u16 length · u8 type (1 whole, 2 first, 3 middle, 4 last) · data
fewer than 7 bytes at a block's end are padding, and so is a fragment of type 0 and length 0
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO, Self

BLOCK = 32 * 1024
_HEADER = 7
_FRAGMENT = struct.Struct("<IHB")
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
#: A record longer than this is hostile or broken; W&B itself cuts what it sends at a fraction of it.
LONGEST_RECORD = 64 * 1024 * 1024


class NotALog(ValueError):
    """The file does not begin as W&B's do."""


class RecordLog:
    """The records of one file; `read` goes on where it stopped, so a file can be followed while it is written.

    Args:
        path: The file.

    Raises:
        NotALog: It is another kind of file.
    """

    def __init__(self, path: str) -> None:
        self._file: BinaryIO = open(path, "rb")  # noqa: SIM115 -- closed by `close`
        #: Fragments that were skipped because they are damaged.
        self.damaged = 0
        #: The file ends within a record.
        self.torn = False
        self._at = _HEADER
        self._begun = False

    def __enter__(self) -> Self:
        """Return the log."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self) -> Iterator[bytes]:
        """Yield the records that the file holds by now, whole and with a checksum that fits."""
        self.torn = False
        if not self._begun and not self._begin():
            return
        parts: list[bytes] = []
        size = 0
        for kind, data, end in self._fragments(self._at):
            begins = kind in {_WHOLE, _FIRST}
            if begins == bool(parts) or kind not in {_WHOLE, _FIRST, _MIDDLE, _LAST} or size > LONGEST_RECORD:
                self.damaged += 1
                parts, size = [], 0
                if not begins:
                    self._at = end
                    continue
            parts.append(data)
            size += len(data)
            if kind in {_WHOLE, _LAST}:
                whole = parts[0] if kind == _WHOLE else b"".join(parts)
                parts, size, self._at = [], 0, end
                yield whole
        self.torn = self.torn or bool(parts)

    def _begin(self) -> bool:
        """Check the header; false while the file has none yet."""
        self._file.seek(0)
        header = self._file.read(_HEADER)
        if header[1:6] != b"W&B\xe1\xbe"[: max(len(header) - 1, 0)]:
            message = "The file does not begin as a .wandb file does."
            raise NotALog(message)
        self._begun = len(header) == _HEADER
        self.torn = not self._begun
        return self._begun

    def _fragments(self, at: int) -> Iterator[tuple[int, bytes, int]]:
        """Yield type, data and end of each fragment; type 0 for a stretch whose checksum or length is wrong."""
        while True:
            start = at - at % BLOCK
            self._file.seek(start)
            block = self._file.read(BLOCK)
            offset = at - start
            while BLOCK - offset >= _FRAGMENT.size:
                if len(block) - offset < _FRAGMENT.size:
                    self.torn = len(block) > offset
                    return
                checksum, length, kind = _FRAGMENT.unpack_from(block, offset)
                if kind == 0 and length == 0:
                    break
                end = offset + _FRAGMENT.size + length
                if len(block) < end <= BLOCK:
                    self.torn = True
                    return
                data = block[offset + _FRAGMENT.size : end]
                if end > BLOCK or zlib.crc32(data, zlib.crc32(bytes((kind,)))) != checksum:
                    # The length may be what is wrong: only the next block surely begins with a fragment.
                    yield 0, b"", min(start + BLOCK, start + len(block))
                    break
                yield kind, data, start + end
                offset = end
            if len(block) < BLOCK:
                return
            at = start + BLOCK
