"""Listening to some frameworks by hand; an experiment says with its settings which it listens to."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

from tracer.capture.frameworks import FRAMEWORKS


def begin(names: Iterable[str]) -> None:
    """Listen to frameworks from now on; nothing is put in twice."""
    from tracer.capture.patching import patches

    patches.start(names)


def end(names: Iterable[str]) -> None:
    """Listen to these frameworks no more; the others stay."""
    from tracer.capture.patching import patches

    before = [name for name in FRAMEWORKS if patches.is_on(name)]
    left = [name for name in before if name not in set(names)]
    if left != before:
        patches.stop()
        patches.start(left)


def is_on(name: str) -> bool:
    """Tell whether a framework is listened to."""
    from tracer.capture.patching import patches

    return patches.is_on(name)


__all__ = ["begin", "end", "is_on"]
