"""Which frameworks can be listened to: the modules whose import is waited for, and the room of ours that knows them.

A table of names and nothing else: it is read when capture begins, and loads neither a framework nor one of our rooms.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

from tracer.errors import ConfigError


class Framework:
    """One row: what is waited for, and what is loaded then."""

    __slots__ = ("modules", "room")

    def __init__(self, room: str, *modules: str) -> None:
        self.room, self.modules = f"tracer.capture.{room}", modules


#: Name, as `capture=` and `TRACER_CAPTURE` take it → row.
FRAMEWORKS = {
    "tensorboard": Framework("tensorboard", "torch.utils.tensorboard.writer", "tensorboardX.writer"),
    "lightning": Framework(
        "lightning",
        "lightning.pytorch.trainer.trainer",
        "pytorch_lightning.trainer.trainer",
        "lightning.fabric.fabric",
        "lightning_fabric.fabric",
    ),
    "transformers": Framework("transformers", "transformers.trainer", "transformers.integrations.integration_utils"),
    "accelerate": Framework("accelerate", "accelerate.tracking", "accelerate.accelerator"),
    "keras": Framework("keras", "keras.src.callbacks.callback_list", "keras.src.trainers.epoch_iterator"),
    "sklearn": Framework("sklearn", "sklearn.base", "sklearn.model_selection._validation"),
    "xgboost": Framework("xgboost", "xgboost.callback"),
    "lightgbm": Framework("lightgbm", "lightgbm.engine"),
    "pytorch": Framework("pytorch", "torch.optim.optimizer"),
    "checkpoints": Framework("checkpoints", "torch"),
    "wandb": Framework("wandb", "wandb.sdk.wandb_run"),
    "mlflow": Framework("mlflow", "mlflow.tracking.client"),
    "arguments": Framework(
        "arguments", "argparse", "click.core", "typer._click.core", "absl.flags", "hydra.main", "fire.core"
    ),
}

#: Not a framework: the parser of the program's own arguments, which `track_arguments` rules.
_ASIDE = frozenset({"arguments"})
AUTO, OFF = "auto", "off"


def chosen(names: Iterable[str]) -> list[str]:
    """Return the frameworks that `capture` names, in the order of the table.

    Args:
        names: `auto` for all, `off` for none, names of the table, or names with `-` before them, which are left out of
            all.

    Raises:
        ConfigError: A name is not known.

    Example:
        >>> chosen(["lightning", "tensorboard"]), chosen(["off"])
        (['tensorboard', 'lightning'], [])
    """
    wanted = [name.strip().lower() for name in names]
    for name in wanted:
        if name.removeprefix("-") not in FRAMEWORKS and name not in (AUTO, OFF):
            raise ConfigError(_unknown(name))
    if OFF in wanted:
        return []
    without = {name[1:] for name in wanted if name.startswith("-")}
    named = {name for name in wanted if not name.startswith("-")}
    if AUTO in named or (without and not named):
        named = FRAMEWORKS.keys() - _ASIDE
    return [name for name in FRAMEWORKS if name in named - without]


def _unknown(name: str) -> str:
    """Say that there is no such framework, and which one is near."""
    import difflib

    known = [*FRAMEWORKS, AUTO, OFF]
    near = difflib.get_close_matches(name.removeprefix("-"), known, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"capture={name!r} is not a framework that can be listened to. {hint}Known: {', '.join(known)}."


__all__ = ["AUTO", "FRAMEWORKS", "OFF", "Framework", "chosen"]
