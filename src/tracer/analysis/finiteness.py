"""Where a metric, a gradient, a weight or an activation is NaN or infinite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tracer.analysis.kinds import NAN_OR_INF
from tracer.analysis.statistics import Steps, Values, stretches
from tracer.analysis.windows import GRADIENTS, Window
from tracer.events import Finding

#: Who logs NaN in most rows, and goes on, means "not measured here".
_PLACEHOLDER_SHARE, _PLACEHOLDER_STRETCHES = 0.5, 3


def metric_not_finite(window: Window) -> list[Finding]:
    """Find where a metric is NaN or infinite; see `nan_or_inf`.

    A metric that is NaN in most rows and has numbers between them all along holds the place of "not measured": one
    finding of severity `low`.
    """
    found = nan_or_inf(window.steps, window.values, metric=window.name)
    if len(found) >= _PLACEHOLDER_STRETCHES and not np.isinf(window.values).any():
        share, known = np.isnan(window.values).mean(), np.flatnonzero(np.isfinite(window.values))
        longest = max(last - first for first, last in stretches(np.isnan(window.values)))
        if share >= _PLACEHOLDER_SHARE and len(window) - known[-1] <= 2 * longest + 1:
            details = {**found[0].details, "num_nans": int(np.isnan(window.values).sum()), "placeholder": True}
            return [Finding(NAN_OR_INF, "low", found[0].step, details, found[-1].last_step)]
    return found


def layers_not_finite(window: Window) -> list[Finding]:
    """Find layers with NaN or infinities in their gradients, weights or activations; see `layer_nan_or_inf`."""
    found = layer_nan_or_inf(window.steps, window.layers, window.tables["nans"], window.tables["infs"])
    if window.subject == GRADIENTS:
        return found
    return [
        Finding(one.kind, one.severity, one.step, {**one.details, "what": window.subject}, one.last_step)
        for one in found
    ]


def nan_or_inf(steps: Steps, values: Values, *, metric: str) -> list[Finding]:
    """Find where a metric is NaN or infinite.

    Args:
        steps: The steps, ascending.
        values: The metric at each step.
        metric: The name that the findings bear.

    Returns:
        Findings `nan_or_inf`, always critical, one for each unbroken stretch, with `metric`, `num_nans`, `num_infs`.

    Example:
        >>> import numpy as np
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
        >>> import numpy as np
        >>> none = np.zeros((2, 1))
        >>> [found] = layer_nan_or_inf(np.arange(2), ["fc"], np.array([[0.0], [3.0]]), none)
        >>> found.step, found.details["layer"], found.details["num_nans"]
        (1, 'fc', 3)
    """
    findings = []
    for column, layer in enumerate(layers):
        findings += _not_finite(steps, nans[:, column], infs[:, column], {"layer": layer}, at_first=True)
    return sorted(findings, key=lambda found: found.step)


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


__all__ = ["layer_nan_or_inf", "layers_not_finite", "metric_not_finite", "nan_or_inf"]
