"""The store: journals become Parquet files and a catalog, and are read back. The only room with SQL.

`Store` is the store; `StorageBackend` is the Tracer documents' interface on top of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracer.storage.backend import StorageBackend
    from tracer.storage.store import Store

_LATER = {"Store": "tracer.storage.store", "StorageBackend": "tracer.storage.backend"}

__all__ = ["StorageBackend", "Store"]


def __getattr__(name: str) -> object:
    """Load the module of a public name when it is used."""
    if name not in _LATER:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module

    return getattr(import_module(_LATER[name]), name)
