"""Turns listening on in one process, and begins the run or takes part in it when there is something to record.

The process of a command that `tracer run` started begins at once, if it is a program and no launcher: one that dies at
its first import leaves a run that says why. Every other process begins with the first event that is a reason to, so a
child that never trains leaves nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracer.activation.endings import Guardian
    from tracer.activation.member import Member
    from tracer.config import Config
    from tracer.record.identity import Place
    from tracer.record.recorder import Recorder
    from tracer.run import Run

import os
import sys
import threading

from tracer import active, sink
from tracer.activation.programs import at_first_line, program_of
from tracer.activation.variables import AUTO, CAPTURE, COMMAND, REPLACE, RUN_ID, STORAGE, is_set
from tracer.capture.frameworks import AUTO as ALL
from tracer.capture.frameworks import chosen
from tracer.capture.patching import patches


class Automatic:
    """The run of a process whose capture was turned on from outside."""

    def __init__(self) -> None:
        self.is_on = False
        self._guard = sink.Guard(strict=is_set(os.environ.get("TRACER_STRICT")))
        self._lock = threading.RLock()
        self._has_begun = self._is_adopted = False
        self._run: Run | None = None
        self._member: Member | None = None
        self._guardian: Guardian | None = None

    def start(self) -> None:
        """Listen from now on; called at the start of the interpreter, once by each carrier."""
        if self.is_on or not is_set(os.environ.get(AUTO)):
            return
        self.is_on = True
        with self._guard("turning capture on"):
            self._start()

    def _start(self) -> None:
        """Put the hooks in, and wait for something to record."""
        os.environ.setdefault(CAPTURE, ALL)
        patches.start([*chosen(os.environ[CAPTURE].split(",")), "arguments"])
        if is_set(os.environ.get(REPLACE)):
            from tracer.activation.replacing import replace_trackers

            replace_trackers()
        sink.begin_with(self.begin)
        active.automatic = self
        os.register_at_fork(before=self._before_fork, after_in_child=self._after_fork)
        if os.environ.get(COMMAND) == str(os.getpid()):
            self._lead()

    def begin(self) -> None:
        """Begin the run, or take part in it; what fails is said once, and nothing is recorded then."""
        with self._lock:
            if not self._has_begun:
                self._has_begun = True
                with self._guard("beginning the run"):
                    self._begin()

    def adopt(self, config: Config, hyperparameters: Mapping[str, object]) -> Run | None:
        """Give the run that was begun for this program, under the names that the program says now.

        Args:
            config: The settings that the program gave to `tracer.init`.
            hyperparameters: What it calls the run's config.

        Returns:
            The run; None where the program shall begin one of its own: in a child of the program that has it already,
            for a second run, or for a second program of a command.
        """
        with self._lock:
            if not self._has_begun and self._is_first():
                self.begin()
            run = self._run
            if run is None or self._is_adopted or run.recorder.closed:
                return None
            self._is_adopted = True
        if config.storage_path != run.config.storage_path:
            self._guard.say("store", f"this run is kept in {run.config.storage_path}, where it was begun from outside")
        run.relabel(config, hyperparameters)
        return run

    def begun(self, run: Run) -> None:
        """Let the processes that this one starts find the run, until it is finished."""
        self._has_begun = True
        sink.begin_with(None)
        if os.environ.get(RUN_ID) == run.run_id:
            return
        from tracer.activation import claims

        with self._guard("letting other processes find the run"):
            claims.take(run.folder, run.rank)
            before = {name: os.environ.get(name) for name in (RUN_ID, STORAGE)}
            os.environ[RUN_ID], os.environ[STORAGE] = run.run_id, run.config.storage_path
            run.when_finished.append(lambda: _restore(before))

    def recorder(self) -> Recorder | None:
        """Give what writes here, for a program that calls `tracer.log` without having begun a run."""
        self.begin()
        if self._member is not None:
            return self._member.recorder
        return self._run.recorder if self._run is not None and not self._run.recorder.closed else None

    # How it begins.

    def _lead(self) -> None:
        """Begin at the first line of the command's own program; see that the run ends, whoever records."""
        from tracer.activation.endings import Guardian

        program = program_of(sys.orig_argv)
        _, folder = _agreed(os.environ[RUN_ID])
        self._guardian = Guardian(folder, leads=program.is_launcher)
        if not program.is_launcher:
            at_first_line(self._begin_at_once)

    def _begin_at_once(self) -> None:
        """Begin, and let the run see to its own end."""
        if self._guardian is not None:
            self._guardian.leave()
        self.begin()

    def _begin(self) -> None:
        """Claim the run, or write for the process that has."""
        from tracer.config import Config
        from tracer.record.identity import Place
        from tracer.run import Run

        uid, place = os.environ.get(RUN_ID), Place.here()
        if not uid:
            self._own(Run(Config.load({})))
            return
        from tracer.activation import claims

        config, folder = _agreed(uid)
        life = claims.take(folder, place.rank)
        if life is None:
            self._join(config, uid, folder, place)
        else:
            place.attempt = max(place.attempt, life)
            self._own(Run(config, join=uid, place=place))

    def _own(self, run: Run) -> None:
        """Record as the run's owner, or as one of its ranks."""
        self._run = run
        active.activate(run)

    def _join(self, config: Config, uid: str, folder: str, place: Place) -> None:
        """Record for the run of another process."""
        from tracer.activation.member import Member

        self._member = Member(config, uid, folder, place)
        active.join(self._member.recorder)
        sink.listen(self._member.take)
        sink.deliver_early()

    def _is_first(self) -> bool:
        """Tell whether a program that asks for a run by itself shall have the one that waits for it."""
        from tracer.activation import claims
        from tracer.record.identity import Place, job_key

        uid = os.environ.get(RUN_ID)
        if not uid:
            return False
        _, folder = _agreed(uid)
        job, ours = claims.job_of(folder, 0), job_key()
        return job is None or (ours != "" and job == ours and not self._is_someone_elses(folder, Place.here()))

    def _is_someone_elses(self, folder: str, place: Place) -> bool:
        """Tell whether this is a child of a rank, and not the rank itself."""
        from tracer.activation import claims

        return claims.is_held(folder, place.rank)

    # Around a fork.

    def _before_fork(self) -> None:
        """Agree on the run before the workers of a server part: each would begin one of its own."""
        if not self._has_begun and RUN_ID not in os.environ:
            from tracer import runfile

            os.environ[RUN_ID] = runfile.new_id()

    def _after_fork(self) -> None:
        """Wait for no thread that the child has not."""
        self._lock = threading.RLock()


def _agreed(uid: str) -> tuple[Config, str]:
    """Return the settings and the folder of the run that was agreed on; what was said of it on its making stands."""
    from tracer import runfile
    from tracer.config import Config

    plain = Config.load({})
    folder = os.path.join(plain.storage_path, "runs", runfile.folder_name(uid))
    facts = runfile.read(folder)
    said = {"project_name": "project", "run_name": "name", "tags": "tags", "notes": "notes"}
    known = {name: facts[called] for name, called in said.items() if facts.get(called)}
    return (Config.load(known) if known else plain), folder


def _restore(before: Mapping[str, str | None]) -> None:
    """Put variables back."""
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


_automatic = Automatic()


def boot() -> None:
    """Listen in this process, if its environment asks for it; again, it does nothing."""
    _automatic.start()


__all__ = ["Automatic", "boot"]
