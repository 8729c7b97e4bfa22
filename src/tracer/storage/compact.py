"""Compaction: many files of a run → one, and rollups beside it; what was overwritten or rewound is gone afterwards.

Only neighbours in the order of folds merge, so that the later one keeps winning. Replaced files stay for a grace
period: a reader may still hold the list that names them.
"""

from __future__ import annotations

import fnmatch
import itertools
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer import clock, events
from tracer.errors import StoreError
from tracer.storage import histogram_rows, layer_merge, layer_parts, register, segments
from tracer.storage.contents import Contents
from tracer.storage.points import Points, summarise
from tracer.storage.rollup import rollup_columns
from tracer.storage.segments import Footer, Written
from tracer.storage.snapshot import File, files_of

if TYPE_CHECKING:
    from tracer.storage.catalog import Catalog, Row
    from tracer.storage.ground import Ground, Progress

GRACE_S = 600.0
#: Files of one level that a run gathers while it lives before they are merged.
_FAN_IN = 8
#: What one merge holds in memory: 24 bytes a point, twice. Layer values are merged a few layers at a time, and theirs
#: is how many are written anew because there are more.
_MAX_ROWS = {"points": 10_000_000, "layers": 400_000_000, "histograms": 2_000_000, "logs": 1_000_000}
_MAX_BYTES = 128 << 20
_ROOM = 2

logger = logging.getLogger("tracer")

Stone = tuple[int, int, str]


def compact_store(store: Ground, uid: str | None, grace_s: float | None, progress: Progress | None = None) -> int:
    """Merge the files of one run, or of all; see `Store.compact`."""
    clause, given = ("AND uid = ?", (uid,)) if uid is not None else ("", ())
    uids = [one for (one,) in store.catalog.rows(f"SELECT uid FROM run WHERE trashed IS NULL {clause}", given)]  # noqa: S608
    merged = 0
    for done, one in enumerate(uids, start=1):
        with store.writing() as catalog:
            merged += compact_run(store, catalog, one)
        if progress is not None:
            progress(done, len(uids))
    with store.writing() as catalog:
        sweep(store, catalog, GRACE_S if grace_s is None else grace_s)
    return merged


def compact_run(store: Ground, catalog: Catalog, uid: str, *, must: bool = False) -> int:
    """Merge the files of a run where that is worth it.

    Args:
        store: The store.
        catalog: The catalog, open for writing.
        uid: The run.
        must: Write all points anew, because a rewind voided some.

    Returns:
        How many files were merged away.
    """
    row = catalog.row("SELECT id, folder, status FROM run WHERE uid = ? AND trashed IS NULL", (uid,))
    if row is None:
        return 0
    run, name, status = row
    stones: list[Stone] = catalog.rows('SELECT "order", step, pattern FROM tombstone WHERE run = ?', (run,))
    merged, failed = 0, False
    for family in ("points", "layers", "histograms", "logs"):
        files = [file for file in files_of(catalog, store.base, run) if file.family == family]
        files.sort(key=lambda file: (file.last_order, file.path))
        everything = must and family == "points"
        for group in _groups(files, family, is_finished=status != events.RUNNING, everything=everything):
            if not _has_room(group):
                logger.info("Run %s is not compacted: the disk has less than twice its size free.", uid)
                continue
            try:
                _merge(catalog, store.base, run, uid, name, family, group, stones)
            except StoreError as error:  # a damaged file stays as it is, and other runs are compacted all the same
                logger.warning("Run %s is not compacted: %s", uid, error)
                failed = True
                continue
            merged += len(group) - 1
    if must and not failed:
        with catalog.transaction():
            catalog.execute("DELETE FROM tombstone WHERE run = ?", (run,))
    return merged


def sweep(store: Ground, catalog: Catalog, grace_s: float = GRACE_S) -> int:
    """Remove files that were replaced long enough ago; return how many."""
    before = clock.now_us() - round(grace_s * 1e6)
    dead = catalog.rows("SELECT id, path FROM segment WHERE dead IS NOT NULL AND dead <= ?", (before,))
    for _, path in dead:
        segments.remove(os.path.join(store.base, path))
    if dead:
        with catalog.transaction():
            catalog.executemany("DELETE FROM segment WHERE id = ?", [(segment,) for segment, _ in dead])
    return len(dead)


