"""Where a loss leaves its own course, upwards or downwards.

A series is measured against its own noise and its own past, so a noisy curve is not an alarm; consecutive steps with
one trouble are one finding from `step` to `last_step`.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tracer.analysis.kinds import LOSS_DROP, LOSS_SPIKE
from tracer.analysis.statistics import Steps, Values, deviation, local_noise, stretches
from tracer.analysis.windows import Window
from tracer.events import Finding

#: So many times its own noise must a loss leave its course; 3 would fire on every few hundred points of pure noise.
LOSS_THRESHOLD = 8.0
_HIGH_Z = 2 * LOSS_THRESHOLD
#: The range of ten values of white noise is about three standard deviations.
_RANGE_TO_SIGMA = 3.0
#: A change of less than eight per cent is no finding, however quiet the series is.
_RELATIVE_FLOOR = 0.01
#: Values that were rounded have no noise most of the time; a few of their steps are not a departure.
_QUANTUM = 0.5
#: A noise with heavy tails raises its own bar: four times what one point in twenty exceeds.
_TAIL_FACTOR, _TAIL_QUANTILE, _TAIL_POINTS = 4.0, 0.95, 100
#: The more points, the further the furthest of them lies: so much more for each tenfold above a thousand.
_PER_DECADE = 0.15
#: What is this many times the bar on the plain scale is a departure, whatever the logarithmic scale says.
_PLAIN_FACTOR = 3.0
_CHUNK = 65_536
_SMALLEST_WINDOW = 2


def departures(window: Window, *, window_size: int = 10, threshold: float = LOSS_THRESHOLD) -> list[Finding]:
    """Find spikes and drops of the loss in a window; see `loss_anomalies`."""
    return loss_anomalies(window.steps, window.values, window_size=window_size, threshold=threshold, metric=window.name)


def loss_anomalies(
    steps: Steps,
    values: Values,
    *,
    window_size: int = 10,
    threshold: float = LOSS_THRESHOLD,
    metric: str = "loss",
) -> list[Finding]:
    """Find where a loss leaves its own course, upwards or downwards.

    A point is measured against the median of the `window_size` values before it, in units of the larger of the noise
    around it and the range of that window. A loss that is always positive has to stand out on a logarithmic scale too:
    the noise of such losses is skewed.

    Args:
        steps: The steps, ascending.
        values: The loss at each step; NaN and ±Inf are left to `nan_or_inf`.
        window_size: How many values before a point are its past.
        threshold: How many times its noise a point must be away.
        metric: The name that the findings bear.

    Returns:
        Findings `loss_spike` and `loss_drop` with `loss`, `window_mean` (the median of the window), `z_score`, `metric`
        and, for a spike, `recovered`: whether the loss came back to its course.

    Example:
        >>> import numpy as np
        >>> steps = np.arange(60)
        >>> values = 1 + 0.01 * np.sin(steps * 7.0)
        >>> values[40] = 5.0
        >>> [(found.kind, found.step) for found in loss_anomalies(steps, values)]
        [('loss_spike', 40)]
    """
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    if window_size < _SMALLEST_WINDOW or len(values) <= window_size:
        return []
    z_scores, courses = course_departures(values, window_size)
    if values.min() > 0:
        # On both scales: the sign is the same, so the smaller size is what both agree on.
        logarithmic = np.abs(course_departures(np.log(values), window_size)[0])
        size = np.abs(z_scores)
        z_scores = np.sign(z_scores) * np.maximum(np.minimum(logarithmic, size), size / _PLAIN_FACTOR)
    bar = threshold * max(1.0, 1 + _PER_DECADE * np.log10(len(values) / 1000))
    if len(z_scores) >= _TAIL_POINTS:
        bar = max(bar, _TAIL_FACTOR * float(np.quantile(np.abs(z_scores), _TAIL_QUANTILE)))
    later, late_steps = values[window_size:], steps[window_size:]
    findings = []
    for kind, sign in ((LOSS_SPIKE, 1.0), (LOSS_DROP, -1.0)):
        for first, last in joined(stretches(sign * z_scores > bar), window_size):
            peak = first + int(np.argmax(sign * z_scores[first : last + 1]))
            z_score = float(z_scores[peak])
            details: dict[str, object] = {
                "loss": float(later[peak]),
                "window_mean": float(courses[first]),
                "z_score": z_score,
                "metric": metric,
            }
            severity = "high" if z_score > _HIGH_Z else "medium"  # a drop may be progress
            if kind == LOSS_SPIKE:
                details["recovered"] = _came_back(later, first, window_size, float(courses[first]))
            findings.append(Finding(kind, severity, int(late_steps[first]), details, int(late_steps[last])))
    return sorted(findings, key=lambda found: found.step)


def course_departures(values: Values, window: int) -> tuple[Values, Values]:
    """Return how far each value after the first window is from the window before it, in its noise, and that course."""
    count = len(values) - window
    past = sliding_window_view(values, window)[:count]
    courses, ranges = np.empty(count), np.empty(count)
    for start in range(0, count, _CHUNK):  # a median copies its windows: by parts, a million points stay small
        part = past[start : start + _CHUNK]
        courses[start : start + _CHUNK] = np.median(part, axis=1)
        ranges[start : start + _CHUNK] = part.max(axis=1) - part.min(axis=1)
    low, high = np.quantile(values, (0.05, 0.95))
    floor = np.maximum(
        _RELATIVE_FLOOR * np.minimum(np.abs(courses), high - low + np.abs(courses) / 2), 0.01 * (high - low)
    )
    moves = np.abs(np.diff(values))
    moves = moves[moves > 0]
    if len(moves) >= window:  # fewer moves are the spikes of a series that stands still
        floor = np.maximum(floor, _QUANTUM * moves.min())
    scale = np.maximum.reduce([local_noise(values)[window:], ranges / _RANGE_TO_SIGMA, floor])
    scale = np.where(scale > 0, scale, np.finfo(np.float64).tiny)
    return (values[window:] - courses) / scale, courses


def joined(found: list[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Merge stretches that follow each other within a gap: the echo of a spike is not another one."""
    joined: list[tuple[int, int]] = []
    for first, last in found:
        if joined and first - joined[-1][1] <= gap:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined


def _came_back(values: Values, first: int, window: int, course: float) -> bool | None:
    """Tell whether the loss returned to its course within the next five windows; None while that is still open."""
    after = values[first + 1 : first + 1 + 5 * window]
    if len(after) < window:
        return None
    reach = abs(values[first] - course) / 4
    return bool(np.median(after[-window:]) <= course + max(reach, 3 * deviation(after)))


__all__ = ["LOSS_THRESHOLD", "course_departures", "departures", "joined", "loss_anomalies"]
