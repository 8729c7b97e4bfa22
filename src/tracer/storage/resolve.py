"""Which runs are meant: lists with filters, and a name, an id or `@last` → one run."""

from __future__ import annotations

import difflib
import fnmatch
import json
import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tracer import events
from tracer.errors import RunNotFound
from tracer.storage import folder as folders
from tracer.storage import freshness, listing, snapshot, summaries
from tracer.storage.index import Columns
from tracer.storage.values import RunRow

if TYPE_CHECKING:
    from tracer.storage.ground import Ground
    from tracer.storage.listing import Condition

_LAST = re.compile(r"@last(?::(\d+))?")
#: What a name may mean: as SQL, and for rows that the catalog does not know yet.
_MEANINGS: dict[str, tuple[str, Callable[[Columns, tuple[str, ...]], bool]]] = {
    "any": ("1", lambda _row, _values: True),
    "id": ("r.uid = ?", lambda row, values: row["uid"] == values[0]),
    "name": ("r.name = ?", lambda row, values: row["name"] == values[0]),
    "project": ("p.name = ? AND r.name = ?", lambda row, values: (row["project"], row["name"]) == values),
    "beginning": ("substr(r.uid, 1, length(?1)) = ?1", lambda row, values: row["uid"].startswith(values[0])),
}
_NEAR = 3
_MANY = 5


def list_runs(
    store: Ground,
    project: str | None,
    status: str | None,
    name: str | None,
    limit: int | None,
    sort: str,
    where: Sequence[Condition],
) -> list[RunRow]:
    """Return the runs that meet all conditions; see `Store.runs`."""
    if status is not None and status not in events.STATUSES:
        message = f"{status!r} is no status of a run. Choose one of: {', '.join(events.STATUSES)}."
        raise ValueError(message)
    conditions = list(where)
    conditions += [
        (field, "=", value) for field, value in (("project", project), ("status", status)) if value is not None
    ]
    pattern = name if name is not None and any(sign in name for sign in "*?[") else None
    if name is not None and pattern is None:
        conditions.append(("name", "=", name))
    laid_over = store.refresh()
    if sort.removeprefix("-").startswith("metric:") or any(column.startswith("metric.") for column, _, _ in conditions):
        laid_over = _with_recent(store, laid_over)
    rows = listing.select(
        store.catalog,
        laid_over,
        conditions,
        sort=sort,
        limit=None if pattern else limit,
        last_value=lambda uid, metric: _last_value(store, uid, metric),
    )
    if pattern:
        rows = [row for row in rows if fnmatch.fnmatchcase(row["name"], pattern)][:limit]
    return [listing.run_row(row) for row in rows]


def find_run(store: Ground, name: str) -> RunRow:
    """Return the run that is meant; see `Store.run`."""
    meaning, found = _search(store, name)
    if not found:
        raise RunNotFound(_missing(store, name))
    if meaning == "beginning" and len(found) > 1:
        raise RunNotFound(_ambiguous(name, found))
    return found[0]


def matches(store: Ground, name: str) -> list[RunRow]:
    """Return all runs that answer to a name, the newest first: by id, `@last`, name, `project/name`, id's beginning."""
    return _search(store, name)[1]


def choose(name: str, rows: Sequence[RunRow], where: str) -> RunRow:
    """Return the one of these runs that is meant: by id, by name, by the id's beginning."""
    for chosen in (
        [row for row in rows if row.uid == name],
        [row for row in rows if row.name == name],
        [row for row in rows if row.uid.startswith(name)],
    ):
        if chosen:
            return chosen[0]
    message = f"No run {name!r} {where}."
    raise RunNotFound(message)


def _search(store: Ground, name: str) -> tuple[str, list[RunRow]]:
    """Return the first meaning of a name that fits a run, and the runs it fits."""
    known = _unchanged(store, name)
    if known is not None:
        return "id", [known]
    overlay = store.refresh()
    last = _LAST.fullmatch(name)
    if last:
        number = max(int(last[1] or 1), 1)
        return "any", _rows(store, overlay, "any", (), limit=number)[number - 1 :]
    for meaning, values in _meanings(name):
        found = _rows(store, overlay, meaning, values)
        if found:
            return meaning, found
    return "", []


