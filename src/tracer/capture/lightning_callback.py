"""The callback that records a Trainer without being asked by the program, and what all callbacks of ours share.

It follows the loggers: what they are told, at the steps at which they are told it, is recorded. For that a logger of
ours stands last among theirs while a training goes on, never before it begins: folders are made of the first logger.
"""

# ruff: noqa: ANN401, ARG002 -- the framework decides what it hands over, and of what type

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from tracer import events
from tracer.capture.lightning_bases import as_sent, completed, loaded_bases
from tracer.capture.lightning_logger import FollowingLogger, Tell
from tracer.capture.lightning_trainer import (
    ORIGIN,
    Fresh,
    hears_this_batch,
    hyperparameters,
    is_accumulating,
    logged_step,
    plain,
    setting,
)
from tracer.capture.patching import Hook, patches
from tracer.capture.trainings import Training, trainings
from tracer.state import _state

callbacks = Hook("lightning.callbacks")


class TrainerListener:
    """What every callback of ours is: one of a trainer's callbacks, of which a single one records.

    Those that the program added itself come before the one that nobody asked for by name.
    """

    by_hand = False

    def is_chosen(self, trainer: Any) -> bool:
        """Tell whether it is this callback that records the trainer."""
        ours = [callback for callback in trainer.callbacks if isinstance(callback, TrainerListener)]
        ours.sort(key=lambda callback: not callback.by_hand)
        return bool(ours) and ours[0] is self


def is_followed(trainer: Any) -> bool:
    """Tell whether a logger of ours is among a trainer's, put there by us or by the program."""
    return any(isinstance(logger, FollowingLogger) for logger in trainer.loggers)


def follow(trainer: Any, tell: Tell) -> None:
    """Put a logger of ours behind the trainer's; only the first rank is told anything."""
    if trainer.is_global_zero and not is_followed(trainer):
        ours: Any = FollowingLogger(tell, _say_parameters, trainer.default_root_dir)
        trainer.loggers = [*trainer.loggers, ours]


def unfollow(trainer: Any) -> None:
    """Take our logger out again: the next training decides on its folders anew."""
    kept = [logger for logger in trainer.loggers if getattr(type(logger), "_completes", None) is not FollowingLogger]
    if len(kept) != len(trainer.loggers):
        trainer.loggers = kept


def _say_parameters(parameters: Any) -> None:
    """Pass on hyper-parameters that a logger was given."""
    callbacks.emit(events.Parameters(plain(parameters), ORIGIN))


class CapturingCallback(TrainerListener):
    """Records a Trainer's metrics, steps, hyper-parameters and model; inert beside one that was added by hand."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        """Make an instance of this class and of the framework's `Callback`."""
        incomplete: Any = cls
        made: type[Self] = completed(incomplete, loaded_bases("callbacks", "Callback"))
        return object.__new__(made)

    def __init__(self) -> None:
        self._fresh = Fresh()
        self._every_step = False
        self._training: Training | None = None
        self._offset = 0

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Join the training: from here on folders are decided."""
        if not self._is_on(trainer):
            return
        with callbacks:
            self._fresh, self._every_step = Fresh(), bool(setting("capture_every_step", default=False))
            optimizer = trainer.optimizers[0] if len(trainer.optimizers) == 1 else None
            parameters = hyperparameters(trainer, pl_module)
            callbacks.emit(events.Training(ORIGIN, pl_module, optimizer, parameters=parameters))
            self._training = None
            if not trainer.ckpt_path:
                self._begin(trainer)
            if trainer.loggers:  # else later: with a logger Lightning checks how often it is told something
                follow(trainer, self._tell)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Go on where a checkpoint ended: only now the trainer knows."""
        if not self._is_on(trainer):
            return
        with callbacks:
            if self._training is None:
                self._begin(trainer)
            follow(trainer, self._tell)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """End a step, unless the batch only added to the gradients."""
        if not self._is_on(trainer):
            return
        with callbacks:
            step = logged_step(trainer)
            if self._every_step and trainer.is_global_zero:
                self._tell_batch(trainer, step)
            if not is_accumulating(trainer):
                callbacks.emit(events.Steps(self._offset + step + 1, ORIGIN))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Note where the training ended: another may go on there."""
        if self._training is not None:
            self._training.end = logged_step(trainer)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Follow an evaluation of its own; one inside a training is followed already."""
        if not trainer.sanity_checking:
            self._join(trainer, pl_module)

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Follow a test."""
        self._join(trainer, pl_module)

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Follow a prediction."""
        self._join(trainer, pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Note what ended the training; whether it ends the run is for the program to say."""
        if not self._is_on(trainer):
            return
        with callbacks:
            unfollow(trainer)
            body = f"{type(exception).__name__}: {exception}"[:500]
            callbacks.emit(events.Entry("event", body, name="exception", level="error", step=logged_step(trainer)))

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave the trainer as it was."""
        with callbacks:
            unfollow(trainer)

    def _is_on(self, trainer: Any) -> bool:
        """Tell whether this callback records, at this moment."""
        return patches.is_on(ORIGIN) and callbacks.is_on and self.is_chosen(trainer)

    def _join(self, trainer: Any, pl_module: Any) -> None:
        """Follow an evaluation: it has parameters, but no steps."""
        if not self._is_on(trainer):
            return
        with callbacks:
            if not is_followed(trainer):
                callbacks.emit(events.Parameters(hyperparameters(trainer, pl_module), ORIGIN))
                follow(trainer, self._tell)

    def _begin(self, trainer: Any) -> None:
        """Begin a training, or go on with one; a further one of the same run gets names of its own."""
        step = logged_step(trainer)
        self._training = trainings.begin(ORIGIN, step)
        self._offset = max(_state.step_count - step, 0) if self._training.prefix else 0
        if step:
            callbacks.emit(events.Training(ORIGIN, step=self._offset + step))

    def _tell(self, values: Mapping[str, object], step: int | None) -> None:
        """Pass on what a logger was told, or what a batch logged."""
        prefix = "" if self._training is None else self._training.prefix
        if prefix is None or not (patches.is_on(ORIGIN) and callbacks.is_on):
            return  # the run holds the curves of enough trainings already
        with callbacks:
            named = {prefix + name: value for name, value in values.items()} if prefix else values
            callbacks.emit(events.Scalars(named, step, origin=ORIGIN))

    def _tell_batch(self, trainer: Any, step: int) -> None:
        """Record what a batch logged of which the loggers are not told."""
        values = self._fresh.of(trainer.callback_metrics)
        if values and not hears_this_batch(trainer):
            self._tell(values, step)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the class that has a name."""
        return as_sent(self, {**self.__dict__, "_fresh": Fresh(), "_training": None})


def capturing_callback() -> CapturingCallback:
    """Return a callback for a new trainer."""
    return CapturingCallback()


__all__ = [
    "CapturingCallback",
    "TrainerListener",
    "callbacks",
    "capturing_callback",
    "follow",
    "is_followed",
    "unfollow",
]
