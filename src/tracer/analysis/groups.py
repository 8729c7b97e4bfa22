"""Findings → episodes: one for each kind and cause, however many layers and stretches of steps it has.

A detector says of each layer when it was in trouble. A reader wants to know of the trouble: from where to where, how
grave, which layer was the worst and how many more there were. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from tracer.analysis import kinds
from tracer.analysis.severities import gravest
from tracer.events import Finding

if TYPE_CHECKING:
    from tracer.storage.values import FindingRow

#: Within so many recorded steps what begins after something else, or follows it, belongs to it.
_GAP = 16
_NAMED = 8
#: Which figure tells the worst of an episode, and whether it is the largest.
_WORST = {
    kinds.GRADIENT_EXPLOSION: ("ratio", True),
    kinds.VANISHING_GRADIENT: ("ratio", False),
    kinds.UPDATE_RATIO: ("ratio", True),
    kinds.DEAD_RELU: ("share", True),
    kinds.SATURATED_ACTIVATION: ("share", True),
    kinds.LOSS_SPIKE: ("z_score", True),
    kinds.MEMORY_SPIKE: ("memory_util", True),
    kinds.STRAGGLER: ("ratio", True),
    kinds.THROUGHPUT_DROP: ("ratio", True),
}


def episodes(findings: Iterable[Finding], stride: float = 1.0) -> list[Finding]:
    """Return findings of one kind and cause as one.

    Layers whose trouble begins at about the same step are one episode; so are stretches of one layer or metric that
    follow each other closely.

    Args:
        findings: What detectors found, of one run.
        stride: How many steps lie between two that were recorded.

    Returns:
        One finding each, by step, with `count` (how many findings it stands for) and, for layers, `layers` (the worst
        first, at most eight) and `layer_count` added to the details of the worst.

    Example:
        >>> found = [Finding("dead_relu", "high", 5, {"layer": name, "share": 1.0}, 9) for name in ("a", "b")]
        >>> [(one.step, one.last_step, one.details["layers"], one.details["count"]) for one in episodes(found)]
        [(5, 9, ['a', 'b'], 2)]
    """
    groups: dict[tuple[object, ...], list[list[Finding]]] = {}
    for found in sorted(findings, key=lambda one: one.step):
        family = groups.setdefault(_family(found), [])
        for group in reversed(family):
            if _belongs(found, group, stride):
                group.append(found)
                break
        else:
            family.append([found])
    merged = [_merged(group) for family in groups.values() for group in family]
    return sorted(merged, key=lambda one: (one.step, one.kind))


def with_spread(findings: Sequence[Finding], stride: float = 1.0) -> list[Finding]:
    """Return episodes with NaN told once: what it reached within some steps is no trouble of its own.

    Args:
        findings: Episodes of metrics, gradients, weights and activations.
        stride: How many steps lie between two recorded rows of the layers.

    Returns:
        The episodes by step; that of the first NaN has `reached` in its details: a list of `what` (an axis), `step`
        and `layers` (how many).
    """
    kept: list[Finding] = []
    first: Finding | None = None
    for found in sorted(findings, key=lambda one: (one.step, one.kind, _order(one.details))):
        if found.kind != kinds.NAN_OR_INF or found.details.get("placeholder") or found.details.get("rank"):
            kept.append(found)
        elif (
            first is None
            or found.details.get("metric") is not None
            or found.step > _end(first.step, first.last_step) + _GAP * stride
        ):
            one = Finding(found.kind, found.severity, found.step, dict(found.details), found.last_step)
            kept.append(one)
            # Several metrics turn NaN at once; what the layers reached is told with the first of them.
            first = one if first is None or one.step > _end(first.step, first.last_step) + _GAP * stride else first
        else:
            details = found.details
            what = str(details.get("what") or "gradients")
            count = details.get("layer_count")
            reached = {"what": what, "step": found.step, "layers": count if isinstance(count, int) else 0}
            before = first.details.get("reached")
            first.details = {**first.details, "reached": [*(before if isinstance(before, list) else []), reached]}
            first.last_step = max(_end(first.step, first.last_step), _end(found.step, found.last_step))
    return kept


def unknown(findings: Iterable[Finding], stored: Sequence[FindingRow], stride: float = 1.0) -> list[Finding]:
    """Return the findings that are not stored yet: nothing of their kind, about the same thing, overlaps with them.

    Args:
        findings: What was found now.
        stored: What the store holds of the run.
        stride: How many steps lie between two that were recorded.

    Returns:
        Those that are new, in their order; of equals among them the first.
    """
    known = [(one.kind, _things(one.details), one.step, _end(one.step, one.last_step)) for one in stored]
    fresh = []
    for found in findings:
        things, end = _things(found.details), _end(found.step, found.last_step)
        if not any(
            kind == found.kind and (mine & things or not (mine or things)) and first <= end + stride and
            found.step <= last + stride
            for kind, mine, first, last in known
        ):  # fmt: skip
            known.append((found.kind, things, found.step, end))
            fresh.append(found)
    return fresh


def _family(found: Finding) -> tuple[object, ...]:
    """Return what findings must share to be of one episode: kind, sort of thing, rank, device."""
    details = found.details
    sort = "layer" if details.get("layer") is not None and details.get("metric") is None else "metric"
    return (
        found.kind, sort, details.get("what"), details.get("rank"), details.get("gpu"), details.get("beside"),
    )  # fmt: skip


def _belongs(found: Finding, group: Sequence[Finding], stride: float) -> bool:
    """Tell whether a finding continues a group: the same thing soon after it, or another that began with it."""
    about = _things(found.details)
    same = [one for one in group if _things(one.details) & about or not about]
    if same:
        return found.step <= max(_end(one.step, one.last_step) for one in same) + _GAP * stride
    # Metrics keep a finding each: whoever asks for the trouble of one metric must find it under its name.
    return found.details.get("metric") is None and found.step <= group[0].step + _GAP * stride


def _merged(group: Sequence[Finding]) -> Finding:
    """Return one finding for a group."""
    ordered = sorted(group, key=_badness)
    worst = ordered[0]
    details = {**worst.details, "count": sum(int(str(one.details.get("count", 1))) for one in group)}
    if any(one.details.get("recovered") is False for one in group):
        details["recovered"] = False
    if names := _layers(ordered):
        total = max(len(names), *(int(str(one.details.get("layer_count", 0))) for one in group))
        details |= {"layers": names[:_NAMED], "layer_count": total}
    last = max(_end(one.step, one.last_step) for one in group)
    severity = gravest(one.severity for one in group)
    return Finding(worst.kind, severity, min(one.step for one in group), details, last)


def _order(details: Mapping[str, object]) -> int:
    """Return where NaN comes first within one step: outputs, then the loss, its gradients, and the weights last."""
    if details.get("metric"):
        return 1
    return {"activations": 0, "weights": 3}.get(str(details.get("what")), 2)


def _layers(group: Sequence[Finding]) -> list[str]:
    """Return the layers of a group, each once, in its order."""
    found: dict[str, None] = {}
    for one in group:
        several = one.details.get("layers")
        names = several if isinstance(several, (list, tuple)) else (one.details.get("layer"),)
        found.update(dict.fromkeys(str(name) for name in names if name is not None))
    return list(found)


def _badness(found: Finding) -> tuple[float, ...]:
    """Return what sorts the worst finding of a group first: by its figure, where none is by its first step."""
    name, largest = _WORST.get(found.kind, (None, True))
    value = found.details.get(name) if name else None
    if not isinstance(value, (int, float)) or math.isnan(value):
        return (math.inf if name else 0.0, found.step)
    return (-value if largest else value, found.step)


def _things(details: Mapping[str, object]) -> frozenset[str]:
    """Return the names of the metrics and layers that a finding is about."""
    names: set[str] = set()
    for key in ("metric", "layer", "layers"):
        value = details.get(key)
        names.update(map(str, value) if isinstance(value, (list, tuple)) else [] if value is None else [str(value)])
    return frozenset(names)


def _end(step: int, last_step: int | None) -> int:
    """Return the last step of a finding."""
    return step if last_step is None else max(step, last_step)


__all__ = ["episodes", "unknown", "with_spread"]
