"""Run folders → rows of the catalog: what is new, what changed, what is gone.

`run.json` is replaced by renaming, which changes the modification time of the run's folder; so one look at the list
of folders tells which files must be read again, without walking inside.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tracer import clock, events, runfile
from tracer.errors import StoreError
from tracer.storage import folder as folders
from tracer.storage.names import clean_text

if TYPE_CHECKING:
    from tracer.storage.catalog import Catalog

#: A folder changed within this time may change again within the same tick of the file system's clock.
_RACY_NS = 50_000_000
#: What `run.json` says and has a column of its own; everything else goes to the column `facts`.
_OWN_COLUMNS = frozenset((
    "id", "project", "name", "status", "reason", "started", "ended", "steps", "checkpoints", "group", "job_type",
    "notes", "attempt", "config", "environment", "host", "user", "world_size", "cost", "tags", "expires",
))  # fmt: skip
#: Keys of a configuration that do not make two runs different experiments.
_RANDOMNESS = frozenset({"seed", "random_seed", "rng_seed", "run_seed"})
_COLUMNS = [
    "uid", "folder", "project", "name", "status", "reason", "started", "ended", "steps", "checkpoints", "group",
    "job_type", "notes", "parent", "fork_step", "attempt", "config", "config_hash", "sibling_hash", "environment",
    "git_commit", "git_dirty", "host", "user", "world_size", "cost", "expires", "facts", "late", "seen", "revision",
    "created", "updated",
]  # fmt: skip

_COUNTS = ("steps", "checkpoints")
_UPDATES = [f'"{c}" = excluded."{c}"' for c in _COLUMNS if c not in ("uid", "created", "revision", *_COUNTS)]
#: A run that lives counts in its journal and says 0 in run.json.
_UPDATES += [f"{c} = CASE WHEN excluded.{c} > 0 THEN excluded.{c} ELSE {c} END" for c in _COUNTS]
_NAMES = ", ".join(f'"{c}"' for c in _COLUMNS)
_UPSERT = (
    f"INSERT INTO run({_NAMES}) VALUES ({', '.join('?' * len(_COLUMNS))}) "  # noqa: S608 -- our own names
    f"ON CONFLICT(uid) DO UPDATE SET {', '.join(_UPDATES)}, revision = revision + 1"
)

Columns = dict[str, Any]
logger = logging.getLogger("tracer")


def list_runs(store: str) -> dict[str, int]:
    """Return the run folders of a store with the time their names changed last."""
    found: dict[str, int] = {}
    try:
        with os.scandir(os.path.join(store, "runs")) as entries:
            for entry in entries:
                if entry.name[0] != ".":
                    try:
                        found[entry.name] = entry.stat().st_mtime_ns
                    except OSError:
                        continue
    except FileNotFoundError:
        return {}
    return found


def changed(catalog: Catalog, store: str) -> tuple[dict[str, int], list[str]]:
    """Compare the folders with the catalog.

    Returns:
        The folders that are new or changed, and the names of those in the catalog that are gone.
    """
    there = list_runs(store)
    known: dict[str, int] = dict(catalog.rows("SELECT folder, seen FROM run WHERE trashed IS NULL"))
    fresh = {name: time for name, time in there.items() if known.get(name) != time}
    if len(known) + len(fresh) == len(there) and not fresh:
        return {}, []
    return fresh, [name for name in known if name not in there]


def index(catalog: Catalog, store: str, names: Mapping[str, int] | list[str]) -> list[str]:
    """Read `run.json` of these folders into the catalog, one transaction.

    Args:
        catalog: The catalog, open for writing.
        store: The store's folder.
        names: Names of run folders.

    Returns:
        What could not be read, in words; one bad folder never keeps the others out.
    """
    problems: list[str] = []
    with catalog.transaction():
        for name in names:
            path = os.path.join(store, "runs", name)
            try:
                _index_one(catalog, path, name)
            except (StoreError, sqlite3.IntegrityError) as error:
                # A folder in the making has no run.json yet; that is no problem of the store's.
                if os.path.exists(os.path.join(path, runfile.NAME)):
                    problems.append(str(error))
    for problem in problems:
        logger.debug("%s", problem)
    return problems


def index_trashed(catalog: Catalog, path: str, name: str, trashed: int) -> list[str]:
    """Read the folder of a run in the trash into the catalog; return what could not be read."""
    try:
        _index_one(catalog, path, name)
    except (StoreError, sqlite3.IntegrityError) as error:
        return [str(error)]
    catalog.execute("UPDATE run SET trashed = ? WHERE folder = ?", (trashed, name))
    return []


def forget(catalog: Catalog, names: list[str]) -> None:
    """Drop the rows of folders that were removed or moved away."""
    with catalog.transaction():
        catalog.executemany("DELETE FROM run WHERE folder = ? AND trashed IS NULL", [(name,) for name in names])


def columns_of(facts: Mapping[str, Any], name: str) -> Columns:
    """Return the columns of a run as `run.json` gives them; wrong types become what their column can hold."""
    config, environment, git = (_object(facts.get(key)) for key in ("config", "environment", "git"))
    rest = {key: value for key, value in facts.items() if key not in _OWN_COLUMNS}
    status = facts.get("status")
    return {
        "uid": clean_text(str(facts["id"])),
        "folder": name,
        "project": _text(facts.get("project")) or "default",
        "name": _text(facts.get("name")) or clean_text(str(facts["id"])),
        "status": status if status in events.STATUSES else events.RUNNING,
        "reason": _text(facts.get("reason")),
        "started": _whole(facts.get("started")) or 0,
        "ended": _whole(facts.get("ended")),
        "steps": _whole(facts.get("steps")) or 0,
        "checkpoints": _whole(facts.get("checkpoints")) or 0,
        "group": _text(facts.get("group")),
        "job_type": _text(facts.get("job_type")),
        "notes": _text(facts.get("notes")),
        "parent": _text(facts.get("parent")),
        "fork_step": _whole(facts.get("fork_step")),
        "attempt": _whole(facts.get("attempt")) or 1,
        "config": _json(config),
        "config_hash": _digest(config),
        "sibling_hash": _digest({key: value for key, value in config.items() if key not in _RANDOMNESS}),
        "environment": _json(environment),
        "git_commit": _text(git.get("commit")),
        "git_dirty": None if git.get("dirty") is None else int(bool(git["dirty"])),
        "host": _text(facts.get("host")),
        "user": _text(facts.get("user")),
        "world_size": _whole(facts.get("world_size")) or 1,
        "cost": _json(_object(facts.get("cost"))),
        "expires": _whole(facts.get("expires")),
        "facts": _json(rest),
    }


def tags_of(facts: Mapping[str, Any]) -> list[str]:
    """Return a run's tags, each once."""
    tags = facts.get("tags")
    return list(dict.fromkeys(clean_text(str(tag)) for tag in tags)) if isinstance(tags, (list, tuple)) else []


