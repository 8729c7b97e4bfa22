"""A small process between a program and its terminal: hands every byte on, and shows a copy to whoever listens.

Run as a program by `descriptors.py`; standard library only, and started without site packages. It outlives the program:
what a dying process wrote last still reaches the terminal. It ends when nobody can write to it any more.

    arguments: for each stream  source,target,copy  as numbers of descriptors; `source` may be a terminal's far side
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import termios

_PIECE = 1 << 16


def main(arguments: list[str]) -> None:
    """Hand bytes on until all sources have ended."""
    if os.fork():
        os._exit(0)  # orphaned, so that the program never finds a child it did not start
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    streams = {int(source): (int(target), int(copy)) for source, target, copy in (a.split(",") for a in arguments)}
    signal.signal(signal.SIGWINCH, lambda *_: _resize(streams))
    for _, copy in streams.values():
        os.set_blocking(copy, False)  # whoever listens may be slow; the terminal does not wait for it
    while streams:
        ready, _, _ = select.select(list(streams), [], [])
        for source in ready:
            target, copy = streams[source]
            data = b""
            with contextlib.suppress(OSError):  # a terminal says so when its last user has left
                data = os.read(source, _PIECE)
            if not data:
                del streams[source]
                os.close(copy)
                continue
            with contextlib.suppress(OSError):
                os.write(copy, data)
            _write_all(target, data)


def _write_all(target: int, data: bytes) -> None:
    """Write everything; a terminal that is gone takes nothing any more."""
    with contextlib.suppress(OSError):
        while data:
            try:
                data = data[os.write(target, data) :]
            except BlockingIOError:
                select.select([], [target], [])


def _resize(streams: dict[int, tuple[int, int]]) -> None:
    """Give the program's terminal the size of the real one."""
    for source, (target, _) in streams.items():
        with contextlib.suppress(OSError):
            fcntl.ioctl(source, termios.TIOCSWINSZ, fcntl.ioctl(target, termios.TIOCGWINSZ, bytes(8)))


if __name__ == "__main__":
    main(sys.argv[1:])
