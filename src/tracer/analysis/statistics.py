"""Robust figures of a series: its noise, its smooth course, its quantiles; NaN and ±Inf are left out, never spread."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Steps = NDArray[np.int64]

#: The median absolute deviation of a normal distribution is this much smaller than its standard deviation.
_MAD_TO_SIGMA = 1.4826
#: The variance of the second difference of white noise is 1 + 4 + 1 times its own.
_SECOND_DIFFERENCE = float(np.sqrt(6.0))
#: Of the third: 1 + 9 + 9 + 1; it is blind to a steady bend too.
_THIRD_DIFFERENCE = float(np.sqrt(20.0))
_FEWEST, _FEW = 4, 30
_BLOCK = 64


def finite(values: Values) -> Values:
    """Return the values that are neither NaN nor infinite."""
    return values[np.isfinite(values)]


def deviation(values: Values) -> float:
    """Return a standard deviation that a few outliers do not move; 0 when there is no finite value."""
    kept = finite(values)
    if not len(kept):
        return 0.0
    return _MAD_TO_SIGMA * float(np.median(np.abs(kept - np.median(kept))))


def noise_scale(values: Values) -> float:
    """Return the standard deviation of a series' noise, whatever its trend.

    Second differences remove level and slope, and the median of their size ignores spikes.

    Args:
        values: The series in order of steps.

    Returns:
        The noise in the unit of the values; 0 for fewer than four finite values.

    Example:
        >>> noise_scale(np.arange(100.0))
        0.0
    """
    kept = finite(values)
    if len(kept) < _FEWEST:
        return 0.0
    scale = _MAD_TO_SIGMA * float(np.median(np.abs(np.diff(kept, 2)))) / _SECOND_DIFFERENCE
    if _FEWEST < len(kept) < _FEW:  # so few points bend visibly from one to the next, which is no noise
        scale = min(scale, _MAD_TO_SIGMA * float(np.median(np.abs(np.diff(kept, 3)))) / _THIRD_DIFFERENCE)
    return scale


def local_noise(values: Values, block: int = _BLOCK) -> Values:
    """Return the noise around each point: of its block or the one before, whichever was noisier."""
    count = len(values)
    if count < 2 * block:
        return np.full(count, noise_scale(values))
    edges = list(range(0, count - block + 1, block))
    scales = np.array(
        [noise_scale(values[edge : edge + block]) for edge in edges[:-1]] + [noise_scale(values[edges[-1] :])]
    )
    scales = np.maximum(scales, np.concatenate([scales[:1], scales[:-1]]))
    widths = np.diff([*edges, count])
    return np.repeat(scales, widths)


def ema(values: Values, weight: float) -> Values:
    """Return the exponential moving average, debiased at the start; gaps stay gaps and do not spread.

    Args:
        values: The series in order of steps.
        weight: What is kept of the past, from 0 (nothing is smoothed) to just under 1.

    Returns:
        A series of the same length.

    Raises:
        ValueError: The weight lies outside 0 … 1.

    Example:
        >>> ema(np.array([1.0, 1.0, 1.0]), 0.9).round(6).tolist()
        [1.0, 1.0, 1.0]
    """
    if not 0 <= weight < 1:
        message = f"The weight of a moving average is {weight!r}; it must be at least 0 and less than 1."
        raise ValueError(message)
    smooth = np.array(values, dtype=np.float64)
    held, mass = 0.0, 0.0
    for index, value in enumerate(smooth.tolist()):
        if np.isfinite(value):
            held = weight * held + (1 - weight) * value
            mass = weight * mass + (1 - weight)
            smooth[index] = held / mass
    return smooth


def quantiles(values: Values, at: tuple[float, ...] = (0.05, 0.5, 0.95)) -> tuple[float, ...]:
    """Return quantiles of the finite values; NaN each when there are none."""
    kept = finite(values)
    if not len(kept):
        return tuple(float("nan") for _ in at)
    return tuple(float(value) for value in np.quantile(kept, at))


def moving_mean(values: Values, window: int) -> Values:
    """Return the mean of the values around each point; the window shrinks at the ends, and gaps are left out."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    index = np.arange(len(values))
    low, high = np.maximum(index - window // 2, 0), np.minimum(index + window // 2 + 1, len(values))
    inside = counts[high] - counts[low]
    mean = (sums[high] - sums[low]) / np.maximum(inside, 1)
    return np.where(inside > 0, mean, np.nan)


def stretches(marked: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the first and last index of each unbroken stretch of marked points."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]]).astype(np.int8)))
    return [(int(first), int(last) - 1) for first, last in zip(edges[::2], edges[1::2], strict=True)]


__all__ = [
    "deviation",
    "ema",
    "finite",
    "local_noise",
    "moving_mean",
    "noise_scale",
    "quantiles",
    "stretches",
]
