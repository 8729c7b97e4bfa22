"""One place in somebody else's code: whether it is as we know it, and whether a wrapper of ours is still in it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

import functools

#: How far a wrapper of ours is looked for inside those of other tools.
_MAX_DEPTH = 8


class SignatureChanged(Exception):
    """The place is not as we know it; the original is left alone."""


class Place:
    """One attribute that holds a wrapper of ours, and what was there before."""

    __slots__ = ("attribute", "held", "owner", "placed")

    def __init__(self, owner: Any, attribute: str, placed: object, held: object) -> None:  # noqa: ANN401 -- class or module
        self.owner, self.attribute, self.placed, self.held = owner, attribute, placed, held

    def is_at(self, owner: object, attribute: str) -> bool:
        """Tell whether this is the place of that name."""
        return self.owner is owner and self.attribute == attribute

    def is_outermost(self) -> bool:
        """Tell whether our wrapper is what stands there now."""
        return vars(self.owner).get(self.attribute) is self.placed


def check(original: object, attribute: str, parameters: Sequence[str]) -> None:
    """See that a function takes the parameters we rely on."""
    if not parameters or not callable(original):
        return
    import inspect  # costs more than all the rest of what a process pays for listening

    try:
        found = tuple(inspect.signature(original).parameters)
    except ValueError:  # written in C, and silent about what it takes
        return
    if found[: len(parameters)] != tuple(parameters):
        message = f"{attribute} takes ({', '.join(found)}), known is ({', '.join(parameters)})"
        raise SignatureChanged(message)


def lies_inside(wanted: object, function: object) -> bool:
    """Tell whether a function is reached through the wrappers of other tools, with or without `__wrapped__`."""
    wanted = getattr(wanted, "__func__", wanted)
    layer, seen = [function], set[int]()
    for _ in range(_MAX_DEPTH):
        layer = [getattr(one, "__func__", one) for one in layer]
        if any(one is wanted for one in layer):
            return True
        seen.update(map(id, layer))
        layer = [inner for one in layer for inner in _inner(one) if id(inner) not in seen]
    return False


def _inner(function: object) -> Iterator[object]:
    """Yield what a wrapper may call: what it says it wraps, what it closes over, what it was bound to."""
    said = vars(function) if hasattr(function, "__dict__") else {}
    if "__wrapped__" in said:
        yield said["__wrapped__"]
    for cell in getattr(function, "__closure__", None) or ():
        try:
            content = cell.cell_contents
        except ValueError:  # not filled yet
            continue
        if callable(content) and not isinstance(content, type):
            yield content
    if isinstance(function, functools.partial):
        yield function.func


__all__ = ["Place", "SignatureChanged", "check", "lies_inside"]
