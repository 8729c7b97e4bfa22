"""One hook on imports: says when a module of a given set has been imported, and stays out of the way of all others."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

import importlib.abc
import importlib.util
import sys
import threading

from tracer import sink


class _Finder(importlib.abc.MetaPathFinder):
    """Answers for the modules that are waited for: asks the other finders, and puts itself around their loader."""

    def __init__(self) -> None:
        self.modules: frozenset[str] = frozenset()
        self.told: Callable[[str], None] = lambda _: None
        self._here = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module that is waited for; None for all others, and while the others are being asked."""
        if fullname not in self.modules or getattr(self._here, "is_asking", False):
            return None
        self._here.is_asking = True
        try:
            spec = importlib.util.find_spec(fullname) if path is None else _find(fullname, path, target)
        except (ImportError, ValueError):  # the program's own import says it better
            return None
        finally:
            self._here.is_asking = False
        if spec is None or spec.loader is None or not hasattr(spec.loader, "exec_module"):
            return None
        spec.loader = _Loader(spec.loader, self)
        return spec


class _Loader(importlib.abc.Loader):
    """Executes a module with its real loader in place, then says that it is there."""

    def __init__(self, loader: importlib.abc.Loader, finder: _Finder) -> None:
        self._loader, self._finder = loader, finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Let the real loader make the module."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module as if we were not here: `inspect` and `pickle` see the real loader."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        tell(self._finder, module.__name__)

    def __getattr__(self, name: str) -> object:
        """Answer what the real loader answers, to whoever looks at the spec before the module is executed."""
        return getattr(self._loader, name)


def _find(fullname: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    """Ask the other finders, in their order."""
    for finder in sys.meta_path:
        if isinstance(finder, _Finder):
            continue
        find = getattr(finder, "find_spec", None)
        spec = find(fullname, path, target) if find is not None else None
        if spec is not None:
            return spec  # type: ignore[no-any-return]  # whatever finders there are
    return None


def tell(finder: _Finder, module: str) -> None:
    """Say that a module has been imported; a failure of ours is not the importing program's."""
    with _guard(f"preparing to listen at {module}"):
        finder.told(module)


_guard = sink.Guard()
_finder = _Finder()


def watch(modules: Iterable[str], told: Callable[[str], None]) -> None:
    """Say when one of these modules has been imported; no modules: watch nothing more.

    Args:
        modules: Exact names.
        told: Called with the name, on the importing thread, after the module was executed.
    """
    _finder.modules, _finder.told = frozenset(modules), told
    if _finder.modules and _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    elif not _finder.modules and _finder in sys.meta_path:
        sys.meta_path.remove(_finder)


def is_complete(module: str) -> bool:
    """Tell whether a module was imported before, to its end."""
    found = sys.modules.get(module)
    spec = getattr(found, "__spec__", None)
    return found is not None and not getattr(spec, "_initializing", False)


__all__ = ["is_complete", "watch"]
