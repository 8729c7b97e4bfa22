"""`tracer run --replace`: who imports `wandb` or `mlflow` gets what Tracer serves under these names instead."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.util import spec_from_loader

#: What a program imports → what it gets.
_SERVED = {"wandb": "tracer.compat.wandb", "mlflow": "tracer.compat.mlflow"}


class _Served(Loader):
    """Gives one of our modules for one of theirs."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return ours."""
        return import_module(_SERVED[spec.name])

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing more: it was executed when it was imported."""


class _Finder(MetaPathFinder):
    """Answers for the names that are served."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 -- as importlib calls it
        target: ModuleType | None = None,  # noqa: ARG002 -- as above
    ) -> ModuleSpec | None:
        """Find a name that is served."""
        return spec_from_loader(fullname, _Served()) if fullname in _SERVED else None


def replace_trackers() -> None:
    """Serve `wandb` and `mlflow` from now on, in this process; a program that imported them before keeps them."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


__all__ = ["replace_trackers"]
