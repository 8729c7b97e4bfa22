"""What a callback of transformers is told, as events; see `transformers.py` for how our callbacks come to be called.

A Trainer tells all its callbacks the same, with the same `TrainerState`. One of ours claims that state and speaks; the
others stay silent, so each value is recorded once however many ways there are to hear it.
"""

# ruff: noqa: ANN401, ARG002 -- the framework decides what it hands over, and of what type

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

from tracer import events
from tracer.capture.hyperparameters import plain
from tracer.capture.patching import Hook
from tracer.capture.trainings import Training, trainings
from tracer.state import _state

ORIGIN = "transformers"
#: Who speaks when several of our callbacks are told of one training: the one in which the user said the most.
AUTOMATIC, ASKED, BY_HAND = range(3)


class Claims:
    """Which reporter speaks for which training; a training is known by its state, which every `train()` makes anew."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[weakref.ref[Any], Reporter]] = {}

    def holder(self, state: object) -> Reporter | None:
        """Return who speaks for a training, if that one still listens."""
        held = self._held.get(id(state))
        return held[1] if held is not None and held[1].is_listening else None

    def claim(self, state: object, reporter: Reporter) -> bool:
        """Speak for a training from now on, unless another does with at least the same right."""
        holder, key = self.holder(state), id(state)
        if holder is not None and (holder is reporter or holder.right >= reporter.right):
            return holder is reporter
        self._held[key] = weakref.ref(state, lambda _: self._held.pop(key, None)), reporter
        return True


claims = Claims()


class Reporter:
    """Turns what a callback is told into events, for the trainings that it speaks for.

    Args:
        hook: Counts, and keeps our failures from the training; switched off, nothing is told any more.
        right: `AUTOMATIC`, `ASKED` or `BY_HAND`.
        begin: Called as a training begins, with its arguments, state, model and optimizer.
        emit: Where events go.
    """

    def __init__(
        self,
        hook: Hook,
        right: int,
        begin: Callable[..., None] | None = None,
        emit: Callable[[object], None] | None = None,
    ) -> None:
        self._hook, self.right = hook, right
        self._begin, self._emit = begin or self.announce, emit or hook.emit
        self._pending: Callable[[], None] | None = None
        self._training: Training | None = None
        self._prefix: str | None = ""
        self._offset = 0
        self._names: set[str] = set()
        self._epoch: tuple[int, object] | None = None

    @property
    def is_listening(self) -> bool:
        """Whether anything is told."""
        return self._hook.is_on

    def made(self, state: Any) -> None:
        """Claim the state that a Trainer has before its first training: it may only be asked to evaluate."""
        if self._hook.is_on:
            claims.claim(state, self)

    def begin(self, args: Any, state: Any, model: object, optimizer: object) -> None:
        """Begin a training; told with the next event if nobody with more right to speak turns up until then."""
        self._pending = None
        if self._hook.is_on and claims.claim(state, self):
            self._names, self._epoch = set(), None
            self._pending = partial(self._begin_now, args, state, model, optimizer)
            if self.right == BY_HAND:
                self._speaks(state)

    def step(self, state: Any) -> None:
        """Tell how far the training is."""
        if self._speaks(state):
            with self._hook:
                self._emit(events.Steps(self._offset + state.global_step, ORIGIN))

    def log(self, state: Any, logs: Mapping[str, object] | None) -> None:
        """Tell what the Trainer reports; on the first of all processes only."""
        if not logs or not state.is_world_process_zero or not self._speaks(state):
            return
        with self._hook:
            values, step = dict(logs), state.global_step
            if "train_runtime" in values and "train_loss" in values:
                values = self._final({**state.log_history[-1], **values})
            if "epoch" in values:  # a step's evaluation brings it once more
                if self._epoch == (step, values["epoch"]):
                    del values["epoch"]
                else:
                    self._epoch = step, values["epoch"]
            self._names.update(values)
            self._scalars(values, step)

    def predicted(self, state: Any, metrics: Mapping[str, object] | None) -> None:
        """Tell what `predict` found, which is not logged."""
        if metrics and state.is_world_process_zero and self._speaks(state):
            with self._hook:
                self._scalars(dict(metrics), state.global_step)

    def saved(self, args: Any, state: Any) -> None:
        """Tell of a checkpoint on the disk."""
        if not state.is_world_process_zero or not self._speaks(state):
            return
        with self._hook:
            folder = _checkpoint(args, state)
            if folder is not None and getattr(_state.config, "track_checkpoints", True):
                self._emit(_artifact(folder, state))

    def end(self, state: Any) -> bool:
        """End a training; say whether it was this reporter's."""
        if not self._speaks(state):
            return False
        if self._training is not None:
            self._training.end = state.global_step
        return True

    def announce(self, args: Any, state: Any, model: object, optimizer: object) -> None:
        """Tell of a training that begins: what is trained, and how."""
        parameters = described(args, model) if state.is_world_process_zero else {}
        bare = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        step = state.global_step
        self._emit(events.Training(ORIGIN, model, bare, parameters=parameters, step=step))

    def _begin_now(self, args: Any, state: Any, model: object, optimizer: object) -> None:
        """Begin, and learn whether the run has seen other trainings: then the run's own steps go on counting."""
        self._begin(args, state, model, optimizer)
        self._training = trainings.begin(ORIGIN, state.global_step, model)
        self._prefix = self._training.prefix
        self._offset = _state.step_count - state.global_step if self._prefix != "" else 0

    def _speaks(self, state: Any) -> bool:
        """Tell whether this reporter speaks for a training, and begin it if that is still to be done."""
        if not self._hook.is_on:
            return False
        holder = claims.holder(state)
        if holder is not self and not (holder is None and claims.claim(state, self)):
            self._pending = None
            return False
        if self._pending is not None:
            begin, self._pending = self._pending, None
            with self._hook if self.right == AUTOMATIC else nullcontext():  # a setting that cannot be meant is told
                begin()
        return True

    def _final(self, values: dict[str, object]) -> dict[str, object]:
        """Tell the values of a whole training, and return those that are points of a series as well.

        A name that was logged before has a curve of its own, whose last point they must not replace.
        """
        del values["step"]
        if self._prefix is not None:
            summary = {self._prefix + name: value for name, value in values.items() if name != "epoch"}
            self._emit(events.Metadata({"summary": summary}))
        return {name: value for name, value in values.items() if name == "epoch" or name not in self._names}

    def _scalars(self, values: dict[str, object], step: int) -> None:
        """Tell values, unless the run holds enough trainings already."""
        if self._prefix is None:
            return
        if self._prefix:
            values = {self._prefix + name: value for name, value in values.items()}
        if values:
            self._emit(events.Scalars(values, step, origin=ORIGIN))


