"""The loss of a plain loop, heard from what a function returns: the user names it, `tracer run --loss train.py:step`.

The function is found when the first optimizer is made, or when it steps first: in a script that is running no import
says that it is defined now. Wherever the program holds it by then, the listening one is put in its place.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Any

from tracer import events
from tracer.capture.patching import Hook
from tracer.errors import ConfigError

#: What the command line passes on: `module:function`, `file.py:Class.method`, and `=name` for another name than `loss`.
VARIABLE = "TRACER_CAPTURE_RETURN"

hook = Hook("pytorch.return")
_undo: list[Callable[[], None]] = []
_found: set[str] = set()


class Wanted:
    """One function whose result is recorded.

    Args:
        text: `module:function`, `file.py:function`, `module:Class.method`, each perhaps with `=name`.

    Raises:
        ConfigError: It does not name a function of a module.

    Example:
        >>> wanted = Wanted("train.py:Trainer.step=train/loss")
        >>> wanted.module, wanted.path, wanted.name
        ('train.py', ['Trainer', 'step'], 'train/loss')
    """

    def __init__(self, text: str) -> None:
        place, _, name = text.partition("=")
        self.module, _, path = place.strip().rpartition(":")
        self.path, self.name, self.text = path.split("."), name or "loss", text
        if not self.module or not all(part.isidentifier() for part in self.path):
            message = f"{text!r} names no function. Write `module:function` or `file.py:function`, such as `train.py:train_step`."  # noqa: E501
            raise ConfigError(message)

    def holder(self) -> Any:  # noqa: ANN401 -- a module or a class
        """Return what holds the function now, or None while it is not defined."""
        held: Any = self._module()
        for part in self.path[:-1]:
            held = getattr(held, part, None)
        if held is None or not isinstance(vars(held).get(self.path[-1]), FunctionType):
            return None
        return held

    def _module(self) -> ModuleType | None:
        """Return the module that is meant; the running script is known by its file."""
        if not self.module.endswith(".py"):
            return sys.modules.get(self.module)
        wanted = os.path.abspath(self.module)
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and os.path.abspath(file) == wanted:
                return module
        return None


def find(wanted: str | None = None) -> None:
    """Put the listening functions in place of those that are wanted and defined by now.

    Args:
        wanted: What is wanted, parted by commas; the variable when absent.
    """
    texts = os.environ.get(VARIABLE, "") if wanted is None else wanted
    for text in filter(None, (part.strip() for part in texts.split(","))):
        if text not in _found:
            one = Wanted(text)
            holder = one.holder()
            if holder is not None:
                _found.add(text)
                _listen(one, holder)


def _listen(wanted: Wanted, holder: Any) -> None:  # noqa: ANN401 -- a module or a class
    """Put the listening function wherever the program holds the original."""
    attribute = wanted.path[-1]
    original = vars(holder)[attribute]

    @functools.wraps(original)
    def heard(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- the user's function
        result = original(*args, **kwargs)
        if hook.is_on:
            with hook:
                hook.emit(events.Scalars(_values(result, wanted.name), origin="pytorch"))
        return result

    hook.is_on = True
    for place in _places(holder, attribute, original):
        setattr(place, attribute, heard)
        _undo.append(functools.partial(_restore, place, attribute, heard, original))


def _places(holder: Any, attribute: str, original: FunctionType) -> list[Any]:  # noqa: ANN401 -- as above
    """Return every module that holds the function under its name, and the class whose method it is."""
    modules: list[Any] = list(sys.modules.values())  # anything can stand there
    others = (one for one in modules if one is not holder and type(one) is ModuleType)
    return [holder, *(one for one in others if vars(one).get(attribute) is original)]


def _restore(place: Any, attribute: str, heard: object, original: object) -> None:  # noqa: ANN401 -- as above
    """Put the original back where the listening one still is."""
    if vars(place).get(attribute) is heard:
        setattr(place, attribute, original)


def stop() -> None:
    """Listen no more, and put everything back."""
    hook.is_on = False
    while _undo:
        _undo.pop()()
    _found.clear()


def _values(result: object, name: str) -> Mapping[str, object]:
    """Return what a result says: a number or tensor, a dictionary of them, or the first of several results."""
    if isinstance(result, Mapping):
        return result
    if isinstance(result, (tuple, list)) and result:
        result = result[0]
    return {} if result is None else {name: result.detach() if hasattr(result, "detach") else result}


__all__ = ["VARIABLE", "Wanted", "find", "stop"]
