"""Which frameworks can be listened to: the modules whose import is waited for, and the room of ours that knows them.

A table of names and nothing else: it is read when capture begins, and loads neither a framework nor one of our rooms.
"""

from __future__ import annotations


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
    "accelerate": Framework("accelerate", "accelerate.tracking"),
    "keras": Framework("keras", "keras.src.callbacks.callback_list"),
    "sklearn": Framework("sklearn", "sklearn.base"),
    "xgboost": Framework("xgboost", "xgboost.callback"),
    "lightgbm": Framework("lightgbm", "lightgbm.engine"),
    "pytorch": Framework("pytorch", "torch.optim.optimizer"),
    "wandb": Framework("wandb", "wandb"),
    "mlflow": Framework("mlflow", "mlflow"),
    "arguments": Framework("arguments", "argparse", "click.core", "absl.flags", "hydra.main", "fire.core"),
}

__all__ = ["FRAMEWORKS", "Framework"]
