"""A callback for Lightning's Trainer, under both of its names: `lightning` and `pytorch_lightning`.

Each name has a base class of its own. Which one a program uses is known when it makes the callback, so the class is
completed then; importing this module loads neither.
"""

# ruff: noqa: ANN401, ARG002 -- the framework decides what it hands over, and of what type

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Self

from tracer.integrations.session import Session
from tracer.plugins import needs

#: What holds each name's `Callback`.
_MODULES = ("lightning.pytorch.callbacks", "pytorch_lightning.callbacks")


class LightningCallback:
    """Records what a Lightning module logs, every step of it, whatever `log_every_n_steps` says.

    Steps are the trainer's global step: those of the optimizers. The run begins and ends with `fit()`; a run that the
    program began itself is joined and left open. Values of a `test()` or `validate()` afterwards go to the same run.

    Args:
        project: Project of the run.
        run_name: Name of the run; made from date and host when absent.
        checkpoint_interval: Optimizer steps between two checkpoints.
        **kwargs: Further arguments of `tracer.init`, such as `tags`, `storage_path` or `gradient_layers`.

    Raises:
        MissingDependency: Lightning is not installed.

    Example:
        >>> trainer = Trainer(callbacks=[LightningCallback(project="my-project")], max_epochs=3)
        >>> trainer.fit(model)  # doctest: +SKIP
    """

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        """Make an instance of this class and of the framework's `Callback`."""
        incomplete: Any = cls
        completed: type[Self] = _completed(incomplete, _frameworks())
        return object.__new__(completed)

    def __init__(
        self,
        project: str,
        run_name: str | None = None,
        checkpoint_interval: int = 100,
        **kwargs: Any,
    ) -> None:
        self._session = Session(project, run_name, {"checkpoint_interval": checkpoint_interval, **kwargs})
        self._seen: dict[str, Any] = {}

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin the run; not in `setup`, where the loggers still decide on folders."""
        hyperparameters = dict(getattr(pl_module, "hparams", {}))
        hyperparameters.update(getattr(trainer.datamodule, "hparams", {}))
        self._seen = {}
        self._session.begin(pl_module, hyperparameters, trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Record what this batch logged; where it ended an accumulation, the step ends too."""
        self._log(trainer, {"epoch": trainer.current_epoch, **_learning_rates(trainer)})
        self._session.advance(trainer.global_step)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Record the means of the epoch before, which are not known any earlier."""
        self._log(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Record the validation, unless it is the trial before the training."""
        if trainer.sanity_checking:
            self._fresh(trainer.callback_metrics)
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
        self._session.end(exception)

    def _log(self, trainer: Any, beside: Mapping[str, object] | None = None) -> None:
        """Record what was logged since the last time, and something beside it."""
        fresh = self._fresh(trainer.callback_metrics)
        if trainer.is_global_zero:
            self._session.log({**fresh, **(beside or {})}, trainer.global_step)

    def _fresh(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Return the metrics that were logged since the last time.

        The trainer repeats old values for ever: those of the last validation in every batch. A value that was logged
        anew lies elsewhere in memory; the old one is kept, so that its place is not used again.
        """
        fresh = {name: value for name, value in metrics.items() if not _is_same(value, self._seen.get(name))}
        self._seen.update(fresh)
        # Logged for step and epoch, a metric comes under its own name too, now as this and now as that.
        return {name: value for name, value in fresh.items() if not {f"{name}_step", f"{name}_epoch"} & metrics.keys()}

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the class that has a name; the other is completed again over there."""
        return _remade, (getattr(type(self), "_completes", type(self)), dict(self.__dict__, _seen={}))


def _frameworks() -> tuple[type, ...]:
    """Return the `Callback` of each package that the program has loaded; that of the installed one if none is."""
    loaded = [sys.modules[module] for module in _MODULES if module in sys.modules]
    if loaded:
        return tuple(module.Callback for module in loaded)
    with needs("lightning", extra="lightning", purpose="LightningCallback"):
        if find_spec("lightning") is None and find_spec("pytorch_lightning") is not None:
            return (import_module("pytorch_lightning.callbacks").Callback,)
        return (import_module("lightning.pytorch.callbacks").Callback,)


@cache
def _completed(cls: Any, frameworks: tuple[type, ...]) -> Any:
    """Return the class with the frameworks' base classes among its own."""
    missing = [framework for framework in frameworks if not issubclass(cls, framework)]
    if not missing:
        return cls
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__, "_completes": cls}
    return type(cls.__name__, (cls, *missing), names)


def _remade(cls: type[LightningCallback], state: dict[str, Any]) -> LightningCallback:
    """Make a callback again from what `__reduce__` gave."""
    callback = cls.__new__(cls)
    callback.__dict__.update(state)
    return callback


def _is_same(value: Any, seen: Any) -> bool:
    """Tell whether a value lies where the seen one lies; the device is not waited for."""
    return seen is not None and value.data_ptr() == seen.data_ptr()


def _learning_rates(trainer: Any) -> dict[str, float]:
    """Return the learning rate of each optimizer's first group; plainly `lr` where there is one."""
    rates = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers if optimizer.param_groups]
    return {"lr": rates[0]} if len(rates) == 1 else {f"lr/{number}": rate for number, rate in enumerate(rates)}


TracerCallback = LightningCallback

__all__ = ["LightningCallback", "TracerCallback"]
