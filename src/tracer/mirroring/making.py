"""From what was asked for to a back end: one of the table, a class by its place, or one of the plugins' shape."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from tracer.backends import table
from tracer.errors import ConfigError
from tracer.routing import Attempt

if TYPE_CHECKING:
    from tracer.backends.base import Backend


def make(name: str, where: str, options: Mapping[str, object]) -> Backend:
    """Return a back end, its client imported.

    Args:
        name: Its name in the table, when `where` is empty.
        where: `module:Class`, of a `Backend` or of the plugins' shape.
        options: What it is told.

    Raises:
        ConfigError: There is no such back end.
        MissingDependency: Its client is not installed.
    """
    if not where:
        return table.backend(name, options)
    from tracer.backends.plugin import as_backend

    module, _, attribute = where.partition(":")
    with Attempt() as attempt:
        found = getattr(import_module(module), attribute)
    if attempt.error is not None:
        message = f"The back end {where!r} cannot be loaded ({attempt.said}). Write `module:Class`."
        raise ConfigError(message)
    return as_backend(found, options)


__all__ = ["make"]
