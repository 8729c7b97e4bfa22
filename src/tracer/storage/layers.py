"""Layer values: one statistic of all layers as a matrix of steps by layers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.storage import duck, register, segments, snapshot, summaries
from tracer.storage.live import live_columns
from tracer.storage.values import LayerMatrix

if TYPE_CHECKING:
    from tracer.storage.catalog import Catalog
    from tracer.storage.ground import Ground
    from tracer.storage.snapshot import Snapshot

_VALUES = "SELECT axis, step, time, values FROM read_parquet($files) WHERE stat = $stat AND rank = $rank"

Axes = dict[str, dict[str, Any]]
#: Time and values of each (axis, step).
Kept = dict[tuple[str, int], tuple[int, Any]]


def read_layers(
    store: Ground,
    uid: str,
    statistic: str,
    what: str,
    layers: Sequence[str] | None,
    rank: int,
    start: int | None,
    stop: int | None,
) -> LayerMatrix:
    """Return one statistic of all layers over time; see `Store.layers`."""
    summaries.ready(store, uid)

    def ask(catalog: Catalog, run: int) -> Axes:
        rows = catalog.rows("SELECT digest, names FROM axis WHERE run = ?", (run,))
        return {digest: json.loads(names) for digest, names in rows}

    def read(found: Snapshot, axes: Axes) -> LayerMatrix:
        kept = _from_files(found, statistic, rank)
        columns, _ = live_columns(found)
        for one in columns.layers:
            axis = segments.clean_axis(one.axis)
            digest = register.axis_digest(axis)
            axes = axes if digest in axes else {**axes, digest: axis}
            if one.rank == rank and statistic in axis["statistics"]:
                kept[digest, one.step] = (one.time, one.matrix[axis["statistics"].index(statistic)])
        chosen = {digest: axis["layers"] for digest, axis in axes.items() if axis["what"] == what}
        kept = {
            key: value for key, value in kept.items()
            if key[0] in chosen and (start is None or key[1] >= start) and (stop is None or key[1] < stop)
        }  # fmt: skip
        return _matrix(statistic, what, chosen, kept, layers)

    return snapshot.consistently(store.catalog, store.base, uid, ask, read)


def _from_files(found: Snapshot, statistic: str, rank: int) -> Kept:
    """Return the rows of one statistic in files; of equal steps the later fold's."""
    files = found.of("layers")
    if not files:
        return {}
    columns = duck.select(_VALUES, files, {"stat": statistic, "rank": rank})
    rows = zip(
        *(np.ma.getdata(columns[name]).tolist() for name in ("axis", "step", "time")), columns["values"], strict=True
    )
    return {(axis, step): (time, values) for axis, step, time, values in rows}


def _matrix(
    statistic: str, what: str, names: dict[str, list[str]], kept: Kept, layers: Sequence[str] | None
) -> LayerMatrix:
    """Return rows of several axes as one matrix; a layer that an axis has not is NaN there."""
    used = {digest for digest, _ in kept}
    everything = list(dict.fromkeys(name for digest in names if digest in used or not used for name in names[digest]))
    columns = everything if layers is None else [name for name in layers if name in set(everything)]
    steps = sorted({step for _, step in kept})
    row_of = {step: at for at, step in enumerate(steps)}
    values = np.full((len(steps), len(columns)), np.nan, np.float32)
    times = np.zeros(len(steps), np.int64)
    for digest in sorted(used):
        place = {name: at for at, name in enumerate(names[digest])}
        pairs = [(at, place[name]) for at, name in enumerate(columns) if name in place]
        mine = sorted(step for of, step in kept if of == digest)
        rows = [row_of[step] for step in mine]
        times[rows] = [kept[digest, step][0] for step in mine]
        if pairs:
            there = np.stack([np.asarray(kept[digest, step][1], np.float32) for step in mine])
            values[np.ix_(rows, [at for at, _ in pairs])] = there[:, [source for _, source in pairs]]
    return LayerMatrix(statistic, what, np.array(steps, np.int64), times, tuple(columns), values)


__all__ = ["read_layers"]
