"""Whoever asks for a capsule without a bad number: an exception, a stall, a signal, a command, the program itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tracer.errors import TracerError
from tracer.flight import triggers
from tracer.flight.responses import EXCEPTION, MANUAL, OUT_OF_MEMORY, SIGNAL, STALL
from tracer.flight.settings import FlightConfig
from tracer.sink import Guard


@dataclass(frozen=True, slots=True)
class Request:
    """What a capsule is asked for."""

    kind: str
    text: str
    attachments: dict[str, bytes] = field(default_factory=dict)
    error: str | None = None
    notes: Sequence[str] = ()
    keeps_open_call: bool = False  # the call that has not returned is the one to be looked at


class Asking:
    """Hears all requests of one recorder, and has them served: at the next step, or at once where none will come.

    Args:
        config: The settings.
        folder: Where capsules are written; None hears no command and no signal.
        serve: Writes what is there now.
        guard: Keeps a failure of ours out of the training.
    """

    def __init__(
        self, config: FlightConfig, folder: str | None, serve: Callable[[Request], object], guard: Guard
    ) -> None:
        self._serve, self._guard = serve, guard
        self.step_s = 0.0
        self._stall = triggers.Stall(config.stall_s)
        self._requests = triggers.Requests(None if folder is None else os.path.dirname(os.path.abspath(folder)))
        name = config.signal if folder is not None else "off"
        wanted = name != FlightConfig().signal or "TRACER_FLIGHT_SIGNAL" in os.environ
        self._signal = triggers.SignalTrigger(name, lambda: self.ask(SIGNAL), wanted=wanted)
        if folder is not None:
            triggers.watchdog.add(self)

    def stop(self) -> None:
        """Hear nothing any more."""
        triggers.watchdog.remove(self)
        self._signal.restore()

    def ask(self, kind: str = MANUAL) -> None:
        """Take a request; any thread and any signal handler may."""
        self._requests.ask(kind)

    def moved(self, now: float) -> None:
        """Take note that a step came."""
        self._stall.moved(now)

    def take(self) -> Request | None:
        """Return the request that this step serves, if there is one."""
        if not self._requests.waiting:
            return None
        return Request(self._requests.take() or MANUAL, "Asked for from outside.")

    def look(self, now: float) -> None:
        """Look whether the training stands still or somebody left a request; called by the watchdog's thread."""
        with self._guard("looking after the training"):
            self._requests.look()
            if self._stall.stands(now, self.step_s):
                limit = self._stall.limit_s(self.step_s)
                self._serve(Request(STALL, f"No step came for {limit:.0f} s.", _surroundings(), keeps_open_call=True))
            elif self._requests.overdue(now):
                kind = self._requests.take() or MANUAL
                self._serve(Request(kind, "Asked for while no step came.", _surroundings(), keeps_open_call=True))


def of_exception(error: BaseException, *, in_step: bool) -> Request | None:
    """Return the request of an exception that ends a training; None for our own, and for one that was seen before.

    Args:
        error: The exception.
        in_step: Whether an optimizer's step was under way.
    """
    if isinstance(error, TracerError):
        return None
    memory = triggers.is_out_of_memory(error)
    attachments = {"exception.txt": triggers.described(error)}
    found = triggers.allocator_snapshot() if memory else None
    if found is not None:
        attachments["allocator.json"] = found
    line = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    notes = ["The optimizer's step had begun; parameters may be changed."] if in_step else []
    kind = OUT_OF_MEMORY if memory else EXCEPTION
    return Request(kind, f"The training ended with {line}", attachments, line, notes, keeps_open_call=True)


def _surroundings() -> dict[str, bytes]:
    """Return where all threads stand, and what the collectives did."""
    found = {"stacks.txt": triggers.stacks()}
    dump = triggers.collective_dump()
    if dump is not None:
        found["collectives.json"] = dump
    return found


__all__ = ["Asking", "Request", "of_exception"]
