"""Gradients that explode or vanish: judged by each layer's own past, and by thresholds where they are asked for.

`explosions` and `vanishing` need no threshold: they compare a norm with what is usual for its layer, on a logarithmic
scale, and layers with each other. `gradient_anomalies` is the rule of the Tracer documents with its two thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tracer.analysis import histories
from tracer.analysis.kinds import GRADIENT_EXPLOSION, VANISHING_GRADIENT
from tracer.analysis.losses import LOSS_THRESHOLD, course_departures, joined
from tracer.analysis.statistics import Steps, Values, stretches
from tracer.analysis.windows import Window
from tracer.events import Finding

_CRITICAL_NORM = 1000.0
#: A norm this many times the median of its past exploded, even where it stays under the absolute threshold …
_NORM_RATIO = 100.0
#: … but not below this share of that threshold: a converged model's tiny norms jump by such factors on their own.
_NORM_FLOOR = 0.01
_NORM_HISTORY = 10

#: A norm exploded at so many times what is usual, and so many times the largest of its recent past …
_TIMES_USUAL, _TIMES_TOP = 10.0, 3.0
#: … and it is grave at so many times.
_TIMES_HIGH = 100.0
#: Until there is a past, what exceeds all values before by so much exploded.
_TIMES_START, _START = 30.0, 4
#: A norm that grew by so much over the whole training, slowly, and is large, exploded too.
_TIMES_DRIFT = 1000.0
#: A gradient vanished at this share of what is usual for its layer …
_VANISHED = 1e-3
#: … or at this share of the largest gradients of the same steps.
_BELOW_OTHERS = 1e-6
_LARGE_LAYERS = 0.9
_FEW_LAYERS = 3


def explosions(
    window: Window, *, explosion_threshold: float = 100.0, times: float = _TIMES_USUAL, sigmas: float = LOSS_THRESHOLD
) -> list[Finding]:
    """Find layers whose gradient norm leaps far above its own past.

    A norm is compared with the rows before it, on a logarithmic scale: it exploded at `times` what is usual and
    `sigmas` times its noise, when it also exceeds the recent largest ones. The absolute
    threshold only grades what was found; it decides alone where there are fewer rows than a past needs.

    Args:
        window: Gradients with the table `norm`.
        explosion_threshold: A norm above it is grave.
        times: How many times the usual norm.
        sigmas: How many times the usual noise of the norm's logarithm.

    Returns:
        Findings `gradient_explosion` with `layer`, `norm`, `threshold`, `ratio` and `usual`.

    Example:
        >>> import numpy as np
        >>> norms = np.full((100, 1), 0.2)
        >>> norms[70] = 40.0
        >>> found = explosions(Window("gradients", "gradients", np.arange(100), layers=("fc",), tables={"norm": norms}))
        >>> [(one.step, one.details["layer"], round(one.details["ratio"])) for one in found]
        [(70, 'fc', 200)]
    """
    norms = np.asarray(window.tables["norm"], dtype=np.float64)
    if len(window) <= histories.BLOCK:
        return [
            found
            for found in gradient_anomalies(
                window.steps, window.layers, norms, explosion_threshold=explosion_threshold, vanishing_threshold=0.0
            )
            if found.kind == GRADIENT_EXPLOSION
        ]
    findings: list[Finding] = []
    for group in histories.column_groups(norms.shape[1]):
        part = norms[:, group]
        logs = np.where(np.isposinf(part), np.log(np.finfo(np.float64).max), histories.logarithms(part))
        past = histories.usual(logs)
        with np.errstate(invalid="ignore"):
            leapt = (logs > past.middle + np.maximum(np.log(times), sigmas * past.spread)) & (
                logs > past.top + np.log(_TIMES_TOP)
            )
            drifted = (logs > past.lowest + np.log(_TIMES_DRIFT)) & (part > explosion_threshold)
        usual = np.where(leapt, past.middle, past.lowest)
        begun, before = _exploded_at_start(logs)
        marked = leapt | drifted | begun
        usual = np.where(begun, before, usual)
        for column in np.flatnonzero(marked.any(axis=0)).tolist():
            layer = window.layers[group.start + column]
            findings += _exploded(window.steps, part[:, column], marked[:, column], usual[:, column], layer)
    for found in findings:
        _graded(found, explosion_threshold)
    return sorted(findings, key=lambda found: found.step)


def vanishing(
    window: Window, *, vanishing_threshold: float = 1e-7, share: float = _VANISHED, below: float = _BELOW_OTHERS
) -> list[Finding]:
    """Find layers whose gradient is next to nothing beside its own past, or beside the other layers.

    Training that converges takes all gradients down together and slowly, which is no finding. Biases are not compared
    with other layers: before a normalisation their gradient is nothing by nature.

    Args:
        window: Gradients with the table `norm`.
        vanishing_threshold: Only a norm below it can have vanished beside its own past.
        share: At this share of what is usual for the layer it has.
        below: At this share of the largest layers' norms it has, over a block of steps.

    Returns:
        Findings `vanishing_gradient` with `layer`, `norm`, `threshold`, `ratio` and `usual`.

    Example:
        >>> import numpy as np
        >>> norms = np.full((100, 1), 0.2)
        >>> norms[70:] = 1e-9
        >>> found = vanishing(Window("gradients", "gradients", np.arange(100), layers=("fc",), tables={"norm": norms}))
        >>> [(one.step, one.last_step, one.details["layer"]) for one in found]
        [(70, 99, 'fc')]
    """
    norms = np.asarray(window.tables["norm"], dtype=np.float64)
    if len(window) <= histories.BLOCK:
        return [
            found
            for found in gradient_anomalies(
                window.steps, window.layers, norms, explosion_threshold=np.inf, vanishing_threshold=vanishing_threshold
            )
            if found.kind == VANISHING_GRADIENT
        ]
    findings: list[Finding] = []
    for group in histories.column_groups(norms.shape[1]):
        part = norms[:, group]
        past = histories.usual(histories.logarithms(part)).middle
        with np.errstate(invalid="ignore", over="ignore"):
            fell = (part < vanishing_threshold) & (part < share * np.exp(past))
        for column in np.flatnonzero(fell.any(axis=0)).tolist():
            details: dict[str, object] = {"layer": window.layers[group.start + column]}
            series, usual = part[:, column], past[:, column]
            for first, last in _while_below(fell[:, column], series, vanishing_threshold):
                least = float(np.nanmin(series[first : last + 1]))
                norm = float(np.exp(usual[first]))
                evidence = {"norm": least, "threshold": vanishing_threshold, "ratio": least / norm, "usual": norm}
                steps = int(window.steps[first]), int(window.steps[last])
                findings.append(Finding(VANISHING_GRADIENT, "medium", steps[0], details | evidence, steps[1]))
    return sorted([*findings, *_below_others(window, norms, below)], key=lambda found: found.step)


def logged_norm_explosions(window: Window, *, explosion_threshold: float = 100.0, ratio: float = 10.0) -> list[Finding]:
    """Find explosions in a gradient norm that was logged as a plain metric; see `norm_anomalies`."""
    return norm_anomalies(
        window.steps, window.values, metric=window.name, explosion_threshold=explosion_threshold, ratio=ratio
    )


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
        >>> import numpy as np
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
    z_scores, courses = course_departures(np.log(values), _NORM_HISTORY)
    later, late_steps = values[_NORM_HISTORY:], steps[_NORM_HISTORY:]
    marked = (z_scores > LOSS_THRESHOLD) & (later > ratio * np.exp(courses))
    findings = []
    for first, last in joined(stretches(marked), _NORM_HISTORY):
        peak = first + int(np.argmax(later[first : last + 1]))
        norm, times = float(later[peak]), float(later[peak] / np.exp(courses[first]))
        severity = "critical" if norm > _CRITICAL_NORM else "high" if norm > explosion_threshold else "medium"
        details = {"layer": metric, "norm": norm, "threshold": explosion_threshold, "ratio": times, "metric": metric}
        findings.append(Finding(GRADIENT_EXPLOSION, severity, int(late_steps[first]), details, int(late_steps[last])))
    return findings


def _relative_explosions(series: Values, threshold: float) -> Values:
    """Return norm over median of its past where that is an explosion, else 0."""
    ratios = np.zeros(len(series))
    for index in np.flatnonzero((series > _NORM_FLOOR * threshold) & (series <= threshold)).tolist():
        past = series[max(0, index - 10 * _NORM_HISTORY) : index]
        past = past[np.isfinite(past) & (past > 0)]
        if len(past) >= _NORM_HISTORY and series[index] > _NORM_RATIO * float(np.median(past)):
            ratios[index] = series[index] / float(np.median(past))
    return ratios


def _exploded_at_start(logs: Values) -> tuple[NDArray[np.bool_], Values]:
    """Return where one of the first rows exceeds all before it by far, and the middle of those before it."""
    marked, before = np.zeros(logs.shape, dtype=bool), np.full(logs.shape, np.nan)
    if len(logs) <= _START:
        return marked, before
    first = logs[: histories.BLOCK]
    largest, least = np.full(logs.shape[1], -np.inf), np.full(logs.shape[1], np.inf)
    for row in range(len(first)):
        with np.errstate(invalid="ignore"):
            bar = largest + np.maximum(np.log(_TIMES_START), 2 * (largest - least))
            marked[row] = (first[row] > bar) & (row >= _START) & np.isfinite(largest)
        before[row] = largest
        # What exploded is no past: all that follows is held against the norms before it.
        largest = np.where(marked[row], largest, np.fmax(largest, first[row]))
        least = np.where(marked[row], least, np.fmin(least, first[row]))
    return marked, before


def _exploded(steps: Steps, series: Values, marked: NDArray[np.bool_], usual: Values, layer: str) -> list[Finding]:
    """Return a finding for each stretch of a layer's explosions."""
    findings = []
    for first, last in joined(stretches(marked), histories.BLOCK):
        peak = first + int(np.nanargmax(np.where(marked[first : last + 1], series[first : last + 1], -np.inf)))
        norm, before = float(series[peak]), float(np.exp(usual[peak]))
        details = {"layer": layer, "norm": norm, "threshold": 0.0, "ratio": norm / before, "usual": before}
        findings.append(Finding(GRADIENT_EXPLOSION, "medium", int(steps[first]), details, int(steps[last])))
    return findings


