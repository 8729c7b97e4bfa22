"""Classes of ours that are Lightning's too, under whichever of its names a program has loaded.

`lightning` and `pytorch_lightning` each have a `Callback` and a `Logger` of their own. Which one a program uses is
known when it makes an object; the class is completed then, so nothing of ours imports either.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any

PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def loaded_bases(room: str, name: str) -> tuple[type, ...]:
    """Return a base class of each of the two packages that the program has loaded.

    Args:
        room: The module below the package: `callbacks` or `loggers`.
        name: The class there.
    """
    modules = [sys.modules.get(f"{package}.{room}") for package in PACKAGES]
    return tuple(getattr(module, name) for module in modules if hasattr(module, name))


@cache
def completed(cls: Any, frameworks: tuple[type, ...]) -> Any:  # noqa: ANN401 -- a class the checker does not know
    """Return the class with the frameworks' base classes among its own."""
    missing = [framework for framework in frameworks if not issubclass(cls, framework)]
    if not missing:
        return cls
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__, "_completes": cls}
    return type(cls.__name__, (cls, *missing), names)


def as_sent(sent: object, state: dict[str, Any]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return what `__reduce__` gives: the class that has a name; the other is completed again over there."""
    return _remade, (getattr(type(sent), "_completes", type(sent)), state)


def _remade(cls: Any, state: dict[str, Any]) -> Any:  # noqa: ANN401 -- as above
    """Make an object again from what `as_sent` gave."""
    made = cls.__new__(cls)
    made.__dict__.update(state)
    return made


__all__ = ["PACKAGES", "as_sent", "completed", "loaded_bases"]
