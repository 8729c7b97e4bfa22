"""A whole run as a stream of events: what an export sends, and what a lane sends that came too late for the journal.

Each series as it is kept: one value per step, sorted by step. What recording itself cost (`tracer/…`) stays at home.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer import runfile, transfer
from tracer.errors import StoreError
from tracer.storage import artifact_records, decoded_events, snapshot, summaries
from tracer.storage import folder as folders
from tracer.storage.artifact_contents import content_path
from tracer.storage.artifact_records import FILE, INPUT, Record
from tracer.storage.log_rows import LogRow
from tracer.transfer import File, Histogram, LayerPoints, Part, Points, RunInfo

if TYPE_CHECKING:
    from tracer.storage.ground import Ground
    from tracer.storage.histogram_rows import HistogramRows
    from tracer.storage.snapshot import Snapshot
    from tracer.storage.values import RunRow

#: Points of one event.
CHUNK = 100_000
#: What a stream holds when nothing else is asked for: the statistics of layers are for rules only.
USUAL = frozenset(transfer.KINDS) - {transfer.LAYER}
#: Points that are read at once for their digests; a run with more is read series by series.
_AT_ONCE = 10_000_000
#: What an artifact's metadata say of a version that the run did not make but use.
USED = "tracer.used"
_LOGS = (
    "SELECT time, step, rank, kind, level, name, body, fields FROM read_parquet($files) "
    "WHERE kind IN ('text', 'line', 'log', 'event', 'media') ORDER BY time"
)
_HISTOGRAMS = "SELECT axis, layer, rank, step, time, exponent, negative, positive FROM read_parquet($files)"
_ROWS = (transfer.TEXT, transfer.LOG, transfer.MEDIA)

Digests = dict[tuple[str, int], tuple[int, str]]


def info(store: Ground, row: RunRow) -> RunInfo:
    """Return what is known of a run; see `Store.info`."""
    facts = folders.read_facts(store.run_folder(row))
    return replace(
        transfer.run_info(facts), uid=row.uid, project=row.project, name=row.name, started=row.started,
        status=row.status, ended=row.ended, steps=row.steps, group=row.group, job_type=row.job_type, notes=row.notes,
        tags=row.tags, params=row.config, environment=row.environment, git=row.git,
    )  # fmt: skip


def events(store: Ground, row: RunRow, kinds: Collection[str] | None = None) -> Iterator[transfer.Event]:
    """Yield everything that a run holds, kind by kind; see `Store.outgoing`."""
    wanted = USUAL if kinds is None else frozenset(kinds)
    folder = store.run_folder(row)
    if transfer.POINTS in wanted:
        yield from points(store, row.uid)
    if wanted.intersection(_ROWS):
        found = [decoded_events.of_row(one, folder) for one in _log_rows(store, row.uid)]
        for kind in _ROWS:
            yield from (one for one in found if one is not None and kind == one.KIND and kind in wanted)
    if transfer.HISTOGRAM in wanted:
        yield from histograms(store, row.uid)
    if transfer.LAYER in wanted:
        yield from layer_points(store, row)
    if transfer.FILE in wanted:
        yield from files(folder, store.base)


def points(store: Ground, uid: str) -> Iterator[Points]:
    """Yield each series in chunks."""
    for whole in _whole_series(store, uid):
        for at in range(0, len(whole), CHUNK):
            part = slice(at, at + CHUNK)
            yield Points(whole.name, whole.steps[part], whole.times[part], whole.values[part], whole.rank)


def digests(store: Ground, uid: str) -> Digests:
    """Return of each series how many values it has and what another store must agree on; see `Store.digests`."""
    return {(one.name, one.rank): (len(one), transfer.digest([one])) for one in _whole_series(store, uid)}


def digests_of(paths: Collection[str]) -> Digests:
    """Return the digests of the series in some files of points, the later of which win."""
    return {(one.name, one.rank): (len(one), transfer.digest([one])) for one in _series_of(paths)}


def histograms(store: Ground, uid: str) -> Iterator[Histogram]:
    """Yield the histogram of each layer and step."""
    rows = _histogram_rows(store, uid)
    if not len(rows):
        return
    keys = np.stack([np.unique(column, return_inverse=True)[1] for column in (rows.axis, rows.layer)])
    keys = np.vstack([keys, rows.rank, rows.step])
    starts = np.flatnonzero(np.append(True, (keys[:, 1:] != keys[:, :-1]).any(axis=0))).tolist()
    for begin, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        exponent = rows.exponent[begin:end].astype(np.int64)
        lowest = int(exponent.min())
        negative, positive = (np.zeros(int(exponent.max()) - lowest + 1, np.int64) for _ in range(2))
        negative[exponent - lowest], positive[exponent - lowest] = rows.negative[begin:end], rows.positive[begin:end]
        name = f"{rows.axis[begin]}/{rows.layer[begin]}"
        edges, counts = decoded_events.in_powers(lowest, negative, positive)
        yield Histogram(name, int(rows.step[begin]), int(rows.time[begin]), edges, counts, int(rows.rank[begin]))


def layer_points(store: Ground, row: RunRow) -> Iterator[LayerPoints]:
    """Yield each statistic of each layer as a metric."""
    from tracer.storage.layers import read_layers

    for axis in summaries.layer_axes(store, row.uid):
        for rank in range(max(row.world_size, 1)):
            counts = None
            if decoded_events.COUNT in axis.statistics:
                counts = read_layers(store, row.uid, (axis.axis, decoded_events.COUNT, rank), None, None, None).values
            for statistic in axis.statistics:
                found = read_layers(store, row.uid, (axis.axis, statistic, rank), None, None, None)
                for column, layer in enumerate(found.layers):
                    values = found.values[:, column]
                    there = ~np.isnan(values if counts is None else counts[:, column])
                    if there.any():
                        name = f"{axis.axis}/{layer}/{statistic}"
                        chosen = np.asarray(values[there], np.float64)
                        yield LayerPoints(name, found.steps[there], found.times[there], chosen, rank)


def files(folder: str, store_path: str) -> list[File]:
    """Return the artifacts of a run, made and used, with the paths of their files; loads no DuckDB.

    Args:
        folder: The run's folder.
        store_path: The store's: what was used lies in the folder of the run that made it.
    """
    return [_file(folder, store_path, record) for record in artifact_records.read_records(folder)]


def _file(folder: str, store_path: str, record: Record) -> File:
    """Return one version of an artifact; files that are not there any more are left out."""
    where = folder
    if record.direction == INPUT and record.maker:
        where = os.path.join(store_path, "runs", runfile.folder_name(record.maker))
    parts: list[Part] = []
    try:
        entries = artifact_records.entries_of(where, record)
    except StoreError:
        entries = []
    for entry in entries:
        if record.uri is not None:
            path = record.uri if record.form == FILE else os.path.join(record.uri, *entry.path.split("/"))
        elif entry.digest is not None:
            path = content_path(os.path.abspath(where), entry.digest)
        else:
            continue
        if os.path.isfile(path):
            parts.append(Part(entry.path, path, entry.bytes, entry.digest or ""))
    metadata: dict[str, Any] = {**record.metadata, **({USED: True} if record.direction == INPUT else {})}
    return File(
        record.name, record.type, f"v{record.version}", tuple(parts), record.created, record.step,
        tuple(sorted(record.aliases)), metadata,
    )  # fmt: skip


def _whole_series(store: Ground, uid: str) -> Iterator[Points]:
    """Yield each series that travels, whole: read together where they are few points, else one by one."""
    from tracer.storage.series import read_series

    rows = [
        row
        for row in summaries.metrics(store, uid)
        if not row.is_text and not row.metric.startswith(decoded_events.OWN)
    ]
    together = _at_once(store, uid) if sum(row.n for row in rows) <= _AT_ONCE else None
    for row in rows:
        one = together.pop((row.metric, row.rank), None) if together is not None else None
        if one is None:
            found = read_series(store, uid, row.metric, row.rank, None, None)
            one = Points(row.metric, found.step, found.time, found.value, row.rank)
        yield one


def _at_once(store: Ground, uid: str) -> dict[tuple[str, int], Points] | None:
    """Return the series of a run that lies in files alone, read file by file; None of one that does not."""

    def read(found: Snapshot, _: int) -> dict[tuple[str, int], Points] | None:
        if not found.is_settled or found.tombstones:
            return None
        return {(one.name, one.rank): one for one in _series_of([file.path for file in found.of("points")])}

    return snapshot.consistently(store.catalog, store.base, uid, snapshot.nothing, read)


def _series_of(paths: Collection[str]) -> Iterator[Points]:
    """Yield the series of files of points; of equal steps the later file's value."""
    from tracer.storage.contents import Contents

    contents = Contents(list(paths))
    for path, fact in contents.problems.items():
        message = f"{path} cannot be read: {fact}"
        raise StoreError(message)
    series: dict[tuple[str, int], list[Points]] = {}
    for path in paths:
        found = contents.points(path)
        starts = found.starts.tolist()
        for group, (metric, rank) in enumerate(zip(found.metric.tolist(), found.rank.tolist(), strict=True)):
            name, part = found.names[metric], slice(starts[group], starts[group + 1])
            piece = Points(name, found.step[part], found.time[part], found.value[part], rank)
            series.setdefault((name, rank), []).append(piece)
    for (name, rank), pieces in series.items():
        yield pieces[0] if len(pieces) == 1 else Points(name, *transfer.settled(pieces), rank)