def _graded(found: Finding, threshold: float) -> None:
    """Set how grave an explosion is."""
    found.details = {**found.details, "threshold": threshold}
    norm, ratio = (float(str(found.details[name])) for name in ("norm", "ratio"))
    high = norm > threshold or (ratio > _TIMES_HIGH and norm > _NORM_FLOOR * threshold)
    found.severity = "critical" if norm > _CRITICAL_NORM else "high" if high else "medium"


def _while_below(marked: NDArray[np.bool_], series: Values, threshold: float) -> list[tuple[int, int]]:
    """Return the marked stretches, each up to where the series rises above a threshold again."""
    low = stretches((series < threshold) | marked)
    return [
        (first + int(np.argmax(marked[first : last + 1])), last)
        for first, last in low
        if marked[first : last + 1].any()
    ]


def _below_others(window: Window, norms: Values, below: float) -> list[Finding]:
    """Return layers whose gradients stay far below those of the largest layers, for blocks of rows."""
    judged = [at for at, layer in enumerate(window.layers) if not layer.endswith("bias")]
    if len(judged) < _FEW_LAYERS:
        return []
    count = len(norms) // histories.BLOCK
    logs = histories.logarithms(norms[: count * histories.BLOCK, judged])
    middles = histories.block_figures(logs)[0]
    measured = middles[:, np.isfinite(middles).any(axis=0)]
    if measured.shape[1] < _FEW_LAYERS:
        return []
    large = _quantile_of_rows(middles, _LARGE_LAYERS)
    findings = []
    for place, column in enumerate(judged):
        with np.errstate(invalid="ignore"):
            low = middles[:, place] < large + np.log(below)
        for first, last in stretches(low):
            worst = first + int(np.argmin(middles[first : last + 1, place]))
            norm, usual = float(np.exp(middles[worst, place])), float(np.exp(large[worst]))
            details = {
                "layer": window.layers[column], "norm": norm, "threshold": below * usual, "ratio": norm / usual,
                "usual": usual, "beside": "other layers",
            }  # fmt: skip
            ends = int(window.steps[first * histories.BLOCK]), int(window.steps[(last + 1) * histories.BLOCK - 1])
            findings.append(Finding(VANISHING_GRADIENT, "medium", ends[0], details, ends[1]))
    return findings


def _quantile_of_rows(values: Values, share: float) -> Values:
    """Return a quantile of the known values of each row; NaN where there is none."""
    known = np.isfinite(values).any(axis=1)
    found = np.full(len(values), np.nan)
    if known.any():
        found[known] = np.nanquantile(values[known], share, axis=1)
    return found


__all__ = ["explosions", "gradient_anomalies", "logged_norm_explosions", "norm_anomalies", "vanishing"]
