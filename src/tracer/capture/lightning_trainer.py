"""What a Trainer knows, read for our events: steps, hyper-parameters, fresh metrics, the story of a checkpoint."""

# ruff: noqa: ANN401, SLF001 -- the trainer decides its types, and the step that loggers are given is its private one

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tracer import events
from tracer.capture.hyperparameters import plain as as_json
from tracer.config import Config
from tracer.state import _state

ORIGIN = "lightning"
#: Written and removed again by the search for a learning rate or a batch size.
_TRIALS = (".lr_find_", ".scale_batch_size_")


def logged_step(trainer: Any) -> int:
    """Return the step that loggers are given now: batches that ended in a step, whatever the number of optimizers."""
    loop = getattr(trainer.fit_loop, "epoch_loop", None)
    return int(getattr(loop, "_batches_that_stepped", trainer.global_step))


def is_accumulating(trainer: Any) -> bool:
    """Tell whether the batch that has just ended only added to the gradients."""
    ask = getattr(trainer.fit_loop, "_should_accumulate", None)
    return bool(ask is not None and trainer.lightning_module.automatic_optimization and ask())


def hears_this_batch(trainer: Any) -> bool:
    """Tell whether the loggers will be told of the batch that has just ended."""
    if is_accumulating(trainer):
        return False
    asked = getattr(trainer._logger_connector, "should_update_logs", True)
    return bool(asked or trainer.fast_dev_run)


def setting(name: str, default: object) -> object:
    """Return a setting of the active run, else the one that a run would get; the default where there is no such row."""
    config = _state.config or Config.load({})
    return getattr(config, name, default)


def hyperparameters(trainer: Any, module: Any) -> dict[str, Any]:
    """Return what module and data module saved of their arguments, unless they said that loggers shall not have it."""
    found: dict[str, Any] = {}
    for holder in (module, getattr(trainer, "datamodule", None)):
        if holder is not None and getattr(holder, "_log_hyperparams", True):
            found.update(getattr(holder, "hparams", {}))
    return plain(found)


def plain(parameters: Any) -> dict[str, Any]:
    """Return parameters as JSON holds them, without secrets; what only the framework itself reads is left out.

    Args:
        parameters: A mapping, or a namespace as `argparse` makes it.
    """
    values = parameters if isinstance(parameters, Mapping) else vars(parameters)
    chosen = {str(name): value for name, value in values.items() if not str(name).startswith("_")}
    return as_json(chosen, _described)


def _described(value: object) -> object:
    """Return what JSON does not know as what it does: a number out of an array, else text."""
    if isinstance(value, Mapping):
        return dict(value)
    if getattr(value, "ndim", None) == 0 and getattr(getattr(value, "device", None), "type", "cpu") == "cpu":
        return value.item()  # type: ignore[attr-defined]  # a number of NumPy, or a tensor without dimensions
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, type) or callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return str(value)[:1000]


def whole(step: Any) -> int | None:
    """Return a step as a whole number: what a framework gives is never refused."""
    return None if step is None else int(step)


class Fresh:
    """Tells which of a trainer's metrics were logged since the last time.

    The trainer repeats old values for ever: those of the last validation in every batch. A value that was logged anew
    lies elsewhere in memory; the old one is kept, so that its place is not used again.
    """

    def __init__(self) -> None:
        self._seen: dict[str, Any] = {}

    def of(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Return the metrics that were logged since the last time."""
        fresh = {name: value for name, value in metrics.items() if not _is_same(value, self._seen.get(name))}
        self._seen.update(fresh)
        # Logged for step and epoch, a metric comes under its own name too, now as this and now as that.
        return {name: value for name, value in fresh.items() if not {f"{name}_step", f"{name}_epoch"} & metrics.keys()}


def _is_same(value: Any, seen: Any) -> bool:
    """Tell whether a value lies where the seen one lies; the device is not waited for."""
    return seen is not None and bool(value.data_ptr() == seen.data_ptr())


def checkpoint(trainer: Any, path: object) -> events.Artifact | None:
    """Return the event of a checkpoint that a trainer has just saved; None where it is not to be noted."""
    name = os.fspath(path)  # type: ignore[call-overload]  # what `save_checkpoint` takes
    if os.path.basename(name).startswith(_TRIALS) or not trainer.is_global_zero:
        return None
    metadata: dict[str, object] = {"epoch": trainer.current_epoch, "global_step": trainer.global_step}
    aliases: list[str] = []
    for keeper in trainer.checkpoint_callbacks:
        aliases += _told_by(keeper, name, metadata)
    return artifact(name, logged_step(trainer), metadata, aliases)


def artifact(
    path: str, step: int | None, metadata: Mapping[str, object], aliases: list[str] | None = None
) -> events.Artifact | None:
    """Return the event of a checkpoint, unless checkpoints are not to be noted."""
    if not setting("track_checkpoints", default=True):
        return None
    where = path if "://" in path else os.path.abspath(path)
    kept = tuple(dict.fromkeys(aliases or ()))
    named = os.path.basename(where.rstrip("/"))
    return events.Artifact(
        where, name=named, type="checkpoint", step=step, metadata=metadata, aliases=kept, origin=ORIGIN
    )


def _told_by(keeper: Any, path: str, metadata: dict[str, object]) -> list[str]:
    """Add what a `ModelCheckpoint` knows of a file it has saved, and return what the file is to it."""
    best, last = getattr(keeper, "best_model_path", ""), getattr(keeper, "last_model_path", "")
    scores = getattr(keeper, "best_k_models", {})
    if path not in {best, last, *scores}:
        return []
    score = scores.get(path, getattr(keeper, "current_score", None))
    if getattr(keeper, "monitor", None) is not None:
        metadata["monitor"], metadata["mode"] = keeper.monitor, keeper.mode
        if score is not None:
            metadata["score"] = float(score)
    return [alias for alias, known in (("best", best), ("last", last)) if known == path]


__all__ = [
    "ORIGIN",
    "Fresh",
    "artifact",
    "checkpoint",
    "hears_this_batch",
    "hyperparameters",
    "is_accumulating",
    "logged_step",
    "plain",
    "setting",
    "whole",
]