def merge_points(parts: Sequence[tuple[Points, int]], stones: Sequence[Stone]) -> tuple[Points, int]:
    """Merge sorted points.

    Args:
        parts: Points with the number of the last fold they hold, in that order: of equal steps the later wins.
        stones: Fold, step and pattern of rewinds: what was folded until then is void from that step on.

    Returns:
        The points, and how many fell away.
    """
    series: dict[tuple[str, int], list[tuple[Points, int, int]]] = {}
    before = 0
    for points, fold in parts:
        before += len(points)
        starts = points.starts.tolist()
        for group, (metric, rank) in enumerate(zip(points.metric.tolist(), points.rank.tolist(), strict=True)):
            name, begin, end = points.names[metric], starts[group], starts[group + 1]
            for last, rewound, pattern in stones:
                if fold <= last and fnmatch.fnmatchcase(name, pattern):
                    end = begin + int(np.searchsorted(points.step[begin:end], rewound))
            if end > begin:
                series.setdefault((name, rank), []).append((points, begin, end))
    keys = sorted(series)
    step, time, value = np.empty(before, np.int64), np.empty(before, np.int64), np.empty(before)
    starts_of = np.zeros(len(keys) + 1, np.int64)
    at = 0
    for place, key in enumerate(keys):
        pieces = series[key]
        end = at + sum(stop - begin for _, begin, stop in pieces)
        columns: tuple[tuple[str, Any], ...] = (("step", step), ("time", time), ("value", value))
        for column, out in columns:
            np.concatenate([getattr(points, column)[begin:stop] for points, begin, stop in pieces], out=out[at:end])
        steps = step[at:end]
        if not (steps[1:] > steps[:-1]).all():
            order = np.argsort(steps, kind="stable")
            ordered = steps[order]
            order = order[np.append(ordered[1:] != ordered[:-1], True)]
            for _, out in columns:
                out[at : at + len(order)] = out[at:end][order]
            end = at + len(order)
        at = end
        starts_of[place + 1] = at
    names = sorted({name for name, _ in keys})
    places = {name: index for index, name in enumerate(names)}
    metric_of, rank_of = [places[name] for name, _ in keys], [rank for _, rank in keys]
    merged = Points(
        names, np.array(metric_of, np.int32), np.array(rank_of, np.int16), starts_of, step[:at], time[:at], value[:at]
    )
    return merged, before - at


def _groups(files: list[File], family: str, *, is_finished: bool, everything: bool) -> list[list[File]]:
    """Return neighbours that should be merged, group by group; what one merge wrote stays together."""
    if everything:
        return [files] if files else []
    units = [list(unit) for _, unit in itertools.groupby(files, key=lambda file: (file.first_order, file.last_order))]
    groups: list[list[list[File]]] = []
    if not is_finished:
        level = files[-1].level if files else 0
        newest = list(itertools.takewhile(lambda unit: unit[0].level == level, reversed(units)))[::-1]
        return [_flat(newest)] if len(newest) >= _FAN_IN and _fits(_flat(newest), family) else []
    for unit in units:
        if groups and _fits(_flat([*groups[-1], unit]), family):
            groups[-1].append(unit)
        else:
            groups.append([unit])
    return [_flat(group) for group in groups if len(group) > 1]


def _flat(units: list[list[File]]) -> list[File]:
    """Return the files of units."""
    return [file for unit in units for file in unit]


def _fits(files: list[File], family: str) -> bool:
    """Tell whether files are small enough for one merge."""
    rows, size = sum(file.rows for file in files), sum(file.bytes for file in files)
    return rows <= _MAX_ROWS[family] and (family == "layers" or size <= _MAX_BYTES)


def _has_room(files: list[File]) -> bool:
    """Tell whether the disk has enough room for a merge beside its inputs."""
    try:
        state = os.statvfs(os.path.dirname(files[0].path))
    except OSError:
        return False
    return state.f_bavail * state.f_frsize >= _ROOM * sum(file.bytes for file in files)


