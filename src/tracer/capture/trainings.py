"""Tells several trainings of one run apart: the first has plain names, the others have `training_2/` before theirs.

A program that trains a model per fold would otherwise write every fold over the one before. A training that goes on
where an earlier one ended keeps its names.
"""

from __future__ import annotations

import threading
import weakref

from tracer.state import _state

#: Trainings of one run whose curves are kept; a search of thousands is a table, not thousands of curves.
MAX_TRAININGS = 100


class Training:
    """One training: what stands before its names, and the step it ended at.

    `prefix` is None where the run holds enough curves already.
    """

    __slots__ = ("end", "origin", "prefix", "subject")

    def __init__(self, origin: str, prefix: str | None, subject: object) -> None:
        self.origin, self.prefix, self.end = origin, prefix, 0
        self.subject = None if subject is None else weakref.ref(subject)

    def goes_on(self, origin: str, start: int, subject: object) -> bool:
        """Tell whether a training that starts at a step continues this one."""
        if origin != self.origin:
            return False
        if subject is not None:
            return self.subject is not None and self.subject() is subject and start >= self.end
        return start > 0 and start == self.end


class Trainings:
    """The trainings of the run that is active."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._run: str | None = None
        self._known: list[Training] = []
        self._count = 0

    def begin(self, origin: str, start: int, subject: object = None) -> Training:
        """Begin a training, or go on with one.

        Args:
            origin: The framework.
            start: The step it starts at; above 0 where it continues.
            subject: What is trained, where the framework trains the same object again.
        """
        with self._lock:
            if self._run != _state.run_id:
                self.forget()
            for known in reversed(self._known):
                if known.goes_on(origin, start, subject):
                    return known
            self._count += 1
            prefix = "" if self._count == 1 else f"training_{self._count}/"
            training = Training(origin, prefix if self._count <= MAX_TRAININGS else None, subject)
            self._known = [*self._known[-MAX_TRAININGS:], training]
            return training

    def forget(self) -> None:
        """Begin with plain names again."""
        self._run, self._known, self._count = _state.run_id, [], 0


trainings = Trainings()

__all__ = ["MAX_TRAININGS", "Training", "Trainings", "trainings"]
