"""What becomes of the events that instruments emit while a run is active: one method for each kind."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Protocol

    from tracer.capture.redaction import Redactor
    from tracer.config import Config
    from tracer.observers import Observers
    from tracer.record.recorder import Recorder
    from tracer.sink import Guard

    class Ground(Protocol):
        """What is needed of the run."""

        config: Config
        model: object

        @property
        def recorder(self) -> Recorder:
            """What writes the journal."""

        @property
        def observers(self) -> Observers:
            """What looks at the training."""

        @property
        def facts(self) -> Mapping[str, Any]:
            """What is known of the run."""

        @property
        def guard(self) -> Guard:
            """What keeps failures of ours from the program."""

        @property
        def redactor(self) -> Redactor:
            """What cuts secrets out."""

        def change(self, changes: Mapping[str, object]) -> None:
            """Change what is known of the run."""

        def watch(self, model: object, optimizer: object = None) -> None:
            """Watch a model."""

        def step(self) -> None:
            """End a step."""

        def go_on_at(self, step: int) -> None:
            """Set the step counter."""


from tracer import events, journal

#: Who says that something is trained and counts no steps of its own.
_WITHOUT_STEPS = frozenset({"wandb", "sklearn"})
#: Whose steps are named by how many ended before; others log a step's metrics under the number that includes it.
_FROM_ZERO = frozenset({"lightning"})
#: Steps beyond which the counter jumps instead of ending each step: a training that continues far from its beginning.
_MAX_CATCH_UP = 100_000


class Intake:
    """Takes events for one run.

    Args:
        run: The run.
    """

    def __init__(self, run: Ground) -> None:
        self._run, self._recorder, self._here = run, run.recorder, run.recorder.here
        self._known: set[str] = set()  # metrics of which it stands where they come from
        self._led_by = ""  # whose steps are counted
        self._counted = run.recorder.steps.step
        self._samples: Any = None
        self._contents: Any = None
        self._takes: dict[type, Callable[[Any], None]] = {
            events.Scalars: self._scalars,
            events.LayerValues: self._recorder.append_layers,
            events.Histograms: self._recorder.append_histograms,
            events.Metadata: lambda event: run.change(event.changes),
            events.Finding: self._finding,
            events.Samples: self._rows_of_batch,
            events.Entry: self._entry,
            events.Parameters: self._parameters,
            events.Media: self._content,
            events.Artifact: self._content,
            events.Training: self._training,
            events.Steps: self._steps,
        }

    def take(self, event: object) -> None:
        """Record an event; one that comes after the end is forgotten."""
        if self._recorder.closed:
            return
        taken = self._takes.get(type(event))
        if taken is not None:
            taken(event)
        else:
            self._run.observers.take(event)  # the rows of a batch

    def stop(self) -> None:
        """Finish what is written on threads of their own, within a bound."""
        for writer in (self._samples, self._contents):
            if writer is not None:
                writer.stop()

    @property
    def contents(self) -> Any:  # noqa: ANN401 -- a room that hashes and copies; imported when something is kept
        """What keeps artifacts and media, on a thread of its own."""
        if self._contents is None:
            from tracer.storage.content_writer import ContentWriter

            self._contents = ContentWriter(self._recorder.folder, self._recorder.append, self._run.guard)
        return self._contents

    def _scalars(self, event: events.Scalars) -> None:
        """Record values of metrics, and once who said them if it was not the program itself."""
        try:
            writer = self._here.writer
        except AttributeError:
            writer = self._recorder.writer()
        if event.time is None:
            writer.log(event.values, event.step)
        else:
            step = self._recorder.steps.step if event.step is None else event.step
            writer.row(event.values, step, event.time)  # type: ignore[arg-type]  # what is captured are numbers
        if event.origin != events.USER and not self._known.issuperset(event.values):
            self._note_origin(event)

    def _note_origin(self, event: events.Scalars) -> None:
        """Record where a metric comes from, the first time it comes."""
        new = {name: event.origin for name in event.values if name not in self._known}
        self._known.update(new)
        self._run.change({"origins": new})

    def _finding(self, event: events.Finding) -> None:
        """Record an anomaly, and let the observers act on it."""
        said = {"kind": event.kind, "severity": event.severity, "step": event.step, "last_step": event.last_step}
        self._recorder.append(journal.Kind.FINDING, {**said, "details": event.details}, event.step)
        self._run.observers.take(event)

    def _rows_of_batch(self, event: events.Samples) -> None:
        """Have samples written."""
        if self._samples is None:
            from tracer.storage.sample_writer import SampleWriter

            recorder, guard = self._recorder, self._run.guard
            self._samples = SampleWriter(recorder.folder, recorder.uid, recorder.place.rank, recorder.append, guard)
        self._samples.put(event)

    def _entry(self, event: events.Entry) -> None:
        """Record a line of output, a log record or an event."""
        said: dict[str, object] = {"kind": event.kind, "body": event.body, "name": event.name, "level": event.level}
        if event.fields:
            said["fields"] = self._run.redactor.value(event.fields, "event")
        self._recorder.append(journal.Kind.LOG, said, event.step, event.time)

    def _parameters(self, event: events.Parameters) -> None:
        """Record hyper-parameters; what the program gave to `init` stands, else what was said first."""
        known = self._run.facts.get("config", {})
        new = {name: value for name, value in event.values.items() if name not in known}
        if new:
            self._run.change({"config": new})

    def _content(self, event: events.Media | events.Artifact) -> None:
        """Keep bytes or files; checkpoints that a framework saves only where that is wanted."""
        is_noted = isinstance(event, events.Artifact) and event.origin != events.USER
        if is_noted and not self._run.config.track_checkpoints:
            return
        self.contents.put(event)

    def _training(self, event: events.Training) -> None:
        """Join a framework's training: its parameters, its step, its model."""
        run, steps = self._run, self._recorder.steps
        if event.parameters:
            self._parameters(events.Parameters(event.parameters, event.origin))
        if event.origin == "pytorch":
            if self._led_by or run.model is not None:
                return  # a framework or the program itself leads, and the optimizers are only its hands
            self._led_by = event.origin
        elif event.origin not in _WITHOUT_STEPS:
            self._led_by = event.origin
            steps.ahead = 0 if event.origin in _FROM_ZERO else 1
        if event.step > steps.step:
            run.go_on_at(event.step)
        if event.model is not None and run.config.track_gradients:
            with run.guard("watching the model"):
                run.watch(event.model, event.optimizer)

    def _steps(self, event: events.Steps) -> None:
        """Bring the run's counter to the framework's, unless somebody else counts."""
        steps = self._recorder.steps
        if event.origin == "pytorch":
            if self._led_by == "pytorch" and steps.step != self._counted:
                self._led_by = events.USER  # the program counts itself
            if self._led_by != "pytorch":
                return
        if event.step - steps.step > _MAX_CATCH_UP:
            self._run.go_on_at(event.step)
        while steps.step < event.step:
            self._run.step()
        self._counted = steps.step


__all__ = ["Intake"]
