"""Histograms of one layer read back as tables of steps by powers of two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tracer.storage import axes, duck, snapshot, summaries
from tracer.storage.histogram_rows import NUMBERS, HistogramRows, merged, rows_of
from tracer.storage.live import live_columns
from tracer.storage.values import LayerHistograms

if TYPE_CHECKING:
    from tracer.storage.ground import Ground
    from tracer.storage.snapshot import Snapshot

_ONE = (
    "SELECT rank, step, time, exponent, negative, positive FROM read_parquet($files) "
    "WHERE axis = $axis AND layer = $layer AND rank = $rank"
)


def read_histograms(
    store: Ground, uid: str, layer: str, axis: str, rank: int, start: int | None, stop: int | None
) -> LayerHistograms:
    """Return the histograms of one layer over time; see `Store.histograms`."""
    summaries.ready(store, uid)

    def read(found: Snapshot, _: int) -> LayerHistograms:
        parts = []
        for file in found.of("histograms"):
            columns = duck.select(_ONE, [file], {"axis": axis, "layer": layer, "rank": rank})
            count = len(columns["step"])
            names = (np.full(count, axis, object), np.full(count, layer, object))
            parts.append(HistogramRows(*names, *(np.ma.getdata(columns[name]) for name, _ in NUMBERS)))
        records = live_columns(found)[0].histograms
        axes.settle_axes(records)
        rows = rows_of([one for one in records if one.rank == rank and one.axis["what"] == axis])
        parts.append(rows.at(np.array([name == layer for name in rows.layer], bool)))
        return _table(layer, axis, rank, merged(parts), start, stop)

    return snapshot.consistently(store.catalog, store.base, uid, snapshot.nothing, read)


def _table(
    layer: str, axis: str, rank: int, rows: HistogramRows, start: int | None, stop: int | None
) -> LayerHistograms:
    """Return rows of one layer as tables of steps by exponents."""
    chosen = np.ones(len(rows), bool)
    if start is not None:
        chosen &= rows.step >= start
    if stop is not None:
        chosen &= rows.step < stop
    rows = rows.at(chosen)
    steps, first, row = np.unique(rows.step, return_index=True, return_inverse=True)
    holds = (rows.negative > 0) | (rows.positive > 0)
    lowest, highest = (int(rows.exponent[holds].min()), int(rows.exponent[holds].max())) if holds.any() else (0, -1)
    tables = []
    for column in (rows.negative, rows.positive):
        table = np.zeros((len(steps), highest - lowest + 1), np.int64)
        table[row[holds], rows.exponent[holds].astype(np.int64) - lowest] = column[holds]
        tables.append(table)
    return LayerHistograms(layer, axis, rank, steps.astype(np.int64), rows.time[first], lowest, *tables)


__all__ = ["read_histograms"]
