"""Fold: journal → Parquet and catalog, exactly once.

    1  decode what lies beyond the positions, up to a bounded number of points
    2  write one file per family under hidden names
    3  sync, rename, sync the folder, file by file; each footer says which part of the journal the fold holds
    4  one transaction: files, positions, summaries, overviews, checkpoints, findings
    5  only then release journal segments

A death between 3 and 4 leaves files that no catalog knows: they are adopted if all of the fold's files are there and
begin exactly at the positions (`adoption.py`), else removed. So whatever the next maintainer finds, nothing is lost
and nothing doubled.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer import clock, journal, runfile
from tracer.errors import JournalCorrupt, SchemaTooNew, StoreError
from tracer.storage import (
    adoption,
    conclusion,
    held,
    layer_parts,
    layer_points,
    liveness,
    ownership,
    register,
    segments,
    tails,
)
from tracer.storage import folder as folders
from tracer.storage.axes import settle_axes
from tracer.storage.columns import Columns, Decoder
from tracer.storage.histogram_rows import rows_of
from tracer.storage.maintainer import Busy
from tracer.storage.points import arrange, summarise
from tracer.storage.segments import Consumed, Footer, Written
from tracer.storage.snapshot import places_of, unsettled
from tracer.storage.tails import Lost, Place

if TYPE_CHECKING:
    from tracer.storage.catalog import Catalog
    from tracer.storage.ground import Ground, Progress

#: What one batch weighs, see `Columns.weight`: about 150 MB of points or 250 MB of layer values while it is written.
BATCH_POINTS = 2_000_000
_OF_LAYERS = frozenset({"layers", "histograms"})
_FRESH_NS = 60_000_000_000
_SETTLE_S = 0.02
_SETTLE_NS = 20_000_000

logger = logging.getLogger("tracer")


@dataclass(slots=True)
class Batch:
    """What one fold takes from the journal."""

    columns: Columns = field(default_factory=Columns)
    places: dict[str, Place] = field(default_factory=dict)
    consumed: Consumed = field(default_factory=dict)
    headers: dict[str, journal.Header] = field(default_factory=dict)
    #: Writer, number and path of segments that are folded to their end.
    done: list[tuple[str, int, str]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    is_last: bool = True

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing to commit."""
        return not self.places


def fold_store(store: Ground, uid: str | None, progress: Progress | None = None) -> int:
    """Fold one run, or all that have something to fold; see `Store.fold`."""
    store.refresh()
    rows = unsettled(store.catalog, store.base, uid, held=True)
    points = 0
    for done, one in enumerate(rows, start=1):
        points += fold_run(store, one)
        if progress is not None:
            progress(done, len(rows))
    settle(store, rows)
    if points:
        checkpoint_log(store)
    return points


def try_fold(store: Ground, uid: str, *, wait_s: float = 0.0) -> bool:
    """Fold a run unless somebody else maintains the store; tell whether it was done."""
    try:
        with store.writing(wait_s=wait_s):
            fold_run(store, uid)
            settle(store, [uid])
    except Busy:
        return False
    except StoreError as error:
        logger.debug("Run %s cannot be folded now: %s", uid, error)
        return False
    return True


def maintain(store: Ground, seconds: float) -> int:
    """Do what is waiting for a maintainer, if nobody else is one; see `Store.maintain`."""
    from tracer.storage import retention
    from tracer.storage.compact import compact_run, sweep

    until = clock.monotonic() + seconds
    points = 0
    try:
        with store.writing(wait_s=0.0) as catalog:
            store.refresh()
            retention.settle(catalog, store.base)
            folded: list[str] = []
            for uid in unsettled(store.catalog, store.base, held=True):
                if clock.monotonic() >= until:
                    break
                points += fold_run(store, uid)
                folded.append(uid)
            settle(store, folded)
            for uid in folded:
                if clock.monotonic() >= until:
                    break
                compact_run(store, catalog, uid)
            sweep(store, catalog)
            if points:
                checkpoint_log(store)
    except Busy:
        return points
    except StoreError as error:
        logger.debug("The store %s cannot be maintained now: %s", store.base, error)
    return points


