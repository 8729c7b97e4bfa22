"""Rollups: long series in steps of 1,024 points, so that wide ranges are drawn without reading every point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.storage.overview import grouped

if TYPE_CHECKING:
    from tracer.storage.points import Points

#: Points of one row of a rollup, and from how many points on a series has one.
WIDTH = 1024
LONG = 65_536


def rollup_columns(points: Points) -> dict[str, Any] | None:
    """Return the columns of the rollup of all long series, or None where none is long."""
    long = np.flatnonzero(points.counts > LONG)
    if not len(long):
        return None
    parts = [_rolled(points, int(group)) for group in long]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _rolled(points: Points, group: int) -> dict[str, Any]:
    """Return the columns of one series."""
    begin, end = int(points.starts[group]), int(points.starts[group + 1])
    step, time, value = points.step[begin:end], points.time[begin:end], points.value[begin:end]
    edges = np.arange(0, len(step), WIDTH)
    ends = np.append(edges[1:], len(step)) - 1
    n, bad, least, most, mean = grouped(edges, value)
    nan = np.add.reduceat(np.isnan(value), edges, dtype=np.int64)
    return {
        "metric": np.full(len(edges), points.names[points.metric[group]], dtype=object),
        "rank": np.full(len(edges), points.rank[group], np.int16),
        "first_step": step[edges], "last_step": step[ends], "first_time": time[edges], "last_time": time[ends],
        "n": n, "nan": nan, "inf": bad - nan, "min": least, "max": most,
        "sum": np.where(n > bad, mean * (n - bad), 0.0), "first": value[edges], "last": value[ends],
    }  # fmt: skip


__all__ = ["LONG", "WIDTH", "rollup_columns"]
