"""One hook on imports: says when a module of a given set has been imported, and stays out of the way of all others.

The real loader is back in its place before the module is executed, so `inspect`, `pickle` and `importlib.resources`
see nothing of ours. Other hooks of this kind are asked like any finder; one that puts itself before ours and asks
nobody else is outrun at the next import, and what was imported past us meanwhile is told then.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType

import sys
import threading

from tracer import sink


class _Finder:  # without its abstract base: `importlib.abc` costs each process 14 ms
    """Answers for the modules that are waited for: asks the other finders, and puts itself around their loader."""

    def __init__(self) -> None:
        self.modules: frozenset[str] = frozenset()
        self.told: Callable[[str], None] = lambda _: None
        #: Not told yet: those that are in `sys.modules` one day without having come by here are told all the same.
        self.missing: set[str] = set()
        self._here = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module that is waited for; None for all others, and while the others are being asked."""
        if sys.meta_path[0] is not self:
            self._outrun()
        if fullname not in self.modules:
            return None
        asking: set[str] = self._here.__dict__.setdefault("asking", set())
        if fullname in asking:
            return None
        asking.add(fullname)
        try:
            spec = _find(fullname, path, target)
        except (ImportError, ValueError):  # the program's own import says it better
            return None
        finally:
            asking.discard(fullname)
        if spec is None or spec.loader is None or not hasattr(spec.loader, "exec_module"):
            return None
        spec.loader = _Loader(spec.loader, self)  # type: ignore[assignment]  # as above
        return spec

    def tell(self, module: str) -> None:
        """Say that a module has been imported; a failure of ours is not the importing program's."""
        self.missing.discard(module)
        with _guard(f"preparing to listen at {module}"):
            self.told(module)

    def catch_up(self) -> None:
        """Tell of modules that were imported past us, or were being imported when waiting for them began."""
        for module in tuple(self.missing):
            if is_complete(module):
                self.tell(module)

    def _outrun(self) -> None:
        """Take the first place again: another hook stands there now, and may answer without asking us."""
        if self in sys.meta_path:
            # Those before us move one place up, those behind keep theirs: an import under way meets each of them once.
            sys.meta_path.remove(self)
            sys.meta_path.insert(0, self)
            self.catch_up()


class _Loader:
    """Executes a module with its real loader in place, then says that it is there."""

    def __init__(self, loader: Loader, finder: _Finder) -> None:
        self._loader, self._finder = loader, finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Let the real loader make the module."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module as if we were not here."""
        if module.__spec__ is not None and getattr(module.__spec__, "loader", None) is self:
            module.__spec__.loader = self._loader
        if getattr(module, "__loader__", None) is self:
            module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._finder.tell(module.__name__)
        if self._finder.missing:
            self._finder.catch_up()

    def __getattr__(self, name: str) -> object:
        """Answer what the real loader answers, to whoever looks at the spec before the module is executed."""
        return getattr(self._loader, name)


def _find(fullname: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    """Ask the other finders, in their order."""
    for finder in list(sys.meta_path):
        if isinstance(finder, _Finder):
            continue
        find = getattr(finder, "find_spec", None)
        spec = find(fullname, path, target) if find is not None else None
        if spec is not None:
            return spec  # type: ignore[no-any-return]  # whatever finders there are
    return None


_guard = sink.Guard()
_finder = _Finder()


def watch(modules: Iterable[str], told: Callable[[str], None]) -> None:
    """Say when one of these modules has been imported; no modules: watch nothing more.

    Args:
        modules: Exact names.
        told: Called with the name, on the importing thread, after the module was executed.
    """
    _finder.modules, _finder.told = frozenset(modules), told
    _finder.missing = {module for module in _finder.modules if not is_complete(module)}
    if _finder.modules and _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    elif not _finder.modules and _finder in sys.meta_path:
        sys.meta_path.remove(_finder)


def catch_up() -> None:
    """Tell now of modules that were imported without our noticing; asked before a report."""
    _finder.catch_up()


def is_complete(module: str) -> bool:
    """Tell whether a module was imported before, to its end."""
    found = sys.modules.get(module)
    spec = getattr(found, "__spec__", None)
    return found is not None and not getattr(spec, "_initializing", False)


__all__ = ["catch_up", "is_complete", "watch"]
