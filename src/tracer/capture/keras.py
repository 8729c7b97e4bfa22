"""Keras 3: one more callback in every `CallbackList`, so `fit`, `evaluate` and `predict` of any model are heard.

    EpochIterator.__init__  the batch size, which no callback is told
    CallbackList.__init__   our callback, as the last one: it sees what the program's own callbacks add to the logs

Keras turns the logs into plain numbers before it hands them to any callback, so each batch is kept: reading them costs
no wait that was not there before. Steps are those of the optimizer, counted on from where an epoch starts. A loop of
the program's own has no such list, and says nothing here.
"""

# ruff: noqa: ANN401, ARG002 -- Keras' objects and signatures

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

from tracer import clock, events
from tracer.capture.keras_parameters import iterators, note_iterators, training_parameters
from tracer.capture.patching import Hook, Patch
from tracer.capture.trainings import Training, trainings

_ORIGIN = "keras"
lists = Hook("keras.callbacks")


class KerasListener:
    """What Keras calls while it trains; a callback class of Keras stands beside it in the class that is made.

    Batches are told as `batch/<name>`, which are Keras' running means within an epoch; epochs under the names that
    `History` has, evaluations outside of a training as `evaluate/<name>`.
    """

    model: Any
    params: Any
    #: Counts what is heard and keeps our failures out of the program.
    hook = lists

    def __init__(self) -> None:
        super().__init__()
        self._training: Training | None = None
        self._prefix: str | None = ""
        self._is_training = False
        # Batches before this epoch and within it, in the optimizer's count of calls.
        self._epoch = self._before = self._within = 0
        self._each = 1  # batches that one update takes
        self._began = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin a training, or go on with that of the same model."""
        if self.hook.is_on:
            with self.hook:
                self._begin()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Note where the epoch starts."""
        if self.hook.is_on:
            with self.hook:
                self._epoch = epoch
                self._before, self._within = self._calls(), 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """End the step before: this comes on the thread that trains, the end of a batch may come on any."""
        self._within = batch
        if self.hook.is_on and batch:
            with self.hook:
                self.hook.emit(events.Steps(self._counted(), _ORIGIN))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Record a batch; where no other callback minds, Keras calls this from its pool, in any order."""
        if self.hook.is_on:
            with self.hook:
                values = {**_numbers(logs, "batch/"), "epoch": self._epoch, "batch/number": batch}
                self._log(values, (self._before + batch + 1) // self._each)
                self._within = max(self._within, batch + 1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Record an epoch with its validation, as `History` keeps it; Keras has waited for the batches."""
        if self.hook.is_on:
            with self.hook:
                step = self._step()
                self._log(_numbers(logs, ""), step)
                self.hook.emit(events.Steps(step, _ORIGIN))
                self._before, self._within = self._before + self._within, 0
                if self._training is not None:
                    self._training.end = step

    def on_train_end(self, logs: Any = None) -> None:
        """Say how the training ended."""
        if self.hook.is_on:
            with self.hook:
                self._end()
        self._is_training = False

    def on_test_end(self, logs: Any = None) -> None:
        """Record an evaluation of its own; that of an epoch comes with the epoch."""
        if self.hook.is_on and not self._is_training:
            with self.hook:
                self._prefix = _prefix_of(self.model)
                self._log(_numbers(logs, "evaluate/"), self._step())

    def on_predict_begin(self, logs: Any = None) -> None:
        """Note when a prediction begins."""
        self._began = clock.monotonic()

    def on_predict_end(self, logs: Any = None) -> None:
        """Say that there was a prediction, and how long it took; never what it was."""
        if self.hook.is_on:
            with self.hook:
                seconds = round(clock.monotonic() - self._began, 6)
                fields = {"model": self.model.name, "batches": (self.params or {}).get("steps"), "seconds": seconds}
                self.hook.emit(events.Entry("event", f"{self.model.name}.predict", name="keras.predict", fields=fields))

    def _begin(self) -> None:
        """Say what is trained, and how."""
        self._is_training, self._began = True, clock.monotonic()
        self._before = self._within = 0
        self._each = int(getattr(getattr(self.model, "optimizer", None), "gradient_accumulation_steps", None) or 1)
        start = self._step()
        self.hook.emit(
            events.Training(_ORIGIN, parameters=training_parameters(self.model, self.params or {}), step=start)
        )
        self._training = trainings.begin(_ORIGIN, start, self.model)
        self._prefix = self._training.prefix
        _prefixes[self.model] = self._prefix

    def _log(self, values: dict[str, object], step: int) -> None:
        """Emit values under the names of this training."""
        if self._prefix is None:
            return
        named = {self._prefix + name: value for name, value in values.items()} if self._prefix else values
        self.hook.emit(events.Scalars(named, step, origin=_ORIGIN))

    def _end(self) -> None:
        """Say how long the training took."""
        epochs, seconds = self._epoch + 1, round(clock.monotonic() - self._began, 6)
        fields = {"model": self.model.name, "epochs": epochs, "seconds": seconds, "step": self._step()}
        body = f"{self.model.name}.fit: {epochs} epochs in {seconds:.3g} s"
        self.hook.emit(events.Entry("event", body, name="keras.fit", fields=fields))

    def _step(self) -> int:
        """Return how many updates the optimizer made; without one that says so, those that were counted.

        Asked between epochs only: within one JAX's trainer keeps the count aside, and a pool thread comes too late.
        """
        iterations = getattr(getattr(self.model, "optimizer", None), "iterations", None)
        # The variable's own conversion would go by way of NumPy.
        return self._counted() if iterations is None else int(getattr(iterations, "value", iterations))

    def _counted(self) -> int:
        """Return how many updates the batches up to now make."""
        return (self._before + self._within) // self._each

    def _calls(self) -> int:
        """Return how many batches the optimizer has seen; it tells only the updates that came of them."""
        known, updates = self._before + self._within, self._step()
        return known if known // self._each == updates else updates * self._each