def described(args: Any, model: Any) -> dict[str, Any]:
    """Return a training's arguments and its model's configuration, without secrets."""
    config = args.to_dict()
    if hasattr(model, "config") and hasattr(model.config, "to_dict"):
        config["model"] = model.config.to_dict()
    return plain(config)


def _artifact(folder: str, state: Any) -> events.Artifact:
    """Return the event of a checkpoint."""
    best = state.best_model_checkpoint
    is_best = best is not None and os.path.abspath(best) == folder
    return events.Artifact(
        folder,
        name=os.path.basename(folder),
        type="checkpoint",
        step=state.global_step,
        metadata={"epoch": state.epoch, **({"best_metric": state.best_metric} if is_best else {})},
        aliases=("best",) if is_best else (),
        origin=ORIGIN,
    )


def _checkpoint(args: Any, state: Any) -> str | None:
    """Return the folder of the checkpoint that was just saved, if it is where a Trainer puts it."""
    name = f"checkpoint-{state.global_step}"
    folders = [os.path.join(args.output_dir, name)]
    if state.is_hyper_param_search and state.trial_name:
        folders.insert(0, os.path.join(args.output_dir, state.trial_name, name))
    return next((os.path.abspath(folder) for folder in folders if os.path.isdir(folder)), None)


class Listener:
    """The methods of a callback of transformers, which tell a reporter; completed by the framework's base class."""

    reporter: Reporter

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Claim the Trainer's first state."""
        self.reporter.made(state)

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
    ) -> None:
        """Begin a training."""
        self.reporter.begin(args, state, model, optimizer)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin a training that was only noted before: whoever else was to hear of it has by now."""
        self.reporter._speaks(state)  # noqa: SLF001 -- one thing in two classes

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End a step: one of the optimizer, however many batches it accumulated."""
        self.reporter.step(state)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, object] | None = None, **kwargs: Any
    ) -> None:
        """Record what the Trainer reports."""
        self.reporter.log(state, logs)

    def on_predict(
        self, args: Any, state: Any, control: Any, metrics: Mapping[str, object] | None = None, **kwargs: Any
    ) -> None:
        """Record what `predict` found."""
        self.reporter.predicted(state, metrics)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note a checkpoint."""
        self.reporter.saved(args, state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End a training."""
        self.reporter.end(state)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the reporter behind when a Trainer is sent to another process."""
        return {name: value for name, value in vars(self).items() if name != "reporter"}


__all__ = ["ASKED", "AUTOMATIC", "BY_HAND", "ORIGIN", "Claims", "Listener", "Reporter", "claims", "described"]
