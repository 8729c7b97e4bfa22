"""A whole series in at most 1,024 entries, kept beside its summary: tables and charts of it open no file.

Form 0 holds the points themselves while there are few. Form 1 holds buckets, aligned on powers of two of the step:
bucket = (step + 2⁶³) >> shift, only those that hold something. When there would be too many, shift grows and
neighbours merge, so a fold never reads old points again, and steps may come in any order.

The bytes are `flags` and then the columns, each with its bytes shuffled by significance, deflated together:

    form 0   step - step before · value
    form 1   bucket - bucket before · n · not finite · min · max · mean
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.storage.values import Buckets

if TYPE_CHECKING:
    import numpy.typing as npt

    from tracer.storage.values import Floats, Integers

    Unsigned = npt.NDArray[np.uint64]

LIMIT = 1024
POINTS, BUCKETS = 0, 1
_SIGN = np.uint64(1 << 63)
_EXACT = 1e-6
_SINGLE, _PLAIN = 1, 2
_DEFLATE_FROM = 64
_MAX_SHIFT = 63
_WIDTHS = ((1, "<u1"), (2, "<u2"), (4, "<u4"), (8, "<u8"))


@dataclass(slots=True)
class Overview:
    """One overview, decoded. Form 0 fills `index` (steps, offset by 2⁶³) and `mean` (values) only."""

    form: int
    shift: int
    index: Unsigned
    n: Integers
    nan: Integers
    min: Floats
    max: Floats
    mean: Floats

    def __len__(self) -> int:
        return len(self.index)


def of_points(step: Integers, value: Floats) -> Overview:
    """Return the overview of points whose steps strictly increase."""
    index = _unsigned(step)
    if len(index) <= LIMIT:
        return _points(index, np.asarray(value, np.float64))
    return _limited(index, np.asarray(value, np.float64), 0)


def merged(old: Overview | None, step: Integers, value: Floats) -> Overview:
    """Return an overview with points added; of equal steps in form 0 the new one wins.

    Args:
        old: What was there, if anything.
        step: Strictly increasing steps.
        value: Their values.
    """
    if old is None or not len(old):
        return of_points(step, value)
    if not len(step):
        return old
    if old.form == POINTS:
        index, values = np.concatenate([old.index, _unsigned(step)]), np.concatenate([old.mean, value])
        order = np.argsort(index, kind="stable")
        index = index[order]
        last = np.append(index[1:] != index[:-1], True)
        index, values = index[last], values[order][last]
        return _points(index, values) if len(index) <= LIMIT else _limited(index, values, 0)
    return _together([old, _bucketed(_unsigned(step), np.asarray(value, np.float64), old.shift)])


def encode(overview: Overview) -> tuple[int, int, int, int, bytes]:
    """Return the columns of the catalog: form, base, shift, n, data."""
    index = overview.index
    base = int(index[0]) if len(index) else 0
    deltas = np.diff(index, prepend=index[:1])
    floats = (overview.mean,) if overview.form == POINTS else (overview.min, overview.max, overview.mean)
    single = all(map(_fits_single, floats))
    parts = [_packed(deltas)]
    if overview.form == BUCKETS:
        parts += [_packed(overview.n.astype(np.uint64)), _packed(overview.nan.astype(np.uint64))]
    kind = "<f4" if single else "<f8"
    with np.errstate(over="ignore", invalid="ignore"):
        parts += [_shuffled(column.astype(kind)) for column in floats]
    data = b"".join(parts)
    flags = _SINGLE if single else 0
    if len(data) < _DEFLATE_FROM:
        return (
            overview.form,
            _signed_int(base << overview.shift),
            overview.shift,
            len(index),
            bytes([flags | _PLAIN]) + data,
        )
    return (
        overview.form,
        _signed_int(base << overview.shift),
        overview.shift,
        len(index),
        bytes([flags]) + zlib.compress(data, 1),
    )


def decode(form: int, base: int, shift: int, count: int, data: bytes) -> Overview:
    """Read what `encode` returned."""
    flags = data[0]
    raw = data[1:] if flags & _PLAIN else zlib.decompress(data[1:])
    deltas, at = _unpacked(raw, 0, count)
    if count:
        deltas[0] = (base + (1 << 63)) >> shift
    index = np.cumsum(deltas, dtype=np.uint64)
    kind = np.dtype("<f4" if flags & _SINGLE else "<f8")
    none = np.empty(0, np.int64)
    if form == POINTS:
        value = _unshuffled(raw, at, count, kind).astype(np.float64)
        return Overview(POINTS, 0, index, none, none, value, value, value)
    n, at = _unpacked(raw, at, count)
    nan, at = _unpacked(raw, at, count)
    size = count * kind.itemsize
    low, high, mean = (_unshuffled(raw, at + size * part, count, kind).astype(np.float64) for part in range(3))
    return Overview(BUCKETS, shift, index, n.astype(np.int64), nan.astype(np.int64), low, high, mean)


def as_buckets(overview: Overview | None, first_step: int | None = None, last_step: int | None = None) -> Buckets:
    """Return what is drawn; the outer buckets reach no further than the series does."""
    if overview is None or not len(overview):
        none, nothing = np.empty(0, np.int64), np.empty(0)
        return Buckets(none, none, none, none, nothing, nothing, nothing)
    if overview.form == POINTS:
        step, value = _signed(overview.index), overview.mean
        finite = np.isfinite(value)
        shown = np.where(finite, value, np.nan)
        return Buckets(step, step, np.ones(len(step), np.int64), (~finite).astype(np.int64), shown, shown, shown)
    shift = np.uint64(overview.shift)
    begin = overview.index << shift
    first, last = _signed(begin), _signed(begin + np.uint64((1 << overview.shift) - 1))
    if first_step is not None:
        first[0] = max(int(first[0]), first_step)
    if last_step is not None:
        last[-1] = min(int(last[-1]), last_step)
    return Buckets(first, last, overview.n, overview.nan, overview.min, overview.max, overview.mean)


def grouped(edges: Integers, value: Floats) -> tuple[Integers, Integers, Floats, Floats, Floats]:
    """Return n, not finite, min, max and mean of sorted points between edges (positions where groups begin)."""
    finite = np.isfinite(value)
    n = np.diff(np.append(edges, len(value)))
    if finite.all():
        good, low, high, total = n, value, value, value
    else:
        good = np.add.reduceat(finite, edges, dtype=np.int64)
        low, high = np.where(finite, value, np.inf), np.where(finite, value, -np.inf)
        total = np.where(finite, value, 0.0)
    least, most = np.minimum.reduceat(low, edges), np.maximum.reduceat(high, edges)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = np.add.reduceat(total, edges) / np.maximum(good, 1)
    empty = good == 0
    least[empty], most[empty], mean[empty] = np.nan, np.nan, np.nan
    # A sum beyond the largest double has no mean that way; the middle of its range is as good as any.
    beyond = ~np.isfinite(mean) & ~empty
    mean[beyond] = least[beyond] / 2 + most[beyond] / 2
    return n.astype(np.int64), (n - good).astype(np.int64), least, most, mean


def _points(index: Unsigned, value: Floats) -> Overview:
    """Return an overview of form 0."""
    none = np.empty(0, np.int64)
    return Overview(POINTS, 0, index, none, none, value, value, value)


def _limited(index: Unsigned, value: Floats, shift: int) -> Overview:
    """Return buckets of points with the smallest shift that leaves few enough."""
    shift = _needed(index, shift)
    return _bucketed(index, value, shift)


def _bucketed(index: Unsigned, value: Floats, shift: int) -> Overview:
    """Return the buckets of sorted points at a shift, however many."""
    bucket = index >> np.uint64(shift)
    edges = np.flatnonzero(np.append(True, bucket[1:] != bucket[:-1]))
    n, nan, low, high, mean = grouped(edges, value)
    return Overview(BUCKETS, shift, bucket[edges], n, nan, low, high, mean)


def _together(parts: list[Overview]) -> Overview:
    """Merge buckets of one shift; the shift grows until they are few enough."""
    shift = parts[0].shift
    index = np.concatenate([part.index for part in parts])
    order = np.argsort(index, kind="stable")
    index = index[order]
    n, nan, low, high, mean = (
        np.concatenate([getattr(part, name) for part in parts])[order] for name in ("n", "nan", "min", "max", "mean")
    )
    more = _needed(index, 0)
    bucket = index >> np.uint64(more)
    edges = np.flatnonzero(np.append(True, bucket[1:] != bucket[:-1]))
    total, bad = np.add.reduceat(n, edges), np.add.reduceat(nan, edges)
    good = np.where(np.isnan(mean), 0, n - nan)
    share = good / np.repeat(np.maximum(np.add.reduceat(good, edges), 1), np.diff(np.append(edges, len(index))))
    middle = np.add.reduceat(np.where(good > 0, mean, 0.0) * share, edges)
    least = np.fmin.reduceat(low, edges)
    most = np.fmax.reduceat(high, edges)
    middle[np.isnan(least)] = np.nan
    return Overview(BUCKETS, shift + more, bucket[edges], total, bad, least, most, middle)


def _needed(index: Unsigned, shift: int) -> int:
    """Return the smallest shift, from the given one up, that leaves at most `LIMIT` buckets of sorted indexes."""

    def count(of: int) -> int:
        bucket = index >> np.uint64(of)
        return int(np.count_nonzero(bucket[1:] != bucket[:-1])) + 1

    enough = shift
    low, high = int(index[0]), int(index[-1])
    while enough < _MAX_SHIFT and (high >> enough) - (low >> enough) >= LIMIT:
        enough += 1
    # Steps without gaps need exactly that much; with gaps fewer buckets are filled and a finer width will do.
    while enough > shift and count(enough - 1) <= LIMIT:
        enough -= 1
    return enough


def _unsigned(step: Integers) -> Unsigned:
    """Return steps offset by 2⁶³, so that they sort and shift as they should."""
    return np.ascontiguousarray(step, np.int64).view(np.uint64) ^ _SIGN


def _signed(index: Unsigned) -> Integers:
    """Undo `_unsigned`."""
    return (index ^ _SIGN).view(np.int64)


def _signed_int(index: int) -> int:
    """Undo `_unsigned` for one number."""
    return index - (1 << 63)


def _fits_single(column: Floats) -> bool:
    """Tell whether 32 bits keep every number closely enough."""
    with np.errstate(over="ignore", invalid="ignore"):
        back = column.astype(np.float32).astype(np.float64)
        return bool(((np.abs(back - column) <= _EXACT * np.abs(column)) | (back == column) | np.isnan(column)).all())


def _packed(numbers: Unsigned) -> bytes:
    """Return whole numbers in as few bytes as the largest needs, their width first."""
    largest = int(numbers.max(initial=0))
    width, kind = next((width, kind) for width, kind in _WIDTHS if largest < 1 << 8 * width)
    return bytes([width]) + _shuffled(numbers.astype(kind))


def _unpacked(data: bytes, at: int, count: int) -> tuple[Any, int]:
    """Read what `_packed` returned; return the offset behind it too."""
    width = data[at]
    kind = dict(_WIDTHS)[width]
    return _unshuffled(data, at + 1, count, np.dtype(kind)).astype(np.uint64), at + 1 + count * width


def _shuffled(column: Any) -> bytes:  # noqa: ANN401 -- any array of numbers
    """Return bytes by significance: the first of every number, then the second, and so on."""
    return column.view(np.uint8).reshape(-1, column.itemsize).T.tobytes()  # type: ignore[no-any-return]


def _unshuffled(data: bytes, at: int, count: int, kind: Any) -> Any:  # noqa: ANN401 -- an array type
    """Undo `_shuffled`."""
    size = kind.itemsize
    plane = np.frombuffer(data, np.uint8, count * size, at).reshape(size, count)
    return np.ascontiguousarray(plane.T).view(kind).reshape(count)


__all__ = ["BUCKETS", "LIMIT", "POINTS", "Overview", "as_buckets", "decode", "encode", "grouped", "merged", "of_points"]
