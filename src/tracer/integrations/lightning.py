"""A callback for Lightning's Trainer, under both of its names: `lightning` and `pytorch_lightning`.

Each name has a base class of its own. Which one a program uses is known when it makes the callback, so the class is
completed then; importing this module loads neither.
"""

# ruff: noqa: ANN401, ARG002 -- the framework decides what it hands over, and of what type

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Self

from tracer.capture.lightning import listen_by_hand
from tracer.capture.lightning_bases import as_sent, completed, loaded_bases
from tracer.capture.lightning_callback import TrainerListener, follow, is_followed, unfollow
from tracer.capture.lightning_trainer import Fresh, hyperparameters, is_accumulating, logged_step
from tracer.integrations.session import Session
from tracer.plugins import needs


class LightningCallback(TrainerListener):
    """Records what a Lightning module logs, every step of it, whatever `log_every_n_steps` says.

    Steps are the trainer's global step: those of the optimizers. The run begins and ends with `fit()`; a run that the
    program began itself is joined and left open. Values of a `test()` or `validate()` afterwards go to the same run.

    Args:
        project: Project of the run.
        run_name: Name of the run; made from date and host when absent.
        checkpoint_interval: Optimizer steps between two checkpoints.
        capture_every_step: False: record what the trainer tells its loggers, when and at the steps it tells them.
        **kwargs: Further arguments of `tracer.init`, such as `tags`, `storage_path` or `gradient_layers`.

    Raises:
        MissingDependency: Lightning is not installed.

    Example:
        >>> trainer = Trainer(callbacks=[LightningCallback(project="my-project")], max_epochs=3)
        >>> trainer.fit(model)  # doctest: +SKIP
    """

    by_hand = True

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        """Make an instance of this class and of the framework's `Callback`."""
        incomplete: Any = cls
        completed_class: type[Self] = completed(incomplete, bases("callbacks", "Callback", "LightningCallback"))
        return object.__new__(completed_class)

    def __init__(
        self,
        project: str,
        run_name: str | None = None,
        checkpoint_interval: int = 100,
        *,
        capture_every_step: bool = True,
        **kwargs: Any,
    ) -> None:
        self._session = Session(project, run_name, {"checkpoint_interval": checkpoint_interval, **kwargs})
        self._every_step = capture_every_step
        self._fresh = Fresh()

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin the run; not in `setup`, where the loggers still decide on folders."""
        if not self.is_chosen(trainer):
            return
        self._fresh = Fresh()
        self._session.begin(pl_module, hyperparameters(trainer, pl_module), self._step(trainer))
        run = self._session.run
        if run is not None:
            run.when_finished.append(listen_by_hand())
            if not self._every_step:
                run.recorder.steps.ahead = 0  # loggers are given the number of steps that ended before
        self._follow(trainer)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Go on where a checkpoint ended: only now the trainer knows."""
        run = self._session.run
        if self.is_chosen(trainer) and run is not None and self._step(trainer) > run.step_count:
            run.go_on_at(self._step(trainer))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record what this batch logged; where it ended an accumulation, the step ends too."""
        if not self.is_chosen(trainer):
            return
        self._log(trainer, {"epoch": trainer.current_epoch, **_learning_rates(trainer)})
        ended = self._every_step or is_accumulating(trainer)
        self._session.advance(self._step(trainer) + (not ended))

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Record the means of the epoch before, which are not known any earlier."""
        self._log(trainer)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Listen to the trainer's loggers, where that is wanted."""
        self._follow(trainer)

    on_test_start = on_predict_start = on_validation_start

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Record the validation, unless it is the trial before the training."""
        if trainer.sanity_checking:
            self._fresh.of(trainer.callback_metrics)
        else:
            self._log(trainer)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Record the test."""
        self._log(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Record the means of the last epoch."""
        self._log(trainer)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Finish the run."""
        self._session.end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Finish the run as failed."""
        unfollow(trainer)
        self._session.end(exception)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave the trainer as it was."""
        unfollow(trainer)

    def _step(self, trainer: Any) -> int:
        """Return the trainer's step: that of the optimizers, or the one that loggers are given."""
        return int(trainer.global_step) if self._every_step else logged_step(trainer)

    def _follow(self, trainer: Any) -> None:
        """Listen to what the loggers are told; what comes after the training reopens the run."""
        if not self._every_step and self.is_chosen(trainer):
            follow(trainer, self._session.log)

    def _log(self, trainer: Any, beside: Mapping[str, object] | None = None) -> None:
        """Record what was logged since the last time, and something beside it; not what a logger of ours is told."""
        if not self.is_chosen(trainer) or is_followed(trainer) or not self._every_step:
            return
        fresh = self._fresh.of(trainer.callback_metrics)
        if trainer.is_global_zero:
            self._session.log({**fresh, **(beside or {})}, trainer.global_step)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the class that has a name; the other is completed again over there."""
        return as_sent(self, dict(self.__dict__, _fresh=Fresh()))


def bases(room: str, name: str, purpose: str) -> tuple[type, ...]:
    """Return the base class of each package that the program has loaded; that of the installed one if none is.

    Args:
        room: The module below the package: `callbacks` or `loggers`.
        name: The class there.
        purpose: What of ours needs it, for the message where no package is installed.
    """
    loaded = loaded_bases(room, name)
    if loaded:
        return loaded
    with needs("lightning", extra="lightning", purpose=purpose):
        if find_spec("lightning") is None and find_spec("pytorch_lightning") is not None:
            return (getattr(import_module(f"pytorch_lightning.{room}"), name),)
        return (getattr(import_module(f"lightning.pytorch.{room}"), name),)


def _learning_rates(trainer: Any) -> dict[str, float]:
    """Return the learning rate of each optimizer's first group; plainly `lr` where there is one."""
    rates = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers if optimizer.param_groups]
    return {"lr": rates[0]} if len(rates) == 1 else {f"lr/{number}": rate for number, rate in enumerate(rates)}


TracerCallback = LightningCallback

__all__ = ["LightningCallback", "TracerCallback", "bases"]