def _unchanged(store: Ground, uid: str) -> RunRow | None:
    """Return the run of exactly this id if its folder is as the catalog knows it: no look at the other folders."""
    row = next(iter(listing.runs_where(store.catalog, "WHERE r.uid = ? AND r.trashed IS NULL", (uid,))), None)
    if row is None:
        return None
    seen = store.catalog.value("SELECT seen FROM run WHERE id = ?", (row["id"],))
    if seen != folders.modified_ns(os.path.join(store.base, "runs", row["folder"])):
        return None
    return listing.run_row(freshness.with_sign_of_life(store.base, row) if row["status"] == events.RUNNING else row)


def _meanings(name: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return what a name may mean, the most certain first."""
    meanings: list[tuple[str, tuple[str, ...]]] = [("id", (name,)), ("name", (name,))]
    at = name.find("/")
    while at >= 0:  # both may hold a slash themselves
        meanings.append(("project", (name[:at], name[at + 1 :])))
        at = name.find("/", at + 1)
    if name:
        meanings.append(("beginning", (name,)))
    return meanings


def _rows(
    store: Ground, overlay: dict[str, Columns], meaning: str, values: tuple[str, ...], *, limit: int | None = None
) -> list[RunRow]:
    """Return the runs that a meaning fits, the newest first."""
    clause, fits = _MEANINGS[meaning]
    tail = f"WHERE r.trashed IS NULL AND {clause} ORDER BY r.started DESC, r.id DESC"
    if limit is not None:
        tail += f" LIMIT {limit}"
    rows = [overlay.get(row["uid"], row) for row in listing.runs_where(store.catalog, tail, values)]
    seen = {row["uid"] for row in rows}
    fresh = [row for uid, row in overlay.items() if uid not in seen and row["id"] is None and fits(row, values)]
    rows = sorted([*rows, *fresh], key=lambda row: (row["started"], row["id"] or 2**62), reverse=True)
    return [listing.run_row(row) for row in rows[:limit]]


def _with_recent(store: Ground, laid_over: dict[str, Columns]) -> dict[str, Columns]:
    """Return rows that are laid over, those of runs whose last values lie in the journal still among them."""
    recent = [uid for uid in snapshot.unsettled(store.catalog, store.base) if uid not in laid_over]
    if not recent:
        return laid_over
    clause = "WHERE r.trashed IS NULL AND r.uid IN (SELECT value FROM json_each(?))"
    rows = listing.runs_where(store.catalog, clause, (json.dumps(recent),))
    return {**{row["uid"]: row for row in rows}, **laid_over}


def _last_value(store: Ground, uid: str, metric: str) -> object:
    """Return the last value of a metric of one run."""
    try:
        return next((row.last for row in summaries.metrics(store, uid) if row.metric == metric and row.rank == 0), None)
    except RunNotFound:
        return None


def _missing(store: Ground, name: str) -> str:
    """Say that there is no such run, and which ones are near."""
    rows = list_runs(store, None, None, None, 200, "-started", ())
    if not rows:
        return f"There is no run {name!r}: the store {store.base} holds none. Record one with `tracer.init(...)`."
    near = difflib.get_close_matches(name, [row.name for row in rows] + [row.uid for row in rows], n=_NEAR, cutoff=0.5)
    hint = (
        f"Did you mean {' or '.join(map(repr, dict.fromkeys(near)))}?" if near else f"The newest is {rows[0].name!r}."
    )
    return f"There is no run {name!r} in {store.base}. {hint} `tracer list` shows them all."


def _ambiguous(name: str, rows: Sequence[RunRow]) -> str:
    """Say that a beginning of an id fits several runs."""
    shown = ", ".join(f"{row.uid} ({row.name})" for row in rows[:_MANY])
    more = f" and {len(rows) - _MANY} more" if len(rows) > _MANY else ""
    return f"{name!r} fits {len(rows)} runs: {shown}{more}. Write more of the id."


__all__ = ["choose", "find_run", "list_runs", "matches"]
