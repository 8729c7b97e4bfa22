"""What a framework calls: `TransformersCallback` and `LightningCallback`; importing this room loads no framework."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracer.integrations.lightning import LightningCallback
    from tracer.integrations.transformers import TransformersCallback

_LATER = {
    "LightningCallback": "tracer.integrations.lightning",
    "TransformersCallback": "tracer.integrations.transformers",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- whichever name was asked for
    """Load the module of a callback when the callback is used."""
    if name not in _LATER:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module

    return getattr(import_module(_LATER[name]), name)


__all__ = ["LightningCallback", "TransformersCallback"]
