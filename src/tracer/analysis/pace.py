"""How fast training goes: steps that take longer, waiting for data, and pauses."""

from __future__ import annotations

import numpy as np

from tracer.analysis.kinds import DATA_LOADER_STALL, STALLED_TRAINING, THROUGHPUT_DROP
from tracer.analysis.losses import joined
from tracer.analysis.statistics import Values, deviation, stretches
from tracer.analysis.windows import STEP_TIME, Window
from tracer.events import Finding

_BLOCK = 20
_PAST = 10
#: Steps are slow at so many times what they took, and when it costs more than a second in all.
_SLOWER, _SIGMAS, _LOST_S = 2.0, 5.0, 1.0
_GRAVE_SLOWER, _GRAVE_LOST_S = 5.0, 60.0
#: Training waits for data when that is half of its time …
_WAITING = 0.5
#: … or when one step waits ten times as long as usual, and longer than a second.
_LONG_WAIT, _LONG_WAIT_S = 10.0, 1.0
#: A pause is so many times what a step takes, and longer than a minute.
_PAUSE, _PAUSE_S = 30.0, 60.0
_GRAVE_PAUSE, _GRAVE_PAUSE_S = 100.0, 600.0


def throughput_drops(window: Window, *, slower: float = _SLOWER, lost_s: float = _LOST_S) -> list[Finding]:
    """Find where steps take much longer than they did, for twenty steps or more.

    Args:
        window: The seconds of each step.
        slower: How many times what was usual.
        lost_s: The time that was lost in all; less is not worth a word.

    Returns:
        Findings `throughput_drop` with `metric`, `seconds`, `usual`, `ratio`, `lost_s`.

    Example:
        >>> import numpy as np
        >>> seconds = np.where(np.arange(200) < 120, 0.1, 0.5)
        >>> window = Window("step_time", "time/step", np.arange(200), seconds)
        >>> [(found.step, found.details["ratio"]) for found in throughput_drops(window)]
        [(120, 5.0)]
    """
    known = np.isfinite(window.values)
    steps, values = window.steps[known], window.values[known]
    count = len(values) // _BLOCK
    blocks = values[: count * _BLOCK].reshape(count, _BLOCK)
    middles = np.median(blocks, axis=1)
    usual = np.full(count, np.nan)
    slow = np.zeros(count, dtype=bool)
    for at in range(1, count):
        calm = middles[max(0, at - _PAST) : at][~slow[max(0, at - _PAST) : at]]
        past = calm if len(calm) else middles[:at]  # steps that stay slow do not become usual while they last
        usual[at] = usual[at - 1] if not len(calm) and at > 1 else float(np.median(past))
        slow[at] = middles[at] > slower * usual[at] and middles[at] > usual[at] + _SIGMAS * deviation(past)
    findings = []
    for first, last in stretches(slow):
        part = blocks[first : last + 1]
        seconds, before = float(np.median(part)), float(usual[first])
        lost = float((part - before).sum())
        if lost < lost_s:
            continue
        details = {
            "metric": window.name, "seconds": seconds, "usual": before, "ratio": seconds / before, "lost_s": lost,
        }  # fmt: skip
        grave = seconds > _GRAVE_SLOWER * before and lost > _GRAVE_LOST_S
        begin = first * _BLOCK + int(np.argmax(part[0] > slower * before))
        end = (last + 1) * _BLOCK - 1 if last < count - 1 else len(steps) - 1
        findings.append(
            Finding(THROUGHPUT_DROP, "high" if grave else "medium", int(steps[begin]), details, int(steps[end]))
        )
    return findings


