"""Finds the names under which loaded modules hold a function, and has them hold another: `from package import f`.

A wrapper put into the module that defines a function is not seen by those that took the function from it before.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import ModuleType


def rebind(pairs: Iterable[tuple[object, object]]) -> int:
    """Have every loaded module that holds the one object hold the other, under the same names.

    Args:
        pairs: What is held, compared by identity, and what is held from now on.

    Returns:
        How many names there were.
    """
    pairs = list(pairs)  # keeps the old objects alive, and with them their ids
    instead = {id(old): new for old, new in pairs}
    found = [
        (vars(module), name, instead[id(value)])
        for module in list(sys.modules.values())
        if isinstance(module, ModuleType)  # type: ignore[redundant-expr]  # None there forbids an import
        for name, value in list(vars(module).items())
        if id(value) in instead
    ]
    for names, name, new in found:
        names[name] = new
    return len(found)


__all__ = ["rebind"]
