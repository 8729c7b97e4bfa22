"""The run that a framework's callback records into: the one that is active, or one of its own."""

from __future__ import annotations

import atexit
import os
from collections.abc import Mapping
from typing import Any

from tracer import events, runfile
from tracer.active import init
from tracer.capture.hyperparameters import plain
from tracer.run import Run
from tracer.sink import Guard, emit
from tracer.state import _state

_NOT_REACHED = "the training did not reach its end"


class Session:
    """Begins, feeds and ends a run as a framework's training goes on.

    A run that the program began itself is joined and left open; otherwise one is begun with the training and finished
    with it. Nothing here raises into the training once it has begun.

    Args:
        project: Project of the run.
        run_name: Name of the run.
        settings: Further arguments of `tracer.init`.
    """

    def __init__(self, project: str, run_name: str | None, settings: Mapping[str, Any]) -> None:
        self.project, self.run_name = project, run_name
        self.settings = dict(settings)
        self._guard = Guard(strict=os.environ.get("TRACER_STRICT", "") in ("1", "true"))
        self._run: Run | None = None
        self._owned = False
        self._ended_id: str | None = None

    @property
    def run(self) -> Run | None:
        """The run that is fed now."""
        return self._run

    def begin(self, model: object, config: Mapping[str, object], step: int) -> None:
        """Begin a run, or join the active one.

        Args:
            model: The model whose gradients are watched.
            config: What the framework knows of the hyperparameters; what the user gave wins.
            step: The framework's step; above 0 when it continues from a checkpoint of its own.
        """
        self._abandon()
        given = self.settings.get("config") or {}
        config = {**plain(config), **given}
        active: Run | None = _state.tracer
        if active is None:
            rest = {name: value for name, value in self.settings.items() if name != "config"}
            run = init(self.project, self.run_name, config=config, **rest)
            atexit.register(self._abandon)
        else:
            run = active
            known = runfile.read(run.folder).get("config", {})
            emit(events.Metadata({"config": {name: value for name, value in config.items() if name not in known}}))
        self._run, self._owned = run, active is None
        with self._guard("watching the model"):
            run.recorder.steps.ahead = 1  # frameworks log a step's metrics under the number of steps that ended
            run.watch(model)
        if step > run.step_count:
            run.go_on_at(step)

    def log(self, values: Mapping[str, object], step: int | None) -> None:
        """Record values; those that come after the training reopen its run for the moment."""
        if not values:
            return
        if self._run is None:
            self._log_later(values, step)
            return
        with self._guard("recording metrics"):
            self._run.log(values, step=step)

    def advance(self, step: int) -> None:
        """Bring the run to the framework's step."""
        run = self._run
        if run is not None:
            with self._guard("ending a step"):
                while run.step_count < step:
                    run.step()

    def end(self, error: BaseException | None = None) -> None:
        """Finish the run if it is this session's own; an exception marks it failed."""
        run, owned = self._run, self._owned
        self._forget()
        if run is not None and owned:
            self._ended_id = run.run_id
            with self._guard("finishing the run"):
                run.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)

    def _abandon(self) -> None:
        """Finish a run whose training ended without saying so: it raised, and the program caught it."""
        run, owned = self._run, self._owned
        self._forget()
        if run is not None and owned:
            with self._guard("finishing the run"):
                run.finish(events.FAILED, _NOT_REACHED)

    def _forget(self) -> None:
        """Hold no run."""
        self._run, self._owned = None, False
        atexit.unregister(self._abandon)

    def _log_later(self, values: Mapping[str, object], step: int | None) -> None:
        """Record values of an evaluation outside of the training: in the active run, else in the one that ended."""
        with self._guard("recording metrics"):
            active = _state.tracer
            if active is not None:
                active.log(values, step=step)
                return
            rest = {name: value for name, value in self.settings.items() if name not in ("config", "resume")}
            with init(self.project, self.run_name, resume=self._ended_id, **{**rest, "quiet": True}) as run:
                self._ended_id = run.run_id
                run.log(values, step=step)

    def __getstate__(self) -> dict[str, object]:
        """Leave the live run behind when a trainer is sent to another process."""
        return {"project": self.project, "run_name": self.run_name, "settings": self.settings}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Begin without a run."""
        self.__init__(state["project"], state["run_name"], state["settings"])  # type: ignore[misc]  # a fresh session


__all__ = ["Session"]
