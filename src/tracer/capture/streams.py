"""The standard streams, heard at their own `write`: they stay the objects they are, and show what they showed.

A function is put into the stream object and calls the one that was there. It is taken out again only if it still is
what stands there; where another tool has put something before it, it stays and is deaf.
"""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Callable
from typing import Any

from tracer import sink

STREAMS = ("stdout", "stderr")


class Streams:
    """Listens to `sys.stdout` and `sys.stderr`.

    Args:
        put: Gets the name of a stream and what was written to it, on the caller's thread.
        here: Marked with `is_logging` while a handler prints what was heard as a record.
        guard: Says once which stream lets nobody listen.
        is_below: Whether descriptors 1 and 2 are heard already.
    """

    def __init__(
        self, put: Callable[[str, str], None], here: threading.local, guard: sink.Guard, *, is_below: bool
    ) -> None:
        self._put, self._here, self._guard, self._is_below = put, here, guard, is_below
        self._writes: dict[str, object] = {}
        self._undo: list[Callable[[], None]] = []

    def stop(self) -> None:
        """Listen no more."""
        while self._undo:
            self._undo.pop()()

    def listen(self, *_: object) -> None:
        """Listen to the standard streams, as far as that is not done."""
        for number, name in enumerate(STREAMS, 1):
            placed = self._writes.get(name)
            if self._is_below and _leads_to(getattr(sys, name), number):
                continue  # heard below
            if placed is None or getattr(getattr(sys, name), "__dict__", {}).get("write") is not placed:
                undo = self._listen_to(name)
                self._undo += [undo] if undo is not None else []

    def listen_in_each_cell(self) -> None:
        """In a notebook, listen anew in each cell: at its end IPython puts back what it found at its beginning."""
        shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
        if shell is not None:
            shell.events.register("pre_run_cell", self.listen)
            self._undo.append(lambda: shell.events.unregister("pre_run_cell", self.listen))

    def _listen_to(self, name: str) -> Callable[[], None] | None:
        """Put a `write` into one of the standard streams; None where there is no stream, or it takes none."""
        stream = getattr(sys, name)
        if stream is None:  # a program without a console
            return None
        before = getattr(stream, "__dict__", {}).get("write")  # another tool does as we do
        original, here, put = stream.write, self._here, self._put

        def write(text: str, /) -> Any:  # noqa: ANN401 -- whatever the stream's own returns
            written = original(text)
            if not getattr(here, "is_logging", False):  # a handler prints what was heard as a record
                put(name, text)
            return written

        try:
            stream.write = self._writes[name] = write
        except AttributeError:
            said = f"{type(stream).__name__} lets nobody listen; TRACER_TRACK_OUTPUT=fd hears it."
            self._guard.say(f"output {name}", f"sys.{name} is not kept: {said}")
            return None

        def undo() -> None:
            if vars(stream).get("write") is not write:  # somebody stands before us: we are deaf, and stay
                return
            if before is None:
                del stream.write
            else:
                stream.write = before

        return undo


def _leads_to(stream: Any, number: int) -> bool:  # noqa: ANN401 -- whatever stands at `sys.stdout`
    """Tell whether what is written to a stream arrives at a descriptor; that of a notebook goes elsewhere."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return isinstance(stream, io.TextIOWrapper) and stream.fileno() == number
    return stream is None


__all__ = ["STREAMS", "Streams"]
