"""`mirrors/<name>.lock`: held by whoever serves a lane, so that nobody else does."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from tracer import cursors


@contextlib.contextmanager
def serving(folder: str, name: str) -> Iterator[bool]:
    """Take a lane's lock for the block; tell whether it was free."""
    os.makedirs(os.path.join(folder, cursors.FOLDER), exist_ok=True)
    descriptor = os.open(
        os.path.join(folder, cursors.FOLDER, f"{name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
    )
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            # Said, and not left to closing: a forked child of this process holds the same lock.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


__all__ = ["serving"]
