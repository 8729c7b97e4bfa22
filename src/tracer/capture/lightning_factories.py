"""What Lightning asks for callbacks whenever a Trainer or a Fabric is made, named in our entry points.

Installed alone this changes nothing: nobody asked for capture, so there are no callbacks, and nothing is imported. An
exception here would keep every Trainer on the machine from being made: where something of ours fails, there are none.
"""

from __future__ import annotations

import sys
from typing import Any


def trainer_callbacks() -> list[Any]:
    """Return the callback for a new Trainer, of either package, while Lightning is listened to."""
    return _made("lightning_callback", "capturing_callback")


def fabric_callbacks() -> list[Any]:
    """Return the callback for a new Fabric, of either package, while Lightning is listened to."""
    return _made("lightning_fabric", "FabricCallback")


def _made(room: str, maker: str) -> list[Any]:
    """Return what a maker makes, if capture was asked for."""
    patching = sys.modules.get("tracer.capture.patching")
    made: list[Any] = []
    if patching is not None and patching.patches.is_on("lightning"):
        with patching.Hook.guard("listening to Lightning"):
            from importlib import import_module

            made.append(getattr(import_module(f"tracer.capture.{room}"), maker)())
    return made


__all__ = ["fabric_callbacks", "trainer_callbacks"]
