"""Death at a chosen operation: the N-th file operation or statement fails, and so does every one after it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tracer.storage import duck
from tracer.storage.catalog import Catalog

_FILE_OPERATIONS = ("rename", "replace", "fsync", "unlink", "pwrite", "makedirs")


class Died(BaseException):
    """The process is dead: nothing catches this but the test."""


class Mortal:
    """Counts operations, and dies at one of them."""

    def __init__(self, at: int) -> None:
        self.at, self.count, self.dead = at, 0, False
        self.names: list[str] = []

    def step(self, name: str) -> None:
        """Count an operation; from the chosen one on each is the last."""
        self.count += 1
        self.names.append(name)
        if self.dead or self.count == self.at:
            self.dead = True
            raise Died(name)


@contextlib.contextmanager
def mortal(at: int) -> Iterator[Mortal]:
    """Let everything inside die at the `at`-th operation; 0 only counts."""
    life = Mortal(at)
    with pytest.MonkeyPatch.context() as patch:
        for name in _FILE_OPERATIONS:
            patch.setattr(os, name, _counted(life, name, getattr(os, name)))
        for name in ("execute", "executemany"):
            patch.setattr(Catalog, name, _counted(life, name, getattr(Catalog, name)))
        patch.setattr(duck, "crc_of", _counted(life, "crc_of", duck.crc_of))
        original = Catalog.transaction

        @contextlib.contextmanager
        def transaction(self: Catalog) -> Iterator[None]:
            nested = self.connection.in_transaction
            with original(self):
                yield
                if not nested:
                    life.step("before commit")
            if not nested:
                life.step("after commit")

        patch.setattr(Catalog, "transaction", transaction)
        yield life


def _counted(life: Mortal, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that counts its calls."""

    def counted(*arguments: object, **options: object) -> object:
        life.step(name)
        return function(*arguments, **options)

    return counted
