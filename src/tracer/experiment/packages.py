"""Which optional packages are here, found without importing them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

import importlib
import os

from tracer.backends import table
from tracer.plugins import missing

#: Name as the documents use it → package, extra that brings it.
FRAMEWORK_PACKAGES = {
    "torch": ("torch", "torch"),
    "pytorch": ("torch", "torch"),
    "tensorboard": ("tensorboard", ""),
    "tensorboardX": ("tensorboardX", ""),
    "lightning": ("lightning", "lightning"),
    "pytorch_lightning": ("pytorch_lightning", ""),
    "transformers": ("transformers", "hf"),
    "accelerate": ("accelerate", "hf"),
    "keras": ("keras", ""),
    "sklearn": ("sklearn", ""),
    "xgboost": ("xgboost", ""),
    "lightgbm": ("lightgbm", ""),
}
BACKEND_PACKAGES = {
    name: (known.package, known.extra) for name, known in table.ENTRIES.items() if known.backend and known.package
}
_INSTALLED_AS = {"sklearn": "scikit-learn"}


def is_available(package: str) -> bool:
    """Tell whether a package could be imported; it is not.

    Args:
        package: Name of a framework, a back end, or any package.
    """
    import importlib.util

    named = {**FRAMEWORK_PACKAGES, **BACKEND_PACKAGES}.get(package, (package, ""))[0]
    try:
        return importlib.util.find_spec(named) is not None
    except (ImportError, ValueError):  # a parent is missing, or it is half imported
        return False


def available_frameworks() -> list[str]:
    """Return the frameworks that are installed and can be listened to."""
    return [name for name in FRAMEWORK_PACKAGES if is_available(name)]


def available_backends() -> list[str]:
    """Return the back ends whose client is installed, and those that plugins of the program bring."""
    return [name for name in BACKEND_PACKAGES if is_available(name)]


def require(framework: str, feature: str | None = None) -> ModuleType:
    """Import a package that is needed.

    Args:
        framework: Its name.
        feature: What it is needed for.

    Raises:
        MissingDependency: It is not installed; the message names the command that brings it.
    """
    package, extra = {**FRAMEWORK_PACKAGES, **BACKEND_PACKAGES}.get(framework, (framework, ""))
    if not is_available(package):
        raise missing(_INSTALLED_AS.get(package, package), extra=extra, purpose=feature or "This")
    return importlib.import_module(package)


def try_import(module: str, default: Any = None) -> Any:  # noqa: ANN401 -- a module, or what was given
    """Import a module, or return the default; with `TRACELET_STRICT_IMPORTS=1` its absence raises."""
    try:
        return importlib.import_module(module)
    except ImportError:
        if os.environ.get("TRACELET_STRICT_IMPORTS", "").lower() in ("1", "true", "yes", "on"):
            raise
        return default


class LazyImport:
    """A module that is imported when something of it is used.

    Example:
        >>> LazyImport("math").floor(2.5)
        2
    """

    def __init__(self, module: str, feature: str | None = None) -> None:
        self._module_name, self._feature = module, feature

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever the module has
        """Import the module and answer with what it has."""
        if name.startswith("__"):
            raise AttributeError(name)
        package = self._module_name.partition(".")[0]
        require(package, self._feature)
        return getattr(importlib.import_module(self._module_name), name)

    def __repr__(self) -> str:
        """Name the module."""
        return f"LazyImport({self._module_name!r})"


def lazy_import(module: str, feature: str | None = None) -> LazyImport:
    """Return a module that is imported when something of it is used."""
    return LazyImport(module, feature)


def reload_detection() -> None:
    """Look anew for packages that were installed meanwhile."""
    importlib.invalidate_caches()


class ImportManager:
    """The functions of this module as the methods of an object, as the Tracelet documents have them."""

    is_available = staticmethod(is_available)
    require = staticmethod(require)
    try_import = staticmethod(try_import)
    lazy_import = staticmethod(lazy_import)
    get_available_frameworks = staticmethod(available_frameworks)
    get_available_backends = staticmethod(available_backends)
    reload_detection = staticmethod(reload_detection)


__all__ = [
    "BACKEND_PACKAGES",
    "FRAMEWORK_PACKAGES",
    "ImportManager",
    "LazyImport",
    "available_backends",
    "available_frameworks",
    "is_available",
    "lazy_import",
    "reload_detection",
    "require",
    "try_import",
]
