"""Which machine folds a run of a store on a network file system, where no lock can be trusted.

`owner.json` in the run's folder names the machine; it is refreshed every ten seconds of work, and after a minute of
silence another machine may put its own in place. A run that nobody claimed belongs to the machine that records it.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping

from tracer import clock, places
from tracer.storage import liveness
from tracer.storage.folder import modified_ns, write_json

FILE = "owner.json"
_REFRESH_NS = 10_000_000_000
_SILENT_NS = 60_000_000_000


def may_fold(folder: str, facts: Mapping[str, object]) -> bool:
    """Tell whether this machine folds a run, claiming it where its owner fell silent.

    Args:
        folder: The run's folder.
        facts: What `run.json` says.
    """
    if not places.is_network(folder):
        return True
    path = os.path.join(folder, FILE)
    me = socket.gethostname()
    owner, since = _owner(path)
    if owner is None:
        owner = str(facts.get("host"))
        since = (liveness.look(folder, facts).heartbeat or 0) * 1_000
    if owner == me:
        if clock.now_ns() - since > _REFRESH_NS:
            write_json(path, {"host": me})
        return True
    if clock.now_ns() - since < _SILENT_NS:
        return False
    write_json(path, {"host": me})
    # Two machines may claim at once; the rename of one of them was the last.
    return _owner(path)[0] == me


def _owner(path: str) -> tuple[str | None, int]:
    """Return the machine that a file names and when it was written."""
    try:
        with open(path, encoding="utf-8") as file:
            said = json.load(file)
    except (OSError, ValueError):
        return None, 0
    owner = said.get("host") if isinstance(said, dict) else None
    return (owner, modified_ns(path)) if isinstance(owner, str) else (None, 0)


__all__ = ["FILE", "may_fold"]
