"""Many measurements in few figures, and figures as people read them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True, slots=True)
class Spread:
    """The smallest says what the code costs, the median what a user sees, the largest what the machine can do to it."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise measurements."""
        return cls(min(values), statistics.median(values), max(values))

    def __truediv__(self, divisor: float) -> Spread:
        """Change the unit."""
        return Spread(self.min / divisor, self.median / divisor, self.max / divisor)

    def __str__(self) -> str:
        """Show all three."""
        return f"{number(self.min)} / {number(self.median)} / {number(self.max)}"


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value that this share of sorted measurements does not exceed."""
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def number(value: float) -> str:
    """Return a number with three digits that matter."""
    size = abs(value)
    if size >= 1000 or value == int(value):
        return f"{value:,.0f}"
    digits = 2 if size == 0 else max(0, 2 - math.floor(math.log10(size)))
    return f"{value:.{min(digits, 4)}f}"


def percent(ratio: float) -> str:
    """Return by how much a ratio lies above or below one."""
    return f"{100 * (ratio - 1):+.2f} %"