def _merge(
    catalog: Catalog, base: str, run: int, uid: str, name: str, family: str, group: list[File], stones: list[Stone]
) -> None:
    """Merge files into one of the next level, and swap them in the catalog."""
    folder = os.path.join(base, "runs", name)
    contents = Contents([file.path for file in group])
    for path, problem in contents.problems.items():
        message = f"{path} cannot be read: {problem}"
        raise StoreError(message)
    footers = contents.footers
    footer = Footer(
        uid, family, max(file.level for file in group) + 1, (group[0].first_order, group[-1].last_order),
        _consumed(list(footers.values())), [], [f"{family}/{os.path.basename(file.path)}" for file in group],
    )  # fmt: skip
    for of_file in footers.values():
        footer.axes |= of_file.axes
    files: list[Written] = []
    replaced = [file.id for file in group]
    series: Points | None = None
    parts: list[tuple[Written, list[Row]]] = []
    if family == "points":
        points, removed = merge_points([(contents.points(file.path), file.last_order) for file in group], stones)
        files.append(_written_points(folder, points, footer))
        rolled = rollup_columns(points)
        if rolled is not None:
            files.append(_written_rollup(folder, rolled, footer))
        old = [file for file in files_of(catalog, base, run) if file.family == "rollup"]
        replaced += [
            file.id for file in old if footer.order[0] <= file.first_order and file.last_order <= footer.order[1]
        ]
        series = points if removed else None
    elif family == "layers":
        parts = layer_merge.write(catalog, run, folder, group, footer)
        files += [file for file, _ in parts]
    else:
        files.append(_written_rows(folder, group, contents, footer))
    others: list[Points] = []
    if series is not None:
        rest = [file for file in files_of(catalog, base, run) if file.family == "points" and file.id not in replaced]
        beside = Contents([file.path for file in rest])
        others = [beside.points(file.path) for file in rest]
    with catalog.transaction():
        inserted = [register.insert_file(catalog, run, base, written) for written in files]
        catalog.executemany(
            "UPDATE segment SET dead = ? WHERE id = ?", [(clock.now_us(), segment) for segment in replaced]
        )
        catalog.executemany("DELETE FROM segment_run WHERE segment = ?", [(segment,) for segment in replaced])
        catalog.executemany("DELETE FROM layer_part WHERE segment = ?", [(segment,) for segment in replaced])
        for segment, (_, rows_of_file) in zip(inserted, parts, strict=False):
            layer_parts.insert_rows(catalog, segment, rows_of_file)
        if series is not None:
            catalog.execute("DELETE FROM series WHERE run = ?", (run,))
            for points in (series, *others):
                overviews = register.new_overviews(catalog, run, points)
                register.upsert_series(catalog, run, points, summarise(points), overviews)
        register.update_run(catalog, base, run, name, [])


def _written_points(folder: str, points: Points, footer: Footer) -> Written:
    """Write merged points."""
    path = segments.place(folder, footer, lambda hidden: segments.write_points(hidden, points, footer))
    return segments.written(path, footer, points.step, points.time)


def _written_rollup(folder: str, columns: dict[str, Any], points: Footer) -> Written:
    """Write the rollup of merged points."""
    footer = Footer(points.run, "rollup", points.level, points.order)
    path = segments.place(folder, footer, lambda hidden: segments.write_rollup(hidden, columns, footer))
    return segments.written(path, footer, columns["first_step"], columns["first_time"])


def _written_rows(folder: str, group: list[File], contents: Contents, footer: Footer) -> Written:
    """Write merged histograms or logs; of a histogram that was taken twice the later fold's is kept."""
    sound = [contents.sound(file.path) for file in group]
    if footer.family == "histograms":
        rows = histogram_rows.merged([one.histograms for one in sound if one.histograms is not None])
        path = segments.place(folder, footer, lambda hidden: segments.write_histograms(hidden, rows, footer))
        return segments.written(path, footer, rows.step, rows.time)
    logs = sorted((row for one in sound for row in one.logs), key=lambda row: row.time)
    path = segments.place(folder, footer, lambda hidden: segments.write_logs(hidden, logs, footer))
    steps, times = (np.array([getattr(row, part) for row in logs], np.int64) for part in ("step", "time"))
    return segments.written(path, footer, steps, times)


def _consumed(footers: list[Footer]) -> segments.Consumed:
    """Return which part of the journal merged files hold together."""
    together: segments.Consumed = {}
    for footer in footers:
        for writer, (begin, end) in footer.consumed.items():
            known = together.setdefault(writer, [begin, end])
            known[0], known[1] = min(known[0], begin), max(known[1], end)
    return together


__all__ = ["GRACE_S", "compact_run", "compact_store", "merge_points", "sweep"]
