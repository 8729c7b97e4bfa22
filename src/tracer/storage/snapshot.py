"""One moment of a run: its files and its positions of one transaction, then the journal from those positions on.

A fold that happens meanwhile moves records from the journal into a file this snapshot does not know; the positions
tell, and the reader takes a new snapshot. Nothing is locked.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from tracer import clock, runfile
from tracer.errors import RunNotFound, StoreError
from tracer.storage.folder import is_settled, journal_mark
from tracer.storage.recent import Recent, read_recent
from tracer.storage.tails import Place

if TYPE_CHECKING:
    from tracer.storage.catalog import Catalog

T = TypeVar("T")
A = TypeVar("A")

ATTEMPTS = 20
#: The number of a run that the catalog does not know; no row has it.
NOT_INDEXED = -1
_PAUSE_S = 0.01


class FileGone(StoreError):
    """A file of the snapshot is not there any more: it was compacted or deleted meanwhile."""


@dataclass(frozen=True, slots=True)
class File:
    """One Parquet file of a run, as the catalog knows it; between files the higher order wins."""

    id: int
    family: str
    path: str
    level: int
    first_order: int
    last_order: int
    rows: int
    bytes: int
    crc: int
    first_step: int | None
    last_step: int | None


@dataclass(slots=True)
class Snapshot:
    """What there is to read of a run."""

    run: int
    uid: str
    folder: str
    is_settled: bool
    places: dict[str, Place] = field(default_factory=dict)
    files: list[File] = field(default_factory=list)
    tombstones: list[tuple[int, int, str]] = field(default_factory=list)

    @property
    def journal(self) -> str:
        """Return the journal's folder."""
        return os.path.join(self.folder, "journal")

    def of(self, family: str) -> list[File]:
        """Return the files of a family in the order of their folds."""
        return sorted((file for file in self.files if file.family == family), key=lambda file: file.last_order)

    def recent(self) -> Recent:
        """Return what the journal holds beyond the files."""
        return Recent() if self.is_settled else read_recent(self.journal, self.places)


def places_of(catalog: Catalog, run: int) -> dict[str, Place]:
    """Return how far each writer of a run was folded."""
    rows = catalog.rows(
        'SELECT p.writer, p.segment, p."offset", p.declared '
        "FROM writer w JOIN position p ON p.writer = w.id WHERE w.run = ?",
        (run,),
    )
    return {writer: Place(segment, offset, declared) for writer, segment, offset, declared in rows}


def files_of(catalog: Catalog, base: str, run: int) -> list[File]:
    """Return the files of a run that are alive."""
    rows = catalog.rows(
        "SELECT s.id, s.family, s.path, s.level, s.order0, s.order1, s.rows, s.bytes, s.crc, r.step0, r.step1 "
        "FROM segment_run r JOIN segment s ON s.id = r.segment WHERE r.run = ? AND s.dead IS NULL",
        (run,),
    )
    return [File(row[0], row[1], os.path.join(base, row[2]), *row[3:]) for row in rows]


def consistently(
    catalog: Catalog, base: str, uid: str, ask: Callable[[Catalog, int], A], read: Callable[[Snapshot, A], T]
) -> T:
    """Answer a question of one moment.

    Args:
        catalog: The catalog.
        base: The store's folder.
        uid: The run's id.
        ask: Queries the catalog, in the transaction of the snapshot.
        read: Reads files and journal, with what `ask` found.

    Raises:
        RunNotFound: There is no such run.
        FileGone: A file is missing and no new snapshot helps.
    """
    gone: FileGone | None = None
    pause = threading.Event()
    for _ in range(ATTEMPTS):
        with catalog.snapshot():
            snapshot = take(catalog, base, uid)
            answer = ask(catalog, snapshot.run)
        try:
            found = read(snapshot, answer)
        except FileGone as error:
            gone = error
        else:
            # Bytes are released only after the positions moved: the same positions mean that nothing was missed.
            if snapshot.is_settled or _marks(places_of(catalog, snapshot.run)) == _marks(snapshot.places):
                return found
        clock.wait(pause, _PAUSE_S)
    if gone is not None:
        raise gone
    return found


def nothing(_: Catalog, run: int) -> int:
    """Ask nothing of the catalog."""
    return run


def unsettled(catalog: Catalog, base: str, uid: str | None = None, *, held: bool = False) -> list[str]:
    """Return the ids of runs whose journal or files hold something that the catalog does not know, the oldest first.

    Args:
        catalog: The catalog.
        base: The store's folder.
        uid: Only this run.
        held: Those too whose journal is folded and kept for a lane.
    """
    clause, given = ("AND uid = ?", (uid,)) if uid is not None else ("", ())
    rows = catalog.rows(
        f"SELECT uid, folder, settled, stale FROM run WHERE trashed IS NULL {clause} ORDER BY started, id",  # noqa: S608
        given,
    )
    runs = os.path.join(base, "runs")

    def is_done(settled: int, folder: str) -> bool:
        return journal_mark(folder) == settled if held else is_settled(settled, folder)

    return [one for one, name, settled, stale in rows if stale or not is_done(settled, os.path.join(runs, name))]


def take(catalog: Catalog, base: str, uid: str) -> Snapshot:
    """Return what there is at this moment; inside a transaction."""
    row = catalog.row("SELECT id, folder, settled FROM run WHERE uid = ? AND trashed IS NULL", (uid,))
    if row is None:
        return _unindexed(base, uid)
    run, name, settled = row
    folder = os.path.join(base, "runs", name)
    stones = catalog.rows('SELECT "order", step, pattern FROM tombstone WHERE run = ? ORDER BY "order"', (run,))
    files = files_of(catalog, base, run)
    return Snapshot(run, uid, folder, is_settled(settled, folder), places_of(catalog, run), files, stones)


def _unindexed(base: str, uid: str) -> Snapshot:
    """Return a run whose folder is there and which nobody could write into the catalog yet."""
    folder = os.path.join(base, "runs", runfile.folder_name(uid)) if uid else base
    try:
        is_there = runfile.read(folder).get("id") == uid
    except (OSError, ValueError):
        is_there = False
    if not is_there:
        message = f"There is no run with the id {uid!r} in {base}. `tracer list` shows those there are."
        raise RunNotFound(message)
    return Snapshot(NOT_INDEXED, uid, folder, is_settled=False)


def _marks(places: dict[str, Place]) -> dict[str, tuple[int, int]]:
    """Return the positions alone."""
    return {writer: (place.segment, place.offset) for writer, place in places.items()}


__all__ = [
    "ATTEMPTS",
    "File",
    "FileGone",
    "Snapshot",
    "consistently",
    "files_of",
    "nothing",
    "places_of",
    "take",
    "unsettled",
]
