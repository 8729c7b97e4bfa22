"""A live run, assembled out of the rooms below: the recorder, the instruments, its beginning and its end."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Any, Self

    from tracer.storage import StorageBackend

import os
import threading
from functools import cached_property

from tracer import clock, events, journal, places, runfile, sink
from tracer.config import Config
from tracer.errors import UsageError
from tracer.record.companion import Companion
from tracer.record.endings import Endings, described
from tracer.record.identity import Place
from tracer.record.opening import open_run
from tracer.record.recorder import Recorder

_BACKGROUND_WAIT_S = 1.0


class Run:
    """One training run: records what is logged until `finish`.

    Args:
        config: The settings; see `Config`.
        hyperparameters: What the user calls the run's config: learning rate, model, data set.
        resume: The facts and folder of a run that is continued, as `init` finds them.

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
    ) -> None:
        self.config = config
        self.start_time = clock.now()
        self.model: object = None
        self.write_queue = None  # the documents' name for a queue; nothing is queued here
        self._born = clock.monotonic()
        self._pid = os.getpid()  # a forked child inherits this object, and must not end its parent's run
        self._guard = sink.Guard(strict=config.strict, quiet=config.quiet)
        self._place = Place.here()
        folder, self._facts = open_run(config, self._place, hyperparameters or {}, resume)
        mode = places.kind(folder, config.journal)
        self._recorder = Recorder(
            folder, self.run_id, self._place, mode=mode, durability=config.durability, guard=self._guard, name=self.name
        )
        self._steps = self._recorder.steps
        self._steps.step = int(self._facts["steps"]) if resume else 0
        self._steps.checkpoints = int(self._facts["checkpoints"]) if resume else 0
        self._here = self._recorder.here
        self._interval = config.checkpoint_interval
        self._saved = True
        self._gradients: Any = None
        self._samples: Any = None
        self._collector: Any = None
        self._finished = False
        self.when_finished: list[Callable[[], None]] = []
        self._begin()

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

    def watch(self, model: object, optimizer: object = None) -> None:  # noqa: ARG002 -- found by torch's own hooks today
        """Record gradient statistics of a model at every checkpoint, as its optimizer sees them.

        Args:
            model: A `torch.nn.Module`; several may be watched.
            optimizer: The optimizer that steps it; optimizers are found without it.

        Raises:
            TypeError: It is no module.

        Example:
            >>> with tracer.init(project="docs", quiet=True) as run:
            ...     run.watch(torch.nn.Linear(4, 2))
        """
        self.model = model
        if not self.config.track_gradients:
            return
        if self._gradients is None:
            from tracer.capture.gradients import GradientStatistics

            self._gradients = GradientStatistics(guard=self._guard)
        self._gradients.attach(model, layers=self.config.gradient_layers, due=self._checkpoint_is_next)

    attach_hooks = watch

    def log_samples(
        self,
        *,
        inputs: object = None,
        targets: object = None,
        predictions: object = None,
        loss: object = None,
        indices: object = None,
        step: int | None = None,
    ) -> None:
        """Keep rows of a batch: those with the highest loss, at most `capture_samples` of them.

        Args:
            inputs: A batch: tensor, array, list, or a dictionary of them.
            targets: What was expected, one per row.
            predictions: What came out, one per row.
            loss: One number per row.
            indices: The rows' places in the data set.
            step: The step; the run's own counter when absent.

        Raises:
            TypeError: Something given is no batch of rows.
            ValueError: The rows differ in number.

        Example:
            >>> with tracer.init(project="docs", quiet=True) as run:
            ...     run.log_samples(inputs=[[1.0], [2.0]], targets=[0, 1], loss=[0.1, 2.3])
        """
        from tracer.capture.samples import chosen_samples

        step = self._steps.step if step is None else step
        rows = {"inputs": inputs, "targets": targets, "predictions": predictions, "loss": loss, "indices": indices}
        chosen = chosen_samples(limit=self.config.capture_samples, step=step, **rows)
        if chosen is not None:
            self._sample_writer().put(chosen)

    def checkpoint(self) -> None:
        """Record a marker with the values, system figures and gradient statistics that are current now."""
        self._steps.checkpoints += 1
        with self._guard("recording a checkpoint"):
            self._log_custom_metrics()
            if self._gradients is not None:
                for values in (*self._gradients.arrived(), self._gradients.measure(self._steps.step)):
                    if values is not None:
                        self._recorder.append_layers(values)
            system = self._collector.latest if self._collector is not None else None
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
        self._steps.due = 0  # the next step is told that the run is over
        deadline = clock.monotonic() + self.config.finish_timeout_s
        self._endings.restore()
        with self._guard("finishing the run"):
            self._stop_capture()
            if self._recorder.current_values():
                self.checkpoint()
            self._record_late_gradients()
            self._record_end(status, reason, exit_code)
        for told in self.when_finished:
            told()
        synced = self._recorder.close(max(deadline - clock.monotonic(), 0.0))
        self._companion.leave()
        with self._guard("writing run.json"):
            self._save_facts(status=status, reason=reason, exit_code=exit_code)
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
        self._endings = Endings(self._end, lambda: (self._steps.step, self._sequence()))
        self._companion = Companion(self._recorder, self.config.storage_path)
        self._recorder.upkeep.each_second.append(self._save_if_changed)
        if self.config.maintain == "companion" and self._place.rank == 0 and self._recorder.mode == "mapped":
            self._recorder.upkeep.each_second.append(self._companion.look)
        sink.listen(self.take)
        self._background: threading.Thread | None = None
        if self._place.rank == 0 and (self.config.track_git or self.config.track_environment):
            self._background = threading.Thread(target=self._capture_surroundings, name="tracer-capture", daemon=True)
            self._background.start()
        if self.config.track_system_metrics and self._place.local_rank == 0:
            from tracer.capture.system import Collector, SystemSampler

            sampler = SystemSampler(self.config)
            self._collector = Collector(self.config.system_interval_s, sampler=sampler, guard=self._guard)
            self._collector.start()
        self._recorder.writer()  # the first segment names this process: from now on its death is noticed
        if self._place.rank == 0 and not self.config.quiet:
            where = os.path.relpath(self.config.storage_path)
            where = self.config.storage_path if where.startswith("..") else where
            sink.say(f"tracer: recording {self.name!r} (project {self._facts['project']!r}) in {where}")

    def take(self, event: object) -> None:
        """Record an event that some instrument emitted."""
        if self._recorder.closed:
            return
        if isinstance(event, events.Scalars):
            self.log(event.values, event.step)
        elif isinstance(event, events.LayerValues):
            self._recorder.append_layers(event)
        elif isinstance(event, events.Metadata):
            runfile.merge(self._facts, dict(event.changes))
            self._recorder.append(journal.Kind.METADATA, event.changes)
            self._saved = False
        elif isinstance(event, events.Finding):
            said = {"kind": event.kind, "severity": event.severity, "step": event.step, "last_step": event.last_step}
            self._recorder.append(journal.Kind.FINDING, {**said, "details": event.details}, event.step)
        elif isinstance(event, events.Samples):
            self._sample_writer().put(event)

    def _capture_surroundings(self) -> None:
        """Learn of code and environment on a thread of its own: git and package lists take their time."""
        with self._guard("reading the environment"):
            from tracer.capture.environment import environment_facts
            from tracer.capture.git import git_facts

            if self.config.track_environment:
                self.take(events.Metadata({"environment": environment_facts()}))
            if self.config.track_git:
                self.take(events.Metadata({"git": git_facts()}))

    # Ending.

    def _end(self, status: str, reason: str | None, exit_code: int | None) -> None:
        """Finish because the program ends."""
        self.finish(status, reason, exit_code)

    def _stop_capture(self) -> None:
        """Stop what records by itself; what is nearly there is waited for, shortly."""
        if self._background is not None:
            self._background.join(_BACKGROUND_WAIT_S)
        if self._collector is not None:
            self._collector.stop()
        if self._samples is not None:
            self._samples.stop()
        sink.listen(None)

    def _record_late_gradients(self) -> None:
        """Write the statistics that are still on their way from a device."""
        if self._gradients is not None:
            for values in self._gradients.arrived(wait=True):
                self._recorder.append_layers(values)

    def _record_end(self, status: str, reason: str | None, exit_code: int | None) -> None:
        """Write the end record, and with it the end of this process' part."""
        if self._gradients is not None:
            self._gradients.detach()
        end = {"status": status, "reason": reason, "exit_code": exit_code, "ended": clock.now_us()}
        counts = {"steps": self._steps.step, "checkpoints": self._steps.checkpoints}
        self._recorder.append(journal.Kind.END, {**end, **counts})

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
            cost={
                "seconds": round(self._recorder.upkeep.cost_s, 6),
                "of_seconds": round(clock.monotonic() - self._born, 3),
            },
        )
        self._write_facts()

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
        for name, count in self._guard.counters.nonzero().items():
            if name in events.HARMLESS:
                continue
            sink.say(f"tracer: {count:,} {events.COUNTERS[name]}")
        if not synced:
            sink.say(
                "tracer: the disk was too slow to sync everything; it survives the program, not yet a power failure"
            )
        sink.say(f"tracer: see it with `tracer show {self.name}`")

    # Small parts.

    def _end_step(self) -> None:
        """Do what is due at the end of this step, and find out when something is due again."""
        steps = self._steps
        if self._finished:
            steps.step -= 1
            raise UsageError(self._recorder.finished_message())
        journal.stamp_steps(self._recorder.writer().buffer, journal.STEPS_AT, steps.step)
        self._recorder.end_step()
        if steps.step % self._interval == 0:
            self.checkpoint()
        next_checkpoint = (steps.step // self._interval + 1) * self._interval
        steps.due = 0 if self._recorder.has_work_at_each_step else next_checkpoint

    def _checkpoint_is_next(self) -> bool:
        """Tell whether the next `step` will be a checkpoint; asked before every step of an optimizer."""
        return (self._steps.step + 1) % self._interval == 0

    def _log_custom_metrics(self) -> None:
        """Record what the functions among `custom_metrics` return."""
        for name, function in self.config.custom_metrics.items():
            if callable(function):
                self.log({name: function()})

    def _sample_writer(self) -> Any:  # noqa: ANN401 -- a room that loads DuckDB; imported when samples are kept
        """Return what writes samples, on a thread of its own."""
        if self._samples is None:
            from tracer.storage.sample_writer import SampleWriter

            recorder = self._recorder
            self._samples = SampleWriter(recorder.folder, self.run_id, self._place.rank, recorder.append, self._guard)
        return self._samples

    def _sequence(self) -> int:
        """Return how many records this process wrote into its current segments."""
        return sum(writer.sequence for writer in self._recorder.writers)
