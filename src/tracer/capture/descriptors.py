"""Output below Python: the descriptors 1 and 2 lead through a small process that hands every byte on.

A process and no thread, because a thread dies with the program: what a crash writes last would never reach the
terminal. Where a descriptor is a terminal, the program gets a terminal again, of the same size and kind.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import pty
import subprocess
import sys
import termios
import threading
from collections.abc import Callable

from tracer import clock, sink
from tracer.capture import forwarding

_PIECE = 1 << 16
_NUMBERS = {"stdout": 1, "stderr": 2}
_START_S = 10.0


class Descriptors:
    """Leads descriptors 1 and 2 through a process, and hears a copy.

    Args:
        put: Gets the name of a stream and what was written to it.
        guard: Keeps our failures from the program.
    """

    def __init__(self, put: Callable[[str, str], None], guard: sink.Guard) -> None:
        self._put, self._guard = put, guard
        self._saved: dict[int, int] = {}  # number → the descriptor it was
        self._placed: dict[int, tuple[int, int]] = {}  # number → what we put there, as device and inode
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Put the process between.

        Raises:
            OSError: No process can be started, or a descriptor is closed.
        """
        _flush()
        sources, targets, copies, ours = [], [], [], {}
        for number in _NUMBERS.values():
            source, program = _line(number)
            heard, copy = os.pipe()
            sources.append(source)
            targets.append(os.dup(number))
            copies.append(copy)
            ours[number] = (program, heard)
        passed = [*sources, *targets, *copies]
        described = [f"{one},{two},{three}" for one, two, three in zip(sources, targets, copies, strict=True)]
        command = [sys.executable, "-I", "-S", forwarding.__file__, *described]
        try:
            subprocess.run(command, pass_fds=passed, check=True, timeout=_START_S, stdin=subprocess.DEVNULL)  # noqa: S603
        except subprocess.SubprocessError as error:
            raise OSError(str(error)) from error
        finally:
            for descriptor in (*sources, *copies):
                os.close(descriptor)
        for (name, number), target in zip(_NUMBERS.items(), targets, strict=True):
            program, heard = ours[number]
            self._saved[number] = target
            os.set_inheritable(target, False)
            os.dup2(program, number)
            self._placed[number] = _identity(number)
            os.close(program)
            thread = threading.Thread(target=self._hear, args=(name, heard), name=f"tracer-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, timeout_s: float) -> None:
        """Put the descriptors back where they are still ours, and hear what is on its way."""
        deadline = clock.monotonic() + timeout_s
        _flush()
        for number, before in self._saved.items():
            with contextlib.suppress(OSError):
                if _identity(number) == self._placed[number]:
                    os.dup2(before, number)
                os.close(before)
        self._saved.clear()
        for thread in self._threads:  # they end when the process has: a child that still prints is not waited for
            thread.join(max(deadline - clock.monotonic(), 0.05))

    def _hear(self, name: str, heard: int) -> None:
        """Hand on what the process shows, until it ends."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with self._guard("hearing the output"), open(heard, "rb", buffering=0) as file:
            while data := file.read(_PIECE):
                self._put(name, decoder.decode(data))


def _line(number: int) -> tuple[int, int]:
    """Return where the process reads and where the program writes: a pipe, or a terminal in place of a terminal."""
    if not os.isatty(number):
        return os.pipe()
    ours, theirs = pty.openpty()
    settings = termios.tcgetattr(number)
    settings[1] &= ~termios.OPOST  # the real terminal does that
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, fcntl.ioctl(number, termios.TIOCGWINSZ, bytes(8)))
    return ours, theirs


def _identity(number: int) -> tuple[int, int]:
    """Return what tells the file behind a descriptor from others."""
    state = os.fstat(number)
    return state.st_dev, state.st_ino


def _flush() -> None:
    """Write what Python still holds, to where it was meant to go."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()


__all__ = ["Descriptors"]
