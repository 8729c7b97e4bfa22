"""Memory that is nearly full, and memory that grows without end."""

from __future__ import annotations

import re

import numpy as np

from tracer.analysis.kinds import MEMORY_GROWTH, MEMORY_SPIKE
from tracer.analysis.statistics import Steps, Values, stretches
from tracer.analysis.windows import Window
from tracer.events import Finding

_HIGH_MEMORY = 95.0
_BLOCKS = 10
#: Memory leaks when it rises in most of ten parts of a run, by a fifth and by 50 MB, and still does in the second half.
_RISING, _GROWTH, _LEAST_GB, _LATE = 0.8, 0.2, 0.05, 0.3
_GRAVE_GROWTH, _GRAVE_GB = 1.0, 1.0
_HOUR = 3600.0
_GPU = re.compile(r"gpu/(\w+)/")


def spikes(window: Window, *, threshold: float = 90.0) -> list[Finding]:
    """Find where memory, in per cent, was nearly full; see `memory_spikes`."""
    return memory_spikes(window.steps, window.values, threshold=threshold, gpu=gpu_of(window.name), metric=window.name)


def growth(window: Window, *, share: float = _GROWTH, least_gb: float = _LEAST_GB) -> list[Finding]:
    """Find memory that grows from part to part of a run, to its end.

    Args:
        window: The memory of a process or device in GB, with `times` where they are known.
        share: It must grow by this share of what it was.
        least_gb: And by so much.

    Returns:
        At most one finding `memory_growth` with `metric`, `gpu`, `first`, `last`, `steps_per_gb` and `per_hour` in GB.

    Example:
        >>> import numpy as np
        >>> used = Window("memory_use", "system/memory/process_rss_gb", np.arange(100), 1 + np.arange(100) / 50)
        >>> [(found.severity, round(found.details["steps_per_gb"])) for found in growth(used)]
        [('high', 50)]
    """
    known = np.isfinite(window.values)
    steps, values = window.steps[known], window.values[known]
    size = len(values) // _BLOCKS
    if not size:
        return []
    start = len(values) - size * _BLOCKS
    middles = np.median(values[start:].reshape(_BLOCKS, size), axis=1)[1:]  # a program is allowed to unfold
    first, last = float(middles[0]), float(middles[-1])
    grown = last - first
    rising = float(np.mean(np.diff(middles) > 0))
    late = last - float(middles[len(middles) // 2])
    if grown < max(share * first, least_gb) or rising < _RISING or late < _LATE * grown:
        return []
    begin, rows = start + size, len(steps) - 1
    apart = begin + (_BLOCKS - 2) * size  # as far from the first part's begin as the two medians are apart
    details: dict[str, object] = {"metric": window.name, "gpu": gpu_of(window.name), "first": first, "last": last}
    details["steps_per_gb"] = float(steps[apart] - steps[begin]) / grown
    if window.times is not None:
        seconds = float(window.times[known][apart] - window.times[known][begin])
        if seconds > 0:
            details["per_hour"] = grown / seconds * _HOUR
    grave = grown > _GRAVE_GROWTH * first and grown > _GRAVE_GB
    severity = "high" if grave else "medium"
    return [Finding(MEMORY_GROWTH, severity, int(steps[begin]), details, int(steps[rows]))]


def gpu_of(metric: str) -> str | None:
    """Return which GPU a metric of the system belongs to."""
    found = _GPU.search(metric)
    return found[1] if found else None


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
        >>> import numpy as np
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


__all__ = ["gpu_of", "growth", "memory_spikes", "spikes"]
