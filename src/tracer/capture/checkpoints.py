"""`torch.save` into a file: noted as a checkpoint of the run, where it lies; nothing is copied.

What a framework saves in its own name is left to that framework's room, which knows the whole folder and its step.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from tracer import events
from tracer.capture.patching import Hook, Patch

ORIGIN = "pytorch"
#: Who saves through torch for somebody who tells us himself, or for itself.
_OTHERS = frozenset(
    {
        "transformers", "accelerate", "lightning", "pytorch_lightning", "lightning_fabric", "keras", "torch", "wandb",
        "mlflow", "peft", "trl", "tracer",
    }
)  # fmt: skip

saved = Hook("pytorch.save")


def _make(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return `torch.save` that tells where it wrote."""

    def save(obj: object, f: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- torch's own
        result = original(obj, f, *args, **kwargs)
        if saved.is_on and isinstance(f, (str, os.PathLike)):
            with saved:
                caller = str(sys._getframe(1).f_globals.get("__name__"))  # noqa: SLF001 -- whose name it is saved in
                if caller.partition(".")[0] not in _OTHERS:
                    path = os.path.abspath(os.fsdecode(f))
                    saved.emit(events.Artifact(path, name=os.path.basename(path), type="checkpoint", origin=ORIGIN))
        return result

    return save


def _install(torch: ModuleType) -> Callable[[], None]:
    """Listen at both names under which the function is reached."""
    undos = [saved.wrap(owner, "save", _make, parameters=("obj", "f")) for owner in (torch, torch.serialization)]

    def undo() -> None:
        for one in reversed(undos):
            one()

    return undo


PATCHES = (
    Patch(saved, module="torch", attribute="save", package="torch", tested=("2.13.0", "2.13.0"), install=_install),
)

__all__ = ["ORIGIN", "PATCHES"]
