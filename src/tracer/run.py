"""A live run, assembled out of the rooms below: the recorder, the instruments, its beginning and its end."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Self

    from tracer.capture.watched_folders import WatchedFolders
    from tracer.storage import StorageBackend

import os
from functools import cached_property

from tracer import clock, events, journal, places, runfile, sink
from tracer.capture import frameworks
from tracer.capture.redaction import Redactor
from tracer.config import Config
from tracer.errors import UsageError
from tracer.intake import Intake
from tracer.keeping import Keeping
from tracer.mirrored import Mirrored, asked
from tracer.observers import Observers
from tracer.record.companion import Companion
from tracer.record.endings import Endings, described
from tracer.record.identity import Place
from tracer.record.opening import open_run
from tracer.record.recorder import Recorder
from tracer.surroundings import Surroundings, cleaned

_BACKGROUND_WAIT_S = 1.0
#: What a call of `log` takes, for the account: timing each would cost as much again.
_RECORD_S = 1.5e-6
#: What a run is called in the settings and in its facts; all of it may change while it lives.
_LABELS = {
    "project_name": "project", "run_name": "name", "tags": "tags", "notes": "notes", "group": "group",
    "job_type": "job_type",
}  # fmt: skip
#: The project of a run that was given none.
_UNNAMED = "default"
#: What a run has begun with, and cannot change.
_FIXED = frozenset({"storage_path", "durability", "journal", "maintain", "async_writes"})
#: A disk that took all the time of the end leaves so much to the back ends.
_LEAST_FOR_MIRRORS_S = 2.0
#: Shorter runs are told in seconds what recording took.
_SHORT_RUN_S = 10.0


class Run(Keeping, Mirrored):
    """One training run: records what is logged until `finish`.

    Args:
        config: The settings; see `Config`.
        hyperparameters: What the user calls the run's config: learning rate, model, data set.
        resume: The facts and folder of a run that is continued, as `init` finds them.
        join: The id of a run that was agreed on before, as `tracer run` makes it.
        place: Where this process stands in its job; found out when absent.

    Raises:
        StoreError: The store cannot be made or written, or a newer Tracer wrote it.

    Example:
        >>> run = Run(Config(project_name="gpt", quiet=True))
        >>> run.log({"loss": 2.5})
        >>> run.step()
        >>> run.finish()
    """

    def __init__(
        self,
        config: Config,
        hyperparameters: Mapping[str, object] | None = None,
        *,
        resume: tuple[str, dict[str, Any]] | None = None,
        join: str | None = None,
        place: Place | None = None,
    ) -> None:
        self.config = config
        self._frameworks = frameworks.chosen(config.capture)
        self.start_time = clock.now()
        self.model: object = None
        self.write_queue = None  # the documents' name for a queue; nothing is queued here
        self._born = clock.monotonic()
        self._pid = os.getpid()  # a forked child inherits this object, and must not end its parent's run
        self._guard = sink.Guard(strict=config.strict, quiet=config.quiet)
        self._place = place or Place.here()
        self.redactor = Redactor.of(config)
        clean = cleaned(self.redactor, {"config": hyperparameters or {}})["config"]
        if config.notes:
            config.notes = self.redactor.text(config.notes, "notes")
        wanted = asked(config)
        folder, self._facts = open_run(config, self._place, clean, resume, join)
        mode = places.kind(folder, config.journal)
        self._recorder = Recorder(
            folder, self.run_id, self._place, mode=mode, durability=config.durability, guard=self._guard, name=self.name
        )
        self._steps = self._recorder.steps
        goes_on = resume or join
        self._steps.step = int(self._facts["steps"]) if goes_on else 0
        self._steps.checkpoints = int(self._facts["checkpoints"]) if goes_on else 0
        self._here = self._recorder.here
        self._interval = config.checkpoint_interval
        self._saved = True
        about = {"run": self.run_id, "name": self.name, "project": self._facts["project"]}
        self._observers = Observers(config, self._recorder, about, self.checkpoint)
        self._intake = Intake(self)
        self._surroundings = Surroundings(self)
        self._finished = self._is_over = False
        self.when_finished: list[Callable[[], None]] = []
        self._mirrors = None
        self._begin()
        self.mirror(wanted)

    # What a training loop calls.

    def log(self, metrics: Mapping[str, object], step: int | None = None) -> None:
        """Record values of metrics; what this returned from survives `kill -9`.

        Args:
            metrics: Name → number, text or None. Numbers of any kind: Python, NumPy, torch on any device (never waited
                for). NaN and ±Inf are values. Nested dictionaries are flattened with `/`.
            step: The step they belong to; the run's own counter when absent. Any order; the last value of a step wins.

        Raises:
            TypeError: A value cannot be recorded; the others of the call were.
            ValueError: A name or the step cannot be recorded.
            UsageError: The run is finished.

        Example:
            >>> with tracer.init(project="docs", quiet=True) as run:
            ...     run.log({"loss": 0.5, "eval": {"accuracy": 0.9}}, step=3)
        """
        try:
            writer = self._here.writer
        except AttributeError:
            writer = self._recorder.writer()
        writer.log(metrics, step)

    def step(self) -> None:
        """End a step: the counter advances, and at the interval a checkpoint is recorded.

        Raises:
            UsageError: The run is finished.
        """
        steps = self._steps
        steps.step = now = steps.step + 1
        try:
            writer = self._here.writer
        except AttributeError:
            writer = self._recorder.writer()
        if now >= steps.due:
            self._end_step()
        else:
            journal.stamp_steps(writer.buffer, journal.STEPS_AT, now)

    def go_on_at(self, step: int) -> None:
        """Set the step counter: a training that continues from its own checkpoint is there at once.

        Args:
            step: How many steps were ended before.

        Example:
            >>> with tracer.init(project="docs", quiet=True) as run:
            ...     run.go_on_at(500)
        """
        self._steps.step = step
        self._steps.due = 0

    def watch(  # noqa: PLR0913 -- a keyword for each family that can be left out
        self,
        model: object,
        optimizer: object = None,
        *,
        gradients: bool = True,
        weights: bool = True,
        updates: bool = True,
        activations: str | bool = "sampled",
        histograms: bool = True,
        layers: Sequence[str] | None = None,
        flight: bool = True,
    ) -> None:
        """Record what happens inside a model, as its optimizer sees it, for at most `max_overhead` of the time.

        Args:
            model: A `torch.nn.Module`; several may be watched.
            optimizer: The optimizer that steps it; optimizers are found without it.
            gradients: Norm, mean, std, max, min, zeros, NaNs and infinities of each parameter's gradient.
            weights: The same of the parameters, and the norms of the optimizer's state.
            updates: How far a step moves each parameter, in relation to its size.
            activations: What the modules put out, on sampled steps (`"sampled"`), on every step (True), or never.
            histograms: Exact histograms of the gradients by power of two, on sampled steps.
            layers: Which parameters and modules: texts in the name, globs, or `re:` and a pattern. `gradient_layers`
                when absent.
            flight: Keep the last steps in memory, and the bad one in a capsule that can be replayed.

        Raises:
            TypeError: It is no module.
            ValueError: The optimizer holds none of its parameters, or a layer pattern cannot be read.

        Example:
            >>> with tracer.init(project="docs", quiet=True) as run:
            ...     run.watch(torch.nn.Linear(4, 2), layers=["*.weight"])
        """
        self.model = model
        chosen = self.config.gradient_layers if layers is None else layers
        self._observers.watch(
            model,
            optimizer,
            gradients=gradients and self.config.track_gradients,
            weights=weights,
            updates=updates,
            activations=activations,
            histograms=histograms and self.config.track_gradients,
            layers=chosen,
            flight=flight,
        )

    attach_hooks = watch

    def unwatch(self, model: object) -> None:
        """Watch a model no more; what was recorded of it stays.

        Args:
            model: A model that `watch` was given; any other is ignored.

        Example:
            >>> with tracer.init(project="docs", quiet=True) as run:
            ...     model = torch.nn.Linear(4, 2)
            ...     run.watch(model)
            ...     run.unwatch(model)
        """
        self._observers.unwatch(model)

    def checkpoint(self) -> None:
        """Record a marker with the values, system figures and gradient statistics that are current now."""
        self._steps.checkpoints += 1
        with self._guard("recording a checkpoint"):
            self._log_custom_metrics()
            self._observers.checkpoint(self._steps.step)
            system = self._surroundings.system
            values = self._recorder.current_values()
            self._recorder.begin_checkpoint()
            self._recorder.append(journal.Kind.CHECKPOINT, {"values": values, "system": system, "samples": None})

    def flush(self) -> None:
        """Wait until everything logged so far survives a crash of the machine."""
        self._recorder.flush()

    def finish(self, status: str = events.COMPLETED, reason: str | None = None, exit_code: int | None = 0) -> None:
        """End the run; returns within `finish_timeout_s` whatever the disk does. Calling it again does nothing.

        Args:
            status: `completed` or `failed`.
            reason: Why, in one line.
            exit_code: The program's exit code, where known.
        """
        if self._finished or self._pid != os.getpid():
            self._recorder.close(self.config.finish_timeout_s)  # a forked child ends its own part only
            return
        self._finished = True
        with self._guard("listening no more"):
            self._stop_listening()  # first: what was listened to tells its last step
        self._is_over = True
        reason = reason and self.redactor.text(reason, "reason", random=False)
        self._steps.due = 0  # the next step is told that the run is over
        deadline = clock.monotonic() + self.config.finish_timeout_s
        self._endings.restore()
        with self._guard("finishing the run"):
            self._observers.stop()
            self._stop_capture()
            if self._recorder.current_values():
                self.checkpoint()
            self._record_end(status, reason, exit_code)
        for told in self.when_finished:
            told()
        synced = self._recorder.close(max(deadline - clock.monotonic(), 0.0))
        self._companion.leave()
        with self._guard("writing run.json"):
            self._save_facts(status=status, reason=reason, exit_code=exit_code)
        self._leave_mirrors(max(deadline - clock.monotonic(), _LEAST_FOR_MIRRORS_S))
        self._say_end(status, reason, synced=synced)

    def __enter__(self) -> Self:
        """Give the run itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the run; an exception marks it failed."""
        if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.finish()
        else:
            self._observers.failed(error)
            self.finish(events.FAILED, described(error), 1)

    # What is known of the run.

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return str(self._facts["id"])

    id = run_id

    @property
    def name(self) -> str:
        """The name of the run."""
        return str(self._facts["name"])

    @property
    def folder(self) -> str:
        """The run's folder."""
        return self._recorder.folder

    @property
    def facts(self) -> Mapping[str, Any]:
        """What is known of the run: `run.json` as it stands now."""
        return self._facts

    @property
    def observers(self) -> Observers:
        """What looks at the training beyond what it logs."""
        return self._observers

    @property
    def guard(self) -> sink.Guard:
        """What keeps failures of ours from the program."""
        return self._guard

    @property
    def recorder(self) -> Recorder:
        """What writes this run's journal in this process."""
        return self._recorder

    @property
    def step_count(self) -> int:
        """How many steps were ended."""
        return self._steps.step

    @property
    def checkpoint_count(self) -> int:
        """How many checkpoints were recorded."""
        return self._steps.checkpoints

    @property
    def metric_buffer(self) -> dict[str, object]:
        """The last value of each metric since the last checkpoint."""
        return {} if self._finished else self._recorder.current_values()

    @property
    def rank(self) -> int:
        """This process' rank in its job."""
        return self._place.rank

    @property
    def world_size(self) -> int:
        """How many ranks the job has."""
        return self._place.world_size

    @cached_property
    def storage(self) -> StorageBackend:
        """The store this run is kept in, for reading; opened at first use."""
        from tracer.storage import StorageBackend

        return StorageBackend(self.config)

    @cached_property
    def hook_manager(self) -> object:
        """The documents' hook manager, for programs that drive it themselves."""
        from tracer.capture.hooks import HookManager

        return HookManager(self.config)

    @cached_property
    def system_metrics(self) -> object:
        """The documents' system metrics, for programs that ask for them themselves."""
        from tracer.capture.system import SystemMetrics

        return SystemMetrics(self.config)

    def __repr__(self) -> str:
        """Name the run."""
        return f"<Run {self.name!r} of project {self._facts['project']!r}, step {self.step_count}>"

    # Beginning.

    def _begin(self) -> None:
        """Start listening, capturing and looking after the journal."""
        self._endings = Endings(self._end, lambda: (self._steps.step, self._sequence()), self._observers.failed)
        self._companion = Companion(self._recorder, self.config.storage_path)
        self._recorder.upkeep.each_second.append(self._save_if_changed)
        if self.config.maintain == "companion" and self._place.rank == 0 and self._recorder.mode == "mapped":
            self._recorder.upkeep.each_second.append(self._companion.look)
        sink.listen(self._intake.take)
        self._surroundings.start()
        self._watched = self._watch_folders()
        self._recorder.writer()  # the first segment names this process: from now on its death is noticed
        if self._place.rank == 0 and not self.config.quiet:
            where = os.path.relpath(self.config.storage_path)
            where = self.config.storage_path if where.startswith("..") else where
            sink.say(f"tracer: recording {self.name!r} (project {self._facts['project']!r}) in {where}")
        self._listen()
        sink.deliver_early()

    def _listen(self) -> None:
        """Hear what frameworks say, from now on until the run is finished."""
        if not self._frameworks:
            return
        from tracer.capture.patching import Hook, patches

        Hook.guard = self._guard
        patches.start([*self._frameworks, *(["arguments"] if self.config.track_arguments else [])])

    def capture_report(self) -> list[dict[str, object]]:
        """Return what is listened to without being asked, one row for each place in a framework.

        Returns:
            Rows with `framework module attribute package version tested untested state why events`. The state is
            `active`, `waiting for import`, `inert` (another tool stands before it, or it failed too often) or
            `refused`, with the reason in `why`. Empty where the run has no `capture`.

        Example:
            >>> with tracer.init(project="docs", capture=["tensorboard"], quiet=True) as run:
            ...     states = {row["framework"] for row in run.capture_report()}
            >>> states
            {'tensorboard'}
        """
        if not self._frameworks:
            return []
        from tracer.capture.patching import patches

        return [row.as_dict() for row in patches.report()]

    def relabel(self, config: Config, hyperparameters: Mapping[str, object]) -> None:
        """Take the names and settings that a program gives to a run which was begun for it.

        What cannot change any more stays: the store, the journal's kind, how the end is waited for.

        Args:
            config: The settings that the program asked for; those that it gave count.
            hyperparameters: What it calls the run's config.
        """
        self._observers.reactions.choose(config.on_anomaly, config.anomaly_severity)
        given = config.given | ({"project_name"} if config.project_name != _UNNAMED else frozenset())
        changes = {called: getattr(config, name) for name, called in _LABELS.items() if name in given}
        for name in given - _FIXED:
            setattr(self.config, name, getattr(config, name))
        self.config.given |= config.given - _FIXED
        self._interval, self._guard.quiet = self.config.checkpoint_interval, self.config.quiet
        self._steps.due = 0
        self._observers.reactions.about.update(name=changes.get("name", self.name), project=self.config.project_name)
        self._recorder.name = str(changes.get("name", self.name))
        if self._place.rank == 0 and (changes or hyperparameters):
            self.change({**changes, "config": dict(hyperparameters)} if hyperparameters else changes)
        self._surroundings.follow(self.config)
        if "capture" in config.given:
            self._stop_listening()
            self._frameworks = frameworks.chosen(self.config.capture)
            self._listen()

    def _watch_folders(self) -> WatchedFolders | None:
        """Keep what appears in the folders that the settings name; one rank of each machine looks."""
        if not self.config.artifact_folders or self._place.local_rank != 0:
            return None
        from tracer.capture.watched_folders import WatchedFolders
        from tracer.storage.artifact_calls import keep_found

        def keep(path: str, name: str) -> None:
            keep_found(self._intake.contents, path, name, self._steps.step, self._guard)

        folders = self.config.artifact_folders
        watched = WatchedFolders(folders, keep, self._guard, without=self.config.storage_path)
        watched.start()
        return watched

    def _stop_listening(self) -> None:
        """Take out everything that listens at frameworks."""
        if self._frameworks:
            from tracer.capture.patching import Hook, patches

            patches.stop()
            Hook.guard = sink.Guard()

    def take(self, event: object) -> None:
        """Record an event that some instrument emitted."""
        self._intake.take(event)

    # Ending.

    def _end(self, status: str, reason: str | None, exit_code: int | None) -> None:
        """Finish because the program ends."""
        self.finish(status, reason, exit_code)

    def _stop_capture(self) -> None:
        """Stop what records by itself; what is nearly there is waited for, shortly."""
        self._surroundings.stop(_BACKGROUND_WAIT_S)
        if self._watched is not None:
            self._watched.stop()
        self._intake.stop()
        sink.listen(None)

    def _record_end(self, status: str, reason: str | None, exit_code: int | None) -> None:
        """Write the end record, and with it the end of this process' part."""
        end = {"status": status, "reason": reason, "exit_code": exit_code, "ended": clock.now_us()}
        counts = {"steps": self._steps.step, "checkpoints": self._steps.checkpoints}
        self._recorder.append(journal.Kind.END, {**end, **counts})

    def change(self, changes: Mapping[str, object]) -> None:
        """Change what is known of the run: `tags`, `notes`, `name`, `config` and the like; dictionaries merge.

        Args:
            changes: The new values.

        Example:
            >>> with tracer.init(project="docs", quiet=True) as run:
            ...     run.change({"notes": "first try", "config": {"lr": 0.1}})
        """
        changes = cleaned(self.redactor, changes)
        runfile.merge(self._facts, changes)
        self._recorder.append(journal.Kind.METADATA, changes)
        self._saved = False

    def _save_if_changed(self) -> None:
        """Write the facts again when they changed; once a second at most, off the caller's thread."""
        if not self._saved and not self._finished:
            self._saved = True
            self._write_facts()

    def _save_facts(self, *, status: str, reason: str | None, exit_code: int | None) -> None:
        """Write the facts of the end."""
        self._facts.update(
            status=status,
            reason=reason,
            exit_code=exit_code,
            ended=clock.now_us(),
            steps=self._steps.step,
            checkpoints=self._steps.checkpoints,
            counters=self._guard.counters.nonzero(),
            cost=self.cost(),
        )
        self._write_facts()

    def cost(self) -> dict[str, Any]:
        """Return what recording cost, and of how much time: of the steps where a model was watched, else of all."""
        parts = self._observers.cost()
        of_seconds = parts.pop("steps", 0.0) or clock.monotonic() - self._born
        parts["journal"] = self._recorder.upkeep.cost_s + self._sequence() * _RECORD_S
        shown = {name: round(seconds, 6) for name, seconds in parts.items()}
        return {"seconds": round(sum(parts.values()), 6), "of_seconds": round(of_seconds, 3), "parts": shown}

    def _cost_told(self) -> str:
        """Say what recording cost."""
        cost = self.cost()
        seconds, of_seconds = float(cost["seconds"]), float(cost["of_seconds"])
        if of_seconds < _SHORT_RUN_S:  # what a beginning costs once is no share of a step
            return f"recording took {seconds:.2g} s"
        of = "step time" if "recorder" in cost["parts"] else "the time"
        return f"Tracer cost {100 * seconds / of_seconds:.2g} % of {of}"

    def _write_facts(self) -> None:
        """Write `run.json`; only the first rank owns it."""
        if self._place.rank == 0:
            runfile.replace(self._recorder.folder, self._facts)

    def _say_end(self, status: str, reason: str | None, *, synced: bool) -> None:
        """Print the summary."""
        if self.config.quiet or self._place.rank != 0:
            return
        because = f": {reason}" if reason else ""
        took = clock.monotonic() - self._born
        sink.say(f"tracer: {self.name!r} {status}{because} after {self._steps.step:,} steps, {took:.1f} s")
        sink.say(f"tracer: {self._cost_told()}")
        for name, count in self._guard.counters.nonzero().items():
            if name in events.HARMLESS:
                continue
            sink.say(f"tracer: {count:,} {events.COUNTERS[name]}")
        found = self._observers.found
        if found:
            kinds = ", ".join(f"{kind} {len(steps)}" for kind, steps in sorted(found.items()))
            sink.say(f"tracer: anomalies were found ({kinds}): `tracer anomalies {self.name}`")
        if not synced:
            sink.say(
                "tracer: the disk was too slow to sync everything; it survives the program, not yet a power failure"
            )
        sink.say(f"tracer: see it with `tracer show {self.name}`")

    # Small parts.

    def _end_step(self) -> None:
        """Do what is due at the end of this step, and find out when something is due again."""
        steps = self._steps
        if self._is_over:
            steps.step -= 1
            raise UsageError(self._recorder.finished_message())
        journal.stamp_steps(self._recorder.writer().buffer, journal.STEPS_AT, steps.step)
        look_at = self._observers.look(steps.step)  # before a checkpoint, which forgets what was current
        self._recorder.end_step()
        if steps.step % self._interval == 0:
            self.checkpoint()
        next_checkpoint = (steps.step // self._interval + 1) * self._interval
        # Another thread may have asked for the next step meanwhile, by setting `due` to 0 while this one was ending.
        steps.due = 0 if self._recorder.has_work_at_each_step else min(next_checkpoint, look_at)
        self._observers.reactions.due()  # last: it may stop the training, as the program asked
        if self._observers.reactions.waiting:
            steps.due = 0

    def _log_custom_metrics(self) -> None:
        """Record what the functions among `custom_metrics` return."""
        for name, function in self.config.custom_metrics.items():
            if callable(function):
                self.log({name: function()})

    def _sequence(self) -> int:
        """Return how many records this process wrote into its current segments."""
        return sum(writer.sequence for writer in self._recorder.writers)
