"""A journal segment as its writer holds it: mapped, appended, or kept in memory while the disk is full.

All three have one buffer of the same layout, so the hot path does not know which it writes into.
A file is made under a hidden name, allocated, locked, given its header, and only then renamed into place:
nobody ever sees a segment without a header, and a full disk is an error here and never a SIGBUS later.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

import contextlib
import fcntl
import mmap
import os

from tracer import journal

KIB, MIB = 1024, 1024 * 1024
#: A thread's first, second and later segments; a hundred short threads must not take gigabytes.
SIZES = (MIB, 4 * MIB, 16 * MIB)
#: The first segment of a thread that is not the main one: most of them log little.
SIDE_SIZE = 256 * KIB
#: What is tried when the disk, a quota or a limit refuses the size wanted.
SMALL_SIZES = (256 * KIB, 64 * KIB)
_PAGE = mmap.PAGESIZE
_MADV_POPULATE_WRITE = 23


class Segment:
    """The common part: a buffer, a number, and how far it is sealed."""

    kind = "memory"
    __slots__ = (
        "buffer",
        "count",
        "end",
        "fd",
        "header",
        "key",
        "number",
        "path",
        "saved",
        "sealed",
        "size",
        "suspect",
    )

    def __init__(self, header: journal.Header, buffer: mmap.mmap, path: str) -> None:
        self.header, self.buffer, self.path = header, buffer, path
        self.number, self.size, self.key = header.number, header.size, journal.commit_key(header.generation)
        self.fd, self.end, self.sealed, self.saved, self.suspect = -1, 0, journal.HEADER_SIZE, 0, False
        self.count = 0  # records, once the writer has left; without those that only declare

    def flush(self, end: int) -> None:
        """Hand the bytes up to `end` to the kernel; a mapped segment already has."""

    def sync(self) -> None:
        """Wait until what was handed over is on the disk."""

    def stamp(self, *, closed: bool, end: int, steps: int) -> None:
        """Rewrite the heartbeat in the header."""
        journal.stamp(self.buffer, closed=closed, end=end, steps=steps)

    def close(self, end: int, steps: int) -> None:
        """End the segment: from now on its length is known and nobody writes into it."""
        self.stamp(closed=True, end=end, steps=steps)
        self.release()

    def discard(self) -> None:
        """Let go of a segment that nobody wrote into."""
        self.release()
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def release(self) -> None:
        """Let go of the memory and the file, without saying that the segment is complete."""
        with contextlib.suppress(BufferError, ValueError):  # a thread may be inside a call; its reference frees it
            self.buffer.close()
        if self.fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self.fd)
            self.fd = -1


class MappedSegment(Segment):
    """A preallocated file, mapped: what is packed into it survives the death of the process."""

    kind = "mapped"
    __slots__ = ()

    def sync(self) -> None:
        """Write back; releases the GIL, unlike `mmap.flush`, which would hold it for the whole write."""
        os.fdatasync(self.fd)

    def close(self, end: int, steps: int) -> None:
        """End the segment and give back what was allocated beyond its end."""
        self.stamp(closed=True, end=end, steps=steps)
        with contextlib.suppress(BufferError, ValueError):
            self.buffer.close()
        # Only after our own mapping is gone, and readers never map: shrinking a mapped file is a SIGBUS.
        if self.buffer.closed:
            with contextlib.suppress(OSError):
                os.ftruncate(self.fd, end)
        self.release()


class AppendSegment(Segment):
    """A buffer in memory whose bytes are appended by plain writes: for network file systems."""

    kind = "append"
    __slots__ = ()

    def flush(self, end: int) -> None:
        """Append what was packed since the last flush."""
        while self.saved < end:
            self.saved += os.pwrite(self.fd, self.buffer[self.saved : end], self.saved)

    def sync(self) -> None:
        """Wait for the file system's own promise."""
        os.fdatasync(self.fd)

    def stamp(self, *, closed: bool, end: int, steps: int) -> None:
        """Rewrite the header in memory and in the file."""
        super().stamp(closed=closed, end=end, steps=steps)
        with contextlib.suppress(OSError):  # a disk that refuses this refuses the records too, and those are counted
            os.pwrite(self.fd, self.buffer[: journal.HEADER_SIZE], 0)

    def close(self, end: int, steps: int) -> None:
        """Append the rest, then end the segment."""
        self.flush(end)
        super().close(end, steps)


