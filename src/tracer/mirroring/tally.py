"""`mirrors/<name>.series`: how much of each series a back end has, for a lane that must go on from the store.

A lane that follows the journal needs it not: its place says everything. It is written now and then, and at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping

from tracer import clock, cursors
from tracer.mirroring.routing import name_of, rank_of, size_of
from tracer.transfer import LOG, Event, Points

_SAVE_S = 5.0


class Counts:
    """How many of each series there are, and how far they reach.

    Args:
        counts: Series → count and last position.
    """

    def __init__(self, counts: Mapping[str, list[int]]) -> None:
        self._counts = {key: list(one) for key, one in counts.items()}

    def count(self, event: Event) -> int:
        """Return how many of an event's series there are."""
        return self._counts.get(_key(event), (0,))[0]

    def last(self, event: Event) -> int | None:
        """Return how far its series reaches; None where there is nothing of it."""
        found = self._counts.get(_key(event))
        return found[1] if found else None

    @staticmethod
    def position(event: Event) -> int:
        """Return how far an event reaches: its last step; of lines of output the time."""
        if isinstance(event, Points):
            return int(event.steps.max())
        return int(getattr(event, "time" if event.KIND == LOG else "step", None) or 0)


class Tally(Counts):
    """Counts what one back end was sent, and keeps it.

    Args:
        folder: The run's folder.
        name: The lane's name.
    """

    def __init__(self, folder: str, name: str) -> None:
        self._path = os.path.join(folder, cursors.FOLDER, f"{name}.series")
        self._saved = clock.monotonic()
        self._is_new = False
        kept: Mapping[str, list[int]] = {}
        with contextlib.suppress(OSError, ValueError), open(self._path, encoding="utf-8") as file:
            kept = json.load(file)
        super().__init__(kept)

    def now(self) -> Counts:
        """Return the counts as they are now."""
        return Counts(self._counts)

    def add(self, sent: Iterable[Event]) -> None:
        """Count events that a back end took."""
        for event in sent:
            position = self.position(event)
            counted = self._counts.setdefault(_key(event), [0, position])
            counted[0] += size_of(event)
            counted[1] = max(counted[1], position)
            self._is_new = True

    def save(self, *, now: bool = False) -> None:
        """Write it, if that is due; a disk that does not take it is no reason to stop."""
        if not self._is_new or (not now and clock.monotonic() - self._saved < _SAVE_S):
            return
        aside = f"{self._path}.{os.getpid()}.part"
        with contextlib.suppress(OSError):
            with open(aside, "w", encoding="utf-8") as file:
                json.dump(self._counts, file, separators=(",", ":"))
            os.replace(aside, self._path)
            self._is_new = False
        self._saved = clock.monotonic()


def _key(event: Event) -> str:
    """Return the series of an event."""
    return f"{event.KIND}:{rank_of(event)}:{name_of(event)}"


__all__ = ["Counts", "Tally"]
