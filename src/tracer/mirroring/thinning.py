"""Fewer points of a series: of each interval the first, the lowest, the highest and the last.

The first goes at once, the others when the interval is over. What waits is small, and is kept with the lane's place in
the journal, so that a lane that is killed loses none of it. A value that is not finite counts as an extreme.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from tracer.mirroring.rules import interval
from tracer.transfer import LAYER, LayerPoints, Points

#: Number in the interval, step, time, value.
_Point = list[float]
_WAITING = ("low", "high", "odd", "last")


class Thinner:
    """Thins the series of one lane.

    Args:
        kept: What `waiting` returned before.
    """

    def __init__(self, kept: Mapping[str, object] | None = None) -> None:
        #: Series → `kind name rank at count` and the points that wait.
        self.waiting: dict[str, dict[str, object]] = {key: dict(one) for key, one in (kept or {}).items()}  # type: ignore[call-overload]

    def take(self, points: Points, thin: int | str) -> Points | None:
        """Return what of these goes now."""
        by_time, length = interval(thin) or (False, 1)
        key = f"{points.KIND}:{points.rank}:{points.name}"
        series = self.waiting.get(key)
        now: list[_Point] = []
        columns = zip(points.steps.tolist(), points.times.tolist(), points.values.tolist(), strict=True)
        for step, time, value in columns:
            at = (time if by_time else step) // length
            if series is None or series["at"] != at:
                if series is not None:
                    now += _rest(series)
                series = {"kind": points.KIND, "name": points.name, "rank": points.rank, "at": at, "count": 1}
                point = [0, step, time, value]
                series |= {"low": point, "high": point} if math.isfinite(value) else {"odd": point}
                now.append(point)
                continue
            count = series["count"]
            point = [count, step, time, value]
            series["count"] = count + 1  # type: ignore[operator]  # a number that was put there above
            series["last"] = point
            if not math.isfinite(value):
                series.setdefault("odd", point)
                continue
            if "low" not in series or value < series["low"][3]:  # type: ignore[index]  # a point, as above
                series["low"] = point
            if "high" not in series or value > series["high"][3]:  # type: ignore[index]
                series["high"] = point
        if series is not None:
            self.waiting[key] = series
        return _made(points.KIND, points.name, points.rank, now) if now else None

    def rest(self) -> Iterator[Points]:
        """Yield what waits, at the end of the run."""
        for series in self.waiting.values():
            points = _rest(series)
            if points:
                yield _made(str(series["kind"]), str(series["name"]), int(series["rank"]), points)  # type: ignore[call-overload]
        self.waiting = {}


def _rest(series: Mapping[str, object]) -> list[_Point]:
    """Return the points of an interval that wait, in order; the first of all went at once."""
    waiting: list[_Point] = [series[name] for name in _WAITING if name in series]  # type: ignore[misc]  # put there above
    found = {point[0]: point for point in waiting}
    return [found[number] for number in sorted(found) if number != 0]


def _made(kind: str, name: str, rank: int, points: list[_Point]) -> Points:
    """Return points as they travel."""
    import numpy as np

    steps = np.array([int(point[1]) for point in points], np.int64)
    times = np.array([int(point[2]) for point in points], np.int64)
    values = np.array([point[3] for point in points], np.float64)
    return (LayerPoints if kind == LAYER else Points)(name, steps, times, values, rank)


__all__ = ["Thinner"]
