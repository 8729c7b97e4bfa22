"""The statistics of many tensors as one fused batch: a few reductions per tensor, one stack, one read.

On the CPU the figures are there at once: `aminmax`, `sum` and the count of zeros per tensor and one `_foreach_norm`
for all. Everything else is derived on the host in double precision. What single precision cannot tell is looked at
again in double: a norm or sum that is not finite (NaN, Inf, or only an overflow), a norm so small that its squares
vanished, a standard deviation that drowned in the mean. That is rare, so it may be slow.

On a device nothing may be read on the caller's thread and there is no second look, so the whole table is computed there
in double precision and copied to pinned memory behind the training's own kernels; `Reduction.rows` reads it later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

#: Below this norm single-precision squares have lost digits or vanished: 1e-18 squared is near the smallest float.
_TINY_NORM = 1e-18
#: If the variance is a smaller share of the mean square than this, the norm's rounding (4e-6) is too much of it.
_DROWNED = 1e-3


class Row(NamedTuple):
    """The statistics of one tensor, in the order of `events.TENSOR_STATISTICS`."""

    norm: float
    mean: float
    std: float
    max: float
    min: float
    zeros: float
    nans: float
    infs: float


class Sums(NamedTuple):
    """What is read of one tensor; `low` and `high` are those of the values that are not NaN."""

    low: float
    high: float
    total: float
    norm: float
    zeros: float
    nans: float
    infs: float
    scale: float


#: What stands for a tensor that is not there: visible as a gap, and told from a NaN gradient by its missing counts.
ABSENT = Row(*[math.nan] * len(Row._fields))
_EMPTY = Row(0.0, math.nan, math.nan, math.nan, math.nan, 0.0, 0.0, 0.0)


class Reduction:
    """The statistics of tensors that lie on one device.

    Args:
        tensors: Floating-point or complex tensors of one device, dense; see `plain`.
        scale: What the values were multiplied with, as a GradScaler does; the statistics are divided by it.
        later: Whether to leave the figures on the device until they are asked for.
    """

    __slots__ = ("_event", "_rows", "_sizes", "_table")

    def __init__(self, tensors: Sequence[Tensor], scale: Tensor | None = None, *, later: bool = False) -> None:
        self._sizes = [tensor.numel() for tensor in tensors]
        filled = [tensor for tensor in tensors if tensor.numel()]
        self._event: torch.cuda.Event | None = None
        self._rows: list[Row] | None = None
        self._table: Tensor | None = None
        if not later:
            factor = 1.0 if scale is None else float(scale)
            self._rows = self._placed(_rows_now(filled, factor) if filled else [])
        elif filled:
            self._table, self._event = _sent(_wide_table(filled, scale))

    def arrived(self) -> bool:
        """Tell whether `rows` returns without waiting for the device."""
        return self._event is None or bool(self._event.query())  # type: ignore[no-untyped-call]

    def rows(self) -> list[Row]:
        """Return the statistics in the order of the tensors; waits for the device where it must."""
        if self._rows is None:
            if self._event is not None:
                self._event.synchronize()
            table = [] if self._table is None else self._table.t().tolist()
            sizes = (size for size in self._sizes if size)
            self._rows = self._placed([_row(size, Sums(*column)) for size, column in zip(sizes, table, strict=True)])
            self._table = self._event = None
        return self._rows

    def _placed(self, rows: list[Row]) -> list[Row]:
        """Return the rows with those of empty tensors in between."""
        following = iter(rows)
        return [next(following) if size else _EMPTY for size in self._sizes]


def plain(tensor: Tensor) -> Tensor | None:
    """Return what a gradient's statistics are taken of: local, dense and real; None if that would wait for a device.

    A sharded tensor gives its own shard, a complex one its real and imaginary parts, a sparse one the values that it
    stores. Values stored twice have to be summed first, which on a device means waiting: there they are not measured.
    """
    to_local = getattr(tensor, "to_local", None)
    if to_local is not None:
        tensor = to_local()
    if tensor.layout != torch.strided:
        if tensor.layout == torch.sparse_coo:
            if not tensor.is_coalesced() and tensor.device.type != "cpu":
                return None
            tensor = tensor.coalesce()
        tensor = tensor.values()
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _rows_now(tensors: list[Tensor], factor: float) -> list[Row]:
    """Return the rows of tensors on the CPU: one fused pass, and a second look at what it could not tell."""
    narrow = [torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else None for tensor in tensors]
    widest: torch.dtype | None = None
    if any(tensor.dtype != torch.float32 for tensor in tensors):
        # Without a type half precision gives a norm of three digits; single precision would refuse double tensors.
        widest = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
    extremes = [torch.aminmax(tensor) for tensor in tensors]
    parts = [pair.min for pair in extremes] + [pair.max for pair in extremes]
    parts += [tensor.sum(dtype=dtype) for tensor, dtype in zip(tensors, narrow, strict=True)]
    parts += torch._foreach_norm(tensors, 2, dtype=widest)  # noqa: SLF001 -- the fused form has no public name
    parts += [_zeros(tensor) for tensor in tensors]
    figures: list[float] = torch.stack(parts).tolist()
    count = len(tensors)
    columns = (figures[number::count] for number in range(count))
    sums = [Sums(low, high, total, norm, zeros, 0, 0, factor) for low, high, total, norm, zeros in columns]
    sure = [_is_sure(tensor.numel(), each) for tensor, each in zip(tensors, sums, strict=True)]
    if not all(sure):
        doubtful = [number for number, is_sure in enumerate(sure) if not is_sure]
        again = _wide_table([tensors[number] for number in doubtful], scale=None).t().tolist()
        for number, column in zip(doubtful, again, strict=True):
            sums[number] = Sums(*column)._replace(scale=factor)
    return [_row(tensor.numel(), each) for tensor, each in zip(tensors, sums, strict=True)]


def _is_sure(size: int, sums: Sums) -> bool:
    """Tell whether single precision was enough for this tensor."""
    if not (math.isfinite(sums.total) and math.isfinite(sums.norm)):
        return False
    if sums.norm < _TINY_NORM and (sums.low != 0.0 or sums.high != 0.0):
        return False
    square = sums.norm * sums.norm
    return sums.low == sums.high or size == 1 or square - sums.total * sums.total / size >= _DROWNED * square


def _zeros(tensor: Tensor) -> Tensor:
    """Return how many elements are zero; subtracted as integers, because a float rounds counts above 16 million."""
    return tensor.numel() - torch.count_nonzero(tensor)


def _wide_table(tensors: list[Tensor], scale: Tensor | None) -> Tensor:
    """Return the fields of `Sums`, a row each, of tensors where they lie.

    No step reads a value on the host, so it can be called while the device is busy.
    """
    device = tensors[0].device
    wide = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs know no double precision
    columns = []
    for tensor in tensors:  # one after the other, so that masks and copies of one tensor only exist at a time
        nan = tensor.isnan()
        low, high = tensor.masked_fill(nan, math.inf).amin(), tensor.masked_fill(nan, -math.inf).amax()
        columns.append((low, high, tensor.sum(dtype=wide), _zeros(tensor), nan.sum(), tensor.isinf().sum()))
    lows, highs, totals, zeros, nans, infs = zip(*columns, strict=True)
    norms = torch._foreach_norm(tensors, 2, dtype=wide)  # noqa: SLF001 -- the fused form has no public name
    statistics = (lows, highs, totals, norms, zeros, nans, infs)
    lines = [torch.stack([part.to(wide) for part in parts]) for parts in statistics]
    factor = torch.ones((), dtype=wide, device=device) if scale is None else scale.detach().to(device, wide)
    return torch.stack([*lines, factor.reshape(()).expand(len(tensors))])


def _sent(table: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Start the copy of a table to the host, behind the kernels that fill it, and return what tells its arrival.

    Where a library has no asynchronous copy the table stays on its device until it is read.
    """
    if table.device.type != "cuda":
        return table, None
    host = torch.empty(table.shape, dtype=table.dtype, pin_memory=True)
    with torch.cuda.device(table.device):
        host.copy_(table, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
    return host, event


def _row(size: int, sums: Sums) -> Row:
    """Derive the statistics of one tensor."""
    low, high = (sums.low, sums.high) if sums.nans < size else (math.nan, math.nan)
    scale = sums.scale
    return Row(
        norm=sums.norm / scale,
        mean=sums.total / size / scale,
        std=_deviation(size, sums) / scale,
        max=high / scale,
        min=low / scale,
        zeros=sums.zeros,
        nans=sums.nans,
        infs=sums.infs,
    )


def _deviation(size: int, sums: Sums) -> float:
    """Return the unbiased standard deviation; of a single value it is NaN, as in torch."""
    if size == 1 or not (math.isfinite(sums.norm) and math.isfinite(sums.total)):
        return math.nan
    if sums.low == sums.high:
        return 0.0
    variance = (sums.norm * sums.norm - sums.total * sums.total / size) / (size - 1)
    return math.sqrt(variance) if variance > 0 else 0.0


__all__ = ["ABSENT", "Reduction", "Row", "plain"]
