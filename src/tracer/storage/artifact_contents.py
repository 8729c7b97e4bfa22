"""Contents of artifacts and media: one file per content in the run's folder, named by its SHA-256.

    runs/<run>/artifacts/<sha256>     the bytes, read-only, complete when the name is there
    runs/<run>/artifacts/.part-…      being written; whoever dies leaves one of these and nothing else
    contents/<2 digits>/<sha256>      a symbolic link to a run that has the content: where an equal one is looked for

An equal content of another run is hard-linked where the file system allows, else copied: a run's folder always holds
everything of the run, and deleting one run never takes something from another. What is linked was read and hashed
before, so that damage does not spread.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO

from tracer.errors import StoreError
from tracer.storage.folder import sync_folder

#: Called with how many bytes are done and how many there are.
Progress = Callable[[int, int], None]
FOLDER, POOL = "artifacts", "contents"
PART = ".part-"
_CHUNK = 4 * 1024 * 1024
#: Larger files are hashed before they are copied: one that is there already is then not written a second time.
_HASH_FIRST = 16 * 1024 * 1024
_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_digest(text: object) -> bool:
    """Tell whether a text is a SHA-256."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def content_path(run_folder: str, digest: object) -> str:
    """Return where a run keeps a content.

    Raises:
        StoreError: It is no digest: a record that was tampered with must not lead anywhere.
    """
    if not is_digest(digest):
        message = f"{str(digest)[:80]!r} in {run_folder} is no SHA-256; the record that names it is damaged."
        raise StoreError(message)
    return os.path.join(run_folder, FOLDER, str(digest))


