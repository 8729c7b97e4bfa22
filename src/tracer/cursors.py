"""`mirrors/<name>.json` in a run's folder: how far a back end has got, and what it calls the run; replaced whole.

Whoever serves a lane writes it after the peer has taken a batch. The store reads it before it gives back a segment of
the journal, commands read it to tell what is still owed. Nothing secret stands in it. Standard library.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

import contextlib
import json
import os

FOLDER = "mirrors"
FORMAT = 1

#: How a lane stands. Of the first four something is owed; `refused` owes too, but only `tracer sync` tries again.
STARTING, ACTIVE, UNREACHABLE, BEHIND, REFUSED, COMPLETE = (
    "starting", "active", "unreachable", "behind", "refused", "complete",
)  # fmt: skip


class Cursor:
    """One lane's file.

    Args:
        folder: The run's folder.
        name: The lane's name: a back end's, or that and something behind a dash.
    """

    __slots__ = ("_folder", "_path", "name", "said")

    def __init__(self, folder: str, name: str) -> None:
        self.name = name
        self._folder = os.path.join(folder, FOLDER)
        self._path = os.path.join(self._folder, f"{name}.json")
        #: `state reason url options rules remote places artifacts facts sent rejected names behind updated`
        self.said: dict[str, Any] = {"format": FORMAT, "backend": name, "state": STARTING, "places": {}, "remote": {}}
        with contextlib.suppress(OSError, ValueError):
            with open(self._path, encoding="utf-8") as file:
                found = json.load(file)
            if isinstance(found, dict):
                self.said |= found

    @property
    def state(self) -> str:
        """How the lane stands."""
        return str(self.said.get("state", STARTING))

    @property
    def places(self) -> dict[str, tuple[int, int]]:
        """Where each writer's journal goes on: (segment, offset)."""
        return {writer: (int(at[0]), int(at[1])) for writer, at in self.said["places"].items()}

    def change(self, changes: Mapping[str, object]) -> None:
        """Merge changes into the file, in one step.

        Raises:
            OSError: The disk does not take it; what was said before stands.
        """
        self.said |= changes
        os.makedirs(self._folder, exist_ok=True)
        aside = f"{self._path}.{os.getpid()}.part"
        with open(aside, "w", encoding="utf-8") as file:
            json.dump(self.said, file, separators=(",", ":"))
        os.replace(aside, self._path)


def names(folder: str) -> list[str]:
    """Return the lanes that a run has or had."""
    try:
        found = os.listdir(os.path.join(folder, FOLDER))
    except OSError:
        return []
    return sorted(name.removesuffix(".json") for name in found if name.endswith(".json"))


def of_run(folder: str) -> list[Cursor]:
    """Return the lanes of a run, each as it stands now."""
    return [Cursor(folder, name) for name in names(folder)]


def held(folder: str) -> list[dict[str, tuple[int, int]]]:
    """Return the places of each lane that still has to read the journal; a writer that is missing is needed whole."""
    return [cursor.places for cursor in of_run(folder) if cursor.state not in (COMPLETE, BEHIND)]
