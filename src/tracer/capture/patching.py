"""Listening at places in other people's code: put in when their module is imported, taken out without a trace.

    frameworks.py   which modules, and which room of ours knows them
    importing.py    one hook on imports, which says when such a module is there
    patching.py     puts the hooks in, takes them out, and can say what became of each

A hook never changes a value, an order, an exception or what is returned, and never raises into the program. Everything
here is process-wide, as the modules that are patched are.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import ModuleType
    from typing import Any, Self

import functools
import inspect
import sys
import threading
from importlib import import_module

from tracer import sink
from tracer.capture import importing
from tracer.capture.frameworks import FRAMEWORKS

#: Failures after which a hook listens no more: it would only go on failing.
_MAX_FAILURES = 10
WAITING, ACTIVE, INERT, REFUSED = "waiting for import", "active", "inert", "refused"


class SignatureChanged(Exception):
    """The place is not as we know it; the original is left alone."""


class Hook:
    """One place that is listened at: counts what was heard, keeps our failures out of the program, can be switched off.

    Args:
        name: What `tracer doctor` calls it, such as `tensorboard.torch`.

    Example:
        >>> hook = Hook("docs.example")
        >>> class Writer:
        ...     def add(self, value):
        ...         return value
        >>> def make(original):
        ...     def add(self, value):
        ...         result = original(self, value)
        ...         if hook.is_on:
        ...             with hook:
        ...                 hook.emit(value)
        ...         return result
        ...
        ...     return add
        >>> undo = hook.wrap(Writer, "add", make, parameters=("self", "value"))
        >>> Writer().add(3), hook.events
        (3, 1)
        >>> undo()
        >>> Writer().add(3), hook.events
        (3, 1)
    """

    #: Says and counts what fails; that of the run while there is one.
    guard = sink.Guard()

    __slots__ = ("_wrappers", "events", "failures", "is_on", "name")

    def __init__(self, name: str) -> None:
        self.name, self.is_on = name, True
        self.events = self.failures = 0
        self._wrappers: list[object] = []

    def emit(self, event: object) -> None:
        """Hand on what was heard."""
        self.events += 1
        sink.emit(event)

    def wrap(
        self,
        owner: Any,  # noqa: ANN401 -- a class or a module
        attribute: str,
        make: Callable[[Any], Any],
        *,
        parameters: Sequence[str] = (),
    ) -> Callable[[], None]:
        """Put a wrapper around a function or method; where ours is in place already, switch it on again.

        Args:
            owner: The class or module that holds it.
            attribute: Its name there.
            make: Gets the original and returns the wrapper, which looks at `is_on` before it listens.
            parameters: The names of the leading parameters we rely on.

        Returns:
            What takes it out: the original comes back if the wrapper is still the outermost one; where another tool has
            wrapped it since, it stays and is deaf.

        Raises:
            SignatureChanged: There is no such place, or it takes other parameters.
        """
        held = vars(owner).get(attribute)
        if held is None:
            message = f"{getattr(owner, '__name__', owner)} has no {attribute} of its own"
            raise SignatureChanged(message)
        self.is_on = True
        if self._is_inside(held):
            return lambda: self._take_out(owner, attribute, None, None)
        kind = type(held) if isinstance(held, (staticmethod, classmethod)) else None
        original = held.__func__ if kind is not None else held
        _check(original, attribute, parameters)
        wrapper = functools.wraps(original)(make(original))
        self._wrappers.append(wrapper)
        placed = wrapper if kind is None else kind(wrapper)
        setattr(owner, attribute, placed)
        return lambda: self._take_out(owner, attribute, placed, held)

    def _take_out(self, owner: Any, attribute: str, placed: object, held: object) -> None:  # noqa: ANN401 -- as above
        """Listen no more, and put the original back where the wrapper is the outermost."""
        self.is_on = False
        if placed is not None and vars(owner).get(attribute) is placed:
            setattr(owner, attribute, held)
            self._wrappers.pop()

    def _is_inside(self, function: object) -> bool:
        """Tell whether a wrapper of ours lies somewhere inside what stands there now."""
        seen: object = getattr(function, "__func__", function)
        while seen is not None:
            if any(seen is wrapper for wrapper in self._wrappers):
                return True
            seen = getattr(seen, "__wrapped__", None)
        return False

    def __enter__(self) -> Self:
        """Begin our part of a call."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        """Keep our failure from the program; after ten of them listen no more."""
        if not isinstance(error, Exception):
            return False
        self.failures += 1
        self.is_on = self.failures < _MAX_FAILURES
        with self.guard(f"listening at {self.name}"):
            _raise(error)
        return True


def _raise(error: Exception) -> None:
    """Raise a failure where it is guarded."""
    raise error


def _check(original: object, attribute: str, parameters: Sequence[str]) -> None:
    """See that a function takes the parameters we rely on."""
    if not parameters or not callable(original):
        return
    found = tuple(inspect.signature(original).parameters)
    if found[: len(parameters)] != tuple(parameters):
        message = f"{attribute} takes ({', '.join(found)}), known is ({', '.join(parameters)})"
        raise SignatureChanged(message)


class Patch:
    """A row of a framework's table: where it is listened at, and with which versions that was tested.

    Args:
        hook: The hook that goes in.
        module: The module whose import triggers it; one of its framework's in `frameworks.py`.
        attribute: The place in that module, for people: `FileWriter.add_event`.
        package: The distribution whose version is looked up.
        tested: The oldest and the newest version that the tests run with.
        install: Gets the module, puts the hook in, and returns what takes it out again.
    """

    __slots__ = ("attribute", "hook", "install", "module", "package", "tested")

    def __init__(
        self,
        hook: Hook,
        *,
        module: str,
        attribute: str,
        package: str,
        tested: tuple[str, str],
        install: Callable[[ModuleType], Callable[[], None]],
    ) -> None:
        self.hook, self.module, self.attribute = hook, module, attribute
        self.package, self.tested, self.install = package, tested, install


class Placed:
    """A patch, and what became of it."""

    __slots__ = ("patch", "undo", "why")

    def __init__(self, patch: Patch) -> None:
        self.patch = patch
        self.undo: Callable[[], None] | None = None
        self.why = ""

    @property
    def state(self) -> str:
        """One of `waiting for import`, `active`, `inert`, `refused`."""
        if self.why:
            return REFUSED
        if self.undo is None:
            return WAITING
        return ACTIVE if self.patch.hook.is_on else INERT


class Patches:
    """The patches of this process; there is one of these, `patches`."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._wanted: set[str] = set()
        self.placed: dict[str, Placed] = {}

    def start(self, names: Iterable[str]) -> None:
        """Listen to these frameworks: at once where they are imported already, else when they are.

        Args:
            names: Keys of `FRAMEWORKS`.
        """
        with self._lock:
            self._wanted |= set(names)
            modules = {module: name for name in self._wanted for module in FRAMEWORKS[name].modules}
            importing.watch(modules, self._arrived)
            for module in modules:
                if importing.is_complete(module):
                    self._arrived(module)

    def stop(self) -> None:
        """Take everything out again, the last first, and wait for nothing more."""
        with self._lock:
            self._wanted.clear()
            importing.watch((), self._arrived)
            for placed in reversed(self.placed.values()):
                if placed.undo is not None:
                    with Hook.guard(f"taking out {placed.patch.hook.name}"):
                        placed.undo()
            self.placed.clear()

    def is_on(self, name: str) -> bool:
        """Tell whether a framework is listened to; asked by what frameworks load by themselves."""
        return name in self._wanted

    def _arrived(self, module: str) -> None:
        """Put the hooks of a module in; it has just been imported, or had been before."""
        with self._lock:
            name = next((name for name in self._wanted if module in FRAMEWORKS[name].modules), None)
            if name is None:
                return
            with Hook.guard(f"preparing to listen to {name}"):
                for patch in import_module(FRAMEWORKS[name].room).PATCHES:
                    if patch.module == module:
                        self._place(patch)

    def _place(self, patch: Patch) -> None:
        """Put one hook in, or note why not."""
        before = self.placed.get(f"{patch.hook.name} {patch.module}")
        placed = self.placed[f"{patch.hook.name} {patch.module}"] = before or Placed(patch)
        try:
            placed.undo, placed.why = patch.install(sys.modules[patch.module]), ""
        except (SignatureChanged, AttributeError, KeyError) as error:
            placed.why = str(error)
            Hook.guard.say(
                patch.hook.name,
                f"{patch.package} is not captured at {patch.attribute}: {placed.why}. Your program is unaffected.",
            )


patches = Patches()

__all__ = ["ACTIVE", "INERT", "REFUSED", "WAITING", "Hook", "Patch", "Patches", "Placed", "SignatureChanged", "patches"]
