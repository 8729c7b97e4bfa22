"""A file that grows by batches: each is in it once, however often it comes and whenever a process is killed.

Beside the file lies a mark that says how far the file is good and where its last batch begins. What was written behind
that, before a mark could be made, is cut off when the file is opened again. Of a batch that comes once more, whole, in
parts or with more behind it, only what the last one did not have is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from tracer.backends.base import Refused, Rejected, Unreachable

_DIGEST = 12


class Appending:
    """One file.

    Args:
        path: The file; made where it is missing.
        mark: Where its mark lies.
        split: Takes bytes of the file apart into the records that were appended.
    """

    def __init__(self, path: str, mark: str, split: Callable[[bytes], Iterable[bytes]]) -> None:
        self.path, self._mark = path, mark
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        size = os.fstat(self._descriptor).st_size
        said = _said(mark)
        end = said.get("end")
        self._end = min(end, size) if isinstance(end, int) else size
        start = said.get("start")
        self._start = min(start, self._end) if isinstance(start, int) else self._end
        carried = said.get("carried")
        self._carried = [str(one) for one in carried] if isinstance(carried, list) else []
        os.ftruncate(self._descriptor, self._end)
        self._last = set(self._carried) | {_key(one) for one in split(self._tail())}

    @property
    def size(self) -> int:
        """How many bytes of the file are good."""
        return self._end

    def append(self, records: Sequence[bytes]) -> None:
        """Add what the last batch did not have; on return the disk has it.

        Raises:
            OSError: The disk does not take it; the file is as it was.
        """
        keys = [_key(one) for one in records]
        new = [one for one, key in zip(records, keys, strict=True) if key not in self._last]
        if not new:
            return
        is_continued = len(new) < len(records)
        data = b"".join(new)
        try:
            _write(self._descriptor, data, self._end)
            os.fsync(self._descriptor)
            start = self._start if is_continued else self._end
            carried = self._carried if is_continued else []
            _replace(self._mark, {"start": start, "end": self._end + len(data), "carried": carried})
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._end)
            raise
        self._start, self._carried, self._end = start, carried, self._end + len(data)
        self._last = self._last | set(keys) if is_continued else set(keys)

    def last(self) -> list[str]:
        """Return what tells the records of the last batch, for another file that goes on after this one."""
        return sorted(self._last)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _tail(self) -> bytes:
        """Return the bytes of the last batch."""
        return os.pread(self._descriptor, self._end - self._start, self._start)


def begin_after(mark: str, last: list[str]) -> None:
    """Make the mark of a file that is still empty and goes on after another one."""
    _replace(mark, {"start": 0, "end": 0, "carried": last})


def lines(data: bytes) -> list[bytes]:
    """Return lines with their ends."""
    return data.splitlines(keepends=True)


def replace_text(path: str, text: str) -> None:
    """Give a small file a new content, in one step."""
    aside = f"{path}.part"
    with open(aside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


@contextmanager
def told(path: str) -> Iterator[None]:
    """Turn what the disk says into what a lane does next."""
    try:
        yield
    except FileExistsError as error:
        message = f"{error.strerror or error}."
        raise Refused(message) from error
    except (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError) as error:
        message = f"{path} cannot be written ({error.strerror}). Make the folder and give it the right to be written."
        raise Unreachable(message) from error
    except OSError as error:
        message = f"{path} cannot be written ({error.strerror or error}). Free space; it is tried again."
        raise Unreachable(message) from error
    except (ValueError, OverflowError) as error:
        message = f"{path} cannot hold this batch: {error}."
        raise Rejected(message) from error


def _key(record: bytes) -> str:
    """Return what tells a record from others."""
    return hashlib.blake2b(record, digest_size=_DIGEST).hexdigest()


def _said(mark: str) -> dict[str, object]:
    """Return what a mark says; nothing where there is none."""
    with contextlib.suppress(OSError, ValueError), open(mark, encoding="utf-8") as file:
        found = json.load(file)
        if isinstance(found, dict):
            return found
    return {}


def _replace(mark: str, said: dict[str, object]) -> None:
    """Make a mark."""
    replace_text(mark, json.dumps(said))


def _write(descriptor: int, data: bytes, at: int) -> None:
    """Write all of it at a place."""
    view = memoryview(data)
    while view:
        done = os.pwrite(descriptor, view, at)
        view, at = view[done:], at + done


__all__ = ["Appending", "begin_after", "lines", "replace_text", "told"]