def fold_run(store: Ground, uid: str, *, until: float | None = None) -> int:
    """Fold what a run's journal holds, batch by batch, and say how the run ended if it did.

    Args:
        store: The store.
        uid: The run.
        until: No new batch is begun after this monotonic time.

    Returns:
        How many points were folded.
    """
    points = 0
    with store.writing() as catalog:
        row = catalog.row("SELECT id, folder, stale FROM run WHERE uid = ? AND trashed IS NULL", (uid,))
        if row is None or not os.path.isdir(os.path.join(store.base, "runs", row[1])):
            return 0
        run, name, stale = row
        if not _is_ours(os.path.join(store.base, "runs", name)):
            return 0
        if stale or adoption.needs_registering(catalog, store.base, run, name):
            adoption.register_run(catalog, store.base, uid)
        else:
            adoption.adopt(catalog, store.base, uid)
        while True:
            batch = gather(os.path.join(store.base, "runs", name), places_of(catalog, run))
            if not batch.is_empty:
                points += _fold_batch(catalog, store.base, run, uid, name, batch)
            held.release(os.path.join(store.base, "runs", name), batch.done)
            if batch.is_last or (until is not None and clock.monotonic() >= until):
                break
        if catalog.row("SELECT 1 FROM tombstone WHERE run = ?", (run,)):
            from tracer.storage.compact import compact_run

            compact_run(store, catalog, uid, must=True)
        conclusion.conclude(catalog, store.base, uid, is_complete=batch.is_last)
    return points


def settle(store: Ground, uids: list[str]) -> None:
    """Note for which runs nothing unread is left in the journal, so that readers need not look again.

    Of a run whose segments are kept for a lane the mark is negative: readers need not look, the next fold does.

    The file system's clock ticks every few milliseconds: a file that appears in the tick in which the folder changed
    last would go unnoticed, so a folder that changed just now is given that time once, for all runs together.
    """
    if not uids:
        return
    marks: list[tuple[int, str]] = []
    waited = False
    for uid in uids:
        row = store.catalog.row("SELECT folder, settled, stale, id FROM run WHERE uid = ? AND trashed IS NULL", (uid,))
        if row is None or row[2]:
            continue
        folder = os.path.join(store.base, "runs", row[0])
        known = places_of(store.catalog, row[3])
        mark = folders.journal_mark(folder)
        is_held = bool(tails.list_segments(os.path.join(folder, "journal")))
        if row[1] == (-mark if is_held else mark) or held.unread(folder, known):
            continue
        if not waited and clock.now_ns() - mark < _SETTLE_NS:
            import threading

            clock.wait(threading.Event(), _SETTLE_S)
            waited = True
        if clock.now_ns() - mark < _SETTLE_NS or held.unread(folder, known):
            continue
        if folders.journal_mark(folder) == mark:
            marks.append((-mark if is_held else mark, uid))
    if marks:
        with store.writing() as catalog, catalog.transaction():
            catalog.executemany("UPDATE run SET settled = ? WHERE uid = ?", marks)


def checkpoint_log(store: Ground) -> None:
    """Move the catalog's write-ahead log into its file, unless a reader is in the way."""
    with store.writing() as catalog:
        if not catalog.path:
            return
        catalog.rows("PRAGMA busy_timeout=0")
        catalog.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        catalog.rows("PRAGMA busy_timeout=5000")


def gather(folder: str, known: dict[str, Place], limit: int = BATCH_POINTS) -> Batch:
    """Decode what a journal holds beyond the known places, up to a number of points."""
    batch = Batch()
    decoder = Decoder(layer_values=limit)
    batch.columns = decoder.columns
    where = os.path.join(folder, "journal")
    for writer, found in sorted(tails.list_segments(where).items(), key=lambda item: _opened(item[1])):
        place = known.get(writer, Place(-1, 0))
        if not _gather_writer(batch, decoder, where, writer, found, place, limit):
            batch.is_last = False
            break
    return batch


