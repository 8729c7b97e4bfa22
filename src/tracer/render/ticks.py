"""Where an axis has its marks: round numbers, as many as there is room for. Standard library only."""

from __future__ import annotations

import math

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_FEWEST_ON_LOG = 2
_TINY, _LONG, _LONGEST = 1e-3, 1e4, 1e11
_MOST_PLACES = 300


def ticks(low: float, high: float, count: int) -> list[float]:
    """Return round numbers from low to high.

    Args:
        low: The lower end of the axis.
        high: Its upper end.
        count: About how many marks there is room for.

    Returns:
        The marks that lie within, ascending.

    Example:
        >>> ticks(0.0, 1.0, 5)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw)) if 0 < raw < math.inf else 0.0
    if power == 0:  # the span is beyond what a double holds, on either side
        return [low, high]
    step = next(factor for factor in (*_STEPS, 20.0) if factor * power >= raw * 0.999) * power
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    if last - first > 10 * max(count, 1):  # the span is smaller than what a double can tell apart there
        return [low, high]
    return [min(max(_tidy(index * step, step), low), high) for index in range(first, last + 1)]


def log_ticks(low: float, high: float, count: int) -> list[float]:
    """Return powers of ten, and where there is room their doubles and fives, from low to high, both positive."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    room = max(count, 3)
    for every, factors in ((1, (1.0, 2.0, 5.0)), *((every, (1.0,)) for every in range(1, last - first + 2))):
        marks = [factor * 10.0**power for power in range(first, last + 1) if power % every == 0 for factor in factors]
        inside = [mark for mark in marks if low * 0.999 <= mark <= high * 1.001]
        if _FEWEST_ON_LOG <= len(inside) <= room:
            return inside
    return ticks(low, high, count)


def label(value: float, step: float | None = None) -> str:
    """Return the text of a mark: short, and exact enough to tell it from the next one.

    Example:
        >>> [label(value) for value in (0.0, 0.25, 1500.0, 2000000.0, 1e-5, 1e12)]
        ['0', '0.25', '1500', '2M', '1e-5', '1e12']
    """
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf"
    size = abs(value)
    if size == 0:
        return "0"
    if _LONG <= size < _LONGEST:
        for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if size >= factor and (step is None or step >= factor / 100):
                return f"{value / factor:.6g}{unit}"
    if size >= _LONGEST or size < _TINY:
        mantissa, _, power = f"{value:.3e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"
    digits = 6
    if step is not None and step > 0 and size > step:
        digits = min(17, max(digits, math.ceil(math.log10(size / step)) + 2))
    return f"{value:.{digits}g}"


def _tidy(value: float, step: float) -> float:
    """Return a multiple of the step without the dust of binary fractions."""
    if value == 0:
        return 0.0
    places = max(0, 2 - math.floor(math.log10(step)))
    return round(value, places) if places < _MOST_PLACES else value


__all__ = ["label", "log_ticks", "ticks"]
