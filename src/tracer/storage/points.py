"""Rows of any order → points sorted by (metric, rank, step), each step once; and the summary of each series.

Of equal (metric, rank, step) the last one wins: by arrival within a writer, by time between writers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.storage.columns import Columns, Rows, micros_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from tracer.storage.values import Floats, Integers

#: Points per series from which series are put together one by one; below it one sort of everything is cheaper.
_LONG = 24
_MANY_LOOSE = 20_000


@dataclass(slots=True)
class Points:
    """Sorted points; group g is the series `names[metric[g]]` of `rank[g]`, at `starts[g]` … `starts[g + 1]`."""

    names: list[str]
    metric: npt.NDArray[np.int32]
    rank: npt.NDArray[np.int16]
    starts: Integers
    step: Integers
    time: Integers
    value: Floats

    def __len__(self) -> int:
        return len(self.step)

    @property
    def counts(self) -> Integers:
        """Return the number of points of each series."""
        return np.diff(self.starts)


@dataclass(slots=True)
class Summaries:
    """One entry per series: what the catalog keeps of it. `min` and `max` are NaN where no value is finite."""

    n: Integers
    first_step: Integers
    last_step: Integers
    last: Floats
    last_time: Integers
    min: Floats
    max: Floats
    sum: Floats
    nan: Integers
    inf: Integers


def arrange(columns: Columns) -> Points:
    """Sort what was decoded."""
    rows = list(columns.rows)
    series = sum(len(one.keys) for one in rows)
    if len(columns.loose) < _MANY_LOOSE:
        tight = _tightened(columns)
        rows += tight
        series += len(tight)
        if columns.points >= series * _LONG or not tight:
            return _by_series(rows)
    return _all_at_once(columns)


def summarise(points: Points) -> Summaries:
    """Summarise each series of sorted points."""
    starts = points.starts[:-1]
    if not len(starts):
        none, nothing = np.empty(0, np.int64), np.empty(0)
        return Summaries(none, none, none, nothing, none, nothing, nothing, nothing, none, none)
    ends = points.starts[1:] - 1
    value = points.value
    finite = np.isfinite(value)
    if finite.all():
        low = high = value
        nan = inf = np.zeros(len(starts), np.int64)
    else:
        low, high = np.where(finite, value, np.inf), np.where(finite, value, -np.inf)
        is_nan = np.isnan(value)
        nan = np.add.reduceat(is_nan, starts, dtype=np.int64)
        inf = np.add.reduceat(~finite, starts, dtype=np.int64) - nan
        value = np.where(finite, value, 0.0)
    least, most = np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)
    counts = points.counts
    nothing = counts == nan + inf
    with np.errstate(over="ignore"):
        total = np.add.reduceat(value, starts)
    least[nothing], most[nothing] = np.nan, np.nan
    return Summaries(
        counts,
        points.step[starts],
        points.step[ends],
        points.value[ends],
        points.time[ends],
        least,
        most,
        total,
        nan,
        inf,
    )


def _by_series(rows: list[Rows]) -> Points:
    """Put series together one by one: a series of one ordered schema is a slice."""
    parts: dict[tuple[str, int], list[tuple[Rows, int]]] = {}
    for one in rows:
        for column, key in enumerate(one.keys):
            parts.setdefault((key, one.rank), []).append((one, column))
    keys = sorted(parts)
    total = sum(len(one.step) for of_one in parts.values() for one, _ in of_one)
    step, time, value = np.empty(total, np.int64), np.empty(total, np.int64), np.empty(total)
    starts = np.empty(len(keys) + 1, np.int64)
    starts[0] = at = 0
    orders: dict[tuple[int, ...], tuple[Any, Any, Any]] = {}
    for group, series in enumerate(keys):
        of_one = sorted(parts[series], key=lambda part: (part[0].ordinal, int(part[0].arrival[0])))
        shared = tuple(id(one) for one, _ in of_one)
        if shared not in orders:
            orders[shared] = _order([one for one, _ in of_one])
        steps, times, order = orders[shared]
        end = at + len(steps)
        step[at:end], time[at:end] = steps, times
        if order is None:
            for one, column in of_one:
                value[at : at + len(one.step)] = one.values[:, column]
                at += len(one.step)
        else:
            value[at:end] = np.concatenate([one.values[:, column] for one, column in of_one])[order]
        at = end
        starts[group + 1] = end
    names = sorted({name for name, _ in keys})
    place = {name: index for index, name in enumerate(names)}
    metric = np.array([place[name] for name, _ in keys], np.int32)
    rank = np.array([rank for _, rank in keys], np.int16)
    return Points(names, metric, rank, starts, step[:at], time[:at], value[:at])


def _order(rows: list[Rows]) -> tuple[Any, Any, Any]:
    """Return the sorted steps and times of rows taken together, and which of them they are; None for all, in order."""
    step = np.concatenate([one.step for one in rows]) if len(rows) > 1 else rows[0].step
    time = np.concatenate([one.time for one in rows]) if len(rows) > 1 else rows[0].time
    if (step[1:] > step[:-1]).all():
        return step, time, None
    arrival = np.concatenate([one.arrival for one in rows])
    keys = [arrival, step] if len({one.ordinal for one in rows}) == 1 else [arrival, time, step]
    order = np.lexsort(keys)
    ordered = step[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    order = order[last]
    return step[order], time[order], order


def _all_at_once(columns: Columns) -> Points:
    """Sort all values in one go: for very many short series."""
    loose = columns.loose
    keys = {(key, one.rank) for one in columns.rows for key in one.keys} | set(
        zip(loose.names, loose.ranks, strict=True)
    )
    ordered = sorted(keys)
    place = {key: index for index, key in enumerate(ordered)}
    groups = [np.tile([place[key, one.rank] for key in one.keys], len(one.step)) for one in columns.rows]
    groups.append(np.array([place[key] for key in zip(loose.names, loose.ranks, strict=True)], np.int64))

    def column(of_rows: str, of_loose: Any) -> Any:  # noqa: ANN401 -- arrays
        spread = [np.repeat(getattr(one, of_rows), len(one.keys)) for one in columns.rows]
        return np.concatenate([*spread, of_loose])

    step = column("step", np.array(loose.steps, np.int64))
    time = column("time", micros_of(np.array(loose.times, np.float64)))
    arrival = column("arrival", np.array(loose.arrivals, np.int64))
    value = np.concatenate([*(one.values.reshape(-1) for one in columns.rows), np.array(loose.values, np.float64)])
    ordinals = {*(one.ordinal for one in columns.rows), *loose.ordinals}
    group = np.concatenate(groups).astype(np.int64)
    order = np.lexsort([arrival, step, group] if len(ordinals) == 1 else [arrival, time, step, group])
    group, step = group[order], step[order]
    last = np.append((group[1:] != group[:-1]) | (step[1:] != step[:-1]), True)
    order, group, step = order[last], group[last], step[last]
    edges = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    starts = np.append(edges, len(group))
    there = group[edges]
    names = sorted({name for name, _ in ordered})
    of_name = {name: index for index, name in enumerate(names)}
    metric = np.array([of_name[name] for name, _ in ordered], np.int32)[there]
    rank = np.array([rank for _, rank in ordered], np.int16)[there]
    return Points(names, metric, rank, starts, step, time[order], value[order])


def _tightened(columns: Columns) -> list[Rows]:
    """Return loose values as rows of one key each."""
    loose = columns.loose
    places: dict[tuple[str, int, int], list[int]] = {}
    for index, key in enumerate(zip(loose.names, loose.ranks, loose.ordinals, strict=True)):
        places.setdefault(key, []).append(index)
    steps, times = np.array(loose.steps, np.int64), micros_of(np.array(loose.times, np.float64))
    values, arrivals = np.array(loose.values, np.float64), np.array(loose.arrivals, np.int64)
    return [
        Rows((name,), rank, ordinal, steps[at], times[at], values[at].reshape(-1, 1), arrivals[at])
        for (name, rank, ordinal), at in places.items()
    ]


__all__ = ["Points", "Summaries", "arrange", "summarise"]
