"""When a peer that fails is tried again: after 1, 2, 4 … 60 seconds, a little less by chance so that lanes part."""

from __future__ import annotations

import random
from collections.abc import Callable

_LONGEST_S = 60.0
#: After so many failures the client is let go of, and the next try begins with a new one.
_OPENS_AT = 5


class Patience:
    """Counts failures in a row.

    Args:
        draw: A number from 0 to 1, drawn at each failure.

    Example:
        >>> patience = Patience(lambda: 1.0)
        >>> [patience.failed() for _ in range(8)]
        [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    """

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self.failures = 0

    @property
    def is_open(self) -> bool:
        """Whether the circuit is open: the peer is only probed."""
        return self.failures >= _OPENS_AT

    def failed(self) -> float:
        """Count a failure; return how long to wait, half of it at least."""
        longest = min(2.0 ** min(self.failures, 10), _LONGEST_S)
        self.failures += 1
        return longest * (1 + self._draw()) / 2

    def worked(self) -> None:
        """Count from the beginning."""
        self.failures = 0


__all__ = ["Patience"]
