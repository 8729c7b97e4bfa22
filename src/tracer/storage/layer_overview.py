"""A statistic of all layers in a few buckets of steps: what a heat map shows, without a look into a file.

Buckets are aligned on powers of two of the step: bucket = step >> shift. Two of one layer merge into one, so files
add to the overview whatever their width is. Each file's part of it lies in the catalog; the bytes are a header and
then the columns of layers x buckets, each with its bytes shuffled by significance, deflated together:

    u32 shift · u32 layers · u32 buckets · i64 bucket … · u32 n · u32 not finite · f32 min · f32 max · f32 mean
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tracer.storage.layer_points import LayerPart
    from tracer.storage.values import Integers

#: Columns of cells: which layer and bucket each is, and what is in it.
Cells = dict[str, Any]

LIMIT = 256
#: A bucket of a file's part holds at least so many values of a layer, or it would cost more than the values.
_LEAST = 16
_HEAD = struct.Struct("<III")
_COLUMNS = (("n", "<u4"), ("bad", "<u4"), ("min", "<f4"), ("max", "<f4"), ("mean", "<f4"))
_MAX_SHIFT = 62


@dataclass(slots=True)
class Grid:
    """Layers by buckets; `min`, `max` and `mean` are over finite values and NaN where there are none."""

    layers: tuple[str, ...]
    shift: int
    bucket: Integers
    n: Any
    bad: Any
    min: Any
    max: Any
    mean: Any


def grid_of(part: LayerPart, shift: int) -> Grid:
    """Return the values of a part in buckets of a width."""
    bucket = part.step >> shift
    ends = np.cumsum(part.counts)
    begins = np.ones(len(part), bool)
    begins[1:] = bucket[1:] != bucket[:-1]
    begins[ends[:-1][ends[:-1] < len(part)]] = True
    starts = np.flatnonzero(begins)
    found = np.unique(bucket[starts])
    shape = (len(part.layers), len(found))
    grid = Grid(
        part.layers, shift, found, np.zeros(shape, np.int64), np.zeros(shape, np.int64),
        *(np.full(shape, np.nan, np.float32) for _ in range(3)),
    )  # fmt: skip
    if not len(starts):
        return grid
    at = np.searchsorted(ends, starts, side="right"), np.searchsorted(found, bucket[starts])
    finite = np.isfinite(part.value)
    n = np.diff(np.append(starts, len(part)))
    whole = np.add.reduceat(finite, starts, dtype=np.int64)
    is_clean = bool(finite.all())

    def filled(with_: float) -> Any:  # noqa: ANN401 -- an array
        return part.value if is_clean else np.where(finite, part.value, np.float32(with_))

    grid.n[at], grid.bad[at] = n, n - whole
    is_known = whole > 0
    known = at[0][is_known], at[1][is_known]
    grid.min[known] = np.minimum.reduceat(filled(np.inf), starts)[is_known]
    grid.max[known] = np.maximum.reduceat(filled(-np.inf), starts)[is_known]
    sums = np.add.reduceat(filled(0.0), starts, dtype=np.float64)
    grid.mean[known] = _in_range(sums[is_known] / whole[is_known])
    return grid


def grid_from(layers: tuple[str, ...], shift: int, cells: Cells) -> Grid:
    """Return a grid of cells that were summed up elsewhere."""
    found, column = np.unique(cells["bucket"], return_inverse=True)
    shape = (len(layers), len(found))
    at = cells["layer"], column
    tables: list[Any] = [np.zeros(shape, np.int64) for _ in range(2)]
    tables += [np.full(shape, np.nan, np.float32) for _ in range(3)]
    for table, (name, _) in zip(tables, _COLUMNS, strict=True):
        table[at] = _in_range(cells[name]) if name == "mean" else cells[name]
    return Grid(layers, shift, found, *tables)


def shift_for(first: int, last: int, limit: int = LIMIT) -> int:
    """Return the narrowest width of buckets at which steps from first to last fill no more than a limit."""
    shift = 0
    while shift < _MAX_SHIFT and (last >> shift) - (first >> shift) >= limit:
        shift += 1
    return shift


def stored_shift(part: LayerPart, first: int, last: int) -> int:
    """Return the width for a file's part of an overview over steps from first to last."""
    most = int(part.counts.max(initial=1))
    begin, end = int(part.step.min()), int(part.step.max())
    apart = max((end - begin + 1) // max(most, 1), 1)
    return max(shift_for(first, last), (apart * _LEAST - 1).bit_length())


def encode(grid: Grid) -> bytes:
    """Return a grid as the catalog keeps it; the names of the layers stand beside it."""
    columns = b"".join(
        np.ascontiguousarray(getattr(grid, name), kind).view(np.uint8).reshape(-1, 4).T.tobytes()
        for name, kind in _COLUMNS
    )
    head = _HEAD.pack(grid.shift, len(grid.layers), len(grid.bucket))
    return head + zlib.compress(np.ascontiguousarray(grid.bucket, "<i8").tobytes() + columns, 1)


def decode(data: bytes, layers: tuple[str, ...]) -> Grid:
    """Undo `encode`."""
    shift, rows, columns = _HEAD.unpack_from(data)
    plain = zlib.decompress(data[_HEAD.size :])
    bucket = np.frombuffer(plain, "<i8", columns)
    planes = np.frombuffer(plain, np.uint8, offset=8 * columns).reshape(len(_COLUMNS), 4, rows * columns)
    found = [
        np.ascontiguousarray(plane.T).view(kind).reshape(rows, columns)
        for plane, (_, kind) in zip(planes, _COLUMNS, strict=True)
    ]
    return Grid(layers, shift, bucket, *found)


def together(grids: Sequence[Grid], layers: Sequence[str], first: int, last: int, limit: int) -> Grid:
    """Return grids as one, over the buckets from a first to a last step; no value may be in two of them."""
    shift = max([shift_for(first, last, limit), *(grid.shift for grid in grids)])
    begin, width = first >> shift, (last >> shift) - (first >> shift) + 1
    row_of = {name: at for at, name in enumerate(layers)}
    shape = (len(layers), width)
    n, bad, finite, total = (np.zeros(shape, kind) for kind in (np.int64, np.int64, np.int64, np.float64))
    low, high = np.full(shape, np.inf, np.float32), np.full(shape, -np.inf, np.float32)
    for one in grids:
        grid = one
        chosen = [at for at, name in enumerate(grid.layers) if name in row_of]
        rows = np.array([row_of[grid.layers[at]] for at in chosen], np.int64)
        if not len(rows) or not len(grid.bucket):
            continue
        column = (grid.bucket >> (shift - grid.shift)) - begin
        inside = (column >= 0) & (column < width)
        if not inside.all():
            column, grid = column[inside], _columns(grid, inside)
            if not len(column):
                continue
        starts = np.flatnonzero(np.append(True, column[1:] != column[:-1]))
        at = np.ix_(rows, column[starts])
        number, odd = grid.n[chosen].astype(np.int64), grid.bad[chosen].astype(np.int64)
        whole = number - odd
        is_known = whole > 0
        n[at] += np.add.reduceat(number, starts, axis=1)
        bad[at] += np.add.reduceat(odd, starts, axis=1)
        finite[at] += np.add.reduceat(whole, starts, axis=1)
        sums = np.where(is_known, grid.mean[chosen].astype(np.float64) * whole, 0.0)
        total[at] += np.add.reduceat(sums, starts, axis=1)
        least = np.minimum.reduceat(np.where(is_known, grid.min[chosen], np.inf), starts, axis=1)
        most = np.maximum.reduceat(np.where(is_known, grid.max[chosen], -np.inf), starts, axis=1)
        low[at], high[at] = np.minimum(low[at], least), np.maximum(high[at], most)
    is_known = finite > 0
    mean = _in_range(np.divide(total, finite, out=np.full(shape, np.nan), where=is_known))
    low[~is_known] = high[~is_known] = np.nan
    bucket = np.arange(begin, begin + width, dtype=np.int64)
    return Grid(tuple(layers), shift, bucket, n, bad, low, high, mean)


def _columns(grid: Grid, chosen: Any) -> Grid:  # noqa: ANN401 -- an array
    """Return some columns of a grid."""
    tables = (getattr(grid, name)[:, chosen] for name, _ in _COLUMNS)
    return Grid(grid.layers, grid.shift, grid.bucket[chosen], *tables)


def _in_range(mean: Any) -> Any:  # noqa: ANN401 -- an array
    """Return means as single floats; that of the largest ones is no infinity."""
    most = float(np.finfo(np.float32).max)
    return np.clip(mean, -most, most).astype(np.float32)


__all__ = [
    "LIMIT",
    "Cells",
    "Grid",
    "decode",
    "encode",
    "grid_from",
    "grid_of",
    "shift_for",
    "stored_shift",
    "together",
]
