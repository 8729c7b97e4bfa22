"""Folders that a program writes into: files that appear or change in them while the run lives are its artifacts.

Looked at every few seconds on a thread of its own. A file counts when it has the same size and time twice, so half of
one is never taken; at the end of the run everything that is there is. Hidden and temporary files are left out, links
are not followed, and the store itself is never looked into.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator

from tracer import clock
from tracer.sink import Guard

_LOOK_S = 2.0
_STOP_WITHIN_S = 2.0
#: More files than these are not looked at: it is then no folder of results.
_MAX_FILES = 20_000
_BEFORE, _AFTER = (
    (".", "~", "#"),
    ("~", ".tmp", ".temp", ".part", ".partial", ".swp", ".lock", ".crdownload", ".incomplete"),
)
_State = tuple[int, int]


class WatchedFolders:
    """Finds new and changed files in some folders.

    Args:
        folders: The folders; one that is not there yet may appear later.
        keep: Takes the path of a file, and its name: the folder's name and the path within it.
        guard: Takes what goes wrong.
        without: A folder that is not looked into: the store.

    Example:
        >>> found = []
        >>> watched = WatchedFolders(["results"], lambda path, name: found.append(name), Guard())
        >>> watched.look(), watched.look()
        (0, 0)
    """

    def __init__(
        self, folders: Iterable[str], keep: Callable[[str, str], object], guard: Guard, *, without: str = ""
    ) -> None:
        self._folders = [os.path.abspath(os.path.expanduser(folder)) for folder in folders]
        self._keep, self._guard, self._without = keep, guard, os.path.realpath(without) if without else ""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._known: dict[str, _State] = {path: state for path, _, state in self._files()}
        self._seen: dict[str, _State] = {}

    def start(self) -> None:
        """Begin to look."""
        self._thread = threading.Thread(target=self._run, name="tracer-folders", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look a last time, and take what is there."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_STOP_WITHIN_S)
        with self._guard("looking into the artifact folders"):
            self.look(last=True)

    def look(self, *, last: bool = False) -> int:
        """Take what is new and at rest.

        Args:
            last: Take what may still be growing, too: nobody looks again.

        Returns:
            How many files were taken.
        """
        taken = 0
        for path, name, state in self._files():
            if self._known.get(path) == state:
                continue
            if not last and self._seen.get(path) != state:
                self._seen[path] = state
                continue
            self._seen.pop(path, None)
            self._known[path] = state
            self._keep(path, name)
            taken += 1
        return taken

    def _run(self) -> None:
        """Look now and then."""
        while not clock.wait(self._stopping, _LOOK_S):
            with self._guard("looking into the artifact folders"):
                self.look()

    def _files(self) -> Iterator[tuple[str, str, _State]]:
        """Yield path, name and state of the files in the folders."""
        count = 0
        for folder in self._folders:
            for place, inner, names in os.walk(folder):
                inner[:] = sorted(one for one in inner if self._is_looked_into(os.path.join(place, one)))
                for file in sorted(names):
                    path = os.path.join(place, file)
                    if file.startswith(_BEFORE) or file.endswith(_AFTER) or os.path.islink(path):
                        continue
                    count += 1
                    if count > _MAX_FILES:
                        self._guard.say(
                            "folders", f"{folder} has more than {_MAX_FILES:,} files; the rest is not kept."
                        )
                        return
                    with contextlib.suppress(OSError):
                        state = os.stat(path)
                        name = os.path.join(os.path.basename(folder), os.path.relpath(path, folder))
                        yield path, name.replace(os.sep, "/"), (state.st_size, state.st_mtime_ns)

    def _is_looked_into(self, folder: str) -> bool:
        """Tell whether a folder may hold results."""
        name = os.path.basename(folder)
        is_store = bool(self._without) and os.path.realpath(folder) == self._without
        return not (name.startswith(_BEFORE) or name.endswith(_AFTER) or is_store)


__all__ = ["WatchedFolders"]