#: Model → what stands before its names, for evaluations after its training.
_prefixes: weakref.WeakKeyDictionary[Any, str | None] = weakref.WeakKeyDictionary()


def _prefix_of(model: Any) -> str | None:
    """Return what stands before the names of a model."""
    return _prefixes.get(model, "")


def _numbers(logs: Any, prefix: str) -> dict[str, object]:
    """Return the logs that are numbers; where Keras could not make them plain ones, they are still the device's."""
    return {
        prefix + name: value
        for name, value in (logs or {}).items()
        if isinstance(value, (int, float)) or getattr(value, "shape", None) == ()
    }


@cache
def listener(base: type) -> Any:
    """Return our callback class below Keras' own."""
    return type("TracerCallback", (KerasListener, base), {"__doc__": KerasListener.__doc__})


def _listen(module: ModuleType) -> Callable[[], None]:
    """Append our callback to each list that has none of ours."""

    def make(original: Any) -> Any:
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            if lists.is_on and not any(isinstance(callback, KerasListener) for callback in self.callbacks):
                with lists:
                    ours = listener(module.Callback)()
                    ours.set_model(getattr(self, "model", None))
                    ours.set_params(self.params)
                    self.callbacks.append(ours)

        return init

    return lists.wrap(module.CallbackList, "__init__", make, parameters=("self", "callbacks", "add_history"))


_TESTED = ("3.15", "3.15")
PATCHES = (
    Patch(
        lists,
        module="keras.src.callbacks.callback_list",
        attribute="CallbackList.__init__",
        package="keras",
        tested=_TESTED,
        install=_listen,
    ),
    Patch(
        iterators,
        module="keras.src.trainers.epoch_iterator",
        attribute="EpochIterator.__init__",
        package="keras",
        tested=_TESTED,
        install=note_iterators,
    ),
)

__all__ = ["PATCHES", "KerasListener", "listener"]
