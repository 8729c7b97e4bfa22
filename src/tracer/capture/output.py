"""What the program prints and logs, kept line by line; what it shows on its terminal stays as it is.

    streams ─┐ wrap: the streams' own `write`      ┌► lines ► redactor ► Entry("line")
    logging ─┼► queue ► one thread, every 0.1 s ───┤
    fd 1, 2 ─┘ fd: through a small process         └► Entry("log")

The streams are not replaced: a `write` is put into the stream object itself, so `isatty`, `fileno`, `encoding`,
`buffer`, the type and the context manager are the stream's own, and whoever holds a reference to it is heard too. A
write costs the caller one entry of a queue.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tracer import clock, events, sink
from tracer.capture.kept_lines import KeptLines, at_step
from tracer.capture.lines import MAX_LINE, Lines
from tracer.capture.logging_records import LoggingRecords
from tracer.capture.patching import Hook
from tracer.capture.redaction import Redactor
from tracer.capture.streams import STREAMS, Streams

if TYPE_CHECKING:
    from tracer.capture.descriptors import Descriptors

    class Steps:
        """Where the run stands."""

        step: int


_PAUSE_S = 0.1
#: Characters that wait for the thread; beyond this the program writes faster than anybody reads, and they are counted.
_MAX_WAITING = 32 << 20
_LOG, _DRAIN = "log", "drain"
_DRAIN_S = 0.5
#: Ways to leave a program that call nobody else.
_LEAVING = ("execv", "execve", "_exit")


class Output:
    """Listens to the output of this process; made by `listen`.

    Args:
        mode: `wrap` or `fd`.
        guard: Keeps our failures from the program.
    """

    def __init__(self, mode: str, guard: sink.Guard) -> None:
        self.mode, self.guard = mode, guard
        self.steps: Steps | None = None
        self.redactor = Redactor()
        self.is_on = False
        self._queue: queue.SimpleQueue[tuple[str, float, int, Any] | None] = queue.SimpleQueue()
        self._waiting = self._lost = 0
        self._here = threading.local()
        self._undo: list[Callable[[], None]] = []
        self._lines = {name: Lines(KeptLines(name, lambda: self.redactor)) for name in STREAMS}
        self._thread: threading.Thread | None = None
        self._hurry = threading.Event()
        self._descriptors: Descriptors | None = None
        self._ended_descriptors = 0

    def start(self) -> None:
        """Begin to listen."""
        self.is_on = True
        self._undo.append(LoggingRecords(self.put_record, self._here).install())
        self._undo += [Hook(f"output.{name}").wrap(os, name, self._drain_first) for name in _LEAVING]
        if self.mode == "fd":
            from tracer.capture.descriptors import Descriptors

            with contextlib.suppress(OSError):
                self._descriptors = Descriptors(self.put, self.guard)
                self._descriptors.start()
        streams = Streams(self.put, self._here, self.guard, is_below=self._descriptors is not None)
        self._undo.append(streams.stop)
        streams.listen()
        streams.listen_in_each_cell()
        self._thread = threading.Thread(target=self._work, name="tracer-output", daemon=True)
        self._thread.start()
        _outputs.add(self)

    def stop(self, timeout_s: float = 1.0) -> None:
        """Listen no more; what was written before is kept, if that takes no longer than this."""
        global _active  # noqa: PLW0603 -- see `listen`
        deadline = clock.monotonic() + timeout_s
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()
        if self._descriptors is not None:
            self._descriptors.stop(timeout_s)
        self.is_on = False
        self._hurry.set()
        self._queue.put(None)
        if self._thread is not None and threading.current_thread() is not self._thread:
            self._thread.join(max(deadline - clock.monotonic(), 0.05))
        if _active is self:
            _active = None

    def put(self, name: str, text: str) -> None:
        """Take what was written to a stream; on the caller's thread."""
        if not self.is_on:
            return
        if self._waiting > _MAX_WAITING:
            self._lost += len(text)
            return
        self._waiting += len(text)
        steps = self.steps
        self._queue.put((name, clock.now(), steps.step if steps is not None else -1, text))

    def put_record(self, name: str, level: str, body: str, time: float) -> None:
        """Take a record of `logging`; on the caller's thread."""
        if self.is_on and self._waiting <= _MAX_WAITING:
            steps = self.steps
            self._waiting += len(body)
            self._queue.put((_LOG, time, steps.step if steps is not None else -1, (name, level, body)))

    def drain(self) -> None:
        """Wait, shortly, until what was written so far is recorded."""
        done = threading.Event()
        if self.is_on and self._waiting and threading.current_thread() is not self._thread:
            self._queue.put((_DRAIN, 0.0, 0, done))
            self._hurry.set()
            done.wait(_DRAIN_S)
            self._hurry.clear()

    def _drain_first(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that leaves the program, with what was written before on record."""

        def leave(*given: Any, **named: Any) -> Any:  # noqa: ANN401 -- handed on as they are
            self.drain()
            return original(*given, **named)

        return leave

    def forget_parent(self) -> None:
        """In a forked child: what it prints is its own; the parent's thread is not here."""
        self.is_on = False
        self._thread = None

    def _work(self) -> None:
        """Put lines together until told to stop."""
        ended = False
        while not ended:
            waiting = self._has_states()
            try:
                first = self._queue.get(timeout=1.0) if waiting else self._queue.get()
                if first is not None:
                    clock.wait(self._hurry, _PAUSE_S)  # a burst is not disturbed while it lasts
            except queue.Empty:
                first = ("", clock.now(), 0, "")
            with self.guard("keeping output"):
                ended = first is None
                if first is not None:
                    self._take(*first)
                ended = self._take_waiting() or ended
                for lines in self._lines.values():
                    lines.tick(clock.now())
        with self.guard("keeping output"):
            self._take_waiting()
            for lines in self._lines.values():
                lines.close()

    def _has_states(self) -> bool:
        """Tell whether something may become due without anything being written."""
        return any(lines.is_waiting for lines in self._lines.values()) or self._lost > 0

    def _take_waiting(self) -> bool:
        """Take everything that waits; tell whether the end was among it."""
        ended = False
        while True:
            try:
                one = self._queue.get_nowait()
            except queue.Empty:
                break
            if one is None:
                ended = True
            else:
                self._take(*one)
        if self._lost:
            lost, self._lost = self._lost, 0
            sink.emit(events.Entry("line", f"[tracer: {lost:,} characters left out]", name="stdout"))
        return ended

    def _take(self, name: str, time: float, step: int, said: Any) -> None:  # noqa: ANN401 -- text, or a record's parts
        """Take one entry of the queue."""
        if name == _DRAIN:
            for lines in self._lines.values():
                lines.close()
            said.set()
        elif name == _LOG:
            logger, level, body = said
            self._waiting -= len(body)
            clean = "\n".join(self.redactor.lines(body[:MAX_LINE].split("\n"), "output.log"))
            sink.emit(events.Entry("log", clean, name=logger, level=level, time=time, step=at_step(step)))
        elif name:
            self._waiting -= len(said)
            self._lines[name].feed(said, time, step)


_active: Output | None = None
_outputs: weakref.WeakSet[Output] = weakref.WeakSet()


def listen(
    mode: str, *, steps: object = None, redactor: Redactor | None = None, guard: sink.Guard | None = None
) -> Output:
    """Begin to listen to this process' output, or go on where that has begun before the run.

    Args:
        mode: `wrap` or `fd`; that of the beginning counts.
        steps: Whose `step` dates what is written; none yet when None.
        redactor: What cuts secrets out.
        guard: Keeps our failures from the program.

    Returns:
        What listens; `stop` ends it.
    """
    global _active  # noqa: PLW0603 -- a process has one standard output
    output = _active
    if output is None:
        output = _active = Output(mode, guard or sink.Guard())
    if steps is not None:
        output.steps = steps  # type: ignore[assignment]  # whatever has a step
    output.redactor = redactor or output.redactor
    output.guard = guard or output.guard
    if not output.is_on:
        output.start()
    return output


def _in_child() -> None:
    """Make every output of the parent deaf in a forked child."""
    for output in list(_outputs):
        output.forget_parent()


os.register_at_fork(after_in_child=_in_child)

__all__ = ["Output", "listen"]