def flatten(config: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float | None, str | None]]:
    """Yield a configuration with dots in its keys, each value as a number or a text."""
    for key, value in config.items():
        name = clean_text(f"{before}{key}")
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{name}.")
        elif isinstance(value, bool):
            yield name, float(value), str(value).lower()
        elif isinstance(value, (int, float)):
            number = float(value) if abs(value) < 1e308 else None  # noqa: PLR2004 -- what a double still holds
            yield name, number, str(value)
        else:
            yield name, None, clean_text(value) if isinstance(value, str) else _json(value)


def apply_late(facts: dict[str, Any], late: list[list[Any]], written_us: int) -> dict[str, Any]:
    """Apply changes that came by the journal to what `run.json` says.

    Args:
        facts: What `run.json` says; changed in place.
        late: `[time, is_command, changes]`, oldest first.
        written_us: When `run.json` was written: what its own process recorded before is in it already.
    """
    for time, is_command, changes in late:
        if is_command or time > written_us:
            runfile.merge(facts, changes)
    return facts


def _index_one(catalog: Catalog, path: str, name: str) -> None:
    """Read one folder into the catalog."""
    seen = folders.modified_ns(path)
    facts = folders.read_facts(path)
    uid = clean_text(str(facts["id"]))
    known = catalog.row("SELECT folder, late, created, trashed FROM run WHERE uid = ?", (uid,))
    if known is not None and known[0] != name:
        other = os.path.join(os.path.dirname(path), known[0])
        if known[3] is not None or os.path.isdir(other):
            message = f"{path} and {other} both hold run {uid!r}. Give one of them another id in its run.json."
            raise StoreError(message)
        catalog.execute("DELETE FROM run WHERE uid = ?", (uid,))  # the folder was renamed
        known = None
    if known is None:
        catalog.execute("DELETE FROM run WHERE folder = ? AND trashed IS NULL", (name,))
    late: list[list[Any]] = json.loads(known[1]) if known else []
    apply_late(facts, late, folders.modified_ns(os.path.join(path, runfile.NAME)) // 1_000)
    now = clock.now_us()
    columns = columns_of(facts, name)
    columns |= {
        "project": _project(catalog, columns["project"], now),
        "late": known[1] if known else "[]",
        "seen": seen if clock.now_ns() - seen > _RACY_NS else 0,
        "revision": 1,
        "created": now,
        "updated": now,
    }
    catalog.execute(_UPSERT, [columns[column] for column in _COLUMNS])
    run = catalog.value("SELECT id FROM run WHERE uid = ?", (uid,))
    _index_parts(catalog, run, facts)
    if known is None and _has_files(path):
        catalog.execute("UPDATE run SET stale = 1 WHERE id = ?", (run,))


def _index_parts(catalog: Catalog, run: int, facts: Mapping[str, Any]) -> None:
    """Replace the parameters and tags of a run."""
    params = {key: (run, key, number, text) for key, number, text in flatten(_object(facts.get("config")))}
    catalog.execute("DELETE FROM param WHERE run = ?", (run,))
    catalog.executemany("INSERT INTO param(run, key, num, text) VALUES (?, ?, ?, ?)", params.values())
    catalog.execute("DELETE FROM tag WHERE run = ?", (run,))
    catalog.executemany("INSERT INTO tag(run, tag) VALUES (?, ?)", [(run, tag) for tag in tags_of(facts)])


def _project(catalog: Catalog, name: str, now: int) -> int:
    """Return the id of a project, made where it is new."""
    catalog.execute("INSERT OR IGNORE INTO project(name, created) VALUES (?, ?)", (name, now))
    return int(catalog.value("SELECT id FROM project WHERE name = ?", (name,)))


def _has_files(path: str) -> bool:
    """Tell whether a run folder holds Parquet files."""
    for family in folders.FAMILIES:
        try:
            if any(name.endswith(".parquet") for name in os.listdir(os.path.join(path, family))):
                return True
        except OSError:
            continue
    return False


def _object(value: object) -> dict[str, Any]:
    """Return a JSON object, empty where something else stands."""
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    """Return text that the catalog takes."""
    return None if value is None else clean_text(str(value))


def _whole(value: object) -> int | None:
    """Return a whole number of 64 bits; a float is rounded."""
    if isinstance(value, float) and abs(value) < 2**63:  # not for NaN
        value = round(value)
    return max(-(2**63), min(value, 2**63 - 1)) if isinstance(value, int) else None


def _json(value: object) -> str:
    """Return JSON text; NaN as Python writes it."""
    return json.dumps(value, separators=(",", ":"))


def _digest(config: Mapping[str, Any]) -> str:
    """Return what equal configurations have in common."""
    return hashlib.blake2b(json.dumps(config, sort_keys=True).encode(), digest_size=12).hexdigest()


__all__ = [
    "Columns",
    "apply_late",
    "changed",
    "columns_of",
    "flatten",
    "forget",
    "index",
    "index_trashed",
    "list_runs",
    "tags_of",
]
