"""Ranks that part from the others: in what they compute, or in how long they take."""

from __future__ import annotations

import numpy as np

from tracer.analysis.kinds import RANK_DIVERGENCE, STRAGGLER
from tracer.analysis.statistics import Values, deviation, stretches
from tracer.analysis.windows import Window
from tracer.events import Finding

_BLOCK = 20
#: A rank has left the others at so many times the noise of a block's mean, and by this share of the level.
_SIGMAS, _SHARE = 8.0, 0.25
_GRAVE = 10.0
#: A straggler takes so many times as long as the others, for three blocks.
_SLOWER, _GRAVE_SLOWER = 1.3, 2.0
_BLOCKS = 3


def divergence(window: Window, *, sigmas: float = _SIGMAS, share: float = _SHARE) -> list[Finding]:
    """Find ranks whose loss or norm leaves that of the other ranks.

    Each rank sees other rows, so single steps differ; the means of twenty steps must not.

    Args:
        window: The table `value`, a column per rank.
        sigmas: How many times the noise of such a mean.
        share: And by this share of what the others have.

    Returns:
        Findings `rank_divergence` with `metric`, `rank`, `value`, `others`, `z_score`.
    """
    values = np.asarray(window.tables["value"], dtype=np.float64)
    findings = _lost(window, values)
    count = len(values) // _BLOCK
    for column in range(values.shape[1]):
        others = np.nanmedian(np.delete(values, column, axis=1), axis=1) if values.shape[1] > 1 else values[:, 0]
        apart = (values[:, column] - others)[: count * _BLOCK].reshape(count, _BLOCK)
        level = np.abs(others[: count * _BLOCK].reshape(count, _BLOCK).mean(axis=1))
        means = apart.mean(axis=1)
        noise = np.array([deviation(block) for block in apart]) / np.sqrt(_BLOCK)
        with np.errstate(invalid="ignore", divide="ignore"):
            scores = means / noise
            marked = (np.abs(scores) > sigmas) & (np.abs(means) > share * level)
        for first, last in stretches(marked):
            value = float(np.mean(values[first * _BLOCK : (last + 1) * _BLOCK, column]))
            other = float(np.mean(others[first * _BLOCK : (last + 1) * _BLOCK]))
            grave = abs(value) > _GRAVE * abs(other) > 0
            details = {
                "metric": window.name, "rank": _rank(window, column), "value": value, "others": other,
                "z_score": float(np.clip(scores[first], -1e9, 1e9)),
            }  # fmt: skip
            findings.append(_finding(RANK_DIVERGENCE, "high" if grave else "medium", window, first, last, details))
    if values.shape[1] == 2:  # noqa: PLR2004 -- of two nobody can say which one left
        findings = [found for found in findings if found.details["rank"] == _rank(window, 1)]
    return sorted(findings, key=lambda found: found.step)


def stragglers(window: Window, *, slower: float = _SLOWER) -> list[Finding]:
    """Find ranks that are steadily slower than the others.

    Args:
        window: The table `value`, the seconds of each step, a column per rank.
        slower: How many times as long as the others, for sixty steps.

    Returns:
        Findings `straggler` with `metric`, `rank`, `seconds`, `others`, `ratio`.
    """
    values = np.asarray(window.tables["value"], dtype=np.float64)
    count = len(values) // _BLOCK
    if not count:
        return []
    middles = np.median(values[: count * _BLOCK].reshape(count, _BLOCK, -1), axis=1)
    findings = []
    for column in range(middles.shape[1] if middles.shape[1] > 1 else 0):
        others = np.median(np.delete(middles, column, axis=1), axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios = middles[:, column] / others
        for first, last in stretches(ratios > slower):
            if last - first + 1 < _BLOCKS:
                continue
            ratio = float(np.median(ratios[first : last + 1]))
            details = {
                "metric": window.name, "rank": _rank(window, column),
                "others": float(np.median(others[first : last + 1])),
                "seconds": float(np.median(middles[first : last + 1, column])), "ratio": ratio,
            }  # fmt: skip
            severity = "high" if ratio > _GRAVE_SLOWER else "medium"
            findings.append(_finding(STRAGGLER, severity, window, first, last, details))
    return findings


def _lost(window: Window, values: Values) -> list[Finding]:
    """Return ranks that alone are not finite."""
    bad = ~np.isfinite(values)
    findings = []
    for column in range(values.shape[1]):
        alone = bad[:, column] & (bad.sum(axis=1) == 1)
        for first, last in stretches(alone)[:1]:
            others = float(np.nanmedian(np.delete(values[first], column)))
            details = {
                "metric": window.name, "rank": _rank(window, column), "value": float(values[first, column]),
                "others": others, "z_score": None,
            }  # fmt: skip
            steps = int(window.steps[first]), int(window.steps[last])
            findings.append(Finding(RANK_DIVERGENCE, "high", steps[0], details, steps[1]))
    return findings


def _rank(window: Window, column: int) -> int:
    """Return the rank of a column, whose name ends with it."""
    return int(window.layers[column].rsplit(" ", 1)[-1])


def _finding(kind: str, severity: str, window: Window, first: int, last: int, details: dict[str, object]) -> Finding:
    """Return a finding over blocks of a window."""
    steps = int(window.steps[first * _BLOCK]), int(window.steps[(last + 1) * _BLOCK - 1])
    return Finding(kind, severity, steps[0], details, steps[1])


__all__ = ["divergence", "stragglers"]
