"""What surrounds each hook of the recorder: it may neither break the training nor go unmeasured.

Hooks run between two kernels of the user's, when none of our code is in the processor's caches: each further Python
function costs microseconds there. So a shield is made once and entered often, and has no generator inside.
"""

from __future__ import annotations

from types import TracebackType

from tracer import clock
from tracer.sink import Guard


class Shield:
    """Guards a block and adds its time to `cost_s`; made once, entered at every step by the training's thread.

    Args:
        guard: What takes a failure.
        doing: What the block does, as `Guard` says it.

    Example:
        >>> shield = Shield(Guard(quiet=True), "counting")
        >>> with shield:
        ...     raise KeyError("lost")
        >>> shield.cost_s > 0
        True
    """

    __slots__ = ("_doing", "_guard", "_started", "cost_s")

    def __init__(self, guard: Guard, doing: str) -> None:
        self._guard, self._doing = guard, doing
        self._started = self.cost_s = 0.0

    def __enter__(self) -> None:
        """Begin to measure."""
        self._started = clock.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Add the time; hand a failure to the guard, which counts it and says it once."""
        self.cost_s += clock.monotonic() - self._started
        if not isinstance(error, Exception):
            return False
        with self._guard(self._doing):
            _raise(error)
        return True


def _raise(error: Exception) -> None:
    """Raise an exception again, where the guard waits for it."""
    raise error


__all__ = ["Shield"]
