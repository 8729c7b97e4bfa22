"""Parquet files and what was read with them → rows of the catalog; every function runs inside a transaction.

The fold calls these with what it just decoded, a rebuild with what it reads back from the files: same rows either way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer import clock
from tracer.storage import folder as folders
from tracer.storage import index, overview
from tracer.storage.log_rows import LogRow, change, finding_id, is_number
from tracer.storage.overview import Overview
from tracer.storage.stored import MINUS_ZERO, NAN, NUMBER, finding_row, number
from tracer.storage.tails import Place

if TYPE_CHECKING:
    from tracer.journal import Header
    from tracer.storage.catalog import Catalog
    from tracer.storage.points import Points, Summaries
    from tracer.storage.segments import Written

#: Positions are the same for all families: the files of one fold count together or not at all.
ALL = "all"

_SERIES = """
INSERT INTO series(run, metric, rank, n, first_step, last_step, last, last_kind, last_time, min, max, sum, nan, inf)
VALUES (?, (SELECT id FROM metric WHERE name = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT(run, metric, rank) DO UPDATE SET
  n = n + excluded.n, nan = nan + excluded.nan, inf = inf + excluded.inf,
  sum = coalesce(sum + excluded.sum, sum, excluded.sum),
  min = coalesce(min(min, excluded.min), min, excluded.min),
  max = coalesce(max(max, excluded.max), max, excluded.max),
  first_step = min(first_step, excluded.first_step),
  last = CASE WHEN excluded.last_step >= last_step THEN excluded.last ELSE last END,
  last_kind = CASE WHEN excluded.last_step >= last_step THEN excluded.last_kind ELSE last_kind END,
  last_time = CASE WHEN excluded.last_step >= last_step THEN excluded.last_time ELSE last_time END,
  last_step = max(last_step, excluded.last_step)
"""
_OVERVIEW = """
INSERT INTO overview(series, form, base, shift, n, data)
VALUES ((SELECT id FROM series WHERE run = ? AND metric = (SELECT id FROM metric WHERE name = ?) AND rank = ?),
  ?, ?, ?, ?, ?)
ON CONFLICT(series) DO UPDATE SET form = excluded.form, base = excluded.base, shift = excluded.shift, n = excluded.n,
  data = excluded.data
"""
_OLD_OVERVIEW = """
SELECT s.n, s.last_step, s.last, s.last_kind, o.form, o.base, o.shift, o.n, o.data
FROM series s LEFT JOIN overview o ON o.series = s.id
WHERE s.run = ? AND s.metric = (SELECT id FROM metric WHERE name = ?) AND s.rank = ?
"""
_TEXT = """
INSERT INTO text_series(run, metric, rank, n, first_step, last_step, last_time) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT(run, metric, rank) DO UPDATE SET n = n + excluded.n, first_step = min(first_step, excluded.first_step),
  last_time = CASE WHEN excluded.last_step >= last_step THEN excluded.last_time ELSE last_time END,
  last_step = max(last_step, excluded.last_step)
"""
_CHECKPOINT = """
INSERT INTO checkpoint(run, step, time, metrics, system, samples) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT(run, step) DO UPDATE SET time = excluded.time, metrics = excluded.metrics, system = excluded.system,
  samples = coalesce(excluded.samples, samples)
"""
_FINDING = """
INSERT INTO finding(uid, run, rank, step, last_step, kind, severity, details, source, detected)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT(uid) DO UPDATE SET last_step = excluded.last_step, severity = excluded.severity, details = excluded.details
  WHERE excluded.detected >= detected AND coalesce(excluded.last_step, excluded.step) >= coalesce(last_step, step)
"""
_MEDIA = """
INSERT INTO media(run, name, kind, n, first_step, last_step) VALUES (?, ?, ?, 1, ?, ?)
ON CONFLICT(run, name, kind) DO UPDATE SET n = n + 1, first_step = min(first_step, excluded.first_step),
  last_step = max(last_step, excluded.last_step)
"""
Overviews = list[tuple[str, int, tuple[int, int, int, int, bytes]]]


def next_order(catalog: Catalog, folder: str) -> int:
    """Return the number of a run's next fold; files that a compaction replaced count too."""
    # "0" is the character after "/": the range is all paths below the folder, and the index on them serves it.
    last = catalog.value(
        "SELECT max(order1) FROM segment WHERE path > ? AND path < ?", (f"runs/{folder}/", f"runs/{folder}0")
    )
    return int(last or 0) + 1


def insert_file(catalog: Catalog, run: int, base: str, file: Written) -> int:
    """Register a file of a run."""
    path = os.path.relpath(file.path, base)
    footer = file.footer
    cursor = catalog.execute(
        "INSERT INTO segment(family, path, level, order0, order1, rows, bytes, crc, created) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            footer.family,
            path,
            footer.level,
            *footer.order,
            file.rows,
            file.bytes,
            file.crc,
            file.created or clock.now_us(),
        ),
    )
    segment = int(cursor.lastrowid or 0)
    catalog.execute(
        "INSERT INTO segment_run(run, segment, step0, step1, time0, time1, rows) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (run, segment, *file.steps, *file.times, file.rows),
    )
    return segment


def new_overviews(catalog: Catalog, run: int, points: Points) -> Overviews:
    """Return the overviews of these series with the points added; a single point needs none."""
    known = catalog.value("SELECT 1 FROM series WHERE run = ? LIMIT 1", (run,)) is not None
    found: Overviews = []
    starts = points.starts.tolist()
    for group, (metric, rank) in enumerate(zip(points.metric.tolist(), points.rank.tolist(), strict=True)):
        begin, end = starts[group], starts[group + 1]
        name = points.names[metric]
        row = catalog.row(_OLD_OVERVIEW, (run, name, rank)) if known else None
        if row is None and end - begin == 1:
            continue
        old = _old_overview(row)
        found.append(
            (name, rank, overview.encode(overview.merged(old, points.step[begin:end], points.value[begin:end])))
        )
    return found


def upsert_series(catalog: Catalog, run: int, points: Points, summaries: Summaries, overviews: Overviews) -> None:
    """Add points to the summaries of their series."""
    names = [points.names[metric] for metric in points.metric.tolist()]
    ranks = points.rank.tolist()
    catalog.executemany("INSERT OR IGNORE INTO metric(name) VALUES (?)", [(name,) for name in points.names])
    last = summaries.last
    kinds = np.select([np.isnan(last), (last == 0) & np.signbit(last)], [NAN, MINUS_ZERO], NUMBER).tolist()
    catalog.executemany(
        _SERIES,
        zip(
            [run] * len(names), names, ranks, summaries.n.tolist(), summaries.first_step.tolist(),
            summaries.last_step.tolist(), summaries.last.tolist(), kinds, summaries.last_time.tolist(),
            summaries.min.tolist(), summaries.max.tolist(), summaries.sum.tolist(), summaries.nan.tolist(),
            summaries.inf.tolist(), strict=True,
        ),
    )  # fmt: skip
    catalog.executemany(_OVERVIEW, ((run, name, rank, *columns) for name, rank, columns in overviews))


def replace_series(catalog: Catalog, run: int, points: Points, summaries: Summaries, overviews: Overviews) -> None:
    """Make the summaries of a run's series exactly those of these points, which are all it has of them."""
    catalog.execute("DELETE FROM series WHERE run = ?", (run,))
    upsert_series(catalog, run, points, summaries, overviews)


def apply_logs(catalog: Catalog, run: int, uid: str, rows: Sequence[LogRow], order: int) -> list[list[Any]]:
    """Apply rows of the family `logs`; return the changes they make to what is known of the run."""
    texts: dict[tuple[str, int], list[LogRow]] = {}
    changes: list[list[Any]] = []
    for row in rows:
        if row.kind == "text" and not is_number(row):
            texts.setdefault((row.name or "", row.rank), []).append(row)
        elif row.kind == "checkpoint":
            _apply_checkpoint(catalog, run, row)
        elif row.kind == "finding":
            found = finding_row(uid, row)
            catalog.execute(
                _FINDING,
                (finding_id(uid, row), run, row.rank, row.step, found.last_step, found.kind, found.severity,
                 json.dumps(found.details), found.source, row.time),
            )  # fmt: skip
        elif row.kind == "tombstone":
            catalog.execute(
                'INSERT INTO tombstone(run, "order", step, pattern) VALUES (?, ?, ?, ?)',
                (run, order, row.step, row.name),
            )
        elif row.kind == "media":
            kind = str(row.object().get("kind", ""))
            catalog.execute(_MEDIA, (run, row.name or "", kind, row.step, row.step))
        elif row.kind == "samples":
            catalog.execute(
                "UPDATE checkpoint SET samples = ? WHERE run = ? AND step = ? AND samples IS NULL",
                (row.name, run, row.step),
            )
        one = change(row)
        if one is not None:
            changes.append(one)
    for (name, rank), found_rows in texts.items():
        last = max(found_rows, key=lambda row: row.step)
        first = min(row.step for row in found_rows)
        catalog.execute(_TEXT, (run, name, rank, len(found_rows), first, last.step, last.time))
    return changes


def apply_axes(catalog: Catalog, run: int, axes: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep the layers' names of an axis."""
    catalog.executemany(
        "INSERT OR IGNORE INTO axis(run, digest, names) VALUES (?, ?, ?)",
        [(run, digest, json.dumps(axis)) for digest, axis in axes.items()],
    )


def set_places(catalog: Catalog, run: int, places: Mapping[str, Place], headers: Mapping[str, Header]) -> None:
    """Move the positions of writers."""
    for writer, place in places.items():
        said = headers[writer].identity if writer in headers else {}
        catalog.execute(
            "INSERT INTO writer(id, run, host, pid, boot, rank, role, opened) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT(id) DO UPDATE SET host = coalesce(excluded.host, host), "
            "opened = coalesce(opened, excluded.opened)",
            (
                writer,
                run,
                said.get("host"),
                said.get("pid"),
                said.get("boot"),
                said.get("rank"),
                said.get("role"),
                said.get("opened"),
            ),
        )
        catalog.execute(
            'INSERT INTO position(writer, family, segment, "offset", declared) VALUES (?, ?, ?, ?, ?) '
            "ON CONFLICT(writer, family) DO UPDATE SET segment = excluded.segment, "
            '"offset" = excluded."offset", declared = excluded.declared',
            (writer, ALL, place.segment, place.offset, place.declared),
        )


def update_run(
    catalog: Catalog,
    store: str,
    run: int,
    name: str,
    changes: list[list[Any]],
    *,
    headers: Iterable[Header] = (),
    lost: int = 0,
) -> None:
    """Bring the run's own row up to date: counts, bytes, signs of life, and what the journal says of it."""
    path = os.path.join(store, "runs", name)
    late: list[list[Any]] = json.loads(catalog.value("SELECT late FROM run WHERE id = ?", (run,)))
    written_us = folders.modified_ns(os.path.join(path, "run.json")) // 1_000
    # What the run's own process recorded before it wrote run.json is in there.
    late = [one for one in [*late, *changes] if one[1] or one[0] > written_us]
    late.sort(key=lambda one: one[0])
    signs = [(header.heartbeat_us, header.steps) for header in headers]
    beat, steps = max([0, *(beat for beat, _ in signs)]), max([0, *(steps for _, steps in signs)])
    catalog.execute(
        "UPDATE run SET late = ?, lost = lost + ?, updated = ?, revision = revision + 1, "
        "points = coalesce((SELECT sum(s.rows) FROM segment_run r JOIN segment s ON s.id = r.segment "
        "  WHERE r.run = run.id AND s.family = 'points' AND s.dead IS NULL), 0), "
        "checkpoints = max(checkpoints, (SELECT count(*) FROM checkpoint c WHERE c.run = run.id)), "
        "heartbeat = nullif(max(coalesce(heartbeat, 0), ?), 0), steps = max(steps, ?), bytes = ? WHERE id = ?",
        (json.dumps(late), lost, clock.now_us(), beat, steps, folders.size_bytes(path), run),
    )
    if late or changes:
        index.index(catalog, store, [name])


def _apply_checkpoint(catalog: Catalog, run: int, row: LogRow) -> None:
    """Keep a checkpoint; of several ranks rank 0's is the one."""
    said = row.object()
    system, kept = said.get("system"), said.get("samples")
    values = (
        run, row.step, row.time, json.dumps(said.get("values") or {}), json.dumps(system) if system else None,
        kept if isinstance(kept, str) else None,
    )  # fmt: skip
    known = row.rank != 0 and catalog.row("SELECT 1 FROM checkpoint WHERE run = ? AND step = ?", (run, row.step))
    if not known:
        catalog.execute(_CHECKPOINT, values)


def _old_overview(row: Any) -> Overview | None:  # noqa: ANN401 -- a row of the catalog
    """Return the overview a series has; that of a single point is made from its summary."""
    if row is None:
        return None
    n, last_step, last, last_kind, form, base, shift, count, data = row
    if data is not None:
        return overview.decode(form, base, shift, count, data)
    if n == 1:
        value = number(last, last_kind)
        return overview.of_points(np.array([last_step], np.int64), np.array([value], np.float64))
    return None


__all__ = [
    "ALL", "Overviews", "apply_axes", "apply_logs", "insert_file", "new_overviews",
    "next_order", "replace_series", "set_places", "update_run", "upsert_series",
]  # fmt: skip
