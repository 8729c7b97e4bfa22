"""Under which name a tag of a TensorBoard writer is recorded, and at which step where the program gives none.

A program with one writer finds its own tags. Where a second folder brings a tag that is taken, its tags stand behind
the part of the folder that tells it from the others: `loss` of `runs/train`, and `val/loss` of `runs/val`.
"""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Iterator

#: Longer names are cut, and end in a number made of the whole: the journal takes no more than this.
_MAX_NAME = 1000


class Series:
    """One tag of one log folder: its name with us, and the steps for calls without one."""

    __slots__ = ("folder", "is_given", "name", "steps")

    def __init__(self, name: str, folder: str) -> None:
        self.name, self.folder = name, folder
        self.steps = itertools.count()
        self.is_given = True  # whether all steps so far came from the program


class Names:
    """The series of all writers of a run.

    Example:
        >>> names = Names()
        >>> names.new("/runs/train", "loss").name, names.new("/runs/val", "loss").name
        ('loss', 'val/loss')
        >>> names.new("/runs/val", "accuracy").name
        'accuracy'
    """

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], Series] = {}
        self._owners: dict[str, str] = {}
        self._places: dict[str, list[str]] = {}
        self._prefixes: dict[str, str] = {}

    def new(self, folder: str, tag: str, *, of: str | None = None, name: str | None = None) -> Series:
        """Return the series of a tag that has not been seen in this folder.

        Args:
            folder: Where the writer writes, as it says itself.
            tag: The tag in the event.
            of: The folder of the writer that the program holds, where this one is a part of it.
            name: What the program calls the values, where the tag does not say it all.
        """
        owner = _place(folder if of is None else of)
        self._places[owner] = owner.split(os.sep)
        series = Series(self._free(_storable(tag if name is None else name), owner), owner)
        return self.known.setdefault((folder, tag), series)

    def _free(self, name: str, owner: str) -> str:
        """Return the name itself, or the first with a prefix that no other folder has taken."""
        if self._owners.setdefault(name, owner) == owner:
            return name
        for prefix in self._candidates(owner):
            longer = _storable(f"{prefix}/{name}")
            if self._owners.setdefault(longer, owner) == owner:
                self._prefixes[owner] = prefix
                return longer
        return name  # a folder that is called as another in full: the same one

    def _candidates(self, owner: str) -> Iterator[str]:
        """Give what can stand for a folder: what it had before, the part that differs, then more and more of it."""
        if owner in self._prefixes:
            yield self._prefixes[owner]
        parts = self._places[owner]
        shared = sum(1 for _ in itertools.takewhile(_are_equal, zip(*self._places.values(), strict=False)))
        for begin in (shared, *range(len(parts) - 1, -1, -1)):
            if any(parts[begin:]):
                yield "/".join(parts[begin:])


def _place(folder: str) -> str:
    """Return a folder in full; an address of a remote store is that already."""
    return folder if "://" in folder else os.path.abspath(folder)


def _are_equal(parts: tuple[str, ...]) -> bool:
    """Tell whether all folders have the same part at this depth."""
    return len(set(parts)) == 1


def _storable(name: str) -> str:
    """Return the name as the journal takes it: not empty, not endless."""
    name = name.replace("\0", "�") or "untitled"
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 9]}~{zlib.crc32(name.encode()):08x}"


__all__ = ["Names", "Series"]
