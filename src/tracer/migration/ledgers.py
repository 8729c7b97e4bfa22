"""What was moved already: one small file for each run and target, and one for an import that is under way.

`runs/<run>/moves/<target>.json` holds what the peer calls the run and how much of each strand it has, so that a second
export sends nothing and an interrupted one goes on. `moves/<source>.json` in the store's folder lists the runs that an
unfinished import has done. Nothing secret stands in them; each is replaced whole.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any

from tracer import clock
from tracer.migration.streams import Strand

FOLDER = "moves"
_FORMAT = 1
_SAVED_EVERY_S = 1.0


class Ledger:
    """What one target has of one run.

    Args:
        folder: The run's folder.
        digest: The target's, as `Address.digest`.
    """

    def __init__(self, folder: str, digest: str) -> None:
        self._path = os.path.join(folder, FOLDER, f"{digest}.json")
        found = _read(self._path)
        self.remote: dict[str, str] = {str(key): str(value) for key, value in found.get("remote", {}).items()}
        self.is_complete = bool(found.get("complete"))
        self.facts = str(found.get("facts", ""))
        self.sent: dict[str, tuple[int, str]] = {
            str(key): (int(said[0]), str(said[1])) for key, said in found.get("sent", {}).items()
        }
        self.names: dict[str, str] = {str(key): str(value) for key, value in found.get("names", {}).items()}
        self.url: str | None = found.get("url")
        #: A path of this machine where the run can be read back, or nothing.
        self.readable = str(found.get("readable", ""))
        self._saved = clock.monotonic()

    def forget(self) -> None:
        """Begin anew, as with a target that was never met."""
        self.remote, self.sent, self.names, self.facts, self.is_complete = {}, {}, {}, "", False
        self.url, self.readable = None, ""

    def save(self, target: str, strands: Mapping[str, Strand], *, now: bool = True) -> None:
        """Write what has been sent; unless it has to be `now`, at most once a second."""
        if not now and clock.monotonic() - self._saved < _SAVED_EVERY_S:
            return
        self.sent |= {key: (strand.count, strand.digest) for key, strand in strands.items()}
        said = {
            "format": _FORMAT,
            "target": target,
            "remote": self.remote,
            "url": self.url,
            "readable": self.readable,
            "complete": self.is_complete,
            "facts": self.facts,
            "names": self.names,
            "sent": self.sent,
            "updated": clock.now_us(),
        }
        _write(self._path, said)
        self._saved = clock.monotonic()


class Pass:
    """The runs that an import has done; forgotten when it has done them all, so that the next looks again.

    Args:
        base: The store's folder.
        digest: The source's, as `Address.digest`.
    """

    def __init__(self, base: str, digest: str) -> None:
        self._path = os.path.join(base, FOLDER, f"{digest}.json")
        found = _read(self._path).get("done")
        #: Where a run comes from → its id here, and how many series were compared, or None where nobody compared.
        self.done: dict[str, tuple[str, int | None]] = {}
        if isinstance(found, dict):
            self.done = {str(origin): (str(uid), compared) for origin, (uid, compared) in found.items()}

    def add(self, origin: str, uid: str, compared: int | None) -> None:
        """Say that a run is done."""
        self.done[origin] = (uid, compared)
        _write(self._path, {"format": _FORMAT, "done": self.done, "updated": clock.now_us()})

    def end(self) -> None:
        """Say that all are."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)
        self.done = {}


def _read(path: str) -> dict[str, Any]:
    """Return what a file says; nothing where there is none, or where it is damaged."""
    with contextlib.suppress(OSError, ValueError):
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        if isinstance(found, dict) and found.get("format") == _FORMAT:
            return found
    return {}


def _write(path: str, said: Mapping[str, object]) -> None:
    """Replace a file in one step."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    aside = f"{path}.{os.getpid()}.part"
    try:
        with open(aside, "w", encoding="utf-8") as file:
            json.dump(said, file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)


__all__ = ["FOLDER", "Ledger", "Pass"]
