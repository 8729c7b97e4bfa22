"""What a run calls to be mirrored: nothing here connects, imports a client, or makes the training wait.

Lanes are served by one process beside the training, or by threads in it: for back ends that are objects of the program
and cannot travel, and for who asks for `lane="thread"`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tracer.backends.base import Backend
    from tracer.mirroring.lag import Lag
    from tracer.mirroring.rules import Rule

import os
import re
import sys
import threading
from dataclasses import dataclass, field, replace
from functools import partial

from tracer import sink
from tracer.backends import table
from tracer.cursors import ACTIVE, BEHIND, COMPLETE, REFUSED, STARTING, UNREACHABLE, Cursor
from tracer.errors import ConfigError
from tracer.mirroring.options import plain
from tracer.mirroring.supervising import Supervisor
from tracer.mirroring.waiting import wait, worked

#: Where lanes are served.
PROCESS, THREAD = "process", "thread"
_LINGER_S = 60.0
#: A process that stays behind keeps a node of a cluster busy.
_SCHEDULERS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
_COUNT_S = 0.3


@dataclass(frozen=True, slots=True)
class Wanted:
    """A back end that a run shall be mirrored to.

    Args:
        name: The lane's name: one of `tracer.backends.table`, or any other with `where` or `make`.
        options: What it is told, secrets included; those are written nowhere.
        where: `module:Class` of a `Backend` or of a plugin, importable in another process too.
        make: Returns the back end, for one that cannot travel (a plugin object): a thread serves it always.
    """

    name: str
    options: Mapping[str, object] = field(default_factory=dict)
    where: str = ""
    make: Callable[[], Backend] | None = None

    @classmethod
    def of(cls, text: str, options: Mapping[str, object] | None = None) -> Wanted:
        """Return what a name means: one of the table, or `module:Class`; neither is imported.

        Raises:
            ConfigError: There is no such back end.
            MissingDependency: Its client is not installed.
        """
        if ":" in text:
            module, _, name = text.partition(":")
            if not (name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
                message = f"backend={text!r} is no class. Write `module:Class`, or one of: {', '.join(table.ENTRIES)}."
                raise ConfigError(message)
            return cls(lane_name(text), options or {}, where=text)
        table.check_client(text)
        return cls(text, options or {})

    def at(self, storage_path: str) -> Wanted:
        """Return the same, with the folder that a back end of the table writes into when it is told no other."""
        if self.where or self.make is not None:
            return self
        return replace(self, options={"storage_path": storage_path, **self.options})


@dataclass(frozen=True, slots=True)
class Standing:
    """How a lane stands.

    Args:
        name: The lane's name.
        state: `starting active unreachable behind refused complete`.
        reason: Why, in a sentence, where there is something to tell.
        sent: Points and other events that the peer has.
        rejected: Those that it would not take.
        lag: Points and other events that it has not yet; None where the journal does not tell.
        is_exact: Whether `lag` was counted to its end; else it is more.
        remote: What the peer calls the run.
        url: Where a person sees it.
        updated: When the lane last moved, in microseconds; None before it did.
    """

    name: str
    state: str
    reason: str = ""
    sent: int = 0
    rejected: int = 0
    lag: int | None = None
    is_exact: bool = True
    remote: Mapping[str, str] = field(default_factory=dict)
    url: str | None = None
    updated: int | None = None


class Mirrors:
    """The places a run goes to besides our own store.

    Args:
        run_folder: The run's folder.
        store_path: The store's folder.
        wanted: The back ends.
        rules: What goes where; `Rule` objects or dictionaries.
        lane: `process`, or `thread`.
        linger_s: How long the mirror process may outlive the trainer; 60, under a batch scheduler 0, when None.
        say: Gets each sentence that a person should read at once; `sink.say` when absent.

    Raises:
        ConfigError: A rule cannot be read, or cannot travel.
    """

    def __init__(
        self,
        run_folder: str,
        store_path: str,
        wanted: Sequence[Wanted],
        *,
        rules: Iterable[Rule | Mapping[str, object]] = (),
        lane: str = PROCESS,
        linger_s: float | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._folder, self._store = os.path.abspath(run_folder), os.path.abspath(store_path)
        self._rules: list[Rule] = []
        given = list(rules)
        if given:  # most runs have none, and it takes 8 ms to load what reads them
            from tracer.mirroring.rules import Rule

            self._rules = [Rule.of(rule) for rule in given]
        self._say = say or (lambda sentence: sink.say(f"tracer: {sentence}"))
        self._linger_s = linger() if linger_s is None else linger_s
        self._ending = threading.Event()
        self._wanted: dict[str, Wanted] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._supervisor: Supervisor | None = None
        self._refused: set[str] = set()
        self._lane = lane
        for one in wanted:
            self._note(one)

    def start(self) -> None:
        """Write the lanes' files and begin to serve; waits for nothing."""
        for name in self._wanted:
            self._prepare(name)
        travelling = [name for name in self._wanted if name not in self._threads]
        if travelling:
            self._supervise()

    def add(self, wanted: Wanted) -> None:
        """Serve one more; it gets the run from its beginning. A name that is served already is left as it is.

        Raises:
            ConfigError: A rule cannot travel.
        """
        name = lane_name(wanted.name)
        if name in self._wanted:
            return
        self._note(wanted)
        self._prepare(name)
        if name in self._threads:
            return
        if self._supervisor is None:
            self._supervise()
        else:
            self._supervisor.tell({"lanes": [self._lane_of(self._wanted[name])]})

    def finish(self, timeout_s: float) -> list[str]:
        """Wait while lanes make progress; call it once `run.json` tells the run's end.

        Args:
            timeout_s: The longest time; a lane whose peer does not answer is waited for two seconds at most.

        Returns:
            Sentences to print: who is behind, refused or rejected something, and what to do.
        """
        self._ending.set()
        supervisor = self._supervisor
        if supervisor is not None:
            supervisor.tell({})  # it looks at `run.json` at once
        has_nobody = supervisor is not None and supervisor.has_given_up
        waited_for = [name for name in self._wanted if name in self._threads or not has_nobody]
        wait(self._folder, waited_for, timeout_s, self._process_of, self._work_of)
        if supervisor is not None:
            supervisor.leave()
        return [sentence for name in self._wanted if (sentence := self._sentence(name))]

    def _process_of(self, name: str) -> int | None:
        """Return the process that serves a lane; None for a thread, and while there is none."""
        return self._supervisor.pid if self._supervisor is not None and name not in self._threads else None

    def _work_of(self, name: str) -> float:
        """Return how long whoever serves a lane has worked, or waited for a processor, in seconds."""
        thread = self._threads.get(name)
        if thread is not None:
            return worked("self", thread.native_id)
        return worked(self._process_of(name))

    def state(self, name: str, *, budget_s: float = 0.05) -> Standing:
        """Return how a lane stands, without waiting.

        Args:
            name: The lane's name, or `module:Class` as it was asked for.
            budget_s: What counting the points that are owed may take.

        Raises:
            ConfigError: There is no lane of that name.
        """
        name = name if name in self._wanted else lane_name(name)
        if name not in self._wanted:
            message = f"The run is not mirrored to {name!r}. It goes to: {', '.join(self._wanted) or 'nobody'}."
            raise ConfigError(message)
        return standing(self._folder, Cursor(self._folder, name), budget_s=budget_s)

    def names(self) -> list[str]:
        """Return the lanes."""
        return list(self._wanted)

    def told(self) -> dict[str, dict[str, object]]:
        """Return what was asked for and how it stands, for `run.json`; nothing secret."""
        found: dict[str, dict[str, object]] = {}
        for name, wanted in self._wanted.items():
            options = plain(wanted.options)
            found[name] = {"state": Cursor(self._folder, name).state} | ({"options": options} if options else {})
        return found

    # Beginning.

    def _note(self, wanted: Wanted) -> None:
        """Take note of a back end."""
        if self._lane == PROCESS and wanted.make is None:
            for rule in self._rules:
                rule.as_dict()  # one that cannot travel is told now
        name = lane_name(wanted.name)
        self._wanted[name] = replace(wanted, name=name)

    def _prepare(self, name: str) -> None:
        """Write a lane's file; one that is served here gets its thread."""
        wanted, cursor = self._wanted[name], Cursor(self._folder, name)
        told = {"options": plain(wanted.options), "where": wanted.where, "rules": self._portable(), "reason": ""}
        cursor.change({**told, "state": STARTING, "object": wanted.make is not None})
        if self._lane == THREAD or wanted.make is not None:
            serve = partial(self._serve_here, wanted, cursor)
            self._threads[name] = threading.Thread(target=serve, name=f"tracer-lane-{name}", daemon=True)
            self._threads[name].start()

    def _serve_here(self, wanted: Wanted, cursor: Cursor) -> None:
        """Serve a lane on a thread of this process; what it needs is loaded there too."""
        from tracer.mirroring.lane import Lane
        from tracer.mirroring.making import make
        from tracer.mirroring.servers import serve

        maker = wanted.make or partial(make, wanted.name, wanted.where, wanted.options)
        serve(Lane(self._folder, cursor, maker, rules=self._rules, store_path=self._store, poll_s=0.1), self._ending)
        self._look()

    def _supervise(self) -> None:
        """Have the mirror process started."""
        self._supervisor = Supervisor(self._folder, self._store, self._told_at_start, self._look, self._say)
        self._supervisor.start()

    def _told_at_start(self) -> dict[str, object]:
        """Return what the mirror process is told first."""
        lanes = [self._lane_of(one) for name, one in list(self._wanted.items()) if name not in self._threads]
        paths = [os.path.abspath(path) for path in sys.path]
        return {"lanes": lanes, "rules": self._portable(), "linger_s": self._linger_s, "paths": paths}

    def _lane_of(self, wanted: Wanted) -> dict[str, object]:
        """Return a lane as it travels."""
        return {"name": wanted.name, "where": wanted.where, "options": dict(wanted.options)}

    def _portable(self) -> list[dict[str, object]]:
        """Return the rules that can travel."""
        return [rule.as_dict() for rule in self._rules if not callable(rule.where)]

    # Telling.

    def _look(self) -> None:
        """Say once when a back end refuses us."""
        for name in self._wanted:
            if name not in self._refused and (cursor := Cursor(self._folder, name)).state == REFUSED:
                self._refused.add(name)
                self._say(f"{name} is not served: {cursor.said.get('reason')} The run and other back ends go on.")

    def _sentence(self, name: str) -> str:
        """Return what is said about a lane at the end; nothing when all is well."""
        self._look()
        cursor = Cursor(self._folder, name)
        rejected = int(cursor.said.get("rejected", 0))
        if cursor.state == COMPLETE:
            note = str(cursor.said.get("remote", {}).get("note", ""))
            return f"{name} did not take {rejected:,} values ({cursor.said.get('reason')})." if rejected else note
        from tracer.mirroring.lag import lag

        owed = lag(self._folder, cursor, budget_s=_COUNT_S)
        if cursor.state == ACTIVE and owed == (0, True):
            return f"{name} has everything; it is closed there once all processes of the run have ended."
        where = os.path.relpath(self._store)
        safe = f"They are safe in {self._store if where.startswith('..') else where}"
        return f"{name} is {_behind(owed)} ({_why(cursor)}). {safe}; {self._remedy(name)}."

    def _remedy(self, name: str) -> str:
        """Say who sends what is owed."""
        if self._process_of(name) is None or not self._linger_s:
            return "send them with `tracer sync`"
        return f"a process beside this one goes on for {self._linger_s:g} s, and `tracer sync` sends what is left then"


