"""What a process writes with that takes part in the run of another: what it hears is kept, nothing else is done.

Its journal is its own; the run's facts, its end, the collectors and the watching of models belong to the owner.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tracer.config import Config

import atexit
import os
import sys

from tracer import journal, places, runfile, sink
from tracer.capture.redaction import Redactor
from tracer.intake import Intake
from tracer.record.identity import Place
from tracer.record.recorder import Recorder
from tracer.surroundings import cleaned


class Unwatched:
    """What looks at the training in a process where nobody does."""

    def take(self, event: object) -> None:
        """Forget an event."""


class Member:
    """Takes events for the run of another process.

    Args:
        config: The settings.
        uid: The run.
        folder: Its folder.
        place: Where this process stands in its job.
    """

    def __init__(self, config: Config, uid: str, folder: str, place: Place) -> None:
        self.config, self.model = config, None
        self.guard = sink.Guard(strict=config.strict, quiet=config.quiet)
        self.facts: Mapping[str, Any] = runfile.read(folder)
        self.redactor = Redactor.of(config)
        mode = places.kind(folder, config.journal)
        name = str(self.facts.get("name", uid))
        self.recorder = Recorder(
            folder, uid, place, mode=mode, durability=config.durability, guard=self.guard, name=name, role="worker"
        )
        self.observers = Unwatched()
        self._intake = Intake(self)  # type: ignore[arg-type]  # it looks at nothing
        self._pid = os.getpid()
        self._at_end()

    def take(self, event: object) -> None:
        """Record an event that some instrument emitted."""
        self._intake.take(event)

    def change(self, changes: Mapping[str, object]) -> None:
        """Tell the owner's run what is known here."""
        self.recorder.append(journal.Kind.METADATA, cleaned(self.redactor, changes))

    def watch(self, model: object, optimizer: object = None) -> None:
        """Leave a model alone: the owner's looks at its own."""

    def step(self) -> None:
        """End a step."""
        self.recorder.steps.step += 1
        self.recorder.end_step()

    def go_on_at(self, step: int) -> None:
        """Set the step counter."""
        self.recorder.steps.step = step

    def end(self) -> None:
        """End this process' part; what its forked children inherited of it is none of their business."""
        if self._pid == os.getpid():
            with self.guard("ending this process' part of the run"):
                self._intake.stop()
                self.recorder.close(self.config.finish_timeout_s)

    def _at_end(self) -> None:
        """Be told when this process ends: workers of `multiprocessing` leave without the usual ceremony."""
        atexit.register(self.end)
        ending = sys.modules.get("multiprocessing.util")
        if ending is not None:
            ending.Finalize(None, self.end, exitpriority=0)


__all__ = ["Member"]
