"""A series in as many columns as a chart has: what `reduction` makes and `render` draws. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Columns:
    """A reduced series: where each column lies, the range, last and mean of its finite values, and what was not finite.

    `nans`, `highs` and `lows` hold where the series was NaN, +Inf and -Inf, ascending.
    """

    x: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    last: tuple[float, ...]
    mean: tuple[float, ...]
    nans: tuple[float, ...] = ()
    highs: tuple[float, ...] = ()
    lows: tuple[float, ...] = ()


__all__ = ["Columns"]
