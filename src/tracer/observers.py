"""What looks at the training of one run beyond what it logs, and acts on what it sees.

The watcher takes statistics of models, the flight recorder keeps their last steps, live detection judges what is
logged, reactions do what the program asked for. Made by `Run`; torch is loaded when the first model is watched.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tracer.capture.governor import Governor
    from tracer.capture.watching import Watcher
    from tracer.config import Config
    from tracer.flight.recorder import FlightRecorder
    from tracer.record.recorder import Recorder

import os

from tracer import events, sink
from tracer.analysis.goals import is_loss
from tracer.analysis.live import LiveDetection
from tracer.analysis.severities import rank
from tracer.reactions import Reactions

#: From this severity on every layer is looked at for some steps.
_ALARMING = rank("high")


class Observers:
    """The instruments that watch one run.

    Args:
        config: The run's settings.
        recorder: The run's recorder; its steps date what is seen.
        about: The run's id, name and project, for messages.
        checkpoint: Records a checkpoint.

    Raises:
        ConfigError: `on_anomaly` cannot be meant.
    """

    def __init__(
        self, config: Config, recorder: Recorder, about: Mapping[str, object], checkpoint: Callable[[], None]
    ) -> None:
        self._config, self._recorder, self._steps = config, recorder, recorder.steps
        self.reactions = Reactions(
            config.on_anomaly, recorder.guard, severity=config.anomaly_severity, checkpoint=checkpoint, about=about
        )
        self.live = LiveDetection(recorder, self._record, reactions=self.reactions)
        self.found: dict[str, set[int]] = {}  # at which steps something of each kind began
        self._live_due = 0
        self._governor: Governor | None = None
        self._watcher: Watcher | None = None
        self._flights: list[FlightRecorder] = []
        self._flight_cost_s = 0.0
        self._is_loss: dict[str, bool] = {}
        if config.detect_anomalies:
            recorder.upkeep.each_second.append(self.live.look)

    # What `Run` calls.

    def watch(self, model: object, optimizer: object, *, flight: bool, **chosen: object) -> None:
        """Watch a model; `chosen` are the fields of `capture.watching.Watch`."""
        from tracer.capture.watching import Watch, Watcher, check_optimizer

        what = Watch(**chosen)  # type: ignore[arg-type]  # the names are those of `Run.watch`
        if self._watcher is None:
            self._watcher = Watcher(
                self.governor, guard=self._recorder.guard, step=self._step, wanted=self._checkpoint_is_next
            )
            self._watcher.each_step = self._account
        self._watcher.watch(model, what)  # type: ignore[arg-type]  # it says so itself when this is no module
        if optimizer is not None:
            check_optimizer(model, optimizer)  # type: ignore[arg-type]  # as above
        if flight:
            self._fly(model, optimizer)

    def unwatch(self, model: object) -> None:
        """Watch a model no more."""
        if self._watcher is not None:
            self._watcher.unwatch(model)  # type: ignore[arg-type]  # what is no module was never watched
        for recorder in self.flights:
            if recorder.model is model:
                recorder.stop()

    def look(self, step: int) -> int:
        """Look at what a step logged; return the step at which that is due again."""
        if not self._config.detect_anomalies:
            return 2**63
        if step >= self._live_due:
            self._live_due = self.live.at_step(step)
        return self._live_due

    def take(self, event: object) -> None:
        """Take a finding that was stored, or the rows of a batch."""
        if isinstance(event, events.Finding):
            self.found.setdefault(event.kind, set()).add(event.step)
            if self._governor is not None and rank(event.severity) >= _ALARMING:
                self._governor.alarm()
        else:
            for recorder in self.flights:
                recorder.note_rows(event)
        self.live.take(event)

    def checkpoint(self, step: int) -> None:
        """Record what a checkpoint shows of the models."""
        if self._watcher is not None:
            self._watcher.checkpoint(step)

    def failed(self, error: BaseException) -> None:
        """Keep the step in which an exception ended the training; to interrupt it is no failure."""
        if not isinstance(error, Exception):
            return
        for recorder in self.flights:
            with self._recorder.guard("keeping the step of an exception"):
                recorder.on_exception(error)

    def stop(self) -> None:
        """Stop looking, and record what is still underway."""
        if self._watcher is not None:
            with self._recorder.guard("ending the watch"):
                self._account()
                self._watcher.stop()
        for recorder in self.flights:
            with self._recorder.guard("ending the flight recorder"):
                recorder.stop()
        if self._config.detect_anomalies:
            self.live.close()
        self.reactions.close(1.0)

    def cost(self) -> dict[str, float]:
        """Return the seconds that each instrument took in the training's own threads, and those of all steps."""
        parts = {"live": self.live.cost_s + self.live.look_s}
        if self._governor is not None:
            parts |= {name: one.cost_s for name, one in self._governor.instruments.items() if one.looks}
            parts |= {"recorder": self._governor.fixed_s, "steps": self._governor.total_s}
        return parts

    @property
    def flights(self) -> list[FlightRecorder]:
        """The flight recorders that are at work."""
        return [recorder for recorder in self._flights if not recorder.stopped]

    @property
    def governor(self) -> Governor:
        """What keeps the cost of everything that looks at the training under `max_overhead`."""
        if self._governor is None:
            from tracer.capture.governor import Governor

            self._governor = Governor(self._config.max_overhead, _told)
        return self._governor

    # Parts.

    def _fly(self, model: object, optimizer: object) -> None:
        """Begin to keep the last steps of a model."""
        from tracer.flight.recorder import FlightRecorder
        from tracer.flight.settings import FlightConfig

        config = FlightConfig.load(
            {"on_anomaly": self.reactions.now, **({"guard": True} if self.reactions.guards else {})}
        )
        if not config.enabled or FlightRecorder.of(model) is not None:  # type: ignore[arg-type]  # it was watched above
            return
        recorder = FlightRecorder(
            model,  # type: ignore[arg-type]  # as above
            optimizer,
            config,
            norms=self._norm,
            loss=self._loss,
            folder=os.path.join(self._recorder.folder, "capsules"),
            guard=self._recorder.guard,
            step_number=self._step,
        )
        self._flights.append(recorder)

    def _record(self, finding: events.Finding) -> None:
        """Store a finding of live detection."""
        sink.emit(finding)

    def _account(self) -> None:
        """Tell the governor what the flight recorders cost: it is left to them, and the rest makes room."""
        cost = sum(recorder.cost_s for recorder in self.flights)
        spent, self._flight_cost_s = cost - self._flight_cost_s, cost
        self.governor.spend(max(spent, 0.0))

    def _norm(self) -> float | None:
        """Return the norm of all gradients that the watcher measured at this step, if it did."""
        return None if self._watcher is None else self._watcher.norm

    def _loss(self) -> float | None:
        """Return the loss that was logged last."""
        known = self._is_loss
        for name, value in self._recorder.writer().last_values().items():
            if name not in known:
                known[name] = is_loss(name)
            if known[name] and isinstance(value, float):
                return value
        return None

    def _step(self) -> int:
        """Return the step at which what happens now is logged."""
        return self._steps.step + self._steps.ahead

    def _checkpoint_is_next(self) -> bool:
        """Tell whether the next `step` of the run will be a checkpoint."""
        return (self._steps.step + 1) % self._config.checkpoint_interval == 0


def _told(name: str, interval: int, cost_share: float) -> None:
    """Record that an instrument looks more or less often from now on."""
    sink.emit(events.Scalars({f"tracer/interval/{name}": interval, f"tracer/cost/{name}": cost_share}))


__all__ = ["Observers"]
