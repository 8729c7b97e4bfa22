"""Summaries of a run: the catalog's rows with the recent records of the journal laid over them; standard library."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracer.storage import snapshot as snapshots
from tracer.storage.folder import is_settled
from tracer.storage.log_rows import LogRow
from tracer.storage.recent import Recent, Summary
from tracer.storage.stored import finding_row, number
from tracer.storage.tails import Place, list_segments
from tracer.storage.values import CheckpointRow, FindingRow, LayerAxis, SeriesRow

if TYPE_CHECKING:
    from tracer.storage.catalog import Catalog, Row
    from tracer.storage.ground import Ground
    from tracer.storage.snapshot import Snapshot

#: A longer tail is folded first: record by record it would take seconds.
_LONG_TAIL = 8 << 20

#: What an axis of histograms alone has for a statistic.
_HISTOGRAM = "histogram"

_SERIES = """
SELECT m.name, s.rank, s.n, s.first_step, s.last_step, s.last, s.last_kind, s.last_time, s.min, s.max, s.sum,
  s.nan, s.inf
FROM series s JOIN metric m ON m.id = s.metric WHERE s.run = ?
"""


def metrics(store: Ground, uid: str) -> list[SeriesRow]:
    """Return the summary of each series; see `Store.metrics`."""
    ready(store, uid)

    def ask(catalog: Catalog, run: int) -> tuple[list[Row], list[Row], dict[str, Any]]:
        facts = json.loads(catalog.value("SELECT facts FROM run WHERE id = ?", (run,)) or "{}")
        texts = catalog.rows(
            "SELECT metric, rank, n, first_step, last_step, last_time FROM text_series WHERE run = ?", (run,)
        )
        return catalog.rows(_SERIES, (run,)), texts, facts

    def read(snapshot: Snapshot, answer: tuple[list[Row], list[Row], dict[str, Any]]) -> list[SeriesRow]:
        rows, texts, facts = answer
        return _series_rows(rows, texts, facts, snapshot.recent())

    return snapshots.consistently(store.catalog, store.base, uid, ask, read)


def last_values(store: Ground, uids: Sequence[str] | None, rank: int) -> dict[str, dict[str, float]]:
    """Return the last value of every metric; see `Store.last_values`."""
    chosen = "" if uids is None else "AND r.uid IN (SELECT value FROM json_each(?))"
    given: list[object] = [rank] if uids is None else [rank, json.dumps(list(uids))]
    with store.catalog.snapshot():
        runs = store.catalog.rows(
            f"SELECT r.uid, r.folder, r.settled FROM run r WHERE r.trashed IS NULL {chosen}",  # noqa: S608 -- our own text
            given[1:],
        )
        rows = store.catalog.rows(
            "SELECT r.uid, m.name, s.last, s.last_kind FROM run r JOIN series s ON s.run = r.id AND s.rank = ? "  # noqa: S608
            f"JOIN metric m ON m.id = s.metric WHERE r.trashed IS NULL {chosen}",
            given,
        )
    found: dict[str, dict[str, float]] = {uid: {} for uid, _, _ in runs}
    for uid, name, last, kind in rows:
        if uid in found:
            found[uid][name] = number(last, kind)
    for uid, folder, settled in runs:
        if not is_settled(settled, os.path.join(store.base, "runs", folder)):
            found[uid] = {
                row.metric: row.last for row in metrics(store, uid) if row.rank == rank and row.last is not None
            }
    return found


def checkpoints(store: Ground, uid: str) -> list[CheckpointRow]:
    """Return the checkpoints of a run; see `Store.checkpoints`."""
    ready(store, uid)

    def ask(catalog: Catalog, run: int) -> list[Row]:
        return catalog.rows("SELECT step, time, metrics, system, samples FROM checkpoint WHERE run = ?", (run,))

    def read(snapshot: Snapshot, rows: list[Row]) -> list[CheckpointRow]:
        found = {
            step: CheckpointRow(step, time, json.loads(values), json.loads(system) if system else None, samples)
            for step, time, values, system, samples in rows
        }
        for row in snapshot.recent().rows:
            if row.kind == "checkpoint" and row.rank == 0:
                found[row.step] = _checkpoint(row)
        for step, one in found.items():
            if one.samples is None and os.path.exists(os.path.join(snapshot.folder, "samples", f"{step}-0.parquet")):
                found[step] = CheckpointRow(step, one.time, one.metrics, one.system, f"samples/{step}-0.parquet")
        return [found[step] for step in sorted(found)]

    return snapshots.consistently(store.catalog, store.base, uid, ask, read)


def findings(store: Ground, uid: str, kinds: Sequence[str] | None) -> list[FindingRow]:
    """Return the findings of a run; see `Store.findings`."""
    ready(store, uid)

    def ask(catalog: Catalog, run: int) -> list[Row]:
        return catalog.rows(
            "SELECT uid, rank, step, last_step, kind, severity, details, source, detected FROM finding WHERE run = ?",
            (run,),
        )

    def read(snapshot: Snapshot, rows: list[Row]) -> list[FindingRow]:
        found = {
            row[0]: FindingRow(
                row[0], uid, row[1], row[2], row[3], row[4], row[5], json.loads(row[6]), row[7] or "", row[8]
            )
            for row in rows
        }
        for row in snapshot.recent().rows:
            if row.kind == "finding":
                one = finding_row(uid, row)
                found[one.id] = _newer(found.get(one.id), one)
        chosen = [row for row in found.values() if kinds is None or row.kind in kinds]
        return sorted(chosen, key=lambda row: (row.step, row.detected, row.id))

    return snapshots.consistently(store.catalog, store.base, uid, ask, read)


def _newer(before: FindingRow | None, found: FindingRow) -> FindingRow:
    """Return what is known of a finding: an episode is stored when it begins and again when more is known of it."""
    if before is None:
        return found
    if _end(found) < _end(before):
        return before
    return replace(found, detected=before.detected)


def _end(found: FindingRow) -> int:
    """Return the last step of a finding."""
    return found.step if found.last_step is None else found.last_step


def layer_names(store: Ground, uid: str, axis: str) -> list[str]:
    """Return the names of the layers of an axis; see `Store.layer_names`."""
    return next((list(one.layers) for one in layer_axes(store, uid) if one.axis == axis), [])


def layer_axes(store: Ground, uid: str) -> list[LayerAxis]:
    """Return what was measured of layers; see `Store.layer_axes`."""
    ready(store, uid)

    def ask_axes(catalog: Catalog, run: int) -> list[dict[str, Any]]:
        rows = catalog.rows("SELECT names FROM axis WHERE run = ? ORDER BY id", (run,))
        return [json.loads(names) for (names,) in rows]

    def read(snapshot: Snapshot, axes: list[dict[str, Any]]) -> list[LayerAxis]:
        found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
        for one in [*axes, *snapshot.recent().axes]:
            statistics, layers = found.setdefault(str(one.get("what")), ({}, {}))
            statistics |= dict.fromkeys(str(name) for name in one.get("statistics") or () if name != _HISTOGRAM)
            layers |= dict.fromkeys(map(str, one.get("layers") or ()))
        return [LayerAxis(axis, tuple(statistics), tuple(layers)) for axis, (statistics, layers) in found.items()]

    return snapshots.consistently(store.catalog, store.base, uid, ask_axes, read)


def samples(folder: str) -> list[Path]:
    """Return the files of samples in a folder, sorted by step and rank."""
    found: list[tuple[int, int, Path]] = []
    for path in Path(folder).glob("*-*.parquet"):
        step, _, rank = path.stem.rpartition("-")
        if step.removeprefix("-").isdigit() and rank.isdigit():
            found.append((int(step), int(rank), path))
    return [path for _, _, path in sorted(found)]


def ready(store: Ground, uid: str) -> None:
    """See to it that a run's files are registered, and that its tail is short enough to be stepped through."""
    row = store.catalog.row("SELECT folder, settled, stale, id FROM run WHERE uid = ? AND trashed IS NULL", (uid,))
    if row is None:
        store.refresh()
        row = store.catalog.row("SELECT folder, settled, stale, id FROM run WHERE uid = ? AND trashed IS NULL", (uid,))
    if row is None:
        return
    folder, settled, stale, run = row
    path = os.path.join(store.base, "runs", folder)
    if stale or (
        not is_settled(settled, path) and _tail_bytes(path, snapshots.places_of(store.catalog, run)) > _LONG_TAIL
    ):
        from tracer.storage.fold import try_fold

        try_fold(store, uid)
    if store.is_network:
        from tracer.storage.adoption import register_theirs

        register_theirs(store, uid)


