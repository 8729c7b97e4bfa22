"""What a run records of its surroundings without being told: system, code, environment, arguments, output.

One of these belongs to each run: it assembles the collectors that the settings ask for, and stops them. Facts are
learned on a thread of their own, so `init` never waits for git or for a list of packages; `finish` waits for them, for
a bounded time.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    from tracer.capture.code import CodeKeeper
    from tracer.capture.collector import Collector
    from tracer.capture.output import Output
    from tracer.capture.redaction import Redactor
    from tracer.config import Config
    from tracer.record.recorder import Recorder

    class Ground(Protocol):
        """What is needed of the run."""

        config: Config

        @property
        def recorder(self) -> Recorder:
            """What writes the journal."""

        @property
        def redactor(self) -> Redactor:
            """What cuts secrets out."""

        def take(self, event: object) -> None:
            """Record an event."""


import sys
import threading

from tracer import clock, events

#: How often modules that were imported since are looked for; nothing is done where there are none.
_LOOK_S = 5.0
#: Without any of these modules nothing was parsed.
_PARSERS = ("argparse", "click", "typer", "absl.flags", "hydra")
#: Facts that come from the collectors, and those that hold names of ours only.
_SEARCHED = frozenset({"environment", "git", "code", "origins", "redacted"})


class Surroundings:
    """The collectors of one run.

    Args:
        run: The run.
    """

    def __init__(self, run: Ground) -> None:
        self._run, self._config, self._recorder = run, run.config, run.recorder
        self._guard = run.recorder.guard
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._collector: Collector | None = None
        self._output: Output | None = None
        self._keeper: CodeKeeper | None = None

    @property
    def system(self) -> Mapping[str, object] | None:
        """The last figures of the system, where they are sampled."""
        return self._collector.latest if self._collector is not None else None

    def start(self) -> None:
        """Begin to collect what the settings ask for; only the first rank describes the program."""
        config, place = self._config, self._recorder.place
        if place.rank == 0 and config.track_arguments:
            with self._guard("reading the program's arguments"):
                self._read_arguments()
        if place.rank == 0 and config.track_output != "off":
            with self._guard("listening to output"):
                self._listen_to_output()
        if place.rank == 0 and (config.track_git or config.track_environment or config.track_code):
            self._thread = threading.Thread(target=self._learn, name="tracer-capture", daemon=True)
            self._thread.start()
        if config.track_system_metrics and place.local_rank == 0:
            from tracer.capture.collector import Collector, SystemSampler

            sampler = SystemSampler(config)
            self._collector = Collector(config.system_interval_s, sampler=sampler, guard=self._guard)
            self._collector.start()

    def follow(self, config: Config) -> None:
        """Take settings that a program gives to a run which was begun for it: what it does not want ends."""
        self._config = config
        if not config.track_system_metrics and self._collector is not None:
            self._collector.stop(0.0)
            self._collector = None
        if self._recorder.place.rank == 0 and config.track_output != "off" and self._output is None:
            with self._guard("listening to output"):
                self._listen_to_output()

    def stop(self, timeout_s: float) -> None:
        """Stop collecting; what is nearly there is waited for.

        Args:
            timeout_s: The longest time to wait, in all.
        """
        deadline = clock.monotonic() + timeout_s
        self._stopping.set()
        if self._output is not None:
            with self._guard("ending to listen to output"):
                self._output.stop(timeout_s)
        if self._thread is not None:
            self._thread.join(max(deadline - clock.monotonic(), 0.0))
        if self._collector is not None:
            self._collector.stop(max(deadline - clock.monotonic(), 0.1))
        found = self._run.redactor.found
        if found:
            self._run.take(events.Metadata({"redacted": list(found)}))

    def _read_arguments(self) -> None:
        """Record what a parser of the program has found before this run began."""
        if not any(parser in sys.modules for parser in _PARSERS):
            return
        from tracer.capture.arguments import parsed_before

        for event in parsed_before():
            self._run.take(event)

    def _listen_to_output(self) -> None:
        """Keep what the program prints and logs."""
        from tracer.capture import output

        self._output = output.listen(
            self._config.track_output, steps=self._recorder.steps, redactor=self._run.redactor, guard=self._guard
        )

    def _learn(self) -> None:
        """Learn of environment, code and modules, each for itself: one that fails takes no other with it."""
        for is_wanted, what, learn in (
            (self._config.track_environment, "reading the environment", self._environment),
            (self._config.track_code, "keeping the program's code", self._code),
            (self._config.track_git, "asking git", self._git),
        ):
            if is_wanted:
                with self._guard(what):
                    learn()
        ended = False
        while self._config.track_code and not ended:
            ended = self._stopping.wait(_LOOK_S)  # in real time: a clock that is moved by hand would never rest here
            with self._guard("keeping the program's code"):
                self._code()

    def _environment(self) -> None:
        """Record what the run runs in."""
        from tracer.capture.environment import environment_facts

        self._run.take(events.Metadata({"environment": environment_facts(self._run.redactor)}))

    def _git(self) -> None:
        """Record the commit and what differs from it."""
        from tracer.capture.git import git_facts

        facts = git_facts(redactor=self._run.redactor, keep=self._recorder.folder)
        self._run.take(events.Metadata({"git": facts}))

    def _code(self) -> None:
        """Keep the program's own modules that were imported since the last time."""
        if self._keeper is None:
            from tracer.capture.code import CodeKeeper

            self._keeper = CodeKeeper(self._recorder.folder, self._run.redactor)
        new = self._keeper.keep()
        if new:
            self._run.take(events.Metadata({"code": new}))


def cleaned(redactor: Redactor, changes: Mapping[str, object]) -> dict[str, Any]:
    """Return changes to a run's facts without secrets; what collectors say was searched before.

    Args:
        redactor: What cuts secrets out.
        changes: What is to be known of the run.
    """
    return {key: value if key in _SEARCHED else redactor.named(key, value, key) for key, value in changes.items()}


__all__ = ["Surroundings", "cleaned"]
