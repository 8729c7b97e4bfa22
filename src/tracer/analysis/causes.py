"""From a trouble back to where it began: what else was unusual just before it, the nearest first.

A loss that leaps was carried there by an update, the update by a gradient or a learning rate. The chain is made of
what the records show (gradients, updates, learning rate, other findings); where they show nothing it is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tracer.analysis import kinds
from tracer.analysis.explanations import explanation, remedy, said, step_name, times
from tracer.analysis.statistics import Values
from tracer.analysis.windows import GRADIENTS, LEARNING_RATE, UPDATES, Window
from tracer.events import Finding

#: So many recorded rows back a cause may lie; a learning rate works for longer.
_REACH, _REACH_OF_RATE = 10, 100
_HISTORY = 64
#: What is so many times the usual is worth naming as a cause.
_UNUSUAL, _RATE_JUMP = 4.0, 2.0
_MOST = 5

_LOSS_TROUBLE = frozenset({kinds.LOSS_SPIKE, kinds.LOSS_DIVERGENCE, kinds.NAN_OR_INF})
_STEP_TROUBLE = _LOSS_TROUBLE | {
    kinds.GRADIENT_EXPLOSION, kinds.UPDATE_RATIO, kinds.DEAD_RELU, kinds.TENSOR_VARIANCE, kinds.LOSS_DROP,
    kinds.SATURATED_ACTIVATION,
}  # fmt: skip
_STANDSTILL = frozenset({
    kinds.VANISHING_GRADIENT, kinds.DEAD_RELU, kinds.SATURATED_ACTIVATION, kinds.UNCHANGED_TENSOR, kinds.ALL_ZERO,
    kinds.POOR_WEIGHT_INITIALIZATION, kinds.UPDATE_RATIO,
})  # fmt: skip
#: What gradients and updates of its own step can be behind.
_AFTER_BACKWARD = frozenset({kinds.UPDATE_RATIO, kinds.TENSOR_VARIANCE})
#: What a single batch can do.
_BATCH_TROUBLE = frozenset({kinds.LOSS_SPIKE, kinds.GRADIENT_EXPLOSION})
_STANDS = frozenset({kinds.LOSS_PLATEAU, kinds.UNCHANGED_TENSOR})
#: Which earlier findings can be behind which.
_UPSTREAM: dict[str, frozenset[str]] = {
    kinds.LOSS_SPIKE: frozenset({kinds.BAD_ROWS, kinds.RANK_DIVERGENCE}),
    kinds.GRADIENT_EXPLOSION: frozenset({kinds.LOSS_SPIKE, kinds.BAD_ROWS}),
    kinds.UPDATE_RATIO: frozenset({kinds.LOSS_SPIKE, kinds.BAD_ROWS}),
    kinds.LOSS_DIVERGENCE: frozenset({kinds.LOSS_SPIKE, kinds.GRADIENT_EXPLOSION, kinds.DEAD_RELU}),
    kinds.NAN_OR_INF: frozenset({kinds.NAN_OR_INF, kinds.LOSS_SPIKE, kinds.LOSS_DIVERGENCE}),
    kinds.LOSS_PLATEAU: _STANDSTILL,
    kinds.VANISHING_GRADIENT: frozenset({
        kinds.DEAD_RELU, kinds.SATURATED_ACTIVATION, kinds.POOR_WEIGHT_INITIALIZATION,
    }),
    kinds.ALL_ZERO: frozenset({kinds.DEAD_RELU}),
    kinds.DEAD_RELU: frozenset({kinds.GRADIENT_EXPLOSION, kinds.LOSS_SPIKE}),
    kinds.THROUGHPUT_DROP: frozenset({kinds.DATA_LOADER_STALL, kinds.STRAGGLER, kinds.MEMORY_SPIKE}),
    kinds.STALLED_TRAINING: frozenset({kinds.DATA_LOADER_STALL, kinds.MEMORY_SPIKE}),
    kinds.MEMORY_SPIKE: frozenset({kinds.MEMORY_GROWTH}),
    kinds.OVERTRAINING: frozenset({kinds.OVERFITTING}),
}  # fmt: skip


class Link(NamedTuple):
    """One link of the chain."""

    step: int
    depth: int
    text: str


def explained(
    findings: Sequence[Finding], windows: Iterable[Window] = (), *, among: Sequence[Finding] | None = None
) -> list[Finding]:
    """Return findings with `explanation`, `remedy` and `cause` in their details; what is there already stays.

    Args:
        findings: Episodes, or findings of a detector.
        windows: Gradients, updates and learning rates of the same run, around these steps.
        among: All findings of the run, of which earlier ones can be causes; these findings when None.

    Example:
        >>> evidence = {"metric": "loss", "loss": 9.0, "window_mean": 1.0, "z_score": 99.0}
        >>> explained([Finding("loss_spike", "high", 9, evidence)])[0].details["explanation"]
        'loss jumped from 1 to 9 at step 9, 99 times its noise.'
    """
    windows, among = list(windows), findings if among is None else among
    done = []
    for found in findings:
        details = {
            "explanation": explanation(found), "remedy": remedy(found), "cause": causes(found, windows, among),
        }  # fmt: skip
        done.append(Finding(found.kind, found.severity, found.step, {**details, **found.details}, found.last_step))
    return [_ordered(found) for found in done]


def causes(found: Finding, windows: Iterable[Window], among: Iterable[Finding] = ()) -> list[str]:
    """Return what led to a finding, the nearest cause first, each a short sentence without a full stop.

    Args:
        found: The finding.
        windows: Gradients, updates and learning rates, around its step.
        among: Other findings of the run.
    """
    windows = list(windows)
    links = [link for window in windows for link in _unusual(window, found)]
    links += _earlier(found, among)
    chain = sorted(dict.fromkeys(links), key=lambda link: (-link.step, link.depth))
    if not chain and found.kind in _BATCH_TROUBLE and any(_reaches(window, found.step) for window in windows):
        return [f"nothing unusual before it: look at the batch of {step_name(found.step)}"]
    return [link.text for link in chain[:_MOST]]


def _unusual(window: Window, found: Finding) -> list[Link]:
    """Return what a window shows to be unusual before a finding."""
    if window.subject == LEARNING_RATE and found.kind in _STANDS:
        return _no_rate(window, found)
    if found.kind not in _STEP_TROUBLE:
        return []
    # The loss of a step comes before its gradient and its update: only those of earlier steps can have led to it.
    last = found.step if found.kind in _AFTER_BACKWARD else found.step - 1
    if window.subject == LEARNING_RATE:
        return _rate_jump(window, last)
    if window.subject == GRADIENTS and found.kind != kinds.GRADIENT_EXPLOSION:
        return _unusual_layer(window, "norm", last, 1)
    if window.subject == UPDATES and found.kind != kinds.UPDATE_RATIO:
        return _unusual_layer(window, "ratio", min(last, found.step - 1), 2)
    return []


def _reaches(window: Window, step: int) -> bool:
    """Tell whether gradients were recorded up to just before a step, so that their silence means something."""
    before = window.steps[window.steps < step]
    return window.subject == GRADIENTS and len(before) > _REACH and step - int(before[-1]) <= _REACH


def _unusual_layer(window: Window, statistic: str, step: int, depth: int) -> list[Link]:
    """Return the layer whose gradient or update was the furthest above its usual, shortly before a step."""
    if not window.has(statistic):
        return []
    end = int(np.searchsorted(window.steps, step, side="right"))
    begin = max(0, end - _REACH)
    if window.steps[begin:end].size == 0 or begin < 1:
        return []
    judged = [at for at, layer in enumerate(window.layers) if not layer.endswith("bias")]
    table = np.asarray(window.tables[statistic], dtype=np.float64)[:, judged or slice(None)]
    past, near = _positive(table[max(0, begin - _HISTORY) : begin]), _positive(table[begin:end])
    known = np.isfinite(past).sum(axis=0) >= min(_REACH, begin)
    if not known.any():
        return []
    usual = np.full(past.shape[1], np.nan)
    usual[known] = np.nanmedian(past[:, known], axis=0)
    ratios = near / usual
    if not np.isfinite(ratios).any():
        return []
    row, column = np.unravel_index(int(np.nanargmax(ratios)), ratios.shape)
    ratio = float(ratios[row, column])
    if ratio < _UNUSUAL:
        return []
    layer = window.layers[judged[int(column)] if judged else int(column)]
    at, value = int(window.steps[begin + int(row)]), float(near[row, column])
    if statistic == "norm":
        text = f"gradient norm of {layer} {times(ratio)} its usual ({said(value)}) at {step_name(at)}"
    else:
        text = f"update of {layer} {said(value)} of its weights at {step_name(at)} (usual: {said(value / ratio)})"
    return [Link(at, depth, text)]


def _rate_jump(window: Window, step: int) -> list[Link]:
    """Return where the learning rate rose by leaps before a step."""
    end = int(np.searchsorted(window.steps, step, side="right"))
    begin = max(0, end - _REACH_OF_RATE)
    rates = window.values[begin:end]
    if len(rates) <= 1:
        return []
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = rates[1:] / rates[:-1]
    factors = np.where(np.isfinite(factors), factors, 0.0)
    at = int(np.argmax(factors))
    # A warm-up that begins near zero doubles its rate again and again: only what exceeds all rates before is a leap.
    if factors[at] < _RATE_JUMP or rates[at + 1] < _RATE_JUMP * np.nanmax(rates[: at + 1]) or _is_ramp(rates, at):
        return []
    moved = int(window.steps[begin + at + 1])
    name = "learning rate" if window.name in ("lr", "learning_rate") else window.name
    text = f"{name} rose {times(float(factors[at]))} at {step_name(moved)} ({said(rates[at])} → {said(rates[at + 1])})"
    return [Link(moved, 3, text)]


def _is_ramp(rates: Values, at: int) -> bool:
    """Tell whether a rate goes on rising after a leap, as in a warm-up."""
    after = rates[at + 1 : at + 4]
    return len(after) > 2 and bool(np.all(np.diff(after) > 0))  # noqa: PLR2004 -- two rises in a row


def _no_rate(window: Window, found: Finding) -> list[Link]:
    """Return that the learning rate is zero while nothing moves."""
    last = found.step if found.last_step is None else found.last_step
    near = window.values[(window.steps >= found.step) & (window.steps <= last)]
    if len(near) and float(np.max(near)) == 0.0:
        return [Link(found.step, 3, f"{window.name} is 0 all the while")]
    return []


def _earlier(found: Finding, among: Iterable[Finding]) -> list[Link]:
    """Return the earlier findings that can be behind one."""
    upstream = _UPSTREAM.get(found.kind, frozenset())
    links = []
    for one in among:
        if one is found or one.kind not in upstream or one.details.get("placeholder"):
            continue
        end = found.step if found.last_step is None else found.last_step
        lasts = one.step if one.last_step is None else one.last_step
        overlaps = one.step <= end and lasts >= found.step
        if found.kind == kinds.NAN_OR_INF and one.kind == kinds.NAN_OR_INF:
            related = one.step < found.step
        elif found.kind in (kinds.LOSS_PLATEAU, kinds.VANISHING_GRADIENT, kinds.ALL_ZERO, kinds.THROUGHPUT_DROP):
            related = overlaps
        else:
            related = one.step <= found.step <= lasts + _REACH_OF_RATE
        if related:
            links.append(Link(one.step, 4, _in_short(one)))
    return sorted(links, key=lambda link: -link.step)[:2]


def _in_short(found: Finding) -> str:
    """Return the first sentence about a finding: its own, where who made it wrote one."""
    own = found.details.get("explanation")
    plain = Finding(found.kind, found.severity, found.step, _first_only(found), found.last_step)
    text = (own if isinstance(own, str) and own else explanation(plain)).split(". ")[0].rstrip(".")
    return text if step_name(found.step) in text else f"{text} ({step_name(found.step)})"


def _first_only(found: Finding) -> dict[str, object]:
    """Return the details of a finding without its further layers."""
    return {name: value for name, value in found.details.items() if name not in ("layers", "reached", "rows")}


def _positive(table: Values) -> Values:
    """Return a table with NaN for what is not positive and finite."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(table) & (table > 0), table, np.nan)


def _ordered(found: Finding) -> Finding:
    """Return a finding whose details begin with its figures and end with the words about it."""
    words = ("explanation", "remedy", "cause")
    details = {name: value for name, value in found.details.items() if name not in words}
    found.details = details | {name: found.details[name] for name in words}
    return found


__all__ = ["causes", "explained"]
