"""Artifacts brought out of the store: copied to where somebody wants them, or shown under their own names.

Nothing is ever written outside the folder that was named. Every folder on the way is opened without following
symbolic links and everything below it is reached through that open folder, so neither a list of files that was
tampered with nor a link that lies in the target, or is put there meanwhile, leads anywhere else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from tracer.errors import StoreError
from tracer.storage.artifact_contents import PART, Progress, chunks
from tracer.storage.artifact_names import checked_entry
from tracer.storage.artifact_records import Entry

CHECKOUTS = "checkouts"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: A file of an artifact, and where its bytes lie.
Source = tuple[Entry, str]


def collisions(target: str, entries: Sequence[Entry]) -> list[str]:
    """Return the paths below a folder at which something lies already."""
    return [entry.path for entry in entries if os.path.lexists(os.path.join(target, checked_entry(entry.path)))]


def copy_out(
    sources: Sequence[Source], target: str, *, overwrite: bool = False, progress: Progress | None = None
) -> list[str]:
    """Copy the files of an artifact into a folder; each appears whole, after its SHA-256 was compared.

    Args:
        sources: The files, and where they lie.
        target: The folder; made where it is not there.
        overwrite: Replace files that are there.
        progress: Called with bytes done and bytes in all.

    Returns:
        The paths of the copies.

    Raises:
        StoreError: Something is in the way, damaged, or cannot be written.
    """
    entries = [entry for entry, _ in sources]
    there = collisions(target, entries)
    if there and not overwrite:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        message = f"{os.path.join(target, there[0])}{more} exists already. Choose another folder, or ask to overwrite."
        raise StoreError(message)
    total, done = sum(entry.bytes for entry in entries), 0
    try:
        os.makedirs(target, exist_ok=True)
        root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for entry, source in sources:
                before = done

                def tell(part: int, _: int, before: int = before) -> None:
                    if progress is not None:
                        progress(min(before + part, total), total)

                _copy_one(root, entry, source, tell)
                done += entry.bytes
        finally:
            os.close(root)
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else target
        message = f"{where} cannot be copied into {target} ({error.strerror or error}). Choose another folder."
        raise StoreError(message) from error
    return [os.path.join(target, *entry.path.split("/")) for entry in entries]


def _copy_one(root: int, entry: Entry, source: str, tell: Progress) -> None:
    """Copy one file to its place below an open folder."""
    parts = checked_entry(entry.path).split("/")
    with _below(root, parts[:-1]) as folder:
        name = f"{PART}{os.getpid()}-{os.urandom(6).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        digest = hashlib.sha256()
        try:
            with _opened(source) as file, open(os.open(name, flags, 0o666, dir_fd=folder), "wb") as copy:
                for chunk in chunks(file, entry.bytes, tell):
                    digest.update(chunk)
                    copy.write(chunk)
            if entry.digest is not None and digest.hexdigest() != entry.digest:
                message = (
                    f"{source} is damaged: its bytes do not have the SHA-256 that was recorded for {entry.path!r}. "
                    "Nothing was written."
                )
                raise StoreError(message)
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISDIR(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mode):
                    message = f"{entry.path!r} is a folder in the target. Choose another target."
                    raise StoreError(message)
            os.rename(name, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)


@contextlib.contextmanager
def _opened(source: str) -> Iterator[BinaryIO]:
    """Open a file to copy from; a pipe or a device is none."""
    with open(os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            message = f"{source} is no ordinary file, so it cannot be copied."
            raise StoreError(message)
        yield file


@contextlib.contextmanager
def _below(root: int, parts: Sequence[str]) -> Iterator[int]:
    """Open a folder below another, made where it is missing; a symbolic link on the way is refused."""
    folder = os.dup(root)
    try:
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=folder)
            try:
                inner = os.open(part, _FOLDER, dir_fd=folder)
            except OSError as error:
                message = (
                    f"{part!r} in the target is no folder of its own but a link or a file; nothing is written there."
                )
                raise StoreError(message) from error
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def check_out(base: str, run: str, stem: str, sources: Sequence[Source]) -> str:
    """Return a folder of the store in which a version's files lie under their own names, as symbolic links.

    Args:
        base: The store's folder.
        run: The name of the run's folder.
        stem: What tells the version from others of the run.
        sources: The files, and where they lie.
    """
    folder = os.path.join(base, CHECKOUTS, run, stem)
    paths = [os.path.join(folder, *checked_entry(entry.path).split("/")) for entry, _ in sources]
    if all(os.path.exists(path) for path in paths) and os.path.isdir(folder):
        return folder
    part = os.path.join(base, CHECKOUTS, run, f"{PART}{os.getpid()}-{os.urandom(6).hex()}")
    try:
        os.makedirs(part)
        for entry, source in sources:
            link = os.path.join(part, *entry.path.split("/"))
            os.makedirs(os.path.dirname(link), exist_ok=True)
            os.symlink(os.path.abspath(source), link)
        if os.path.isdir(folder) and not all(os.path.exists(path) for path in paths):
            shutil.rmtree(folder, ignore_errors=True)  # links that lead nowhere any more
        with contextlib.suppress(OSError):  # another process was first, with the same links
            os.rename(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def sweep_checkouts(base: str) -> None:
    """Remove the checkouts of runs that are gone."""
    where = os.path.join(base, CHECKOUTS)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for run in os.listdir(where):
            if not any(os.path.isdir(os.path.join(base, place, run)) for place in ("runs", "trash")):
                shutil.rmtree(os.path.join(where, run), ignore_errors=True)


__all__ = ["CHECKOUTS", "Source", "check_out", "collisions", "copy_out", "sweep_checkouts"]
