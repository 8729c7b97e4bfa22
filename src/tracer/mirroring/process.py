"""The mirror of a run: a niced process that reads the run's journal and hands it to other trackers.

    python -m tracer.mirroring.process RUN_FOLDER STORE

Standard input is a pipe that the trainer holds open; each line of it is JSON. The first says what is wanted, secrets
included, so none stands in a file or on a command line:

    {"lanes": [{"name": …, "options": …, "where": …}], "rules": […], "linger_s": 60, "paths": […]}
    {"lanes": […]}      further ones
    {"leave": true}     the trainer waits no longer; from here on `linger_s` counts, as from the pipe's end

Clients are imported here only. When the trainer dies without a word, what it recorded is sent all the same and the
runs are closed as crashed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from tracer import clock, events, runfile
from tracer.cursors import Cursor
from tracer.mirroring.lane import Lane
from tracer.mirroring.making import make
from tracer.mirroring.options import secrets_in
from tracer.mirroring.output import Output
from tracer.mirroring.rules import Rule
from tracer.mirroring.servers import Server
from tracer.routing import Attempt
from tracer.storage.liveness import process_is_alive

if TYPE_CHECKING:
    from typing import IO

_NICE = 5
_LOOK_S = 0.25
_PIECE = 1 << 16
#: What a client may take to close its files once everything has arrived.
_EXIT_S = 10.0


class Commands:
    """What comes through the pipe, line by line.

    Args:
        pipe: What the trainer holds open.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._descriptor = pipe.fileno()
        self._left = b""
        self.is_closed = False

    def read(self, wait_s: float) -> Iterator[dict[str, Any]]:
        """Yield what came, waiting a while for the first."""
        if self.is_closed:
            clock.wait(threading.Event(), wait_s)
            return
        ready, _, _ = select.select([self._descriptor], [], [], wait_s)
        if not ready:
            return
        data = os.read(self._descriptor, _PIECE)
        self.is_closed = not data
        *lines, self._left = (self._left + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    yield found


class Mirror:
    """The lanes of one run.

    Args:
        folder: The run's folder.
        store: The store's folder.
        commands: What the trainer says.
    """

    def __init__(self, folder: str, store: str, commands: Commands) -> None:
        self._folder, self._store, self._commands = folder, store, commands
        self._output = Output(folder, ())
        self._ending = threading.Event()
        self._servers: dict[str, Server] = {}
        self._rules: list[Rule] = []
        self._linger_s = 60.0
        self._left_at: float | None = None
        self._facts: dict[str, Any] = {}

    def serve(self) -> bool:
        """Serve until everything has arrived, or the time is over; tell whether nothing is left to do."""
        self._output.begin()
        while True:
            for command in self._commands.read(_LOOK_S):
                self._take(command)
            self._look()
            is_idle = all(server.is_over for server in self._servers.values())
            if is_idle and self._ending.is_set() and (self._servers or self._commands.is_closed):
                return True
            if self._is_late():
                return is_idle

    def _take(self, command: Mapping[str, Any]) -> None:
        """Do what the trainer asks for."""
        self._rules = [Rule.of(rule) for rule in command.get("rules", ())] or self._rules
        sys.path += [path for path in command.get("paths", ()) if path not in sys.path]  # last: ours come first
        self._linger_s = float(command.get("linger_s", self._linger_s))
        for lane in command.get("lanes", ()):
            if lane["name"] not in self._servers:
                self._add(lane["name"], lane.get("where", ""), lane.get("options", {}))
        if command.get("leave") and self._left_at is None:
            self._left_at = clock.monotonic()

    def _add(self, name: str, where: str, options: Mapping[str, object]) -> None:
        """Begin to serve a lane."""
        self._output.add(secrets_in(options))
        cursor = Cursor(self._folder, name)
        maker = partial(make, name, where, options)
        lane = Lane(self._folder, cursor, maker, rules=self._rules, store_path=self._store)
        server = self._servers[name] = Server(lane, self._ending)
        # From here on the trainer knows that somebody is there, also while a client is imported.
        lane.say(server=os.getpid())
        server.thread.start()

    def _look(self) -> None:
        """See whether the run is over: it says so, or its process is gone."""
        if self._ending.is_set():
            return
        with Attempt():
            self._facts = runfile.read(self._folder)
        alive = process_is_alive(self._facts)
        is_gone = alive is False or (alive is None and self._commands.is_closed)
        if self._facts.get("status", events.RUNNING) != events.RUNNING or is_gone:
            self._ending.set()

    def _is_late(self) -> bool:
        """Tell whether the trainer is gone for longer than this process may outlive it."""
        is_alone = self._commands.is_closed or process_is_alive(self._facts) is False
        if self._left_at is None and self._ending.is_set() and is_alone:
            self._left_at = clock.monotonic()
        return self._left_at is not None and clock.monotonic() - self._left_at >= self._linger_s


def main() -> int:
    """Mirror the run that the command line names; return the exit code."""
    if len(sys.argv) != 3:  # noqa: PLR2004 -- the program, the run's folder, the store's
        sys.stderr.write("usage: python -m tracer.mirroring.process RUN_FOLDER STORE\n")
        return 2
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the trainer; its end is seen here
    with contextlib.suppress(OSError):
        os.nice(_NICE)  # the training comes first
    folder, store = sys.argv[1:]
    is_done = Mirror(folder, store, Commands(sys.stdin.buffer)).serve()
    if not is_done:
        os._exit(0)  # a lane hangs in a call of its client, which must not hold up the end of a batch job
    # Clients end in order, and the store takes its time; what does not come back is not waited for.
    leaving = threading.Timer(_EXIT_S, os._exit, (0,))
    leaving.daemon = True
    leaving.start()
    release(store, folder)
    return 0


def release(store: str, folder: str) -> None:
    """Let the store give back what it kept of the journal for the lanes."""
    from tracer.storage.store import Store

    with Attempt(), Store.open(store) as opened:
        uid = runfile.read(folder).get("id")
        if uid:
            opened.release(str(uid))


if __name__ == "__main__":
    sys.exit(main())
