"""How a run ended, once everything it recorded is folded: what `run.json` does not say is written into it.

While a run's own process lives it writes `run.json`; here only of runs whose process is gone, or that are finished.
"""

from __future__ import annotations

import copy
import json
import os
from typing import TYPE_CHECKING, Any

from tracer import events, runfile
from tracer.errors import StoreError
from tracer.storage import folder as folders
from tracer.storage import index, liveness

if TYPE_CHECKING:
    from tracer.storage.catalog import Catalog


def conclude(catalog: Catalog, base: str, uid: str, *, is_complete: bool) -> None:
    """Say how a run ended, and put changes that came by the journal into `run.json`.

    Args:
        catalog: The catalog, open for writing.
        base: The store's folder.
        uid: The run.
        is_complete: Nothing is left to read in its journal, so that a missing end is really missing.
    """
    row = catalog.row("SELECT id, folder, late, steps, checkpoints FROM run WHERE uid = ?", (uid,))
    if row is None or not is_complete:
        return
    run, name, late_text, steps, checkpoints = row
    late: list[list[Any]] = json.loads(late_text)
    path = os.path.join(base, "runs", name)
    try:
        before = folders.read_facts(path)
    except StoreError:
        return
    sign = liveness.look(path, before)
    if sign.is_alive:
        return
    facts = copy.deepcopy(before)
    index.apply_late(facts, late, folders.modified_ns(os.path.join(path, runfile.NAME)) // 1_000)
    if facts.get("status") == events.RUNNING:
        facts |= {
            "status": events.CRASHED,
            "reason": liveness.crash_reason(sign.heartbeat),
            "ended": sign.heartbeat or facts.get("started"),
            "steps": max(sign.steps, steps, facts.get("steps") or 0),
            "checkpoints": max(checkpoints, facts.get("checkpoints") or 0),
        }
    if facts != before:
        if folders.read_facts(path) != before:  # somebody goes on with the run, or ended it meanwhile
            return
        try:
            runfile.replace(path, facts)
        except OSError:
            return  # a read-only folder: the catalog says it all the same, from the same journal
    with catalog.transaction():
        catalog.execute("UPDATE run SET late = '[]' WHERE id = ?", (run,))
        if facts != before or late:
            index.index(catalog, base, [name])


__all__ = ["conclude"]
