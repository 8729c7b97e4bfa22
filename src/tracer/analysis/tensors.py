"""What weights and their updates say: a layer that moves too far, not at all, that is zero, or that lost its spread."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tracer.analysis import histories
from tracer.analysis.kinds import (
    ALL_ZERO,
    POOR_WEIGHT_INITIALIZATION,
    TENSOR_VARIANCE,
    UNCHANGED_TENSOR,
    UPDATE_RATIO,
)
from tracer.analysis.losses import joined
from tracer.analysis.statistics import Values, stretches
from tracer.analysis.windows import GRADIENTS, UPDATES, Window
from tracer.events import Finding

#: An update leapt at so many times what is usual for its layer, and at so many times its noise.
_TIMES, _TOP, _SIGMAS = 10.0, 3.0, 8.0
#: A share of the weights from which a lasting update is too large, and one from which it is too small to matter.
_LARGE, _SMALL = 0.3, 1e-7
_LARGE_ONCE = 0.03
#: The first steps of an optimizer are large by nature.
_SETTLED = 4
#: So many rows in a row without any change.
_STILL_ROWS, _STILL_NORMS = 16, 64
_SPREAD_TIMES = 100.0
_SAME = 1e-7


def update_ratios(
    window: Window, *, times: float = _TIMES, large: float = _LARGE, small: float = _SMALL
) -> list[Finding]:
    """Find layers whose update is out of range beside their weights: about 0.001 is healthy.

    Biases begin at zero, where every step is large beside them, and are left out.

    Args:
        window: Updates with the table `ratio`.
        times: How many times what is usual for its layer a single update must be.
        large: A lasting ratio above this is too large for any layer.
        small: A lasting ratio below this is too small.

    Returns:
        Findings `update_ratio` with `layer`, `ratio`, `usual` or `threshold`.

    Example:
        >>> import numpy as np
        >>> ratio = np.full((100, 1), 0.001)
        >>> ratio[70] = 0.4
        >>> found = update_ratios(Window("updates", "updates", np.arange(100), layers=("fc",), tables={"ratio": ratio}))
        >>> [(one.step, one.details["layer"], round(one.details["ratio"], 2)) for one in found]
        [(70, 'fc', 0.4)]
    """
    ratios = np.asarray(window.tables["ratio"], dtype=np.float64)
    findings: list[Finding] = []
    for group in histories.column_groups(ratios.shape[1]):
        logs = histories.logarithms(ratios[:, group])
        past = histories.usual(logs)
        with np.errstate(invalid="ignore"):
            leapt = logs > past.middle + np.maximum(np.log(times), _SIGMAS * past.spread)
            leapt &= (logs > past.top + np.log(_TOP)) & (logs > np.log(_LARGE_ONCE))
        count = len(logs) // histories.BLOCK
        middles = histories.block_figures(logs[: count * histories.BLOCK])[0]
        for column in range(logs.shape[1]):
            layer = window.layers[group.start + column]
            if layer.endswith("bias"):
                continue
            for first, last in joined(stretches(leapt[:, column]), histories.BLOCK):
                peak = first + int(
                    np.argmax(np.where(leapt[first : last + 1, column], logs[first : last + 1, column], -np.inf))
                )
                details = {
                    "layer": layer, "ratio": float(np.exp(logs[peak, column])),
                    "usual": float(np.exp(past.middle[first, column])),
                }  # fmt: skip
                findings.append(_finding(UPDATE_RATIO, "medium", window, first, last, details))
            findings += _lasting(window, layer, middles[:, column], large, small)
    return sorted(findings, key=lambda found: found.step)


def unchanged(window: Window, *, rows: int | None = None) -> list[Finding]:
    """Find parameters that do not move although they receive a gradient.

    Args:
        window: Updates with the table `ratio`, or weights with `norm` and `mean`; with the partner `gradients`.
        rows: So many rows in a row without change are a finding.

    Returns:
        Findings `unchanged_tensor` with `layer` and `rows`.
    """
    gradients = window.partners[GRADIENTS]
    needed = rows or (_STILL_ROWS if window.subject == UPDATES else _STILL_NORMS)
    _, mine, theirs = np.intersect1d(window.steps, gradients.steps, assume_unique=True, return_indices=True)
    if len(mine) < needed or not gradients.has("norm"):
        return []
    place = {layer: at for at, layer in enumerate(gradients.layers)}
    findings = []
    for column, layer in enumerate(window.layers):
        if layer not in place:
            continue
        with np.errstate(invalid="ignore"):
            flows = np.asarray(gradients.tables["norm"])[theirs, place[layer]] > 0
        for first, last in stretches(_still(window, column)[mine] & flows):
            if last - first + 1 >= needed:
                details = {"layer": layer, "rows": last - first + 1}
                findings.append(
                    _finding(UNCHANGED_TENSOR, "medium", window, int(mine[first]), int(mine[last]), details)
                )
    return sorted(findings, key=lambda found: found.step)


def all_zero(window: Window, *, rows: int = histories.BLOCK) -> list[Finding]:
    """Find tensors that are nothing but zeros for many rows: gradients that never arrive, weights that never left zero.

    Args:
        window: Gradients or weights with the table `norm`.
        rows: So many rows in a row.

    Returns:
        Findings `all_zero` with `layer` and `what`.
    """
    norms = np.asarray(window.tables["norm"])
    findings = []
    for column in np.flatnonzero((norms == 0).any(axis=0)).tolist():
        layer = window.layers[column]
        if window.subject != GRADIENTS and layer.endswith("bias"):
            continue  # a bias may begin at zero, and a frozen one stays there
        for first, last in stretches(norms[:, column] == 0)[:1]:
            # A gradient that becomes nothing later has vanished, which `vanishing_gradient` says.
            if last - first + 1 >= rows and (first == 0 or window.subject != GRADIENTS):
                details: dict[str, object] = {"layer": layer, "what": window.subject}
                findings.append(_finding(ALL_ZERO, "medium" if first == 0 else "low", window, first, last, details))
    return sorted(findings, key=lambda found: found.step)


def spreads(window: Window, *, times: float = _SPREAD_TIMES) -> list[Finding]:
    """Find weights whose standard deviation collapsed, or grew far beyond what it was when training had settled.

    Args:
        window: Weights with the table `std`.
        times: By so many times.

    Returns:
        Findings `tensor_variance` with `layer`, `std`, `usual`, `ratio`.
    """
    logs = histories.logarithms(window.tables["std"])
    count = len(logs) // histories.BLOCK
    middles = histories.block_figures(logs[: count * histories.BLOCK])[0]
    findings = []
    for column, layer in enumerate(window.layers):
        series = middles[:, column]
        if not count or layer.endswith("bias") or not np.isfinite(series[0]):
            continue
        with np.errstate(invalid="ignore"):
            far = np.abs(series - series[0]) > np.log(times)
        for first, last in stretches(far):
            worst = first + int(np.argmax(np.abs(series[first : last + 1] - series[0])))
            std, usual = float(np.exp(series[worst])), float(np.exp(series[0]))
            details = {"layer": layer, "std": std, "usual": usual, "ratio": std / usual}
            rows = first * histories.BLOCK, (last + 1) * histories.BLOCK - 1
            findings.append(_finding(TENSOR_VARIANCE, "medium", window, rows[0], rows[1], details))
    return findings


def equal_weights(window: Window) -> list[Finding]:
    """Find layers that begin with all weights equal, so that all their units learn the same.

    Zeros are an initialisation of their own (adapters, residual branches), and ones that of a normalisation.

    Args:
        window: Weights with the tables `std` and `mean`, from the first step on.

    Returns:
        Findings `poor_weight_initialization` with `layer`, `std` and `mean`.
    """
    if not len(window):
        return []
    findings = []
    for column, layer in enumerate(window.layers):
        std, mean = (float(np.asarray(window.tables[name])[0, column]) for name in ("std", "mean"))
        if (
            layer.endswith("bias")
            or not np.isfinite([std, mean]).all()
            or abs(mean) < _SAME
            or abs(mean - 1) < _NEAR_ONE
        ):
            continue
        if std <= _SAME * abs(mean):
            details = {"layer": layer, "std": std, "mean": mean}
            findings.append(_finding(POOR_WEIGHT_INITIALIZATION, "medium", window, 0, 0, details))
    return findings


#: After one step the ones of a normalisation are still as near to one.
_NEAR_ONE = 0.1


def _lasting(window: Window, layer: str, middles: Values, large: float, small: float) -> list[Finding]:
    """Return where a layer's usual update itself is out of range, once training has settled."""
    findings = []
    for severity, marked, bar in (
        ("medium", _above(middles, np.log(large)), large),
        ("low", _above(-middles, -np.log(small)), small),
    ):
        marked[:_SETTLED] = False
        for first, last in stretches(marked):
            middle = float(np.exp(np.median(middles[first : last + 1])))
            details = {"layer": layer, "ratio": middle, "threshold": bar}
            rows = first * histories.BLOCK, (last + 1) * histories.BLOCK - 1
            findings.append(_finding(UPDATE_RATIO, severity, window, rows[0], rows[1], details))
    return findings


def _above(values: Values, bar: float) -> NDArray[np.bool_]:
    """Return where values exceed a bar; NaN does not."""
    with np.errstate(invalid="ignore"):
        found: NDArray[np.bool_] = values > bar
    return found


def _still(window: Window, column: int) -> NDArray[np.bool_]:
    """Return the rows at which a parameter is as it was a row before."""
    if window.subject == UPDATES:
        return np.asarray(window.tables["ratio"][:, column] == 0, dtype=bool)
    same = np.ones(len(window), dtype=bool)
    for table in window.tables.values():
        series = np.asarray(table)[:, column]
        same &= np.concatenate([[False], series[1:] == series[:-1]])
    return same


def _finding(kind: str, severity: str, window: Window, first: int, last: int, details: dict[str, object]) -> Finding:
    """Return a finding over rows of a window."""
    return Finding(kind, severity, int(window.steps[first]), details, int(window.steps[last]))


__all__ = ["all_zero", "equal_weights", "spreads", "unchanged", "update_ratios"]