class MemorySegment(Segment):
    """A segment without a file; `save` writes its image when the disk takes files again."""

    __slots__ = ()

    def save(self, steps: int, *, sync: bool) -> None:
        """Write the whole image under its final name."""
        end = self.end
        self.stamp(closed=True, end=end, steps=steps)
        hidden = _hidden(self.path)
        fd = os.open(hidden, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_CLOEXEC, 0o644)
        try:
            written = 0
            while written < end:
                written += os.pwrite(fd, self.buffer[written:end], written)
            if sync:
                os.fdatasync(fd)
            os.rename(hidden, self.path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(hidden)
            raise
        finally:
            os.close(fd)


def open_segment(
    folder: str,
    mode: str,
    writer: bytes,
    number: int,
    size: int,
    identity: Mapping[str, object],
    *,
    needed: int = 0,
) -> Segment:
    """Make the next segment of a writer; raises `OSError` when the disk does not take it.

    Args:
        folder: The run's journal folder.
        mode: `mapped`, `append` or `memory`.
        writer: The writer's id.
        number: The segment's number in the writer's chain.
        size: Bytes wanted; a refusal is answered with smaller ones down to 64 KiB.
        identity: What the header says of the writer.
        needed: The smallest size that is of use.

    Returns:
        A segment whose header is in place.
    """
    path = os.path.join(folder, journal.segment_name(writer, number))
    smaller = (small for small in SMALL_SIZES if needed <= small < size)
    sizes = [size, *smaller] if mode == "mapped" else [size]
    for wanted in sizes:
        header = journal.Header(writer, number, 1, wanted, identity)
        try:
            return _make(header, path, mode)
        except OSError:
            if wanted == sizes[-1]:
                raise
    raise AssertionError


def _make(header: journal.Header, path: str, mode: str) -> Segment:
    """Make one segment of exactly the header's size."""
    if mode == "memory":
        segment: Segment = MemorySegment(header, mmap.mmap(-1, header.size), path)
        segment.buffer[: journal.HEADER_SIZE] = header.pack()
        return segment
    hidden = _hidden(path)
    fd = os.open(hidden, os.O_CREAT | os.O_TRUNC | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        if mode == "mapped":
            os.posix_fallocate(fd, 0, header.size)
            segment = MappedSegment(header, mmap.mmap(fd, header.size), path)
        else:
            segment = AppendSegment(header, mmap.mmap(-1, header.size), path)
            segment.saved = journal.HEADER_SIZE
        with contextlib.suppress(OSError):  # a network file system may have no locks; nobody folds there by lock
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        segment.fd = fd
        segment.buffer[: journal.HEADER_SIZE] = header.pack()
        segment.stamp(closed=False, end=0, steps=0)
        os.rename(hidden, path)
    except OSError:
        os.close(fd)
        with contextlib.suppress(OSError):
            os.unlink(hidden)
        raise
    return segment


def probe(folder: str) -> None:
    """Raise `OSError` unless the disk takes a small segment now."""
    path = os.path.join(folder, f".probe.{os.getpid()}")
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, SMALL_SIZES[-1])
    finally:
        os.close(fd)
        os.unlink(path)


def populate(segment: Segment) -> None:
    """Touch every page, so that the caller never pays for a page fault.

    Through ctypes, because `mmap.madvise` holds the GIL for the whole of it: 18 to 48 ms for 16 MiB.
    """
    import ctypes

    start = ctypes.addressof(ctypes.c_char.from_buffer(segment.buffer))
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if madvise(start, segment.size, _MADV_POPULATE_WRITE) == 0:
        return
    for offset in range(journal.HEADER_SIZE, segment.size, _PAGE):  # an old kernel: slices give way by themselves
        segment.buffer[offset] = 0


def _hidden(path: str) -> str:
    """Return the name a file has until it is complete; readers skip names that begin with a dot."""
    folder, name = os.path.split(path)
    return os.path.join(folder, "." + name)
