"""The last values of the series that live detection looks at: contiguous arrays that slide, handed out as windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracer.analysis import windows
from tracer.analysis.statistics import Steps, Values
from tracer.analysis.windows import Window
from tracer.record.tap import Layers, Rows

#: How many values of a metric a window spans, and rows of layers: a rule takes 5 to 20 ms for a hundred layers.
CAPACITY, LAYER_ROWS = 512, 256
#: What the matrices of one axis may take in memory; a network of very many layers has a shorter window.
_MATRIX_BYTES = 16 << 20
_FEWEST_ROWS = 64
#: Series that are followed; a program that makes new names without end must not fill the memory.
_MAX_SERIES = 512
_MAX_BAD = 64
_FURTHEST = 2**53
#: What the rules take of each axis.
_STATISTICS = {
    windows.GRADIENTS: ("norm", "nans", "infs"),
    windows.WEIGHTS: ("norm", "mean", "std", "nans", "infs"),
    windows.UPDATES: ("ratio",),
    windows.ACTIVATIONS: ("std", "dead", "saturated", "nans", "infs"),
}
#: The statistics whose changes are news; counts of zeros and means come and go.
_TELLING = frozenset({"norm", "ratio", "std", "nans", "infs", "dead", "saturated"})
#: What stays within the range of so many rows, widened by so much, is no surprise.
_RECENT, _WIDER, _FACTOR = 64, 0.5, 4.0
#: Rows before the new ones about which a detector may change its mind once it knows what came after.
_LAG = 32


class Ring:
    """The last rows of one series, in the order of their steps; a step that comes again replaces the row before."""

    def __init__(self, width: int, capacity: int = CAPACITY, kind: type = np.float64) -> None:
        self.capacity = capacity
        self._steps, self._times = np.empty(2 * capacity, np.int64), np.empty(2 * capacity)
        self._values: NDArray[Any] = np.empty((2 * capacity, width), kind)
        self._first = self._end = 0

    def __len__(self) -> int:
        return self._end - self._first

    @property
    def steps(self) -> Steps:
        """The steps, ascending."""
        return self._steps[self._first : self._end]

    @property
    def times(self) -> Values:
        """When each row was recorded."""
        return self._times[self._first : self._end]

    @property
    def values(self) -> NDArray[Any]:
        """The rows."""
        return self._values[self._first : self._end]

    def push(self, steps: Steps, times: Values, values: NDArray[Any]) -> None:
        """Add rows in the order in which they were recorded."""
        steps, times, values = steps[-self.capacity :], times[-self.capacity :], values[-self.capacity :]
        if not len(steps):
            return
        known = self.steps
        if (len(known) and steps[0] <= known[-1]) or (steps[1:] <= steps[:-1]).any():
            if len(known) and steps.max() < known[0]:  # the training began anew, from an earlier step
                self._first = self._end = 0
            self._merge(steps, times, values)
            return
        if self._end + len(steps) > len(self._steps):
            self._slide(len(steps))
        place = slice(self._end, self._end + len(steps))
        self._steps[place], self._times[place], self._values[place] = steps, times, values
        self._end += len(steps)
        self._first = max(self._first, self._end - self.capacity)

    def _slide(self, count: int) -> None:
        """Move what is kept to the front, so that so many rows fit behind it."""
        kept = min(len(self), self.capacity - count) if count < self.capacity else 0
        begin = self._end - kept
        for array in (self._steps, self._times, self._values):
            array[:kept] = array[begin : self._end].copy()
        self._first, self._end = 0, kept

    def _merge(self, steps: Steps, times: Values, values: NDArray[Any]) -> None:
        """Sort rows in that came late or again."""
        all_steps = np.concatenate([self.steps, steps])
        order = np.argsort(all_steps, kind="stable")
        ordered = all_steps[order]
        is_last = np.append(ordered[1:] != ordered[:-1], [True])
        kept = order[is_last][-self.capacity :]
        all_times = np.concatenate([self.times, times])[kept]
        all_values = np.concatenate([self.values, values])[kept]
        self._first, self._end = 0, len(kept)
        self._steps[: len(kept)], self._times[: len(kept)] = all_steps[kept], all_times
        self._values[: len(kept)] = all_values


class Series:
    """One subject that rules look at, and how far they have looked."""

    def __init__(
        self, subject: str, name: str, ring: Ring, layers: tuple[str, ...] = (), tables: Sequence[str] = ()
    ) -> None:
        self.subject, self.name, self.ring, self.layers, self.tables = subject, name, ring, layers, tuple(tables)
        self.is_fresh, self.judged_at, self.cost_s = False, 0.0, 0.0
        self.judged: int | None = None  # the last step that rules saw
        width = len(layers)
        telling = [at for at, name in enumerate(self.tables) if name in _TELLING]
        self._telling = [at * width + column for at in telling for column in range(width)] if self.tables else [0]
        self._low: NDArray[Any] | None = None
        self._high: NDArray[Any] | None = None

    def is_surprising(self) -> bool:
        """Tell whether a value came since the rules looked that lies outside what the values before span."""
        if self._low is None or self._high is None or self.judged is None:
            return True
        place = int(np.searchsorted(self.ring.steps, self.judged, side="right"))
        new = self.ring.values[place:, self._telling]
        with np.errstate(invalid="ignore"):
            inside = (new >= self._low) & (new <= self._high)
        return not bool((inside | (np.isnan(new) & np.isnan(self._low))).all())

    def settle(self) -> None:
        """Take note that the rules saw everything that is here."""
        self.judged, self.is_fresh = int(self.ring.steps[-1]), False
        recent = self.ring.values[-_RECENT:, self._telling]
        low, high = np.fmin.reduce(recent, axis=0), np.fmax.reduce(recent, axis=0)
        with np.errstate(invalid="ignore", over="ignore"):
            if self.layers:
                self._low = np.where(low > 0, low / _FACTOR, low * _FACTOR)
                self._high = np.where(high > 0, high * _FACTOR, high / _FACTOR)
            else:
                self._low, self._high = low - _WIDER * (high - low), high + _WIDER * (high - low)

    def horizon(self) -> int:
        """Return the first step about which something new can be said; a little before the rows that are new."""
        steps = self.ring.steps
        place = 0 if self.judged is None else int(np.searchsorted(steps, self.judged, side="right"))
        return int(steps[max(min(place, len(steps) - 1) - _LAG, 0)])

    def gap(self) -> int:
        """Return how many steps ten rows are: troubles that follow each other so closely are one."""
        steps = self.ring.steps
        return max(-(-10 * (int(steps[-1]) - int(steps[0])) // max(len(steps) - 1, 1)), 1)

    def window(self, partners: Mapping[str, Window] | None = None, rank: int = 0) -> Window:
        """Return the window that rules take."""
        ring, partners = self.ring, partners or {}
        if not self.tables:
            values = ring.values[:, 0]
            return Window(
                self.subject, self.name, ring.steps, values, times=ring.times, rank=rank, partners=partners,
                is_last=False,
            )  # fmt: skip
        width = len(self.layers)
        tables = {name: ring.values[:, at * width : (at + 1) * width] for at, name in enumerate(self.tables)}
        return Window(
            self.subject, self.name, ring.steps, layers=self.layers, tables=tables, times=ring.times, rank=rank,
            partners=partners, is_last=False,
        )  # fmt: skip

    def paces(self) -> Window:
        """Return the seconds that each step took, told by when the steps were recorded."""
        steps, times = self.ring.steps, self.ring.times
        seconds = np.maximum(np.diff(times) / np.maximum(np.diff(steps), 1), 0.0)
        return Window(windows.STEP_TIME, "time per step", steps[1:], seconds, is_last=False)


class SeriesSet:
    """Every series that is followed.

    Args:
        subject_of: Gives the subjects that a metric's name belongs to; none for those that nobody judges.
    """

    def __init__(self, subject_of: Callable[[str], tuple[str, ...]]) -> None:
        self._subject_of = subject_of
        self._subjects: dict[str, tuple[str, ...]] = {}
        self.series: dict[tuple[str, str], Series] = {}
        self._bad = 0
        self._is_timed = False

    def add(self, rows: Iterable[Rows], layers: Iterable[Layers]) -> None:
        """Take what a look found."""
        for block in rows:
            self._add_rows(block)
        self._add_layers(layers)

    def _add_rows(self, block: Rows) -> None:
        """Add rows of metrics; steps that nobody counts to are no course of a training."""
        if block.steps.max() > _FURTHEST or block.steps.min() < -_FURTHEST:
            return
        bad = None if np.isfinite(block.values).all() else ~np.isfinite(block.values).all(axis=0)
        for column, name in enumerate(block.names):
            subjects = self._subjects.get(name)
            if subjects is None:
                subjects = self._subject_of(name) if len(self.series) < _MAX_SERIES else ()
                if windows.LOSS in subjects and not self._is_timed:
                    self._is_timed = True  # one loss tells how fast the training goes
                    subjects = (*subjects, windows.TIMES)
                self._subjects[name] = subjects
            if bad is not None and bad[column] and windows.METRIC not in subjects and self._bad < _MAX_BAD:
                self._bad += 1
                subjects = self._subjects[name] = (*subjects, windows.METRIC)
            for subject in subjects:
                series = self.series.get((subject, name))
                if series is None:
                    series = self.series[subject, name] = Series(subject, name, Ring(1))
                series.ring.push(block.steps, block.times, block.values[:, column : column + 1])
                series.is_fresh = True

    def _add_layers(self, found: Iterable[Layers]) -> None:
        """Add rows of layer values, those of one axis together."""
        together: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[Layers]] = {}
        for one in found:
            if one.axis.what in _STATISTICS:
                together.setdefault((one.axis.what, one.axis.layers, one.axis.statistics), []).append(one)
        for (what, layers, statistics), rows in together.items():
            kept = [at for at, name in enumerate(statistics) if name in _STATISTICS[what]]
            tables = tuple(statistics[at] for at in kept)
            series = self.series.get((what, what))
            if series is None or (series.layers, series.tables) != (layers, tables):
                width = len(tables) * len(layers)
                capacity = min(LAYER_ROWS, max(_MATRIX_BYTES // (8 * max(width, 1)), _FEWEST_ROWS))
                series = Series(what, what, Ring(width, capacity, np.float32), layers, tables)
                self.series[what, what] = series
            values = np.stack([one.matrix[kept].reshape(-1) for one in rows[-LAYER_ROWS:]])
            steps, times = np.array([one.step for one in rows]), np.array([one.time for one in rows])
            series.ring.push(steps[-LAYER_ROWS:], times[-LAYER_ROWS:], values)
            series.is_fresh = True


__all__ = ["CAPACITY", "Ring", "Series", "SeriesSet"]