def data_stalls(window: Window, *, share: float = _WAITING, wait_s: float = _LONG_WAIT_S) -> list[Finding]:
    """Find where training waits for data: half of its time for twenty steps, or once for long.

    Args:
        window: The seconds that each step waited for its batch; the partner `step_time` gives the whole step.
        share: The share of the step's time from which it is a finding; needs the partner.
        wait_s: How long a single wait must be.

    Returns:
        Findings `data_loader_stall` with `metric`, `seconds`, `usual`, and `share` for lasting ones.
    """
    known = np.isfinite(window.values)
    steps, values = window.steps[known], window.values[known]
    findings = _lasting_waits(window, steps, values, share) if STEP_TIME in window.partners else []
    usual = float(np.median(values)) if len(values) else 0.0
    marked = (values > _LONG_WAIT * usual) & (values > wait_s)
    for first, last in joined(stretches(marked), _BLOCK):
        if any(one.step <= steps[first] <= (one.last_step or one.step) for one in findings):
            continue
        seconds = float(values[first : last + 1].max())
        details = {"metric": window.name, "seconds": seconds, "usual": usual}
        severity = "medium" if seconds > _GRAVE_LOST_S or last > first else "low"
        findings.append(Finding(DATA_LOADER_STALL, severity, int(steps[first]), details, int(steps[last])))
    return sorted(findings, key=lambda found: found.step)


def pauses(
    window: Window, *, times: float = _PAUSE, seconds: float = _PAUSE_S, now: float | None = None
) -> list[Finding]:
    """Find where no step was finished for long.

    Args:
        window: Any metric that is logged at each step, with its `times`.
        times: How many times what is usual from one value to the next.
        seconds: And at least so long.
        now: For a run under way, the present in seconds since 1970: what has lasted since its last step.

    Returns:
        Findings `stalled_training` at the step before the pause, with `seconds`, `usual`, `ratio`.
    """
    if window.times is None or not len(window):
        return []
    moments = np.concatenate([window.times, [now]]) if now is not None else window.times
    gaps = np.diff(moments)
    if len(gaps) < _BLOCK:
        return []
    usual = float(np.median(gaps))
    # Steps need not be one apart: what is evaluated every thousand steps takes its thousandfold.
    moved = np.maximum(np.diff(window.steps), 1).astype(np.float64)
    per_step = gaps.copy()
    per_step[: len(moved)] /= moved / float(np.median(moved))
    findings = []
    for at in np.flatnonzero((per_step > times * max(usual, 1e-9)) & (gaps > seconds)).tolist():
        gap = float(gaps[at])
        details = {"seconds": gap, "usual": usual, "ratio": gap / max(usual, 1e-9)}
        grave = gap > _GRAVE_PAUSE_S and gap > _GRAVE_PAUSE * usual
        step = int(window.steps[at])
        findings.append(Finding(STALLED_TRAINING, "high" if grave else "medium", step, details, step))
    return findings


def _lasting_waits(window: Window, steps: Values | object, values: Values, share: float) -> list[Finding]:
    """Return where waiting is a large share of the step for twenty steps or more."""
    whole = window.partners[STEP_TIME]
    _, mine, theirs = np.intersect1d(np.asarray(steps), whole.steps, assume_unique=True, return_indices=True)
    count = len(mine) // _BLOCK
    if not count:
        return []
    waits = values[mine][: count * _BLOCK].reshape(count, _BLOCK)
    takes = np.maximum(whole.values[theirs][: count * _BLOCK].reshape(count, _BLOCK), waits)
    shares = np.nansum(waits, axis=1) / np.maximum(np.nansum(takes, axis=1), 1e-12)
    numbers = np.asarray(steps)[mine]
    findings = []
    for first, last in stretches(shares > share):
        waited = float(np.nansum(waits[first : last + 1]))
        if waited < _LOST_S:
            continue
        details = {
            "metric": window.name, "seconds": float(np.nanmedian(waits[first : last + 1])),
            "usual": float(np.nanmedian(values)), "share": float(np.median(shares[first : last + 1])), "lost_s": waited,
        }  # fmt: skip
        ends = int(numbers[first * _BLOCK]), int(numbers[(last + 1) * _BLOCK - 1])
        findings.append(Finding(DATA_LOADER_STALL, "medium", ends[0], details, ends[1]))
    return findings


__all__ = ["data_stalls", "pauses", "throughput_drops"]