def _series_rows(rows: list[Row], texts: list[Row], facts: dict[str, Any], recent: Recent) -> list[SeriesRow]:
    """Merge the catalog's series with recent ones."""
    goals, units = facts.get("goals") or {}, facts.get("units") or {}
    series = dict(recent.series)
    found: dict[tuple[str, int], SeriesRow] = {}
    for row in rows:
        key = (row[0], row[1])
        summary = _summary(row)
        fresh = series.pop(key, None)
        if fresh is not None:
            summary = _merged(summary, fresh)
        found[key] = _series_row(key, summary, goals, units)
    for key, summary in series.items():
        found[key] = _series_row(key, summary, goals, units)
    for key, (n, first, last, time) in _text_series(texts, recent).items():
        if key not in found:
            found[key] = SeriesRow(*key, n, first, last, None, time, None, None, None, 0, 0, is_text=True)
    return [found[key] for key in sorted(found)]


def _text_series(texts: list[Row], recent: Recent) -> dict[tuple[str, int], tuple[int, int, int, int]]:
    """Return count, first and last step and last time of each series of texts."""
    found = {(row[0], row[1]): (row[2], row[3], row[4], row[5]) for row in texts}
    for row in recent.texts():
        key = (row.name or "", row.rank)
        n, first, last, time = found.get(key, (0, row.step, row.step, row.time))
        found[key] = (n + 1, min(first, row.step), max(last, row.step), row.time if row.step >= last else time)
    return found


