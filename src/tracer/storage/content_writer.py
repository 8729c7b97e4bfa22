"""Artifacts and media are kept on a thread of their own: hashing and copying is nothing a training step should pay."""

from __future__ import annotations

from collections.abc import Callable

from tracer import events
from tracer.sink import Guard


class ContentWriter:
    """Keeps the contents of one run: the bytes first, then the record that names them.

    Args:
        folder: The run's folder.
        append: Writes a record into the journal: kind, value, step, time.
        guard: Takes what goes wrong.
    """

    def __init__(
        self, folder: str, append: Callable[[int, object, int | None, float | None], None], guard: Guard
    ) -> None:
        self._folder, self._append, self._guard = folder, append, guard

    def put(self, event: events.Media | events.Artifact) -> None:
        """Have something kept; never waits."""

    def stop(self) -> None:
        """Keep what waits, within a bound."""
