"""What was decoded of a journal → events that travel: points series by series, then texts, lines, media, histograms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer import transfer
from tracer.storage.artifact_contents import content_path, is_digest
from tracer.storage.axes import settle_axes
from tracer.storage.columns import Columns, micros_of
from tracer.storage.log_rows import LogRow, is_number
from tracer.transfer import Histogram, LayerPoints, LogLine, Media, Points, Text

if TYPE_CHECKING:
    from tracer.storage.columns import HistogramRecord, Layers

#: Metrics that stay at home: what recording itself costs is of interest to nobody else.
OWN = "tracer/"
_LINES = frozenset({"line", "log", "event"})
#: A count of values in a tensor is never NaN; where it is, the layer was not measured at that step.
COUNT = "nans"

#: Writer, arrival, steps, times, values: a piece of a series.
_Piece = tuple[int, Any, Any, Any, Any]


def of_columns(columns: Columns, folder: str, kinds: frozenset[str]) -> Iterator[transfer.Event]:
    """Yield what travels of the columns.

    Args:
        columns: What was decoded.
        folder: The run's folder, for the paths of media.
        kinds: The kinds that are wanted.
    """
    if transfer.POINTS in kinds:
        yield from points(columns)
    if transfer.LAYER in kinds:
        yield from layer_points(columns.layers)
    for row in columns.logs:
        event = of_row(row, folder)
        if event is not None and event.KIND in kinds:
            yield event
    if transfer.HISTOGRAM in kinds:
        yield from histograms(columns.histograms)


def points(columns: Columns) -> Iterator[Points]:
    """Yield each series, in the order in which it was recorded."""
    series: dict[tuple[str, int], list[_Piece]] = {}
    for rows in columns.rows:
        turned = np.ascontiguousarray(rows.values.T) if len(rows.keys) > 1 else rows.values.reshape(1, -1)
        for name, values in zip(rows.keys, turned, strict=True):
            if not name.startswith(OWN):
                piece = (rows.ordinal, rows.arrival, rows.step, rows.time, values)
                series.setdefault((name, rows.rank), []).append(piece)
    for key, piece in _loose(columns):
        series.setdefault(key, []).append(piece)
    for (name, rank), pieces in series.items():
        _, arrival, steps, times, values = pieces[0]
        if len(pieces) > 1:
            ordinal = np.concatenate([np.full(len(one[1]), one[0]) for one in pieces])
            arrival, steps, times, values = (np.concatenate([one[part] for one in pieces]) for part in (1, 2, 3, 4))
            order = np.lexsort((arrival, ordinal))
            steps, times, values = steps[order], times[order], values[order]
        yield Points(name, steps, times, values, rank)


def of_row(row: LogRow, folder: str) -> Text | LogLine | Media | None:
    """Return what travels of a row of the family `logs`; None for what is of use to Tracer alone."""
    if row.kind == "text":
        if is_number(row) or (row.name or "").startswith(OWN):
            return None
        return Text(row.name or "", row.step, row.time, "null" if row.body is None else row.body, row.rank)
    if row.kind in _LINES:
        return LogLine(row.kind, row.time, row.body, row.name, row.level, row.step, row.object(), row.rank)
    return _media(row, folder) if row.kind == "media" else None


def layer_points(records: Sequence[Layers]) -> Iterator[LayerPoints]:
    """Yield each statistic of each layer as a metric: `gradients/<layer>/norm`."""
    settle_axes(records)
    together: dict[tuple[int, int], list[Layers]] = {}
    for one in records:
        together.setdefault((id(one.axis), one.rank), []).append(one)
    for (_, rank), ours in together.items():
        axis = ours[0].axis
        steps, times = (np.array([getattr(one, part) for one in ours], np.int64) for part in ("step", "time"))
        values = np.stack([one.matrix for one in ours]).astype(np.float64)
        statistics = axis["statistics"]
        counted = values[:, statistics.index(COUNT)] if COUNT in statistics else np.zeros_like(values[:, 0])
        for column, layer in enumerate(axis["layers"]):
            there = ~np.isnan(counted[:, column])
            if not there.any():
                continue
            for row, statistic in enumerate(statistics):
                name = f"{axis['what']}/{layer}/{statistic}"
                yield LayerPoints(name, steps[there], times[there], values[there, row, column], rank)


def histograms(records: Sequence[HistogramRecord]) -> Iterator[Histogram]:
    """Yield the histogram of each layer, with powers of two as edges: `gradients/<layer>`."""
    settle_axes(records)
    for one in records:
        counts = np.asarray(one.counts, np.int64)
        for column, layer in enumerate(one.axis["layers"]):
            negative, positive = counts[0, column], counts[1, column]
            name = f"{one.axis['what']}/{layer}"
            yield Histogram(name, one.step, one.time, *in_powers(one.lowest, negative, positive), one.rank)


def in_powers(lowest: int, negative: Any, positive: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:  # noqa: ANN401 -- arrays
    """Return edges and counts of how many values lie between two powers of two, below zero and above it."""
    there = np.flatnonzero(negative + positive)
    first, last = (int(there[0]), int(there[-1]) + 1) if len(there) else (0, 1)
    powers = np.ldexp(1.0, np.arange(lowest + first, lowest + last + 1)).tolist()
    below, above = negative[first:last].tolist(), positive[first:last].tolist()
    edges = [-one for one in reversed(powers)] + powers
    return tuple(edges), tuple(map(float, [*reversed(below), 0, *above]))


def _loose(columns: Columns) -> Iterator[tuple[tuple[str, int], _Piece]]:
    """Yield the values that came a few at a time, series by series of one writer."""
    loose = columns.loose
    if not len(loose):
        return
    places: dict[tuple[str, int, int], list[int]] = {}
    for at, key in enumerate(zip(loose.names, loose.ranks, loose.ordinals, strict=True)):
        places.setdefault(key, []).append(at)
    steps, times = np.array(loose.steps, np.int64), micros_of(np.array(loose.times, np.float64))
    values, arrivals = np.array(loose.values, np.float64), np.array(loose.arrivals, np.int64)
    for (name, rank, ordinal), found in places.items():
        if not name.startswith(OWN):
            ours = np.array(found)[np.argsort(arrivals[found], kind="stable")]  # they stand schema by schema
            yield (name, rank), (ordinal, arrivals[ours], steps[ours], times[ours], values[ours])


def _media(row: LogRow, folder: str) -> Media:
    """Return what a record of media names; what is small stands in the event, the rest is a file."""
    said = row.object()
    digest, text, fields = said.get("digest"), said.get("text"), said.get("fields")
    return Media(
        row.name or "", str(said.get("kind", "")), row.step, row.time,
        path=content_path(folder, digest) if is_digest(digest) else None,
        data=str(text).encode() if text is not None else None, suffix=str(said.get("suffix") or ""),
        caption=None if said.get("caption") is None else str(said["caption"]),
        fields=fields if isinstance(fields, dict) else {}, rank=row.rank,
    )  # fmt: skip


__all__ = ["COUNT", "OWN", "histograms", "in_powers", "layer_points", "of_columns", "of_row", "points"]