def _behind(owed: Lag) -> str:
    """Say how much is owed."""
    if owed.points == 0:
        return "not complete" if owed.is_exact else "behind"
    return f"{'' if owed.is_exact else 'more than '}{owed.points:,} points behind"


def _why(cursor: Cursor) -> str:
    """Say why a lane is behind."""
    if cursor.state == UNREACHABLE:
        return "server not reachable"
    if cursor.state == REFUSED:
        return "it refused"
    if cursor.state == BEHIND:
        return "the journal went on without it"
    rate = cursor.said.get("rate")
    return f"it takes {rate:,} points/s" if rate else "it does not answer yet"


def lane_name(text: str) -> str:
    """Return the lane's name of what was asked for: it is the name of a file.

    Example:
        >>> lane_name("my.module:MyBackend")
        'my.module.MyBackend'
    """
    return re.sub(r"[^A-Za-z0-9._-]", ".", text)


def linger() -> float:
    """Return how long a mirror process may outlive the trainer here."""
    return 0.0 if any(os.environ.get(name) for name in _SCHEDULERS) else _LINGER_S


def standing(folder: str, cursor: Cursor, *, budget_s: float) -> Standing:
    """Return how a lane stands.

    Args:
        folder: The run's folder.
        cursor: The lane's file.
        budget_s: What counting the points that are owed may take.
    """
    from tracer.mirroring.lag import lag

    said, owed = cursor.said, lag(folder, cursor, budget_s=budget_s)
    return Standing(
        name=cursor.name,
        state=cursor.state,
        reason=str(said.get("reason") or ""),
        sent=int(said.get("sent", 0)),
        rejected=int(said.get("rejected", 0)),
        lag=owed.points if owed.is_exact or owed.points else None,
        is_exact=owed.is_exact,
        remote=dict(said.get("remote") or {}),
        url=said.get("url"),
        updated=said.get("updated"),
    )


__all__ = ["PROCESS", "THREAD", "Mirrors", "Standing", "Wanted", "lane_name", "linger", "standing"]
