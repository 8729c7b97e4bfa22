"""What asks for a capsule besides a bad number: an exception, no memory, a stall, a signal, a person.

One thread per process looks once a second whether a training stands still and whether somebody left a request. What
was asked for is served by the training thread at its next step; only where that does not come, here.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

import torch

from tracer import clock

REQUEST_FILE = "capsule.request"
_LOOK_S = 1.0
#: A request that no step has served after this time is served where it was noticed: the training hangs.
_PATIENCE_S = 10.0
_SHORTEST_STALL_S = 60.0
_STALL_STEPS = 10.0


class Watched(Protocol):
    """A recorder, as the watchdog sees it."""

    def look(self, now: float) -> None:
        """Look whether the training stands still or somebody asked for a capsule."""


class Watchdog:
    """The thread that looks; it ends when nobody is left to look after.

    Args:
        wait: Waits until the event is set or the time is over.
    """

    def __init__(self, wait: Callable[[threading.Event, float], bool] = clock.wait) -> None:
        self._watched: weakref.WeakSet[Watched] = weakref.WeakSet()
        self._wake, self._wait = threading.Event(), wait
        self._lock = threading.RLock()  # a model that dies while we hold it removes its recorder in this very thread
        self._thread: threading.Thread | None = None

    def add(self, watched: Watched) -> None:
        """Look after one more, from now on."""
        with self._lock:
            self._watched.add(watched)
            if self._thread is None or not self._thread.is_alive():  # a forked child starts its own
                self._wake = threading.Event()
                self._thread = threading.Thread(target=self._run, args=(self._wake,), name="tracer-flight", daemon=True)
                self._thread.start()

    def remove(self, watched: Watched) -> None:
        """Look after it no more; the thread ends with the last."""
        with self._lock:
            self._watched.discard(watched)
            if not self._watched:
                self._wake.set()
                self._thread = None

    def _run(self, wake: threading.Event) -> None:
        """Look once a second."""
        while not self._wait(wake, _LOOK_S):
            for watched in tuple(self._watched):
                watched.look(clock.monotonic())


#: One per process, whatever the number of models.
watchdog = Watchdog()


class Stall:
    """Tells once per stall that no step came for too long.

    Args:
        setting: `auto`, `off`, or seconds.

    Example:
        >>> stall = Stall(2.0)
        >>> stall.moved(100.0)
        >>> [stall.stands(now, step_s=0.1) for now in (101.0, 103.0, 104.0)]
        [False, True, False]
    """

    def __init__(self, setting: str | float) -> None:
        self._setting = setting
        self._moved_at: float | None = None
        self._told = False

    def moved(self, now: float) -> None:
        """Take note that the training goes on."""
        self._moved_at, self._told = now, False

    def limit_s(self, step_s: float) -> float:
        """Return after how many seconds without a step the training stands still."""
        if isinstance(self._setting, str):
            return float("inf") if self._setting == "off" else max(_SHORTEST_STALL_S, _STALL_STEPS * step_s)
        return float(self._setting)

    def stands(self, now: float, step_s: float) -> bool:
        """Tell whether this is the moment to report a stall."""
        if self._told or self._moved_at is None or now - self._moved_at < self.limit_s(step_s):
            return False
        self._told = True
        return True


class Requests:
    """Capsules that somebody asked for, and when.

    Args:
        folder: The run's folder, in which a command leaves its request; None looks nowhere.
    """

    def __init__(self, folder: str | None) -> None:
        self._file = None if folder is None else os.path.join(folder, REQUEST_FILE)
        self._asked: list[tuple[str, float]] = []

    @property
    def waiting(self) -> bool:
        """Whether somebody asked and was not served."""
        return bool(self._asked)

    def ask(self, kind: str) -> None:
        """Take a request; safe inside a signal handler."""
        self._asked.append((kind, clock.monotonic()))

    def look(self) -> None:
        """Take the request of a command, if there is one; who removes the file serves it."""
        if self._file is not None and os.path.exists(self._file):
            with contextlib.suppress(OSError):
                os.unlink(self._file)
                self.ask("manual")

    def take(self) -> str | None:
        """Return what was asked for, once however often it was asked; None if nothing was."""
        if not self._asked:
            return None
        kind = self._asked[0][0]
        self._asked.clear()
        return kind

    def overdue(self, now: float) -> bool:
        """Tell whether a request has waited so long that no step will come to serve it."""
        return bool(self._asked) and now - self._asked[0][1] > _PATIENCE_S


class SignalTrigger:
    """A signal that asks for a capsule, where nobody else uses it.

    Args:
        name: Such as `SIGUSR1`; `off` installs nothing.
        ask: Called in the handler.
        wanted: Whether the user named the signal: then it is taken even where somebody else uses it, who is called too.
    """

    def __init__(self, name: str, ask: Callable[[], None], *, wanted: bool = False) -> None:
        self._ask = ask
        self._number: signal.Signals | None = None
        self._before: Any = None
        if name == "off" or threading.current_thread() is not threading.main_thread():
            return
        number = signal.Signals[name]
        before = signal.getsignal(number)
        # SLURM sends its own before a job's time is over, and most programs that ask for it wait for exactly that one.
        taken = before not in (signal.SIG_DFL, signal.default_int_handler) or "SLURM_JOB_ID" in os.environ
        if taken and not wanted:
            return
        self._number, self._before = number, before
        signal.signal(number, self._handle)

    @property
    def installed(self) -> bool:
        """Whether the handler is ours."""
        return self._number is not None

    def restore(self) -> None:
        """Put back the handler that was there before, unless somebody else has replaced ours."""
        if self._number is None or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(self._number) == self._handle:
            signal.signal(self._number, signal.SIG_DFL if self._before is None else self._before)
        self._number = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Ask, and hand the signal on."""
        self._ask()
        if callable(self._before):
            self._before(number, frame)


def stacks() -> bytes:
    """Return where each thread of this process stands, as text."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    text = io.StringIO()
    for identity, frame in sys._current_frames().items():  # noqa: SLF001 -- it has no public name
        text.write(f"Thread {names.get(identity, '?')} ({identity}), most recent call last:\n")
        text.write("".join(traceback.format_stack(frame)))
        text.write("\n")
    return text.getvalue().encode()


def described(error: BaseException) -> bytes:
    """Return an exception with its frames, without the values of local variables."""
    return "".join(traceback.format_exception(error)).encode()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception means that a device or the host has no memory left."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "not enough memory" in str(error)


def collective_dump() -> bytes | None:
    """Return the dump of PyTorch's own recorder of collectives, where it is active."""
    from torch._C import _distributed_c10d as distributed

    dump = getattr(distributed, "_dump_nccl_trace_json", None)
    buffered = os.environ.get("TORCH_FR_BUFFER_SIZE") or os.environ.get("TORCH_NCCL_TRACE_BUFFER_SIZE") or "0"
    if dump is None or buffered == "0" or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's
        return None
    found = dump()
    return bytes(found) if isinstance(found, (bytes, bytearray)) else str(found).encode()


def allocator_snapshot() -> bytes | None:
    """Return what the allocator of the GPU holds, as JSON; None where there is none."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's
        return None
    import json

    found: Any = torch.cuda.memory_snapshot()  # type: ignore[no-untyped-call]  # torch's
    return json.dumps(found, default=str).encode()


__all__ = [
    "REQUEST_FILE",
    "Requests",
    "SignalTrigger",
    "Stall",
    "Watchdog",
    "allocator_snapshot",
    "collective_dump",
    "described",
    "is_out_of_memory",
    "stacks",
    "watchdog",
]
