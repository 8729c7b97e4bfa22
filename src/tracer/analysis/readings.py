"""A run of the store as windows: what the rules look at, read piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tracer.analysis import subjects, windows
from tracer.analysis.statistics import Steps
from tracer.analysis.windows import Matrix, Window
from tracer.events import RUNNING

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.storage.values import Series, SeriesRow

#: The statistics that rules take from each axis.
_STATISTICS = {
    windows.GRADIENTS: ("norm", "nans", "infs"),
    windows.WEIGHTS: ("norm", "mean", "std", "nans", "infs"),
    windows.UPDATES: ("ratio",),
    windows.ACTIVATIONS: ("std", "dead", "saturated", "nans", "infs"),
}
#: A piece of a long run holds so many values of one statistic, and reaches so many rows back into the one before.
_PIECE, _OVERLAP = 8_000_000, 256
#: What surrounds a step when its causes are looked for, in recorded rows.
_BEFORE = 200
_US = 1e6
_RANKED = 2
#: What the program did not log itself.
_OURS = ("system/", "tracer/", "time/")


class Readings:
    """What one run recorded.

    Args:
        store: The store.
        uid: The run.
    """

    def __init__(self, store: Store, uid: str) -> None:
        self._store, self._uid = store, uid
        self._kept: dict[tuple[str, int], Series] = {}

    @cached_property
    def rows(self) -> list[SeriesRow]:
        """The series of numbers of the run."""
        return [row for row in self._store.metrics(self._uid) if not row.is_text]

    @cached_property
    def stride(self) -> float:
        """How many steps lie between two values of the metric that has the most."""
        row = self._densest()
        return 1.0 if row is None or row.n < _RANKED else _span(row) / (row.n - 1)

    def metrics(self) -> Iterator[Window]:
        """Yield the windows of everything that is one value per step."""
        for row in self.rows:
            if row.nan or row.inf:  # the summary knows: a clean series is not read for this
                yield self._window(windows.METRIC, row)
            if subjects.is_loss(row.metric):
                yield self._window(windows.LOSS, row)
                if subjects.is_validation(row.metric):
                    yield from self._pair(row)
            elif subjects.is_gradient_norm(row.metric):
                yield self._window(windows.NORM, row)
            elif subjects.is_memory_share(row.metric):
                yield self._window(windows.MEMORY, row)
            elif subjects.is_memory_use(row.metric):
                yield self._window(windows.MEMORY_USE, row)
        yield from self._pace()
        yield from self._ranks()

    def layers(self) -> Iterator[tuple[Window, bool]]:
        """Yield the windows of the layers, piece by piece, and whether a piece is the first of its axis."""
        for axis, statistics in _STATISTICS.items():
            names = self._store.layer_names(self._uid, axis)
            if names:
                for start, stop, is_last in self._pieces(len(names)):
                    window = self.layer_window(axis, statistics, start, stop, is_last=is_last)
                    if len(window):
                        yield window, start is None

    def layer_window(
        self, axis: str, statistics: Sequence[str], start: int | None, stop: int | None, *, is_last: bool = True
    ) -> Window:
        """Return some steps of an axis; statistics that were not recorded are left out."""
        tables: dict[str, Matrix] = {}
        steps: Steps = np.empty(0, np.int64)
        layers: tuple[str, ...] = ()
        for statistic in statistics:
            matrix = self._store.layers(self._uid, statistic, axis=axis, start=start, stop=stop)
            if len(matrix.steps) and (not len(steps) or np.array_equal(matrix.steps, steps)):
                steps, layers = matrix.steps, matrix.layers
                tables[statistic] = matrix.values
        partners = {}
        if axis in (windows.WEIGHTS, windows.UPDATES) and len(steps):
            partners[windows.GRADIENTS] = self.layer_window(windows.GRADIENTS, ("norm",), start, stop)
        return Window(axis, axis, steps, layers=layers, tables=tables, partners=partners, is_last=is_last)

    def around(self, step: int) -> list[Window]:
        """Return gradients, updates and learning rates before a step: where its causes are looked for."""
        found = [self._window(windows.LEARNING_RATE, row) for row in self._learning_rates()]
        for axis, statistic in ((windows.GRADIENTS, "norm"), (windows.UPDATES, "ratio")):
            if self._store.layer_names(self._uid, axis):
                reach = int(_BEFORE * self._stride_of(axis))
                found.append(self.layer_window(axis, (statistic,), step - reach, step + 1))
        return [window for window in found if len(window)]

    def _pieces(self, layers: int) -> Iterator[tuple[int | None, int | None, bool]]:
        """Yield the steps of each piece; None where there is no bound."""
        size = max(_PIECE // layers, 4 * _OVERLAP)
        last = max((row.last_step or 0 for row in self.rows), default=0)
        if last < 2 * size:
            yield None, None, True
            return
        for begin in range(0, last + 1, size):
            is_last = begin + size > last
            yield (begin - _OVERLAP if begin else None), (None if is_last else begin + size), is_last

    def _stride_of(self, axis: str) -> float:
        """Return how many steps lie between two rows of an axis."""
        if axis not in self._strides:
            statistic, names = _STATISTICS[axis][0], self._store.layer_names(self._uid, axis)
            steps = self._store.layers(self._uid, statistic, axis=axis, layers=names[:1]).steps
            self._strides[axis] = float(np.median(np.diff(steps))) if len(steps) > 1 else 1.0
        return self._strides[axis]

    @cached_property
    def _strides(self) -> dict[str, float]:
        return {}

    def _series(self, row: SeriesRow) -> Series:
        """Return a series, read once."""
        key = row.metric, row.rank
        if key not in self._kept:
            self._kept[key] = self._store.series(self._uid, row.metric, rank=row.rank)
        return self._kept[key]

    def _window(self, subject: str, row: SeriesRow, partners: dict[str, Window] | None = None) -> Window:
        """Return a series as a window."""
        series = self._series(row)
        values = np.asarray(series.value, dtype=np.float64)
        return Window(
            subject, row.metric, series.step, values, times=series.time / _US, rank=row.rank, partners=partners or {}
        )

    def _pair(self, row: SeriesRow) -> Iterator[Window]:
        """Yield a validation loss with the training loss that belongs to it."""
        same_rank = {one.metric: one for one in self.rows if one.rank == row.rank}
        training = subjects.training_of(row.metric, same_rank)
        if training is not None:
            partner = self._window(windows.LOSS, same_rank[training])
            yield self._window(windows.PAIR, row, {"training": partner})

    def _pace(self) -> Iterator[Window]:
        """Yield what tells how fast the training went."""
        steps = [row for row in self.rows if subjects.is_step_time(row.metric)]
        by_rank = {row.rank: self._window(windows.STEP_TIME, row) for row in steps}
        densest = self._densest()
        if densest is not None:
            whole = self._window(windows.TIMES, densest)
            yield whole
            if not by_rank:
                by_rank = {densest.rank: _step_times(whole)}
        yield from by_rank.values()
        for row in self.rows:
            if subjects.is_data_time(row.metric):
                partner = {windows.STEP_TIME: by_rank[row.rank]} if row.rank in by_rank else {}
                yield self._window(windows.DATA_TIME, row, partner)

    def _ranks(self) -> Iterator[Window]:
        """Yield the metrics that several ranks recorded, side by side."""
        names: dict[str, list[SeriesRow]] = {}
        for row in self.rows:
            is_time = subjects.is_step_time(row.metric) or subjects.is_data_time(row.metric)
            is_value = subjects.is_loss(row.metric) or subjects.is_gradient_norm(row.metric)
            if is_time or (is_value and not subjects.is_validation(row.metric)):
                names.setdefault(row.metric, []).append(row)
        for metric, rows in names.items():
            if len(rows) >= _RANKED:
                found = [self._series(row) for row in sorted(rows, key=lambda row: row.rank)]
                steps = _common([series.step for series in found])
                table = np.stack([series.value[np.searchsorted(series.step, steps)] for series in found], axis=1)
                is_time = subjects.is_step_time(metric) or subjects.is_data_time(metric)
                layers = tuple(f"rank {series.rank}" for series in found)
                subject = windows.RANK_TIMES if is_time else windows.RANKS
                yield Window(subject, metric, steps, layers=layers, tables={"value": table})

    def _densest(self) -> SeriesRow | None:
        """Return the metric with the most values that the program logged itself, of the lowest rank."""
        own = [row for row in self.rows if not row.metric.startswith(_OURS) and row.last_step is not None]
        return max(own, key=lambda row: (-row.rank, row.n), default=None)

    def _learning_rates(self) -> list[SeriesRow]:
        """Return the learning rates of rank 0."""
        return [row for row in self.rows if row.rank == 0 and subjects.is_learning_rate(row.metric)][:4]

    @property
    def is_live(self) -> bool:
        """Whether the run is under way."""
        return self._store.run(self._uid).status == RUNNING


def _span(row: SeriesRow) -> int:
    """Return how many steps a series covers."""
    return (row.last_step or 0) - (row.first_step or 0)


def _step_times(window: Window) -> Window:
    """Return the seconds per step that the times of a metric tell."""
    times = window.times if window.times is not None else np.zeros(len(window))
    seconds = np.diff(times) / np.maximum(np.diff(window.steps), 1)
    return Window(windows.STEP_TIME, "time per step", window.steps[1:], np.maximum(seconds, 0.0), rank=window.rank)


def _common(steps: Sequence[Steps]) -> Steps:
    """Return the steps that all have."""
    found = steps[0]
    for one in steps[1:]:
        found = np.intersect1d(found, one, assume_unique=True)
    return found


__all__ = ["Readings"]