def _log_rows(store: Ground, uid: str) -> list[LogRow]:
    """Return texts, lines and media of a run in the order of time."""
    from tracer.storage import duck

    summaries.ready(store, uid)

    def read(found: Snapshot, _: int) -> list[LogRow]:
        rows: list[LogRow] = []
        listed = found.of("logs")
        if listed:
            duck.verify(listed)
            with duck.cursor() as cursor, duck.translated(listed):
                given = {"files": [file.path for file in listed]}
                rows = [LogRow(*row) for row in cursor.execute(_LOGS, given).fetchall()]
        return sorted([*rows, *found.recent().rows], key=lambda row: row.time)

    return snapshot.consistently(store.catalog, store.base, uid, snapshot.nothing, read)


def _histogram_rows(store: Ground, uid: str) -> HistogramRows:
    """Return all histograms of a run, sorted."""
    from tracer.storage import axes, duck
    from tracer.storage.histogram_rows import HistogramRows, merged, rows_of
    from tracer.storage.live import live_columns

    summaries.ready(store, uid)

    def read(found: Snapshot, _: int) -> HistogramRows:
        parts = []
        for file in found.of("histograms"):
            columns = duck.select(_HISTOGRAMS, [file])
            parts.append(HistogramRows(**{name: np.ma.getdata(column) for name, column in columns.items()}))
        records = live_columns(found)[0].histograms
        axes.settle_axes(records)
        return merged([*parts, rows_of(records)])

    return snapshot.consistently(store.catalog, store.base, uid, snapshot.nothing, read)


__all__ = [
    "CHUNK",
    "USED",
    "USUAL",
    "Digests",
    "digests",
    "digests_of",
    "events",
    "files",
    "histograms",
    "info",
    "layer_points",
    "points",
]
