"""Listening at places in other people's code: put in when their module is imported, taken out without a trace.

    frameworks.py   which modules, and which room of ours knows them
    importing.py    one hook on imports, which says when such a module is there
    patching.py     puts the hooks in, takes them out, and can say what became of each

A hook never changes a value, an order, an exception or what is returned, and never raises into the program. Everything
here is process-wide, as the modules that are patched are. No lock is held while a module is imported or a hook goes in:
the thread that imports holds locks of its own.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import ModuleType
    from typing import Any, Self

    from tracer.capture.patch_report import Row

import functools
import os
import sys
import threading
from importlib import import_module

from tracer import sink
from tracer.capture import importing
from tracer.capture.frameworks import FRAMEWORKS
from tracer.capture.patched import Place, SignatureChanged, check, lies_inside

#: Failures after which a hook listens no more: it would only go on failing.
_MAX_FAILURES = 10
WAITING, ACTIVE, INERT, REFUSED = "waiting for import", "active", "inert", "refused"


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

    __slots__ = ("_places", "events", "failures", "is_on", "name")

    def __init__(self, name: str) -> None:
        self.name, self.is_on = name, True
        self.events = self.failures = 0
        self._places: list[Place] = []

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
        with _lock():
            place = self._known(owner, attribute, held)
            if place is None:
                kind = type(held) if isinstance(held, (staticmethod, classmethod)) else None
                original = held.__func__ if kind is not None else held
                check(original, attribute, parameters)
                wrapper = functools.wraps(original)(make(original))
                place = Place(owner, attribute, wrapper if kind is None else kind(wrapper), held)
                self._places.append(place)
                setattr(owner, attribute, place.placed)
            self.is_on, self.failures = True, 0
        return functools.partial(self._take_out, place)

    def _known(self, owner: object, attribute: str, held: object) -> Place | None:
        """Return the place if a wrapper of ours is what stands there, or lies inside of it."""
        for place in self._places:
            if place.is_at(owner, attribute):
                if held is place.placed or lies_inside(place.placed, held):
                    return place
                self._places.remove(place)  # somebody has put something else there
                break
        return None

    def _take_out(self, place: Place) -> None:
        """Listen no more, and put the original back where the wrapper is the outermost."""
        with _lock():
            self.is_on = False
            if place in self._places and place.is_outermost():
                setattr(place.owner, place.attribute, place.held)
                self._places.remove(place)

    def __enter__(self) -> Self:
        """Begin our part of a call."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        """Keep our failure from the program; after ten of them listen no more."""
        if not isinstance(error, Exception):
            return False
        self.failures += 1
        self.is_on = self.is_on and self.failures < _MAX_FAILURES
        with self.guard(f"listening at {self.name}"):
            _raise(error)
        return True


def _raise(error: Exception) -> None:
    """Raise a failure where it is guarded."""
    raise error


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

    __slots__ = ("patch", "undos", "why")

    def __init__(self, patch: Patch) -> None:
        self.patch = patch
        self.undos: list[Callable[[], None]] = []  # one for each time the module was executed
        self.why = ""

    @property
    def state(self) -> str:
        """One of `waiting for import`, `active`, `inert`, `refused`."""
        if self.why:
            return REFUSED
        if not self.undos:
            return WAITING
        return ACTIVE if self.patch.hook.is_on else INERT

    def take_out(self) -> None:
        """Undo what was put in, the last first."""
        while self.undos:
            with Hook.guard(f"taking out {self.patch.hook.name}"):
                self.undos.pop()()


class Patches:
    """The patches of this process; there is one of these, `patches`."""

    def __init__(self) -> None:
        self._wanted: dict[str, str] = {}  # module → framework
        self.placed: dict[str, Placed] = {}
        self._past: tuple[list[str], dict[str, tuple[str, str]]] = ([], {})  # what the last ones came to

    def start(self, names: Iterable[str]) -> None:
        """Listen to these frameworks: at once where they are imported already, else when they are.

        Args:
            names: Keys of `FRAMEWORKS`.
        """
        with _lock():
            self._wanted = {**self._wanted, **{module: name for name in names for module in FRAMEWORKS[name].modules}}
            importing.watch(self._wanted, self._arrived)
        for module in tuple(self._wanted):
            if importing.is_complete(module):
                self._arrive(module, again=False)

    def stop(self) -> None:
        """Take everything out again, the last first, and wait for nothing more."""
        with _lock():
            if self._wanted:
                self._past = self._states()
            self._wanted = {}
            importing.watch((), self._arrived)
            placed, self.placed = list(self.placed.values()), {}
        for one in reversed(placed):
            one.take_out()

    def is_on(self, name: str) -> bool:
        """Tell whether a framework is listened to; asked by what frameworks load by themselves."""
        return name in self._wanted.values()

    def report(self, names: Iterable[str] = ()) -> list[Row]:
        """Return what became of each patch of the frameworks that are listened to, or of these.

        Args:
            names: Keys of `FRAMEWORKS`; what is not listened to is told as waiting.
        """
        from tracer.capture.patch_report import Row

        importing.catch_up()
        known, states = self._states() if self._wanted else self._past
        return [
            Row(name, patch, *states.get(_key(patch), (WAITING, "")))
            for name in names or known
            for patch in rows_of(name)
        ]

    def _states(self) -> tuple[list[str], dict[str, tuple[str, str]]]:
        """Return the frameworks that are listened to, and state and reason of each place that was met."""
        known = list(dict.fromkeys(self._wanted.values()))
        return known, {key: (placed.state, placed.why) for key, placed in self.placed.items()}

    def _arrived(self, module: str) -> None:
        """Put the hooks of a module in: it has just been executed, perhaps not for the first time."""
        self._arrive(module, again=True)

    def _arrive(self, module: str, *, again: bool) -> None:
        """Put the hooks of a module in, those in place only when the module was executed again."""
        name = self._wanted.get(module)
        if name is None:
            return
        with Hook.guard(f"preparing to listen to {name}"):
            for patch in rows_of(name):
                if patch.module == module and (again or _key(patch) not in self.placed):
                    self._place(patch)

    def _place(self, patch: Patch) -> None:
        """Put one hook in, or note why not."""
        with _lock():
            placed = self.placed.setdefault(_key(patch), Placed(patch))
        try:
            undo = patch.install(sys.modules[patch.module])
        except (SignatureChanged, AttributeError, KeyError, TypeError) as error:
            placed.why = str(error)
            from tracer.capture.patch_report import version_of

            version = version_of(patch.package) or "of this version"
            Hook.guard.say(
                patch.hook.name,
                f"{patch.package} {version} is not captured at {patch.attribute}: {placed.why}. "
                "Your program is unaffected.",
            )
            return
        placed.undos.append(undo)
        placed.why = ""
        if self.placed.get(_key(patch)) is not placed:  # all were taken out meanwhile, by another thread
            placed.take_out()


def rows_of(framework: str) -> tuple[Patch, ...]:
    """Return the patches of a framework; its room is loaded, the framework is not."""
    rows: tuple[Patch, ...] = import_module(FRAMEWORKS[framework].room).PATCHES
    return rows


def _key(patch: Patch) -> str:
    """Return what names a patch among all."""
    return f"{patch.hook.name} {patch.module} {patch.attribute}"


_the_lock = threading.RLock()


def _lock() -> threading.RLock:
    """Return the lock of all bookkeeping here; a forked child has a new one."""
    return _the_lock


def _renew_lock() -> None:
    """Let a forked child not wait for a thread that it has not."""
    global _the_lock  # noqa: PLW0603 -- there is one, and a fork may happen while a thread holds it
    _the_lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)
patches = Patches()

__all__ = [
    "ACTIVE",
    "INERT",
    "REFUSED",
    "WAITING",
    "Hook",
    "Patch",
    "Patches",
    "Placed",
    "SignatureChanged",
    "patches",
    "rows_of",
]
