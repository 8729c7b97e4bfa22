"""Deleting and keeping: the trash, what frees space and when, and what is too old to keep.

A path is either alive (`runs/`) or trash (`trash/`); the rename between them is the moment that counts. Every step
leaves a state from which `settle` goes on:

    delete    marker written → catalog says trashed → folder renamed into the trash
    restore   marker removed → folder renamed back → catalog says alive
    purge     folder renamed to `.gone-…` → rows deleted → folder removed → catalog shrunk

The functions that change something take the catalog for writing, so whoever calls them holds the maintainer's lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tracer import clock
from tracer.errors import StoreError
from tracer.storage.artifact_contents import sweep_pool
from tracer.storage.artifact_copies import sweep_checkouts
from tracer.storage.folder import owned_bytes, size_bytes, sync_folder, write_json
from tracer.storage.values import Expired

if TYPE_CHECKING:
    from tracer.storage.catalog import Catalog
    from tracer.storage.listing import Condition
    from tracer.storage.values import RunRow


class Shelf(Protocol):
    """What keeping and throwing away asks of a store."""

    path: Path

    def runs(self, *, sort: str = "-started", where: Sequence[Condition] | None = None) -> list[RunRow]:
        """Return runs."""

    def delete(self, uid: str) -> int:
        """Move a run to the trash."""

    def trash(self) -> list[RunRow]:
        """Return what is in the trash."""

    def empty_trash(self) -> int:
        """Free what has been there long enough."""


#: How long a deleted run can be restored.
TRASH_DAYS = 7
#: What `tracer gc` looks for when nobody said how old; nothing of that age is deleted by itself.
DEFAULT_DAYS = 30
#: Tags that keep a run for ever.
KEPT_TAGS = frozenset({"keep", "pinned"})

_DAY = 86_400_000_000
_MARKER = "trashed.json"
_GONE = ".gone-"
_KINDS = (
    "journal",
    "points",
    "rollup",
    "layers",
    "histograms",
    "spans",
    "logs",
    "samples",
    "artifacts",
    "capsules",
    "code",
)

Progress = Callable[[int, int], None]


def to_trash(catalog: Catalog, base: str, folder: str) -> None:
    """Move a run to the trash: it is no longer listed, and `from_trash` brings it back.

    Args:
        catalog: The catalog, open for writing.
        base: The folder of the store.
        folder: The name of the run's folder.
    """
    alive, trash = _paths(base, folder)
    now = clock.now_us()
    if os.path.isdir(alive):
        links = list(_sample_links(base, folder, alive))
        write_json(os.path.join(alive, _MARKER), {"trashed": now, "links": links})
    with catalog.transaction():
        catalog.execute(
            "UPDATE run SET trashed = coalesce(trashed, ?), updated = ?, revision = revision + 1 WHERE folder = ?",
            (now, now, folder),
        )
    _into_trash(base, alive, trash)


def from_trash(catalog: Catalog, base: str, folder: str) -> None:
    """Bring a run back from the trash.

    Args:
        catalog: The catalog, open for writing.
        base: The folder of the store.
        folder: The name of the run's folder.

    Raises:
        StoreError: It is not in the trash, or another run has its folder.
    """
    alive, trash = _paths(base, folder)
    if not os.path.isdir(trash):
        message = f"{trash} is not there, so the run cannot be restored. `tracer gc` lists what the trash holds."
        raise StoreError(message)
    if os.path.exists(alive):
        message = f"{alive} exists already: another run has taken that folder. Move it away, then restore again."
        raise StoreError(message)
    links = _marker(trash).get("links")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(trash, _MARKER))
    os.rename(trash, alive)
    sync_folder(os.path.dirname(alive))
    sync_folder(os.path.dirname(trash))
    _link_again(base, alive, links if isinstance(links, list) else [])
    with catalog.transaction():
        catalog.execute(
            "UPDATE run SET trashed = NULL, updated = ?, revision = revision + 1 WHERE folder = ?",
            (clock.now_us(), folder),
        )


def purge(catalog: Catalog, base: str, folder: str) -> int:
    """Remove a trashed run for good and give its space back.

    Args:
        catalog: The catalog, open for writing.
        base: The folder of the store.
        folder: The name of the run's folder.

    Returns:
        The bytes that became free.
    """
    _, trash = _paths(base, folder)
    gone = os.path.join(base, "trash", _GONE + folder)
    if os.path.isdir(trash):
        if os.path.isdir(gone):
            shutil.rmtree(gone)
        os.rename(trash, gone)  # from here on there is nothing to restore
        sync_folder(os.path.dirname(trash))
    return _finish_purge(catalog, gone, folder)


def settle(catalog: Catalog, base: str) -> None:
    """Finish what an interrupted deletion, restoration or purge left half done."""
    for (folder,) in catalog.rows("SELECT folder FROM run WHERE trashed IS NOT NULL"):
        alive, trash = _paths(base, folder)
        if os.path.isdir(alive) and not os.path.isdir(trash):
            if os.path.exists(os.path.join(alive, _MARKER)):
                _into_trash(base, alive, trash)
            else:  # a restoration that did not reach the catalog
                with catalog.transaction():
                    catalog.execute("UPDATE run SET trashed = NULL WHERE folder = ?", (folder,))
    for (folder,) in catalog.rows("SELECT folder FROM run WHERE trashed IS NULL"):
        alive, trash = _paths(base, folder)
        if os.path.exists(os.path.join(alive, _MARKER)) or (os.path.isdir(trash) and not os.path.isdir(alive)):
            to_trash(catalog, base, folder)
    for name in _names(os.path.join(base, "trash")):
        if name.startswith(_GONE):
            _finish_purge(catalog, os.path.join(base, "trash", name), name.removeprefix(_GONE))


def empty_trash(catalog: Catalog, base: str, *, days: float = TRASH_DAYS) -> int:
    """Remove for good what has been in the trash long enough.

    Args:
        catalog: The catalog, open for writing.
        base: The folder of the store.
        days: How long that is.

    Returns:
        The bytes that became free.
    """
    settle(catalog, base)
    before = clock.now_us() - round(days * _DAY)
    freed = 0
    known: dict[str, int] = dict(catalog.rows("SELECT folder, trashed FROM run WHERE trashed IS NOT NULL"))
    for name in _names(os.path.join(base, "trash")):
        since = known.get(name, trashed_at(os.path.join(base, "trash", name)))
        if since <= before:
            freed += purge(catalog, base, name)
    return freed


def trashed_at(path: str) -> int:
    """Return when a folder in the trash was put there, in microseconds since 1970."""
    found = _marker(path).get("trashed")
    return found if isinstance(found, int) else os.stat(path).st_ctime_ns // 1_000


def refuse_live(row: RunRow, *, force: bool) -> None:
    """Refuse to delete a run that is being recorded.

    Raises:
        StoreError: It is, and nobody insisted.
    """
    if row.is_live and not force:
        message = (
            f"Run {row.name!r} is still recording on {row.host or 'this machine'}. Finish it first, or insist with "
            "force=True (`tracer delete --force`): what it records from then on is lost."
        )
        raise StoreError(message)


def reason_to_expire(row: RunRow, *, now: int, older_than_days: float | None, parents: Iterable[str] = ()) -> str:
    """Say why a run's time is up, or return nothing.

    Args:
        row: The run.
        now: The time, in microseconds since 1970.
        older_than_days: The age that is too old; without it 30 days, for runs that nobody gave a retention.
        parents: The ids of runs that another was forked from.

    Returns:
        A sentence, or an empty text.
    """
    if row.is_live or row.trashed is not None or KEPT_TAGS & set(row.tags) or row.uid in set(parents):
        return ""
    if row.settings.get("retention_days") == 0:
        return ""
    age = (now - (row.ended or row.heartbeat or row.started)) / _DAY
    if row.expires is not None and row.expires <= now:
        return f"its retention_days={row.settings.get('retention_days')} are over"
    if older_than_days is None and row.expires is not None:
        return ""  # it was given a retention, and that is not over
    days = DEFAULT_DAYS if older_than_days is None else older_than_days
    return f"it is {age:.0f} days old, more than {days:g}" if age > days else ""


def expire(
    store: Shelf, *, apply: bool = False, older_than_days: float | None = None, progress: Progress | None = None
) -> list[Expired]:
    """List the runs whose time is up; with `apply` move them to the trash, and empty it of what is there long enough.

    Args:
        store: The store.
        apply: Move them to the trash; otherwise nothing changes.
        older_than_days: The age that is too old; 30 days when absent, for runs that nobody gave a retention.
        progress: Called with how many runs are done and how many there are.

    Returns:
        The runs, the oldest first, each with its reason and the bytes it takes.

    Example:
        >>> [found.run.name for found in expire(store, older_than_days=90)]  # doctest: +SKIP
        ['first-try']
    """
    now = clock.now_us()
    rows = store.runs(sort="started")
    parents = {str(parent) for row in rows if (parent := row.environment.get("parent"))}
    due = [
        (row, why)
        for row in rows
        if (why := reason_to_expire(row, now=now, older_than_days=older_than_days, parents=parents))
    ]
    found: list[Expired] = []
    for done, (row, why) in enumerate(due, start=1):
        size = size_bytes(os.path.join(store.path, "runs", row.folder))
        if apply:
            store.delete(row.uid)
        found.append(Expired(row, why, size, apply))
        if progress is not None:
            progress(done, len(due))
    if apply:
        store.empty_trash()
    return found


def keep_promises(store: Shelf) -> int:
    """Do what was promised without being asked: trash runs whose own retention is over, empty the trash in time.

    Args:
        store: The store.

    Returns:
        How many runs went to the trash.

    Example:
        >>> keep_promises(store)  # doctest: +SKIP
        0
    """
    now = clock.now_us()
    due = [
        row
        for row in store.runs(where=[("expires", "<=", now)])
        if reason_to_expire(row, now=now, older_than_days=float("inf"))
    ]
    for row in due:
        store.delete(row.uid)
    if any((row.trashed or now) <= now - TRASH_DAYS * _DAY for row in store.trash()):
        store.empty_trash()
    return len(due)


def sizes(base: str | os.PathLike[str]) -> dict[str, int]:
    """Return what the store takes on the disk, by kind.

    Args:
        base: The folder of the store.

    Returns:
        Bytes of `journal`, `points`, `rollup`, `layers`, `histograms`, `spans`, `logs`, `samples`, `artifacts`,
        `capsules`, `catalog`, `trash` and `other`; what two kinds share is counted once.

    Example:
        >>> sizes(".tracer")["points"]  # doctest: +SKIP
        4096000
    """
    base = os.fspath(base)
    found = dict.fromkeys((*_KINDS, "catalog", "trash", "other"), 0)
    seen: set[tuple[int, int]] = set()
    for place, _, names in os.walk(base):
        kind = _kind(os.path.relpath(place, base).split(os.sep))
        for name in names:
            with contextlib.suppress(OSError):
                state = os.lstat(os.path.join(place, name))
                if (state.st_dev, state.st_ino) not in seen:
                    seen.add((state.st_dev, state.st_ino))
                    part = "catalog" if kind == "other" and name.startswith("tracer.db") else kind
                    found[part] += state.st_blocks * 512
    return found


def sample_link(folder: str, file: str) -> str:
    """Return the name under which a samples file is linked in `.tracer/samples/`.

    Args:
        folder: The name of the run's folder.
        file: The name of the samples file: `<step>-<rank>.parquet`.

    Returns:
        A file name.

    Example:
        >>> sample_link("abc", "100-0.parquet")
        'abc_step_100.parquet'
    """
    step, _, rank = file.removesuffix(".parquet").rpartition("-")
    return f"{folder}_step_{step}.parquet" if rank == "0" else f"{folder}_step_{step}_rank_{rank}.parquet"


def _paths(base: str, folder: str) -> tuple[str, str]:
    """Return where a run lies while it is alive, and where once it is trash."""
    return os.path.join(base, "runs", folder), os.path.join(base, "trash", folder)


def _into_trash(base: str, alive: str, trash: str) -> None:
    """Rename a run's folder into the trash, and take its samples out of the common folder."""
    links = _marker(alive).get("links")
    for link in links if isinstance(links, list) else ():
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(base, "samples", os.path.basename(str(link))))
    if not os.path.isdir(alive):
        return
    os.makedirs(os.path.dirname(trash), exist_ok=True)
    if os.path.isdir(trash):  # an older run of that folder, which no catalog knows any more
        os.rename(trash, f"{trash}.{trashed_at(trash)}")
    os.rename(alive, trash)
    sync_folder(os.path.dirname(alive))
    sync_folder(os.path.dirname(trash))