def open_regular(path: str) -> BinaryIO:
    """Open a file for reading; neither a symbolic link nor a pipe is one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        message = f"{path} is no ordinary file, so it is no content."
        raise StoreError(message)
    return open(descriptor, "rb", buffering=0)


def chunks(file: BinaryIO, total: int, progress: Progress | None = None) -> Iterator[bytes]:
    """Yield a file in pieces, and tell how far it is."""
    done = 0
    while chunk := file.read(_CHUNK):
        yield chunk
        done += len(chunk)
        if progress is not None:
            progress(done, max(total, done))


def hash_file(path: str, progress: Progress | None = None, *, follow: bool = False) -> tuple[str, int]:
    """Return the SHA-256 and the size of a file.

    Args:
        path: The file.
        progress: Called after each piece; what it raises ends the work.
        follow: Read through a symbolic link: the user's own files.
    """
    digest, size = hashlib.sha256(), 0
    with open(path, "rb", buffering=0) if follow else open_regular(path) as file:
        for chunk in chunks(file, os.fstat(file.fileno()).st_size, progress):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def damage(path: str, digest: str, size: int | None = None, progress: Progress | None = None) -> str:
    """Say what is wrong with a kept content, or return an empty text."""
    try:
        if size is not None and os.lstat(path).st_size != size:
            return f"it has {os.lstat(path).st_size:,} bytes instead of {size:,}"
        found, _ = hash_file(path, progress)
    except FileNotFoundError:
        return "it is not there"
    except (OSError, StoreError) as error:
        return f"it cannot be read ({getattr(error, 'strerror', None) or error})"
    return "" if found == digest else "its bytes do not have the SHA-256 that is its name"


class Cellar:
    """Where one run keeps contents.

    Args:
        run_folder: The run's folder.
    """

    def __init__(self, run_folder: str) -> None:
        self.run_folder = run_folder
        self.folder = os.path.join(run_folder, FOLDER)
        self._pool = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(run_folder))), POOL)

    def keep_bytes(self, data: bytes) -> str:
        """Keep bytes and return their digest; what is kept already is not written again."""
        digest = hashlib.sha256(data).hexdigest()
        if not self._has(digest, len(data)):
            with contextlib.closing(io.BytesIO(data)) as source:
                self._write(source, len(data))
        return digest

    def keep_file(self, source: str, progress: Progress | None = None) -> tuple[str, int]:
        """Keep a copy of a file and return its digest and size; what the copy holds is what was hashed."""
        with open(source, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > _HASH_FIRST:
                digest, found = hash_file(source, follow=True)
                if self._has(digest, found):
                    if progress is not None:
                        progress(found, found)
                    return digest, found
            return self._write(file, size, progress)

    def _write(self, source: BinaryIO, size: int, progress: Progress | None = None) -> tuple[str, int]:
        """Copy into a hidden file, then give it the name of what it holds."""
        os.makedirs(self.folder, exist_ok=True)
        part = os.path.join(self.folder, f"{PART}{os.getpid()}-{os.urandom(6).hex()}")
        digest, written = hashlib.sha256(), 0
        try:
            with open(part, "xb") as file:
                for chunk in chunks(source, size, progress):
                    digest.update(chunk)
                    file.write(chunk)
                    written += len(chunk)
                found = digest.hexdigest()
                if self._has(found, written):
                    return found, written
                file.flush()
                os.fsync(file.fileno())
            os.chmod(part, 0o444)
            os.rename(part, content_path(self.run_folder, found))
            sync_folder(self.folder)
            self.announce(found)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
        return found, written

    def _has(self, digest: str, size: int) -> bool:
        """Tell whether a content is kept; one that another run of the store has is linked."""
        return not damage(content_path(self.run_folder, digest), digest, size) or self.take_equal(digest, size)

    def take_equal(self, digest: str, size: int | None = None) -> bool:
        """Link a content that another run of the store has; tell whether there was one that is sound."""
        path = content_path(self.run_folder, digest)
        known = os.path.realpath(os.path.join(self._pool, digest[:2], digest))
        if os.path.basename(known) != digest or known == os.path.realpath(path) or damage(known, digest, size):
            return False
        part = os.path.join(self.folder, f"{PART}{os.getpid()}-{os.urandom(6).hex()}")
        try:
            os.makedirs(self.folder, exist_ok=True)
            os.link(known, part, follow_symlinks=False)
            os.rename(part, path)  # over a damaged one, if there was
        except OSError:  # another file system, too many links, or none at all: it is copied
            with contextlib.suppress(OSError):
                os.unlink(part)
            return False
        sync_folder(self.folder)
        self.announce(digest)
        return True

    def announce(self, digest: str) -> None:
        """Let other runs find a content here; without symbolic links each keeps a copy of its own."""
        link = os.path.join(self._pool, digest[:2], digest)
        target = os.path.join("..", "..", "runs", os.path.basename(self.run_folder), FOLDER, digest)
        fresh = f"{link}.{os.urandom(6).hex()}"
        with contextlib.suppress(OSError):
            if os.path.exists(link):
                return
            os.makedirs(os.path.dirname(link), exist_ok=True)
            os.symlink(target, fresh)
            os.replace(fresh, link)


def sweep_pool(base: str, run_folder: str) -> None:
    """Remove the links to the contents of a run that is about to go; those of other runs stay."""
    with contextlib.suppress(OSError):
        for digest in filter(is_digest, os.listdir(os.path.join(run_folder, FOLDER))):
            link = os.path.join(base, POOL, digest[:2], digest)
            if not os.path.exists(link):
                with contextlib.suppress(OSError):
                    os.unlink(link)


def half_written(run_folder: str) -> list[str]:
    """Return the files that somebody began to write into a run's artifacts."""
    found: list[str] = []
    for folder in (os.path.join(run_folder, FOLDER), os.path.join(run_folder, FOLDER, "index")):
        with contextlib.suppress(OSError):
            found += [os.path.join(folder, name) for name in os.listdir(folder) if name.startswith(PART)]
    return sorted(found)


__all__ = [
    "FOLDER", "PART", "Cellar", "Progress", "chunks", "content_path", "damage", "half_written", "hash_file",
    "is_digest", "open_regular", "sweep_pool",
]  # fmt: skip
