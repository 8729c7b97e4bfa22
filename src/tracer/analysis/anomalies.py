"""What went wrong in a run, and at which step: arrays in, findings out.

Every detector measures a series against its own noise and its own past, so a noisy curve is not an alarm; consecutive
steps with one trouble are one finding from `step` to `last_step`. `anomaly_detection` reads the store for them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tracer.analysis.statistics import Steps, Values, deviation, local_noise, stretches
from tracer.events import Finding

GRADIENT_EXPLOSION, VANISHING_GRADIENT = "gradient_explosion", "vanishing_gradient"
LOSS_SPIKE, LOSS_DROP = "loss_spike", "loss_drop"
NAN_OR_INF, MEMORY_SPIKE = "nan_or_inf", "memory_spike"
KINDS = (GRADIENT_EXPLOSION, VANISHING_GRADIENT, LOSS_SPIKE, LOSS_DROP, NAN_OR_INF, MEMORY_SPIKE)

#: So many times its own noise must a loss leave its course; 3 would fire on every few hundred points of pure noise.
LOSS_THRESHOLD = 8.0
_HIGH_Z = 2 * LOSS_THRESHOLD
_CRITICAL_NORM = 1000.0
_HIGH_MEMORY = 95.0
#: A norm this many times the median of its past exploded, even where it stays under the absolute threshold …
_NORM_RATIO = 100.0
#: … but not below this share of that threshold: a converged model's tiny norms jump by such factors on their own.
_NORM_FLOOR = 0.01
_NORM_HISTORY = 10
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
    z_scores, courses = _departures(values, window_size)
    if values.min() > 0:
        # On both scales: the sign is the same, so the smaller size is what both agree on.
        logarithmic = np.abs(_departures(np.log(values), window_size)[0])
        size = np.abs(z_scores)
        z_scores = np.sign(z_scores) * np.maximum(np.minimum(logarithmic, size), size / _PLAIN_FACTOR)
    bar = threshold * max(1.0, 1 + _PER_DECADE * np.log10(len(values) / 1000))
    if len(z_scores) >= _TAIL_POINTS:
        bar = max(bar, _TAIL_FACTOR * float(np.quantile(np.abs(z_scores), _TAIL_QUANTILE)))
    later, late_steps = values[window_size:], steps[window_size:]
    findings = []
    for kind, sign in ((LOSS_SPIKE, 1.0), (LOSS_DROP, -1.0)):
        for first, last in _joined(stretches(sign * z_scores > bar), window_size):
            peak = first + int(np.argmax(sign * z_scores[first : last + 1]))
            z_score = float(z_scores[peak])
            details: dict[str, object] = {
                "loss": float(later[peak]),
                "window_mean": float(courses[first]),
                "z_score": z_score,
                "metric": metric,
            }
            severity = "high" if abs(z_score) > _HIGH_Z else "medium"
            if kind == LOSS_SPIKE:
                details["recovered"] = _came_back(later, first, window_size, float(courses[first]))
            findings.append(Finding(kind, severity, int(late_steps[first]), details, int(late_steps[last])))
    return sorted(findings, key=lambda found: found.step)


def gradient_anomalies(
    steps: Steps,
    layers: Sequence[str],
    norms: NDArray[np.float32] | Values,
    *,
    explosion_threshold: float = 100.0,
    vanishing_threshold: float = 1e-7,
) -> list[Finding]:
    """Find layers whose gradient explodes or vanishes.

    A norm explodes above `explosion_threshold`, and also at a hundred times the median of its own past. It vanishes
    below `vanishing_threshold`; a layer that was frozen or unused all along has norm 0 and is reported once.

    Args:
        steps: The steps, ascending.
        layers: The names of the columns.
        norms: A matrix, a row per step, a column per layer; NaN means that it was not measured or not a number.
        explosion_threshold: The norm above which a gradient exploded.
        vanishing_threshold: The norm below which it vanished.

    Returns:
        Findings `gradient_explosion` and `vanishing_gradient` with `layer`, `norm` (the most extreme) and `threshold`.

    Example:
        >>> norms = np.array([[1.0], [250.0], [1.0]])
        >>> [(found.step, found.severity) for found in gradient_anomalies(np.arange(3), ["fc"], norms)]
        [(1, 'high')]
    """
    findings = []
    for column, layer in enumerate(layers):
        series = np.asarray(norms[:, column], dtype=np.float64)
        with np.errstate(invalid="ignore"):
            relative = _relative_explosions(series, explosion_threshold)
            exploded, vanished = (series > explosion_threshold) | (relative > 0), series < vanishing_threshold
        for first, last in stretches(exploded):
            peak = first + int(np.argmax(series[first : last + 1]))
            norm = float(series[peak])
            details: dict[str, object] = {"layer": layer, "norm": norm, "threshold": explosion_threshold}
            if relative[peak]:
                details["ratio"] = float(relative[peak])
            severity = "critical" if norm > _CRITICAL_NORM else "high" if norm > explosion_threshold else "medium"
            findings.append(Finding(GRADIENT_EXPLOSION, severity, int(steps[first]), details, int(steps[last])))
        for first, last in stretches(vanished):
            details = {"layer": layer, "norm": float(series[first : last + 1].min()), "threshold": vanishing_threshold}
            findings.append(Finding(VANISHING_GRADIENT, "medium", int(steps[first]), details, int(steps[last])))
    return sorted(findings, key=lambda found: found.step)


def norm_anomalies(
    steps: Steps, values: Values, *, metric: str, explosion_threshold: float = 100.0, ratio: float = 10.0
) -> list[Finding]:
    """Find explosions in a gradient norm that was logged as a plain metric.

    Its natural size is unknown, so it has to be an outlier on a logarithmic scale and `ratio` times its own past.
    """
    known = np.isfinite(values) & (values > 0)
    steps, values = steps[known], values[known]
    if len(values) <= _NORM_HISTORY:
        return []
    z_scores, courses = _departures(np.log(values), _NORM_HISTORY)
    later, late_steps = values[_NORM_HISTORY:], steps[_NORM_HISTORY:]
    marked = (z_scores > LOSS_THRESHOLD) & (later > ratio * np.exp(courses))
    findings = []
    for first, last in _joined(stretches(marked), _NORM_HISTORY):
        peak = first + int(np.argmax(later[first : last + 1]))
        norm, times = float(later[peak]), float(later[peak] / np.exp(courses[first]))
        severity = "critical" if norm > _CRITICAL_NORM else "high" if norm > explosion_threshold else "medium"
        details = {"layer": metric, "norm": norm, "threshold": explosion_threshold, "ratio": times, "metric": metric}
        findings.append(Finding(GRADIENT_EXPLOSION, severity, int(late_steps[first]), details, int(late_steps[last])))
    return findings


def nan_or_inf(steps: Steps, values: Values, *, metric: str) -> list[Finding]:
    """Find where a metric is NaN or infinite.

    Args:
        steps: The steps, ascending.
        values: The metric at each step.
        metric: The name that the findings bear.

    Returns:
        Findings `nan_or_inf`, always critical, one for each unbroken stretch, with `metric`, `num_nans`, `num_infs`.

    Example:
        >>> [found] = nan_or_inf(np.arange(4), np.array([1.0, np.nan, np.inf, 1.0]), metric="loss")
        >>> found.step, found.last_step, found.details["num_nans"], found.details["num_infs"]
        (1, 2, 1, 1)
    """
    nans, infs = np.isnan(values), np.isinf(values)
    return _not_finite(steps, nans.astype(np.float64), infs.astype(np.float64), {"metric": metric, "layer": None})


def layer_nan_or_inf(
    steps: Steps, layers: Sequence[str], nans: NDArray[np.float32] | Values, infs: NDArray[np.float32] | Values
) -> list[Finding]:
    """Find layers whose gradients held NaN or infinities.

    Args:
        steps: The steps, ascending.
        layers: The names of the columns.
        nans: How many values were NaN: a matrix, a row per step, a column per layer.
        infs: How many were infinite, likewise.

    Returns:
        Findings `nan_or_inf` with `layer`, `num_nans`, `num_infs` of the first bad step of each stretch.

    Example:
        >>> none = np.zeros((2, 1))
        >>> [found] = layer_nan_or_inf(np.arange(2), ["fc"], np.array([[0.0], [3.0]]), none)
        >>> found.step, found.details["layer"], found.details["num_nans"]
        (1, 'fc', 3)
    """
    findings = []
    for column, layer in enumerate(layers):
        findings += _not_finite(steps, nans[:, column], infs[:, column], {"layer": layer}, at_first=True)
    return sorted(findings, key=lambda found: found.step)


def memory_spikes(
    steps: Steps, percents: Values, *, threshold: float = 90.0, gpu: str | None = None, metric: str | None = None
) -> list[Finding]:
    """Find where memory was nearly full.

    Args:
        steps: The steps, ascending.
        percents: How full it was, from 0 to 100.
        threshold: Above this it is a finding.
        gpu: Which GPU it is; None for the machine's own memory.
        metric: The metric it came from.

    Returns:
        Findings `memory_spike` with `gpu`, `memory_util` (the highest of the stretch) and `threshold`.

    Example:
        >>> [found] = memory_spikes(np.arange(3), np.array([50.0, 97.0, 50.0]), gpu="0")
        >>> found.severity, found.details["memory_util"]
        ('high', 97.0)
    """
    findings = []
    with np.errstate(invalid="ignore"):
        marked = percents > threshold
    for first, last in stretches(marked):
        peak = float(np.nanmax(percents[first : last + 1]))
        details: dict[str, object] = {"gpu": gpu, "memory_util": peak, "threshold": threshold}
        if metric is not None:
            details["metric"] = metric
        severity = "high" if peak > _HIGH_MEMORY else "medium"
        findings.append(Finding(MEMORY_SPIKE, severity, int(steps[first]), details, int(steps[last])))
    return findings


def _departures(values: Values, window: int) -> tuple[Values, Values]:
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


def _joined(found: list[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
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


def _relative_explosions(series: Values, threshold: float) -> Values:
    """Return norm over median of its past where that is an explosion, else 0."""
    ratios = np.zeros(len(series))
    for index in np.flatnonzero((series > _NORM_FLOOR * threshold) & (series <= threshold)).tolist():
        past = series[max(0, index - 10 * _NORM_HISTORY) : index]
        past = past[np.isfinite(past) & (past > 0)]
        if len(past) >= _NORM_HISTORY and series[index] > _NORM_RATIO * float(np.median(past)):
            ratios[index] = series[index] / float(np.median(past))
    return ratios


def _not_finite(
    steps: Steps,
    nans: NDArray[np.float32] | Values,
    infs: NDArray[np.float32] | Values,
    names: dict[str, object],
    *,
    at_first: bool = False,
) -> list[Finding]:
    """Return a finding for each stretch in which something was NaN or infinite."""
    findings = []
    for first, last in stretches((nans > 0) | (infs > 0)):
        counted = slice(first, first + 1 if at_first else last + 1)
        details = {**names, "num_nans": int(np.nansum(nans[counted])), "num_infs": int(np.nansum(infs[counted]))}
        findings.append(Finding(NAN_OR_INF, "critical", int(steps[first]), details, int(steps[last])))
    return findings


__all__ = [
    "KINDS",
    "gradient_anomalies",
    "layer_nan_or_inf",
    "loss_anomalies",
    "memory_spikes",
    "nan_or_inf",
    "norm_anomalies",
]