def _finish_purge(catalog: Catalog, gone: str, folder: str) -> int:
    """Delete the rows of a run that cannot be restored any more, then its files; return the bytes freed."""
    with catalog.transaction():
        catalog.execute("DELETE FROM run WHERE folder = ? AND trashed IS NOT NULL", (folder,))
    freed = 0
    if os.path.isdir(gone):
        freed = owned_bytes(gone)
        base = os.path.dirname(os.path.dirname(gone))
        sweep_pool(base, gone)
        shutil.rmtree(gone)
        sweep_checkouts(base)
        sync_folder(os.path.dirname(gone))
    _shrink(catalog)
    return freed


def _sample_links(base: str, folder: str, alive: str) -> Iterator[str]:
    """Yield the names in `.tracer/samples/` that belong to a run."""
    for file in _names(os.path.join(alive, "samples")):
        link = sample_link(folder, file)
        with contextlib.suppress(OSError):
            if os.path.samefile(os.path.join(base, "samples", link), os.path.join(alive, "samples", file)):
                yield link


def _link_again(base: str, alive: str, links: list[object]) -> None:
    """Put a restored run's samples back where the documents' programs look."""
    folder = os.path.basename(alive)
    wanted = {sample_link(folder, file): file for file in _names(os.path.join(alive, "samples"))}
    for link in links:
        file = wanted.get(str(link))
        if file is not None:
            with contextlib.suppress(OSError):
                os.makedirs(os.path.join(base, "samples"), exist_ok=True)
                os.link(os.path.join(alive, "samples", file), os.path.join(base, "samples", str(link)))


def _marker(path: str) -> dict[str, object]:
    """Return what a trashed folder says of its deletion."""
    try:
        with open(os.path.join(path, _MARKER), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _names(path: str) -> list[str]:
    """Return the names in a folder, sorted; none where there is no folder."""
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _kind(parts: list[str]) -> str:
    """Return the kind of what lies in a folder of the store."""
    if parts[0] == "trash":
        return "trash"
    if parts[0] == "samples":
        return "samples"
    inside = parts[2] if parts[0] == "runs" and len(parts) > 2 else ""  # noqa: PLR2004 -- runs/<folder>/<kind>
    return inside if inside in _KINDS else "other"


def _shrink(catalog: Catalog) -> None:
    """Give the pages of deleted rows back to the file system."""
    catalog.rows("PRAGMA incremental_vacuum")
    catalog.rows("PRAGMA wal_checkpoint(TRUNCATE)")


__all__ = [
    "DEFAULT_DAYS",
    "KEPT_TAGS",
    "TRASH_DAYS",
    "empty_trash",
    "expire",
    "from_trash",
    "keep_promises",
    "purge",
    "reason_to_expire",
    "refuse_live",
    "sample_link",
    "settle",
    "sizes",
    "to_trash",
    "trashed_at",
]
