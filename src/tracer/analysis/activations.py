"""What the outputs of modules say: units that are dead, functions that are saturated, signals that fade or grow."""

from __future__ import annotations

import numpy as np

from tracer.analysis.kinds import DEAD_RELU, POOR_WEIGHT_INITIALIZATION, SATURATED_ACTIVATION
from tracer.analysis.losses import joined
from tracer.analysis.statistics import stretches
from tracer.analysis.windows import Window
from tracer.events import Finding

#: A layer is in trouble from this share of dead units on, and lost from that.
_DEAD, _LOST = 0.8, 0.97
_SATURATED = 0.9
#: So many sampled steps in a row; a few are sampled only.
_ROWS = 2
_GAP = 4
#: From one end of the network to the other a signal may change by so many times.
_CHANGE = 1e4
_FEW_LAYERS = 4


def dead_units(window: Window, *, threshold: float = _DEAD) -> list[Finding]:
    """Find layers most of whose units are zero for every row of a batch.

    Args:
        window: Activations with the table `dead`, a share from 0 to 1.
        threshold: The share from which it is a finding.

    Returns:
        Findings `dead_relu` with `layer`, `share` (the largest), `threshold`.

    Example:
        >>> import numpy as np
        >>> dead = np.array([[0.1], [0.1], [1.0], [1.0]])
        >>> window = Window("activations", "activations", np.arange(4), layers=("act",), tables={"dead": dead})
        >>> [(one.step, one.severity, one.details["layer"]) for one in dead_units(window)]
        [(2, 'high', 'act')]
    """
    found = _shares(window, "dead", DEAD_RELU, threshold)
    for one in found:
        one.severity = "high" if float(str(one.details["share"])) >= _LOST else "medium"
    return found


def saturated_units(window: Window, *, threshold: float = _SATURATED) -> list[Finding]:
    """Find layers most of whose outputs lie at the flat ends of a sigmoid or tanh.

    Args:
        window: Activations with the table `saturated`, a share from 0 to 1.
        threshold: The share from which it is a finding.

    Returns:
        Findings `saturated_activation` with `layer`, `share`, `threshold`.
    """
    return _shares(window, "saturated", SATURATED_ACTIVATION, threshold)


def signals(window: Window, *, change: float = _CHANGE) -> list[Finding]:
    """Find a network whose signals fade or grow from layer to layer at its first step.

    Args:
        window: Activations with the table `std`, the layers in the order in which they run.
        change: By so many times from the first layer to the last.

    Returns:
        At most one finding `poor_weight_initialization` with `layer` (the last), `std` and `ratio`.
    """
    if not len(window):
        return []
    stds = np.asarray(window.tables["std"], dtype=np.float64)[0]
    known = np.flatnonzero(np.isfinite(stds) & (stds > 0))
    if len(known) < _FEW_LAYERS:
        return []
    logs = np.log(stds[known])
    total = float(logs[-1] - logs[0])
    moves = np.sign(np.diff(logs))
    steady = float(np.mean(moves == np.sign(total)))
    # A single scale between two layers is someone's choice; a change that goes on through the network is not.
    largest = float(np.max(np.abs(np.diff(logs))))
    if abs(total) < np.log(change) or largest > abs(total) / 2 or steady < _MOST:
        return []
    layer = window.layers[int(known[-1])]
    details = {"layer": layer, "std": float(np.exp(logs[-1])), "ratio": float(np.exp(total))}
    step = int(window.steps[0])
    return [Finding(POOR_WEIGHT_INITIALIZATION, "medium", step, details, step)]


_MOST = 0.6


def _shares(window: Window, statistic: str, kind: str, threshold: float) -> list[Finding]:
    """Return where a share stays above a threshold."""
    shares = np.asarray(window.tables[statistic], dtype=np.float64)
    needed = min(_ROWS, len(shares))
    findings = []
    with np.errstate(invalid="ignore"):
        marked = shares >= threshold
    for column in np.flatnonzero(marked.any(axis=0)).tolist():
        for first, last in joined(stretches(marked[:, column]), _GAP):
            if int(marked[first : last + 1, column].sum()) >= needed:
                share = float(np.nanmax(shares[first : last + 1, column]))
                details = {"layer": window.layers[column], "share": share, "threshold": threshold}
                findings.append(Finding(kind, "medium", int(window.steps[first]), details, int(window.steps[last])))
    return sorted(findings, key=lambda found: found.step)


__all__ = ["dead_units", "saturated_units", "signals"]
