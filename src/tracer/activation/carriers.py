"""What brings capture into an interpreter as it starts, and whether it is in place."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping

import os
import site
import sys

#: It holds a `sitecustomize` and nothing that a program could import by mistake.
BOOT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "boot")


class Carrier:
    """One way into an interpreter: what it is, whether it is there, and what it reaches."""

    __slots__ = ("is_there", "name", "place", "reaches")

    def __init__(self, name: str, place: str, reaches: str, *, is_there: bool) -> None:
        self.name, self.place, self.reaches, self.is_there = name, place, reaches, is_there

    def as_dict(self) -> dict[str, object]:
        """Return it as JSON holds it."""
        return {name: getattr(self, name) for name in self.__slots__}


def carriers() -> list[Carrier]:
    """Return the carriers of this interpreter."""
    script = os.path.join(BOOT, "sitecustomize.py")
    folders = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    found = [
        Carrier("sitecustomize", script, "what `tracer run` starts, and its children", is_there=os.path.isfile(script))
    ]
    for name, reaches in (
        ("tracer.pth", "every Python of this environment that finds TRACER_AUTO, also with -I"),
        ("tracer.start", "the same in Python 3.15 and later"),
    ):
        places = [path for path in (os.path.join(folder, name) for folder in folders) if os.path.isfile(path)]
        place = places[0] if places else os.path.join(folders[0] if folders else sys.prefix, name)
        found.append(Carrier(name, place, reaches, is_there=bool(places)))
    return found


def put_in(environment: MutableMapping[str, str]) -> None:
    """Put our folder at the head of PYTHONPATH; an empty part would be the working folder, so none is left."""
    others = [part for part in environment.get("PYTHONPATH", "").split(os.pathsep) if part and part != BOOT]
    environment["PYTHONPATH"] = os.pathsep.join([BOOT, *others])


__all__ = ["BOOT", "Carrier", "carriers", "put_in"]
