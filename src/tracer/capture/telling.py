"""Emitting what was measured: at once where the figures are there, else when they have come from their device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from torch import distributed

from tracer import clock
from tracer.capture.shards import Shards
from tracer.events import Axis, LayerValues
from tracer.sink import emit


class Telling:
    """Emits layer values in the order in which they were measured.

    Args:
        shards: Knows whether the figures are those of several ranks: then one of these speaks for all.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._underway: deque[tuple[Callable[[], bool], Callable[[], None]]] = deque()

    def emit(self, values: LayerValues) -> None:
        """Emit values that are there."""
        if not (self._shards.any and distributed.get_rank() != 0):
            emit(values)

    def figures(self, axis: Axis, figures: ArrayLike, step: int | None) -> None:
        """Emit figures that are ordered by statistic, then layer."""
        with np.errstate(over="ignore"):  # what is beyond single precision becomes infinite
            self.emit(LayerValues(axis, np.asarray(figures, np.float32).tobytes(), step, clock.now()))

    def later(self, arrived: Callable[[], bool], tell: Callable[[], None]) -> None:
        """Have something told once its figures have come; at once where they are there."""
        if not self._underway and arrived():
            tell()
        else:
            self._underway.append((arrived, tell))

    def arrived(self, *, wait: bool = False) -> None:
        """Tell what has come since; with `wait` all of it."""
        while self._underway and (wait or self._underway[0][0]()):
            self._underway.popleft()[1]()


__all__ = ["Telling"]