def _summary(row: Row) -> Summary:
    """Return a row of the catalog as a summary."""
    _, _, n, first, last_step, last, kind, time, least, most, total, nan, inf = row
    return Summary(n, first, last_step, number(last, kind), time, least, most, total or 0.0, nan, inf)


def _merged(old: Summary, new: Summary) -> Summary:
    """Return two summaries of one series taken together; of equal last steps the new one wins."""
    newest = new if new.last_step >= old.last_step else old
    least = [value for value in (old.min, new.min) if value is not None]
    most = [value for value in (old.max, new.max) if value is not None]
    return Summary(
        old.n + new.n, min(old.first_step, new.first_step), newest.last_step, newest.last, newest.last_time,
        min(least, default=None), max(most, default=None), old.sum + new.sum, old.nan + new.nan, old.inf + new.inf,
    )  # fmt: skip


def _series_row(key: tuple[str, int], summary: Summary, goals: dict[str, str], units: dict[str, str]) -> SeriesRow:
    """Return a summary as the value that is shown."""
    finite = summary.n - summary.nan - summary.inf
    return SeriesRow(
        key[0], key[1], summary.n, summary.first_step, summary.last_step, summary.last, summary.last_time,
        summary.min, summary.max, summary.sum / finite if finite > 0 else None, summary.nan, summary.inf,
        units.get(key[0]), goals.get(key[0]),
    )  # fmt: skip


def _checkpoint(row: LogRow) -> CheckpointRow:
    """Return the checkpoint that a row of `logs` holds."""
    said = row.object()
    values, system, kept = said.get("values"), said.get("system"), said.get("samples")
    return CheckpointRow(
        row.step, row.time, values if isinstance(values, dict) else {}, system if isinstance(system, dict) else None,
        kept if isinstance(kept, str) else None,
    )  # fmt: skip


def _tail_bytes(folder: str, places: Mapping[str, Place]) -> int:
    """Return the bytes of the segments that a run's journal has beyond some places, used or not."""
    total = 0
    for writer, found in list_segments(os.path.join(folder, "journal")).items():
        for segment, path in found:
            if segment >= places.get(writer, Place(-1, 0)).segment:
                with contextlib.suppress(OSError):
                    total += os.stat(path).st_size
    return total


__all__ = [
    "checkpoints", "findings", "last_values", "layer_axes", "layer_names", "metrics", "ready", "samples",
]  # fmt: skip