def release_held(store: Ground, uid: str) -> int:
    """Give back what was kept for lanes and is not needed any more; return how many segments; see `Store.release`."""
    with store.writing() as catalog:
        row = catalog.row("SELECT id, folder FROM run WHERE uid = ? AND trashed IS NULL", (uid,))
        if row is None:
            return 0
        run, name = row
        folder = os.path.join(store.base, "runs", name)
        released = held.release(folder, held.folded(folder, places_of(catalog, run)))
        settle(store, [uid])
        return len(released)


def _gather_writer(  # noqa: C901 -- one decision per state a segment can be found in
    batch: Batch, decoder: Decoder, where: str, writer: str, found: list[tuple[int, str]], place: Place, limit: int
) -> bool:
    """Decode one writer's segments; tell whether the batch has room for more."""
    blocks = tails.sealed_blocks(where, writer)
    boot = clock.boot_id()
    for at, (number, path) in enumerate(found):
        if number < place.segment:  # owed to a lane, or its maintainer died before it could release it
            if liveness.is_finished(path):
                batch.done.append((writer, number, path))
            continue
        if number > max(place.segment, 0) and liveness.may_follow_late(path):
            return True
        # Both before the end is read: what is finished, or left behind, gets no more records.
        finished = liveness.is_finished(path)
        left = not finished and at + 1 < len(found) and tails.has_records(found[at + 1][1])
        start = place.offset if number == place.segment else 0
        try:
            tail = tails.load(path, Place(number, start, place.declared if start else b""), blocks, boot, whole=True)
        except FileNotFoundError:
            continue
        except SchemaTooNew as error:
            logger.warning("%s", error)
            return True
        except JournalCorrupt:
            if not finished or _is_fresh(path):
                return True
            batch.unreadable.append(path)
            batch.places[writer] = place = Place(number + 1, 0)
            continue
        decoder.add(tail)
        batch.headers[writer] = tail.header
        over = (finished or left) and not decoder.is_stopped
        end = Place(number + 1, 0) if over else Place(number, tail.end, tails.pack_offsets(tail.declared))
        if over or tail.end > tail.start:
            batch.places[writer] = place = end
            batch.consumed.setdefault(writer, [[number, start], [number, start]])[1] = [end.segment, end.offset]
        if over and finished:
            batch.done.append((writer, number, path))
        if decoder.is_stopped or decoder.columns.weight >= limit:
            return False
        if not over:
            return True
    return True


def _fold_batch(catalog: Catalog, base: str, run: int, uid: str, name: str, batch: Batch) -> int:
    """Write, commit and release one batch."""
    folder = os.path.join(base, "runs", name)
    columns = batch.columns
    order = register.next_order(catalog, name)
    points = arrange(columns)
    summaries = summarise(points)
    overviews = register.new_overviews(catalog, run, points)
    axes = settle_axes([*columns.layers, *columns.histograms])
    parts = layer_points.arrange(columns.layers)
    columns.layers = []  # the parts have the values, and those of a batch take much memory
    histograms = rows_of(columns.histograms)
    lost = _set_aside(folder, batch)
    footer = Footer(uid, "", 0, (order, order), batch.consumed, axes=axes)
    logs = sorted(columns.logs, key=lambda row: row.time)
    contents = {"logs": logs, "layers": parts, "histograms": histograms, "points": points}
    files = write_files(folder, footer, contents)
    with catalog.transaction():
        register.set_places(catalog, run, batch.places, batch.headers)
        for file in files:
            segment = register.insert_file(catalog, run, base, file)
            if file.footer.family == "layers":
                layer_parts.insert(catalog, segment, parts, layer_parts.extents(catalog, run))
        register.upsert_series(catalog, run, points, summaries, overviews)
        register.apply_axes(catalog, run, axes)
        changes = register.apply_logs(catalog, run, uid, columns.logs, order)
        register.update_run(catalog, base, run, name, changes, headers=batch.headers.values(), lost=lost)
    return len(points)


