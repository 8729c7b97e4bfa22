"""Fabric, under both of its names: what a loop of the program's own logs through it, saves, sets up and steps."""

# ruff: noqa: ANN401 -- the framework decides what it hands over, and of what type

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from tracer import events
from tracer.capture.lightning_logger import FollowingLogger
from tracer.capture.lightning_trainer import ORIGIN, artifact, whole
from tracer.capture.origins import feeding
from tracer.capture.patching import Hook, Patch, patches

scalars = Hook("fabric.metrics")
models = Hook("fabric.models")
saves = Hook("fabric.checkpoints")


class FabricCallback:
    """Counts optimizer steps; of several optimizers those of the one that is farthest."""

    def __init__(self) -> None:
        self._counts: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def on_after_optimizer_step(self, strategy: Any, optimizer: Any) -> None:  # noqa: ARG002 -- Fabric names them
        """End a step."""
        if not (patches.is_on(ORIGIN) and models.is_on):
            return
        with models:
            count = self._counts[optimizer] = self._counts.get(optimizer, 0) + 1
            if count == max(self._counts.values()):
                models.emit(events.Steps(count, ORIGIN))


def _heard_metrics(original: Callable[..., Any]) -> Callable[..., Any]:
    """Pass on what a program logs through Fabric, and mark that its loggers get the same."""

    def log_dict(self: Any, metrics: Any, step: Any = None) -> Any:
        if not scalars.is_on:
            return original(self, metrics, step=step)
        with feeding(ORIGIN):
            result = original(self, metrics, step=step)
        with scalars:
            if self.is_global_zero and not any(isinstance(logger, FollowingLogger) for logger in self.loggers):
                scalars.emit(events.Scalars(dict(metrics), whole(step), origin=ORIGIN))
        return result

    return log_dict


def _heard_model(original: Callable[..., Any]) -> Callable[..., Any]:
    """Watch a model that was set up, and count the steps of its optimizers."""

    def setup(self: Any, module: Any, *optimizers: Any, **kwargs: Any) -> Any:
        if models.is_on:
            with models:
                if not any(isinstance(one, FabricCallback) for one in self._callbacks):
                    self._callbacks.append(FabricCallback())  # where entry points cannot be read
        result = original(self, module, *optimizers, **kwargs)
        if models.is_on:
            with models:
                # One that is given by position may also be `move_to_device` of `setup_module`.
                given = [one for one in optimizers if hasattr(one, "param_groups")]
                models.emit(events.Training(ORIGIN, module, given[0] if len(given) == 1 else None))
        return result

    return setup


def _heard_save(original: Callable[..., Any]) -> Callable[..., Any]:
    """Note a checkpoint that was saved."""

    def save(self: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, path, *args, **kwargs)
        if saves.is_on:
            with saves:
                event = artifact(os.fspath(path), None, {}) if self.is_global_zero else None
                if event is not None:
                    saves.emit(event)
        return result

    return save


def _into(
    hook: Hook, make: Callable[..., Any], **places: tuple[str, ...]
) -> Callable[[ModuleType], Callable[[], None]]:
    """Return what puts a hook around methods of Fabric."""

    def install(module: ModuleType) -> Callable[[], None]:
        placed = ExitStack()
        for attribute, parameters in places.items():
            placed.callback(hook.wrap(module.Fabric, attribute, make, parameters=parameters))
        return placed.close

    return install


_PLACES = (
    (scalars, "log_dict", _into(scalars, _heard_metrics, log_dict=("self", "metrics", "step"))),
    (models, "setup", _into(models, _heard_model, setup=("self", "module"), setup_module=("self", "module"))),
    (saves, "save", _into(saves, _heard_save, save=("self", "path", "state"))),
)
PATCHES = tuple(
    Patch(
        hook,
        module=f"{package}.fabric",
        attribute=f"Fabric.{attribute}",
        package=distribution,
        tested=("2.4.0", "2.6.6"),
        install=install,
    )
    for package, distribution in (("lightning.fabric", "lightning"), ("lightning_fabric", "pytorch-lightning"))
    for hook, attribute, install in _PLACES
)

__all__ = ["PATCHES", "FabricCallback"]
