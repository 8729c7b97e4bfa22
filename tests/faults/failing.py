"""The fault layer: the few calls by which Tracer changes files, made to fail at the n-th of them.

A scenario is run once to count its calls, then once for every n: once only, or from then on.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

CALLS = (
    "open", "write", "pwrite", "fsync", "fdatasync", "rename", "replace", "link", "unlink", "mkdir", "ftruncate",
    "posix_fallocate", "statvfs",
)  # fmt: skip


class Faults:
    """Counts the calls, and fails those that it is told to."""

    def __init__(self, at: int = 0, code: int = 0, *, is_sticky: bool = False) -> None:
        self.at, self.code, self.is_sticky = at, code, is_sticky
        self.count = 0
        self.names: list[str] = []

    def meet(self, name: str) -> None:
        """Count a call; raise when its turn has come."""
        self.count += 1
        self.names.append(name)
        if self.at and (self.count == self.at or (self.is_sticky and self.count > self.at)):
            raise OSError(self.code, os.strerror(self.code))


@contextmanager
def failing(faults: Faults) -> Iterator[Faults]:
    """Put the fault layer under this process' file calls."""
    real = {name: getattr(os, name) for name in CALLS}
    real_map = mmap.mmap

    def layer(name: str) -> object:
        def call(*arguments: object, **options: object) -> object:
            faults.meet(name)
            return real[name](*arguments, **options)

        return call

    class Mapping(real_map):
        """A mapping of a file is refused like any other call."""

        def __new__(cls, fd: int, *rest: object, **options: object) -> mmap.mmap:  # type: ignore[misc]
            if fd >= 0:
                faults.meet("mmap")
            return real_map.__new__(cls, fd, *rest, **options)  # type: ignore[arg-type]

    for name in CALLS:
        setattr(os, name, layer(name))
    mmap.mmap = Mapping  # type: ignore[misc]
    try:
        yield faults
    finally:
        for name, function in real.items():
            setattr(os, name, function)
        mmap.mmap = real_map  # type: ignore[misc]
