"""Who feeds a TensorBoard writer at this moment: a mark that a framework's hooks set and TensorBoard's hook reads.

A framework that is captured itself reports a value once to us and once more to the TensorBoard writer it feeds. The
framework's own report is the better one (full precision, the framework's step), so while it feeds the writer, the
scalars heard there are dropped. Pictures, sound and text are not: the framework reports none of those.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_feeder: ContextVar[str | None] = ContextVar("tracer_tensorboard_feeder", default=None)


@contextmanager
def feeding(origin: str) -> Iterator[None]:
    """Mark that a framework feeds a TensorBoard writer: what it writes as scalars has been reported by `origin`.

    Args:
        origin: The framework whose own capture reports the same values, such as `lightning`.

    Example:
        >>> from tracer.capture.origins import fed_by, feeding
        >>> with feeding("lightning"):
        ...     fed_by()
        'lightning'
        >>> fed_by() is None
        True
    """
    mark = _feeder.set(origin)
    try:
        yield
    finally:
        _feeder.reset(mark)


def fed_by() -> str | None:
    """Say which framework feeds a TensorBoard writer in this thread and context, or None."""
    return _feeder.get()
