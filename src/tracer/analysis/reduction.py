"""A series in as many columns as a chart has: least, greatest and last value of each, so that no spike is lost."""

from __future__ import annotations

import numpy as np

from tracer.analysis.columns import Columns
from tracer.analysis.statistics import Values


def reduce_series(x: Values, y: Values, columns: int) -> Columns:
    """Reduce a series to columns of equal width along x.

    Args:
        x: Where the values lie, ascending.
        y: The values.
        columns: How many columns there are; a series with fewer points keeps them all.

    Returns:
        The columns that hold a finite value, in order. The same series gives the same columns, always.

    Example:
        >>> reduced = reduce_series(np.arange(1000.0), np.where(np.arange(1000) == 500, 9.0, 1.0), 10)
        >>> len(reduced.x), max(reduced.high)
        (10, 9.0)
    """
    x = np.asarray(x, dtype=np.float64)
    known = np.isfinite(y)
    bad_x, bad_y = x[~known], y[~known]
    x, y = x[known], y[known]
    if len(x) <= columns:
        middle, low, high, last, mean = x, y, y, y, y
    else:
        span = (x[-1] - x[0]) or 1.0
        place = np.minimum(((x - x[0]) / span * columns).astype(np.int64), columns - 1)
        starts = np.flatnonzero(np.concatenate([[True], place[1:] != place[:-1]]))
        low, high = np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)
        ends = np.concatenate([starts[1:], [len(x)]]) - 1
        middle, last = (x[starts] + x[ends]) / 2, y[ends]
        with np.errstate(over="ignore"):
            mean = np.clip(np.add.reduceat(y, starts) / (ends + 1 - starts), low, high)
        middle[0], middle[-1] = x[0], x[-1]  # so that the axis begins and ends where the series does
    # A chart has no room for more marks than columns; a long stretch of NaN is one mark per column.
    return Columns(
        tuple(middle.tolist()),
        tuple(low.tolist()),
        tuple(high.tolist()),
        tuple(last.tolist()),
        tuple(mean.tolist()),
        _thinned(bad_x[np.isnan(bad_y)], columns),
        _thinned(bad_x[bad_y == np.inf], columns),
        _thinned(bad_x[bad_y == -np.inf], columns),
    )


def _thinned(places: Values, columns: int) -> tuple[float, ...]:
    """Return at most a few marks per column."""
    if len(places) <= columns:
        return tuple(places.tolist())
    span = (places[-1] - places[0]) or 1.0
    column = np.minimum(((places - places[0]) / span * columns).astype(np.int64), columns - 1)
    return tuple(places[np.concatenate([[True], column[1:] != column[:-1]])].tolist())


__all__ = ["reduce_series"]
