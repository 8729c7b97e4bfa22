"""Lightning under both of its names, and Fabric: where they are listened to.

    lightning_factories.py   what our entry points name: callbacks for a new Trainer or Fabric
    lightning_callback.py    the callback of a Trainer; lightning_logger.py the logger that it adds for a while
    lightning_trainer.py     what is read of a Trainer
    lightning_fabric.py      Fabric
    lightning_bases.py       classes that are Lightning's and ours
    lightning.py             the hooks: for what has no entry point, and for trainers that were made before

A Trainer gets the callback by its entry points. Where those cannot be read, or it was made before capture began, the
callback joins when a training begins.
"""

# ruff: noqa: ANN401 -- the framework decides what it hands over, and of what type

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType
from typing import Any

from tracer.capture import lightning_fabric
from tracer.capture.lightning_bases import PACKAGES
from tracer.capture.lightning_callback import CapturingCallback, TrainerListener, callbacks, is_followed
from tracer.capture.lightning_trainer import ORIGIN, checkpoint
from tracer.capture.origins import feeding
from tracer.capture.patching import Hook, Patch, SignatureChanged, patches

loggers = Hook("lightning.loggers")
saves = Hook("lightning.checkpoints")


def _join(original: Callable[..., Any]) -> Callable[..., Any]:
    """Give a trainer our callback when a training begins, unless it has one."""

    def attach(self: Any) -> Any:
        result = original(self)
        if callbacks.is_on:
            with callbacks:
                _add_callback(self.trainer)
        return result

    return attach


def _add_callback(trainer: Any) -> None:
    """Add our callback before those that save: they come last."""
    if any(isinstance(callback, TrainerListener) for callback in trainer.callbacks):
        return
    checkpoints = {id(callback) for callback in trainer.checkpoint_callbacks}
    others = [callback for callback in trainer.callbacks if id(callback) not in checkpoints]
    ours: Any = CapturingCallback()
    trainer.callbacks = [*others, ours, *(one for one in trainer.callbacks if id(one) in checkpoints)]


def _marked(original: Callable[..., Any]) -> Callable[..., Any]:
    """Mark that a trainer tells its loggers what it tells us: what they write elsewhere is a copy."""

    def log_metrics(self: Any, *args: Any, **kwargs: Any) -> Any:
        with ExitStack() as mark:
            if loggers.is_on:
                with loggers:
                    if _is_heard(self.trainer):
                        mark.enter_context(feeding(ORIGIN))
            return original(self, *args, **kwargs)

    return log_metrics


def _is_heard(trainer: Any) -> bool:
    """Tell whether something of ours records what a trainer logs."""
    if is_followed(trainer):
        return True
    return any(isinstance(callback, TrainerListener) and callback.by_hand for callback in trainer.callbacks)


def _marked_writer(original: Callable[..., Any]) -> Callable[..., Any]:
    """Mark that Lightning feeds a TensorBoard writer; where the trainer cannot be asked."""

    def log_metrics(self: Any, *args: Any, **kwargs: Any) -> Any:
        with ExitStack() as mark:
            if loggers.is_on:
                mark.enter_context(feeding(ORIGIN))
            return original(self, *args, **kwargs)

    return log_metrics


def _noted(original: Callable[..., Any]) -> Callable[..., Any]:
    """Note a checkpoint that was saved."""

    def save_checkpoint(self: Any, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, filepath, *args, **kwargs)
        if saves.is_on:
            with saves:
                event = checkpoint(self, filepath)
                if event is not None:
                    saves.emit(event)
        return result

    return save_checkpoint


def _package(module: ModuleType) -> str:
    """Return the name of Lightning under which a module was imported."""
    return module.__name__.removesuffix(".trainer.trainer")


def _into_callbacks(module: ModuleType) -> Callable[[], None]:
    connector = sys.modules[f"{_package(module)}.trainer.connectors.callback_connector"]._CallbackConnector  # noqa: SLF001
    return callbacks.wrap(connector, "_attach_model_callbacks", _join, parameters=("self",))


def _into_loggers(module: ModuleType) -> Callable[[], None]:
    """Mark the trainer's loop over its loggers: a program's own calls of a logger are no copies."""
    package = _package(module)
    place = sys.modules.get(f"{package}.trainer.connectors.logger_connector.logger_connector")
    connector = getattr(place, "_LoggerConnector", None)
    if connector is not None:
        try:
            return loggers.wrap(connector, "log_metrics", _marked, parameters=("self", "metrics", "step"))
        except SignatureChanged:
            pass  # the next best place
    fabric = "lightning.fabric" if package == "lightning.pytorch" else "lightning_fabric"
    writer = sys.modules[f"{fabric}.loggers.tensorboard"].TensorBoardLogger
    return loggers.wrap(writer, "log_metrics", _marked_writer, parameters=("self", "metrics", "step"))


def _into_saves(module: ModuleType) -> Callable[[], None]:
    return saves.wrap(module.Trainer, "save_checkpoint", _noted, parameters=("self", "filepath"))


_PLACES = (
    (callbacks, "_CallbackConnector._attach_model_callbacks", _into_callbacks),
    (loggers, "_LoggerConnector.log_metrics", _into_loggers),
    (saves, "Trainer.save_checkpoint", _into_saves),
)
PATCHES = (
    *(
        Patch(
            hook,
            module=f"{package}.trainer.trainer",
            attribute=attribute,
            package=distribution,
            tested=("2.4.0", "2.6.6"),
            install=install,
        )
        for package, distribution in zip(PACKAGES, ("lightning", "pytorch-lightning"), strict=True)
        for hook, attribute, install in _PLACES
    ),
    *lightning_fabric.PATCHES,
)


def listen_by_hand() -> Callable[[], None]:
    """Hear copies and checkpoints for a callback or logger that a program added itself.

    Returns:
        What ends that. Nothing to do where Lightning is listened to anyway.
    """
    placed = ExitStack()
    if patches.is_on(ORIGIN):
        return placed.close
    for package in PACKAGES:
        module = sys.modules.get(f"{package}.trainer.trainer")
        for hook, _, install in _PLACES[1:] if module is not None else ():
            with hook:
                placed.callback(install(module))  # type: ignore[arg-type]  # it is not None
    return placed.close


__all__ = ["ORIGIN", "PATCHES", "callbacks", "listen_by_hand", "loggers", "saves"]