def write_files(folder: str, fold: Footer, contents: Mapping[str, Any]) -> list[Written]:
    """Write one file per family that has something, and put them in place."""
    names = {family: segments.new_name() for family, content in contents.items() if len(content)}
    siblings = [f"{family}/{name}" for family, name in names.items()]
    pending: list[tuple[str, str, Footer, Any, Any]] = []
    for family, name in names.items():
        where = os.path.join(folder, family)
        if not os.path.isdir(where):
            os.makedirs(where, exist_ok=True)
            folders.sync_folder(folder)
        axes = fold.axes if family in _OF_LAYERS else {}
        footer = replace(fold, family=family, siblings=siblings, axes=axes)
        hidden = segments.hidden_path(where, name)
        steps, times = _write_file(hidden, contents[family], footer)
        pending.append((hidden, os.path.join(where, name), footer, steps, times))
    for hidden, path, *_ in pending:
        segments.publish(hidden, path)
    return [segments.written(path, footer, steps, times) for _, path, footer, steps, times in pending]


def _write_file(hidden: str, content: Any, footer: Footer) -> tuple[Any, Any]:  # noqa: ANN401 -- by family
    """Write the file of one family under a hidden name; return steps and times."""
    if footer.family == "points":
        segments.write_points(hidden, content, footer)
    elif footer.family == "histograms":
        segments.write_histograms(hidden, content, footer)
    elif footer.family == "layers":
        segments.write_layers(hidden, content, footer)
        return layer_points.extent(content)
    else:
        segments.write_logs(hidden, content, footer)
        table = np.array([(row.step, row.time) for row in content], np.int64)
        return table[:, 0], table[:, 1]
    return content.step, content.time


def _set_aside(folder: str, batch: Batch) -> int:
    """Keep bytes that failed a check in `journal/lost/`; return how many they are."""
    total = 0
    where = os.path.join(folder, "journal", "lost")
    if batch.columns.lost or batch.unreadable:
        os.makedirs(where, exist_ok=True)
    for lost in batch.columns.lost:
        total += _keep_lost(where, lost)
    for path in batch.unreadable:
        total += os.stat(path).st_size
        os.rename(path, os.path.join(where, os.path.basename(path)))
    return total


def _keep_lost(where: str, lost: Lost) -> int:
    """Copy a damaged range beside the journal; return its length."""
    name = f"{os.path.basename(lost.path)}.{lost.start}-{lost.stop}"
    logger.warning(
        "%s: %d bytes from %d on are set aside (%s).", lost.path, lost.stop - lost.start, lost.start, lost.reason
    )
    with open(lost.path, "rb") as source, open(os.path.join(where, name), "wb") as target:
        source.seek(lost.start)
        target.write(source.read(lost.stop - lost.start))
        target.flush()
        os.fsync(target.fileno())
    return lost.stop - lost.start


def _opened(found: list[tuple[int, str]]) -> tuple[int, str]:
    """Return when a writer's first unread segment was opened."""
    try:
        opened = tails.read_header(found[0][1]).identity.get("opened", 0)
    except (OSError, StoreError):
        opened = 0
    return opened if isinstance(opened, int) else 0, found[0][1]


def _is_ours(folder: str) -> bool:
    """Tell whether this machine folds a run; one that lost its `run.json` gets it again before its journal goes."""
    try:
        facts = folders.read_facts(folder)
    except StoreError:
        facts = {}
    if not ownership.may_fold(folder, facts):
        return False
    if facts and not os.path.exists(os.path.join(folder, runfile.NAME)):
        runfile.create(folder, facts)
    return True


def _is_fresh(path: str) -> bool:
    """Tell whether a file without a header is one that is just being made: nothing is written into it yet."""
    try:
        with open(path, "rb", buffering=0) as file:
            begun = file.read(4).strip(b"\0")
        return not begun and clock.now_ns() - os.stat(path).st_mtime_ns < _FRESH_NS
    except OSError:
        return True


__all__ = [
    "BATCH_POINTS",
    "Batch",
    "fold_run",
    "fold_store",
    "gather",
    "maintain",
    "release_held",
    "settle",
    "try_fold",
    "write_files",
]
