"""What a framework calls: `TransformersCallback` and `LightningCallback`; importing this room loads no framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracer.integrations.accelerate import TracerTracker
    from tracer.integrations.keras import KerasCallback
    from tracer.integrations.lightning import LightningCallback
    from tracer.integrations.lightning_logger import TracerLogger
    from tracer.integrations.sklearn import SklearnCallback
    from tracer.integrations.transformers import TransformersCallback

_LATER = {
    "KerasCallback": "tracer.integrations.keras",
    "LightningCallback": "tracer.integrations.lightning",
    "SklearnCallback": "tracer.integrations.sklearn",
    "TracerLogger": "tracer.integrations.lightning_logger",
    "TracerTracker": "tracer.integrations.accelerate",
    "TransformersCallback": "tracer.integrations.transformers",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- whichever name was asked for
    """Load the module of a callback when the callback is used."""
    if name not in _LATER:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module

    return getattr(import_module(_LATER[name]), name)


__all__ = [
    "KerasCallback",
    "LightningCallback",
    "SklearnCallback",
    "TracerLogger",
    "TracerTracker",
    "TransformersCallback",
]
