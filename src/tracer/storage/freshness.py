"""What is newer than the catalog can know: folders that could not be indexed, and the signs of life of live runs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from tracer import events
from tracer.errors import StoreError
from tracer.storage import folder as folders
from tracer.storage import index, listing, liveness
from tracer.storage.catalog import Catalog
from tracer.storage.index import Columns


def overlay(catalog: Catalog, base: str, names: Sequence[str]) -> dict[str, Columns]:
    """Return rows of run folders that could not be written into the catalog just now."""
    found: dict[str, Columns] = {}
    for name in names:
        path = os.path.join(base, "runs", name)
        try:
            facts = folders.read_facts(path)
        except StoreError:
            continue
        columns = index.columns_of(facts, name)
        known = next(iter(listing.runs_where(catalog, "WHERE r.uid = ?", (columns["uid"],))), None)
        whole = listing.fresh_columns(columns, facts)
        if known is not None:
            whole |= {key: known[key] for key in ("id", "points", "bytes", "lost", "trashed", "heartbeat")}
        found[columns["uid"]] = with_sign_of_life(base, whole) if whole["status"] == events.RUNNING else whole
    return found


def with_sign_of_life(base: str, columns: Columns) -> Columns:
    """Return the row of a run that says it is running, as its process and its journal say it is."""
    facts: dict[str, Any] = json.loads(columns["facts"])
    sign = liveness.look(
        os.path.join(base, "runs", columns["folder"]),
        {**facts, "status": columns["status"], "host": columns["host"]},
    )
    fresh = {"heartbeat": sign.heartbeat, "steps": max(sign.steps, columns["steps"])}
    if not sign.is_alive:
        fresh |= {
            "status": events.CRASHED,
            "reason": liveness.crash_reason(sign.heartbeat),
            "ended": sign.heartbeat or columns["started"],
        }
    return {**columns, **fresh}


__all__ = ["overlay", "with_sign_of_life"]
