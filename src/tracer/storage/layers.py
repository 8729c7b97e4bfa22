"""Layer values read back: a few layers over time, all of them in buckets, and which there are.

A question for layers reads their rows and no others. A heat map is put together from the catalog's parts of the
overview; only what is too short to have one is read from its file. Where files repeat steps, as after a resume from an
old checkpoint, the overview would count values that were replaced: then everything is read, until a compaction.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.storage import axes as known_axes
from tracer.storage import layer_overview, layer_parts, snapshot, summaries
from tracer.storage.layer_overview import LIMIT, Grid
from tracer.storage.layer_parts import Asked, StoredPart
from tracer.storage.layer_points import TIMES, LayerPart, arrange, merge
from tracer.storage.live import live_columns
from tracer.storage.values import LayerMatrix, LayerOverview

if TYPE_CHECKING:
    from tracer.storage.catalog import Catalog
    from tracer.storage.ground import Ground
    from tracer.storage.layer_points import Key
    from tracer.storage.snapshot import Snapshot

#: Values that are read at once where all layers are read exactly: 16 bytes each.
_TOGETHER = 4_000_000
#: Fewer buckets than this are too coarse for a range of steps; then its values are read.
_ENOUGH = 24


@dataclass(slots=True)
class _Known:
    """What the catalog says that a question needs."""

    axes: list[dict[str, Any]]
    parts: list[StoredPart]
    times: list[StoredPart]


@dataclass(slots=True)
class _Source:
    """One statistic of a run at one moment: its parts in files, and what the journal holds."""

    key: Key
    axes: list[dict[str, Any]]
    files: list[tuple[Any, StoredPart]]
    times: list[tuple[Any, StoredPart]]
    live: list[LayerPart]

    def names(self) -> list[str]:
        """Return the layers of the statistic, or where nobody measured it those of its axis, in the model's order."""
        axes = [axis for axis in self.axes if axis["what"] == self.key[0]]
        measured = [axis for axis in axes if self.key[1] in axis["statistics"]]
        return list(dict.fromkeys(name for axis in measured or axes for name in axis["layers"]))

    def exactly(self, layers: Sequence[str] | None, start: int | None = None, stop: int | None = None) -> LayerPart:
        """Return the values of layers, from files and journal."""
        parts = layer_parts.fetch(_asked(self.files, layers), start, stop)
        wanted = None if layers is None else set(layers)
        parts += [_limited(part, wanted, start, stop) for part in self.live if part.key == self.key]
        return _merged(self.key, parts)

    def ranges(self) -> list[tuple[int, int, tuple[str, ...]]]:
        """Return first step, last step and layers of all places where values lie."""
        found = [(part.first_step, part.last_step, part.layers) for _, part in self.files]
        live = [part for part in self.live if part.key == self.key and len(part)]
        return found + [(int(part.step.min()), int(part.step.max()), part.layers) for part in live]

    def range(self, start: int | None, stop: int | None) -> tuple[int, int]:
        """Return the first and the last step that there is within some steps; the first is larger if there is none."""
        ranges = self.ranges()
        if not ranges:
            return 0, -1
        first, last = min(one[0] for one in ranges), max(one[1] for one in ranges)
        return first if start is None else max(first, start), last if stop is None else min(last, stop - 1)

    def overlaps(self) -> bool:
        """Tell whether a step of a layer may lie in two places."""
        ordered = sorted(self.ranges(), key=lambda one: one[0])
        for at, (_, last, layers) in enumerate(ordered):
            for first, _, others in itertools.islice(ordered, at + 1, None):
                if first > last:
                    break
                if layers[0] <= others[-1] and others[0] <= layers[-1] and not set(layers).isdisjoint(others):
                    return True
        return False

    def known_grids(self, first: int, last: int, shift: int, fewest: int) -> list[Grid] | None:
        """Return the overview's parts between two steps, or None where fewer buckets than that lie between them."""
        files = [(file, part) for file, part in self.files if part.first_step <= last and part.last_step >= first]
        grids = [layer_overview.decode(part.grid, part.layers) for _, part in files if part.grid is not None]
        widest = max((grid.shift for grid in grids), default=0)
        if widest > shift and (last >> widest) - (first >> widest) < fewest:
            return None
        grids += layer_parts.grids([(file, part, None) for file, part in files if part.grid is None], first, shift)
        live = [part for part in self.live if part.key == self.key and len(part)]
        return grids + [layer_overview.grid_of(part, shift) for part in live]

    def in_pieces(self, names: Sequence[str], start: int, stop: int) -> Iterator[LayerPart]:
        """Yield all values between two steps, so many layers at a time as memory should hold."""
        total = sum(part.n for _, part in self.files if part.first_step < stop and part.last_step >= start)
        count = max(1, _TOGETHER * len(names) // max(total, 1))
        ordered = sorted(names)
        for at in range(0, len(ordered), count):
            yield self.exactly(ordered[at : at + count], start, stop)

    def clock(self, start: int | None, stop: int | None) -> LayerPart:
        """Return the times of the axis' steps."""
        key = (self.key[0], TIMES, self.key[2])
        parts = layer_parts.fetch(_asked(self.times, None), start, stop)
        return _merged(key, [*parts, *(part for part in self.live if part.key == key)])


def read_layers(
    store: Ground,
    uid: str,
    key: Key,
    layers: Sequence[str] | None,
    start: int | None,
    stop: int | None,
) -> LayerMatrix:
    """Return one statistic of layers over time; see `Store.layers`."""

    def read(source: _Source) -> LayerMatrix:
        names = source.names()
        columns = names if layers is None else [name for name in layers if name in set(names)]
        return _matrix(key, columns, source.exactly(layers, start, stop), source.clock(start, stop))

    matrix: LayerMatrix = _ask(store, uid, key, layers, read, with_grid=False)
    return matrix


def read_overview(
    store: Ground, uid: str, key: Key, buckets: int, start: int | None, stop: int | None
) -> LayerOverview:
    """Return one statistic of all layers in buckets; see `Store.layer_overview`."""
    limit = max(1, min(buckets, LIMIT))

    def read(source: _Source) -> LayerOverview:
        names = source.names()
        first, last = source.range(start, stop)
        if first > last:
            return _as_buckets(key, Grid(tuple(names), 0, *_nothing(len(names))), 0, 0)
        shift = layer_overview.shift_for(first, last, limit)
        fewest = 0 if start is None and stop is None else _ENOUGH
        grids = None if source.overlaps() else source.known_grids(first, last, shift, fewest)
        if grids is None:
            parts = source.in_pieces(names, first, last + 1)
            grids = [layer_overview.grid_of(part, shift) for part in parts if len(part)]
        return _as_buckets(key, layer_overview.together(grids, names, first, last, limit), first, last)

    overview: LayerOverview = _ask(store, uid, key, None, read, with_grid=True)
    return overview


def _ask(
    store: Ground,
    uid: str,
    key: Key,
    layers: Sequence[str] | None,
    answer: Callable[[_Source], Any],
    *,
    with_grid: bool,
) -> Any:  # noqa: ANN401 -- whatever `answer` returns
    """Answer a question about one statistic at one moment."""
    summaries.ready(store, uid)

    def ask(catalog: Catalog, run: int) -> _Known:
        rows = catalog.rows("SELECT names FROM axis WHERE run = ? ORDER BY id", (run,))
        parts = layer_parts.stored(catalog, run, key, layers, with_grid=with_grid)
        times = [] if with_grid else layer_parts.stored(catalog, run, (key[0], TIMES, key[2]))
        return _Known([json.loads(names) for (names,) in rows], parts, times)

    def read(found: Snapshot, known: _Known) -> Any:  # noqa: ANN401
        records = live_columns(found)[0].layers
        axes = [*known.axes, *known_axes.settle_axes(records).values()]
        ours = [one for one in records if one.rank == key[2] and one.axis["what"] == key[0]]
        files = {file.id: file for file in found.of("layers")}
        in_files, times = (
            sorted(
                ((files[part.segment], part) for part in parts if part.segment in files),
                key=lambda pair: pair[0].last_order,
            )
            for parts in (known.parts, known.times)
        )
        return answer(_Source(key, axes, in_files, times, arrange(ours)))

    return snapshot.consistently(store.catalog, store.base, uid, ask, read)


def _asked(files: Sequence[tuple[Any, StoredPart]], layers: Sequence[str] | None) -> list[Asked]:
    """Return which rows of which files hold some layers."""
    asked = [(file, part, layer_parts.places_in(part, layers)) for file, part in files]
    return [one for one in asked if one[2] is None or len(one[2])]


def _merged(key: Key, parts: Sequence[LayerPart]) -> LayerPart:
    """Return parts as one; of no part one without layers."""
    if parts:
        return merge(parts)
    nothing = np.zeros(0, np.int64)
    return LayerPart(*key, (), nothing, nothing, nothing if key[1] == TIMES else np.zeros(0, np.float32))


def _limited(part: LayerPart, layers: set[str] | None, start: int | None, stop: int | None) -> LayerPart:
    """Return what a part has of some layers within some steps."""
    low = -(2**63) if start is None else start
    pieces = [
        (name, step[there], value[there])
        for name, step, value in part.pieces()
        if layers is None or name in layers
        for there in [(step >= low) & (step < stop) if stop is not None else step >= low]
    ]
    if not pieces:
        return _merged(part.key, ())
    counts = np.array([len(step) for _, step, _ in pieces], np.int64)
    steps, values = (np.concatenate([piece[at] for piece in pieces]) for at in (1, 2))
    return LayerPart(*part.key, tuple(piece[0] for piece in pieces), counts, steps, values)


def _matrix(key: Key, columns: Sequence[str], part: LayerPart, times: LayerPart) -> LayerMatrix:
    """Return a part as a matrix; a layer that was not measured at a step is NaN there."""
    steps = _steps(part)
    # Layer by layer in memory, so that each is copied as a whole.
    values = np.full((len(columns), len(steps)), np.nan, np.float32)
    row_of = {name: at for at, name in enumerate(columns)}
    before, there = None, slice(0, 0)
    for name, step, value in part.pieces():
        if name not in row_of:
            continue
        if before is None or not np.array_equal(step, before):
            before, there = step, _place(steps, step)
        values[row_of[name], there] = value
    time = times.value[_place(times.step, steps)].astype(np.int64)
    return LayerMatrix(key[1], key[0], steps, time, tuple(columns), values.T)


def _steps(part: LayerPart) -> Any:  # noqa: ANN401 -- an array
    """Return the steps at which any layer has a value; most layers have them all, so few arrays are merged."""
    steps: Any = np.zeros(0, np.int64)
    before: Any = steps
    for _, step, _ in part.pieces():
        if not np.array_equal(step, before) and not np.array_equal(step, steps):
            steps = _either(steps, step)
        before = step
    return steps


def _either(steps: Any, others: Any) -> Any:  # noqa: ANN401 -- arrays
    """Return sorted steps that are in one or the other of two sorted arrays."""
    if not len(steps):
        return others
    both = np.concatenate([steps, others])
    both.sort(kind="stable")  # numpy's own union hashes: 60 ms for a hundred thousand
    return both[np.append(True, both[1:] != both[:-1])]


def _place(steps: Any, step: Any) -> Any:  # noqa: ANN401 -- arrays
    """Return where some of the steps stand: a range if they are neighbours."""
    if not len(step):
        return slice(0, 0)
    first = int(np.searchsorted(steps, step[0]))
    if np.array_equal(steps[first : first + len(step)], step):
        return slice(first, first + len(step))
    return np.searchsorted(steps, step)


def _as_buckets(key: Key, grid: Grid, first: int, last: int) -> LayerOverview:
    """Return a grid as it is shown: only buckets that hold something, none beyond the first or the last step."""
    filled = grid.n.any(axis=0)
    bucket = grid.bucket[filled]
    begin, end = bucket << grid.shift, ((bucket + 1) << grid.shift) - 1
    columns = (getattr(grid, name)[:, filled] for name in ("n", "bad", "min", "max", "mean"))
    return LayerOverview(key[1], key[0], key[2], grid.layers, np.maximum(begin, first), np.minimum(end, last), *columns)


def _nothing(rows: int) -> tuple[Any, ...]:
    """Return the columns of a grid without buckets."""
    counts = (np.zeros((rows, 0), np.int64) for _ in range(2))
    return np.zeros(0, np.int64), *counts, *(np.zeros((rows, 0), np.float32) for _ in range(3))


__all__ = ["read_layers", "read_overview"]
