"""A step of a model, as the flight recorder keeps it."""

from __future__ import annotations

from torch import nn

from tracer.flight.recorder import FlightRecorder
from tracer.flight.settings import FlightConfig
from tracer.flight.steps import Step
from tracer.sink import Guard


class Recording:
    """A recorder of which a test wants the step under way."""

    def __init__(self, model: nn.Module, *, upstream: bool = True) -> None:
        config = FlightConfig(upstream="on" if upstream else "off", diagnose=False, stall_s="off", signal="off")
        self.recorder = FlightRecorder(model, config=config, guard=Guard(strict=True))

    def stop(self) -> Step:
        """Return the step under way, and record no more."""
        calls = self.recorder._calls
        step = calls.complete(calls.step)
        self.recorder.stop()
        return step


__all__ = ["Recording"]
