"""A logger for Lightning, under both of its names, and for Fabric: `Trainer(logger=TracerLogger(project="gpt"))`."""

# ruff: noqa: ANN401, ARG002 -- the framework decides what it hands over, and of what type

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Self

from tracer import events
from tracer.active import init
from tracer.capture.lightning import listen_by_hand, saves
from tracer.capture.lightning_bases import as_sent, completed
from tracer.capture.lightning_logger import FollowingLogger, MetricsOnce, Nothing
from tracer.capture.lightning_trainer import ORIGIN, artifact, plain, whole
from tracer.capture.patching import patches
from tracer.config import Config
from tracer.integrations.lightning import bases
from tracer.run import Run
from tracer.state import _state


class TracerLogger(FollowingLogger):
    """A logger as Lightning's own are: what the trainer logs goes into a run, at the steps that it logs it.

    The run begins when the trainer sets up, and ends with `fit()`, `test()` or `validate()`; the next of them continues
    it. A run that the program began itself is joined and left open. Only the first rank records.

    Args:
        project: Project of the run; `TRACER_PROJECT`, else `default`, when absent.
        run_name: Name of the run; made from date and host when absent.
        save_dir: Where Lightning puts its checkpoints, below which come project and run; its own folder when absent.
        **kwargs: Further arguments of `tracer.init`, such as `tags`, `storage_path` or `config`.

    Raises:
        ConfigError: A setting is not known or cannot be meant.
        MissingDependency: Lightning is not installed.

    Example:
        >>> trainer = Trainer(logger=TracerLogger(project="my-project"), max_epochs=3)
        >>> trainer.fit(model)  # doctest: +SKIP
    """

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        """Make an instance of this class and of the framework's `Logger`."""
        incomplete: Any = cls
        completed_class: type[Self] = completed(incomplete, bases("loggers", "Logger", "TracerLogger"))
        return object.__new__(completed_class)

    def __init__(
        self, project: str | None = None, run_name: str | None = None, *, save_dir: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(folder=save_dir)
        named = {"project_name": project, "run_name": run_name}
        known = {name: value for name, value in kwargs.items() if name not in ("config", "resume")}
        self._config = Config.load({**{name: value for name, value in named.items() if value is not None}, **known})
        self._project, self._run_name, self._settings = project, run_name, kwargs
        self._run: Run | None = None
        self._is_own = False
        self._ended_id: str | None = None
        self._saved: dict[str, object] = {}

    @property
    def experiment(self) -> Any:
        """The run, begun or continued when it is not active; on other ranks than the first something that does nothing.

        Example:
            >>> TracerLogger(project="docs", quiet=True).experiment.log({"loss": 0.5})
        """
        if _rank() != 0:
            return Nothing()
        if self._run is None or _state.tracer is not self._run:
            self._run, self._is_own = self._begun()
            self._run.when_finished.append(listen_by_hand())
        return self._run

    @property
    def name(self) -> str:
        """The project."""
        return self._config.project_name

    @property
    def version(self) -> str:
        """The name of the run."""
        return self._config.run_name

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record metrics; evaluations bring empty ones at each of their batches, which say nothing.

        Args:
            metrics: Name → number; tensors and NumPy's are numbers too.
            step: The step they belong to; the run's own counter when absent.
        """
        run, step = self.experiment, whole(step)
        values = self._once.of(metrics, step)
        if not values or not isinstance(run, Run):
            return
        with run.guard("recording metrics"):
            run.take(events.Scalars(values, step, origin=ORIGIN))
            if "epoch" in metrics and step is not None and not patches.is_on(ORIGIN):
                run.take(events.Steps(step, ORIGIN))  # the trainer's own step, not the number of an evaluation's batch

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Record hyper-parameters; what the program gave as `config` stands.

        Args:
            params: A mapping, or a namespace as `argparse` makes it.
            *args: What other loggers take; ignored.
            **kwargs: As `args`.
        """
        run = self.experiment
        if isinstance(run, Run):
            with run.guard("recording hyper-parameters"):
                run.take(events.Parameters(plain(params), ORIGIN))

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """Do nothing: layers are recorded by watching the model."""

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Note the checkpoints of a `ModelCheckpoint`, where they could not be heard when the trainer saved them."""
        run = self.experiment
        if saves.events or not isinstance(run, Run):
            return
        with run.guard("noting a checkpoint"):
            scores = {checkpoint_callback.last_model_path: None, **checkpoint_callback.best_k_models}
            for path, score in scores.items():
                if path and self._saved.get(path, self) is not score:
                    self._saved[path] = score
                    known = {} if score is None else {"monitor": checkpoint_callback.monitor, "score": float(score)}
                    event = artifact(path, None, known)
                    if event is not None:
                        run.take(event)

    def finalize(self, status: str) -> None:
        """End the run that this logger began; the next use continues it.

        Args:
            status: How the training ended: `success`, or with an exception.
        """
        run = self._run
        if run is None or not self._is_own or _state.tracer is not run:
            return
        self._run, self._ended_id = None, run.run_id
        error = None if status == "success" else sys.exception()
        with run.guard("finishing the run"):
            if error is not None:
                run.__exit__(type(error), error, error.__traceback__)
            elif status == "failed":
                run.finish(events.FAILED, "Lightning says that the training failed", 1)
            else:
                run.finish()

    def __bool__(self) -> bool:
        """Be true: it is a logger of the program's own."""
        return True

    def _begun(self) -> tuple[Run, bool]:
        """Return the active run, else one of this logger's own, and whether it is its own."""
        active: Run | None = _state.tracer
        if active is not None:
            return active, False
        if self._ended_id is None:
            return init(self._project, self.version, **self._settings), True
        again = {name: value for name, value in self._settings.items() if name not in ("config", "resume")}
        return init(self._project, self.version, resume=self._ended_id, **{**again, "quiet": True}), True

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the live run behind when a trainer is sent to another process."""
        return as_sent(self, {**self.__dict__, "_run": None, "_is_own": False, "_once": MetricsOnce()})


def _rank() -> int:
    """Return this process' rank as Lightning knows it, also before a process group is there."""
    known = sys.modules.get("lightning_utilities.core.rank_zero")
    return int(getattr(getattr(known, "rank_zero_only", None), "rank", 0) or 0)


__all__ = ["TracerLogger"]
