"""Two curves on one axis: aligned although their steps differ, and the step at which they part.

Values between two recorded steps are interpolated; beyond the steps that both have nothing is made up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tracer.analysis.statistics import Steps, Values, local_noise, moving_mean, noise_scale, stretches

#: A difference counts from this many standard errors of the smoothed difference …
_BAR = 5.0
#: … and its beginning is searched back to where it was this many.
_ONSET = 2.0
#: A single point is clearly different from this many times the noise.
_CLEAR = 3.0
_LASTING_SHARE = 0.8
#: Curves closer than this share of their size are the same curve to any reader.
_RELATIVE_FLOOR = 0.01
_WINDOW_SHARE, _SMALLEST_WINDOW, _LARGEST_WINDOW = 50, 5, 201
_SMOOTHED_FROM = 30
_TAIL_SHARE = 10


@dataclass(frozen=True, slots=True)
class Aligned:
    """Two curves on the steps that lie in both: where one has no point of its own it is interpolated.

    `noise` is that of both curves together around each step, measured before interpolation smoothed it away;
    `independent` is the share of the points of the sparser curve that are its own.
    """

    steps: Steps
    left: Values
    right: Values
    noise: Values
    independent: float


@dataclass(frozen=True, slots=True)
class Parting:
    """Where two curves part for good: the step, the values there, and the noise they had to leave."""

    step: int
    left: float
    right: float
    relative: float | None
    noise: float


@dataclass(frozen=True, slots=True)
class Ending:
    """How a curve ends: the mean of its last tenth, and how uncertain that mean is."""

    mean: float
    error: float
    points: int


def align(left_steps: Steps, left: Values, right_steps: Steps, right: Values) -> Aligned:
    """Put two curves on the union of their steps, within the range that both cover.

    Args:
        left_steps: The steps of one curve, ascending.
        left: Its values.
        right_steps: The steps of the other, ascending; they may be quite different ones.
        right: Its values.

    Returns:
        Both on one axis; empty when their ranges do not meet. NaN stays NaN, and an interpolation with NaN is NaN.

    Example:
        >>> both = align(np.array([0, 10]), np.array([0.0, 1.0]), np.array([0, 5, 20]), np.array([2.0, 2.0, 2.0]))
        >>> both.steps.tolist(), both.left.tolist()
        ([0, 5, 10], [0.0, 0.5, 1.0])
    """
    if not len(left_steps) or not len(right_steps):
        return Aligned(np.array([], dtype=np.int64), np.array([]), np.array([]), np.array([]), 1.0)
    first, last = max(left_steps[0], right_steps[0]), min(left_steps[-1], right_steps[-1])
    steps = np.union1d(left_steps, right_steps)
    steps = steps[(steps >= first) & (steps <= last)]
    own = min(int(np.isin(steps, one, assume_unique=True).sum()) for one in (left_steps, right_steps))
    noise = np.hypot(np.interp(steps, left_steps, local_noise(left)), np.interp(steps, right_steps, local_noise(right)))
    with np.errstate(invalid="ignore"):
        left, right = np.interp(steps, left_steps, left), np.interp(steps, right_steps, right)
    return Aligned(steps, left, right, noise, own / max(len(steps), 1))


def first_difference(both: Aligned) -> int | None:
    """Return the first step at which two curves are not the same to the last few bits, noise included."""
    with np.errstate(invalid="ignore"):
        equal = np.isclose(both.left, both.right, rtol=1e-12, atol=0.0, equal_nan=True)
    return None if equal.all() else int(both.steps[np.argmin(equal)])


def parting(both: Aligned) -> Parting | None:
    """Return where two curves part for good, beyond the noise that they show themselves.

    The difference is smoothed, compared with the noise of both curves around each point, and has to keep its sign for a
    whole window: one spike is no parting. A curve that turns NaN for good parts there.

    Args:
        both: The aligned curves.

    Returns:
        The first step of the lasting difference, or None when there is none.

    Example:
        >>> steps = np.arange(100)
        >>> flat = np.ones(100)
        >>> parting(align(steps, flat, steps, np.where(steps < 40, flat, 2.0))).step
        40
    """
    count = len(both.steps)
    if count == 0:
        return None
    broken = _breaks(both)
    known = np.isfinite(both.left) & np.isfinite(both.right)
    left, right, noise = both.left[known], both.right[known], both.noise[known]
    places = np.flatnonzero(known)
    found = _departs(left, right, noise, both.independent) if len(left) else None
    index = None if found is None else int(places[found])
    if broken is not None and (index is None or broken < index):
        index = broken
    if index is None:
        return None
    a, b = float(both.left[index]), float(both.right[index])
    return Parting(int(both.steps[index]), a, b, relative_difference(a, b), float(both.noise[index]))


def relative_difference(base: float, other: float) -> float | None:
    """Return how much more `other` is than `base`, as a share of the size of `base`.

    The sign is that of the difference, for negative values too. From zero there is no share, unless both are zero.

    Args:
        base: What is compared with.
        other: What is compared.

    Returns:
        The share, 0.1 for ten per cent more; None where there is none.

    Example:
        >>> relative_difference(-2.0, -1.0), relative_difference(0.0, 3.0)
        (0.5, None)
    """
    if base == other:
        return 0.0
    if base == 0 or not np.isfinite(base) or not np.isfinite(other):
        return None
    return (other - base) / abs(base)


def ending(values: Values) -> Ending | None:
    """Return the mean of the last tenth of a curve and the standard error of that mean; None when nothing is finite."""
    kept = values[np.isfinite(values)]
    if not len(kept):
        return None
    tail = kept[-max(min(len(kept), 5), len(kept) // _TAIL_SHARE) :]
    # What a few points show of their own scatter is little: the noise of the whole curve's end is the least it can be.
    scatter = max(float(np.std(tail)), noise_scale(kept[-4 * len(tail) :]))
    return Ending(float(np.mean(tail)), scatter / float(np.sqrt(len(tail))), len(tail))


def _departs(left: Values, right: Values, noise: Values, independent: float) -> int | None:
    """Return the index at which the finite curves begin to differ for good."""
    count = len(left)
    size = np.maximum(np.abs(left), np.abs(right))
    spread = float(np.subtract(*np.quantile(np.concatenate([left, right]), (0.95, 0.05))))
    # Near a crossing of zero the share of the size says nothing: a part of the whole spread is asked for as well.
    floor = np.maximum(_RELATIVE_FLOOR * np.minimum(size, spread + size / 2), _RELATIVE_FLOOR * spread / 2)
    # A spike of 1e30 would swallow the digits of every sum after it.
    reach = 100 * spread if spread else np.inf
    difference = np.clip(right - left, -reach, reach)
    window = 1
    if count >= _SMOOTHED_FROM:
        window = min(max(count // _WINDOW_SHARE, _SMALLEST_WINDOW), _LARGEST_WINDOW)
    smooth = moving_mean(difference, window)
    index = np.arange(count)
    inside = np.minimum(index, window // 2) + np.minimum(count - 1 - index, window // 2) + 1
    error = noise / np.sqrt(np.maximum(inside * independent, 1.0))
    beyond = (np.abs(smooth) > np.maximum(_BAR * error, floor)) & (smooth != 0)
    for first, last in stretches(beyond):
        # It lasts when it goes on for a window, keeps its sign and does not come back at once.
        if (last - first + 1 >= window or last == count - 1) and _lasts(smooth, first, error, floor, window):
            return _onset(difference, smooth, first, error, np.maximum(_CLEAR * noise, floor), window)
    return None


def _lasts(smooth: Values, first: int, error: Values, floor: Values, window: int) -> bool:
    """Tell whether the difference stays on its side for some windows."""
    after = slice(first, first + 4 * window)
    kept = np.sign(smooth[first]) * smooth[after] > np.maximum(_ONSET * error[after], floor[after] / 2)
    return bool(np.mean(kept) > _LASTING_SHARE)


def _onset(difference: Values, smooth: Values, first: int, error: Values, clear: Values, window: int) -> int:
    """Return where the difference that is certain at `first` began."""
    sign, count = np.sign(smooth[first]), len(difference)
    index = first
    while index > 0 and sign * smooth[index - 1] > _ONSET * error[index - 1] and index > first - window:
        index -= 1
    # Smoothing drags what comes later forward by half a window: within it a clear single difference decides.
    for later in range(index, min(first + window, count)):
        if sign * difference[later] > clear[later]:
            return later
    return min(index + window // 2, count - 1)


def _breaks(both: Aligned) -> int | None:
    """Return where one curve stops being finite while the other goes on, for good."""
    alone = np.isfinite(both.left) != np.isfinite(both.right)
    runs = stretches(alone)
    return runs[-1][0] if runs and runs[-1][1] == len(alone) - 1 else None


__all__ = [
    "Aligned",
    "Ending",
    "Parting",
    "align",
    "ending",
    "first_difference",
    "parting",
    "relative_difference",
]
