"""How the table that statistics are derived from is made of tensors: natively, by numpy, by torch, or on a device.

A table has the rows `TABLE` in double precision and a column per tensor. On the CPU the native kernel makes it in one
pass where it is present (see `native`); numpy does for plain single precision, in blocks that stay in cache, and torch
for every other kind. What single precision cannot tell is looked at again in double: a sum that is not finite (NaN,
Inf, or only an overflow), squares so small that they vanish, a standard deviation that drowns in the mean. That is
rare, so it may be slow.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tracer.capture import native

#: The rows of a table; the extremes are those of the values that are not NaN.
TABLE = ("count", "sum", "squares", "min", "max", "zeros", "nans", "infs")
COUNT, SUM, SQUARES, LOW, HIGH, ZEROS, NANS, INFS = range(len(TABLE))
#: A sum of squares in single precision is good from here on; below, squares begin to vanish.
_LEAST_SQUARES = 1e-27
#: If the variance is a smaller share of the mean square than this, the rounding of single precision is too much of it.
_DROWNED = 1e-3
#: Single floats per block of the numpy way: 256 KiB, which stay in the second cache for all its reductions.
_BLOCK = 1 << 16
#: Tensors up to this size are copied side by side: so many values cost as much as the calls that they save.
_SMALL = 1024
_ONES = np.ones(_BLOCK, np.float32)
NATIVE_TYPES = {
    torch.float32: native.FLOAT32,
    torch.float64: native.FLOAT64,
    torch.bfloat16: native.BFLOAT16,
    torch.float16: native.FLOAT16,
}
_UNKNOWN = -1
_DTYPE, _IS_CPU = operator.attrgetter("dtype"), operator.attrgetter("is_cpu")
_PLAIN_CLASSES = {Tensor, torch.nn.Parameter}

Floats = NDArray[np.float64]


def lies_plain(tensor: Tensor) -> bool:
    """Tell whether a tensor's values follow each other in memory of this process, as they are, in whatever order."""
    return (
        type(tensor) in _PLAIN_CLASSES
        and tensor.is_cpu
        and (tensor.is_contiguous() or _is_dense(tensor))
        and not tensor.is_neg()
        and (tensor.data_ptr() != 0 or tensor.numel() == 0)  # a tensor of nothing but zeros may have no memory
    )


def native_table(tensors: Sequence[Tensor]) -> tuple[native.Table | None, list[int]]:
    """Return where the tensors lie that the native kernel can read, None if it reads none, and which those are."""
    if not native.available():
        return None, []
    # The usual case first, tested column by column, which is twice as fast as tensor by tensor.
    if (
        set(map(type, tensors)) <= _PLAIN_CLASSES
        and all(map(_IS_CPU, tensors))
        and all(map(Tensor.is_contiguous, tensors))
        and not any(map(Tensor.is_neg, tensors))
    ):
        types = list(map(NATIVE_TYPES.get, map(_DTYPE, tensors), itertools.repeat(_UNKNOWN)))
        addresses, sizes = list(map(Tensor.data_ptr, tensors)), list(map(Tensor.numel, tensors))
        have_memory = all(map(operator.or_, addresses, map(operator.not_, sizes)))  # as in `lies_plain`
        if have_memory and _UNKNOWN not in types:
            return native.Table(addresses, sizes, types), list(range(len(tensors)))
    readable = [at for at, tensor in enumerate(tensors) if tensor.dtype in NATIVE_TYPES and lies_plain(tensor)]
    if not readable:
        return None, []
    chosen = [tensors[at] for at in readable]
    addresses, sizes = list(map(Tensor.data_ptr, chosen)), list(map(Tensor.numel, chosen))
    return native.Table(addresses, sizes, [NATIVE_TYPES[tensor.dtype] for tensor in chosen]), readable


def table_now(tensors: Sequence[Tensor]) -> Floats:
    """Return the table of tensors on the CPU."""
    found, readable = native_table(tensors)
    if found is not None and len(readable) == len(tensors):
        return _native_columns(found)
    table = np.empty((len(TABLE), len(tensors)))
    if found is not None:
        table[:, readable] = _native_columns(found)
    rest = sorted(set(range(len(tensors))) - set(readable))
    table[:, rest] = _portable_table([tensors[at].detach() for at in rest])
    return table


def squares_now(tensors: Sequence[Tensor]) -> list[float]:
    """Return the sum of squares of each tensor; waits for the devices where they lie."""
    found, readable = native_table(tensors)
    if found is not None and len(readable) == len(tensors):
        return native.squares(found).tolist()
    sums = [0.0] * len(tensors)
    if found is not None:
        for at, square in zip(readable, native.squares(found), strict=True):
            sums[at] = square
    groups: dict[torch.device, list[int]] = {}
    for at in sorted(set(range(len(tensors))) - set(readable)):
        if tensors[at].numel():
            groups.setdefault(tensors[at].device, []).append(at)
    for places in groups.values():
        squares = _portable_squares([tensors[at].detach() for at in places])
        for at, square in zip(places, squares, strict=True):
            sums[at] = square
    return sums


def table_there(tensors: Sequence[Tensor]) -> Tensor:
    """Return the table of tensors on a device, without waiting for it."""
    if tensors[0].is_cuda and _has_triton():
        from tracer.capture import triton_pass

        if all(tensor.dtype in triton_pass.TYPES for tensor in tensors):
            flat = [tensor.detach().resolve_neg() for tensor in tensors]
            return triton_pass.table([tensor if _is_dense(tensor) else tensor.contiguous() for tensor in flat])
    return wide_table(tensors)


def wide_table(tensors: Sequence[Tensor]) -> Tensor:
    """Return the table of tensors where they lie, in double precision and operation by operation.

    No step reads a value on the host, so it can be called while the device is busy.
    """
    device = tensors[0].device
    wide = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs know no double precision
    columns = []
    for tensor in tensors:  # one after the other, so that masks and copies of one tensor only exist at a time
        count = torch.full((), tensor.numel(), dtype=wide, device=device)
        if not tensor.numel():
            nothing = torch.zeros_like(count)
            columns.append([count, nothing, nothing, nothing + math.inf, nothing - math.inf] + 3 * [nothing])
            continue
        nan = tensor.isnan()
        low, high = tensor.masked_fill(nan, math.inf).amin(), tensor.masked_fill(nan, -math.inf).amax()
        squares = torch.linalg.vector_norm(tensor, 2, dtype=wide).square()
        zeros = tensor.numel() - torch.count_nonzero(tensor)
        columns.append(
            [count, tensor.sum(dtype=wide), squares, low, high, zeros, nan.sum(), tensor.isinf().sum()],
        )
    return torch.stack([torch.stack([part.to(wide) for part in column]) for column in columns], dim=1)


def _is_dense(tensor: Tensor) -> bool:
    """Tell whether a tensor has all values of its stretch of memory: contiguous, channels last, transposed, ..."""
    if tensor.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


@functools.cache
def _has_triton() -> bool:
    """Tell whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


def _flat(tensor: Tensor) -> Tensor:
    """Return a plain tensor's values in the order of memory."""
    return tensor.view(-1) if tensor.is_contiguous() else tensor.as_strided((tensor.numel(),), (1,))


def _native_columns(table: native.Table) -> Floats:
    """Return what the native kernel finds, a column per tensor."""
    return np.frombuffer(native.statistics(table)).reshape(-1, native.FIGURES).T


def _portable_table(tensors: Sequence[Tensor]) -> Floats:
    """Return the table without the native kernel: a first pass, and a second look at what that could not tell."""
    table = np.zeros((len(TABLE), len(tensors)))
    table[COUNT] = [tensor.numel() for tensor in tensors]
    table[LOW], table[HIGH] = math.inf, -math.inf
    by_torch, small = [], []
    with np.errstate(all="ignore"):  # what overflows here is looked at again
        for at, tensor in enumerate(tensors):
            if 0 < tensor.numel() <= _SMALL:
                small.append(at)
            elif tensor.dtype == torch.float32 and lies_plain(tensor):
                table[SUM:, at] = _by_numpy(_flat(tensor).numpy())
            elif tensor.numel():
                by_torch.append(at)
        if small:
            table[SUM:, small] = _side_by_side([tensors[at] for at in small])
        if by_torch:
            table[SUM:NANS, by_torch] = _by_torch([tensors[at] for at in by_torch])
        again = np.flatnonzero(_is_doubtful(table)).tolist()
    if again:
        table[:, again] = wide_table([tensors[at] for at in again]).numpy()
    return table


def _by_numpy(values: NDArray[np.float32]) -> list[float]:
    """Return the rows after the count of single floats, reading them from memory once."""
    total, squares, low, high, zeros, nans, infs = 0.0, 0.0, math.inf, -math.inf, 0, 0, 0
    for start in range(0, values.size, _BLOCK):
        block: NDArray[Any] = values[start : start + _BLOCK]
        square = float(block.dot(block))
        empty = block.size - int(np.count_nonzero(np.not_equal(block, 0)))  # a mask counts faster than floats
        zeros += empty
        if _LEAST_SQUARES <= square < math.inf or empty == block.size:
            squares += square
            total += float(block.dot(_ONES[: block.size]))  # five times as fast as numpy's sum
            low, high = min(low, float(np.minimum.reduce(block))), max(high, float(np.maximum.reduce(block)))
            continue
        block = block.astype(np.float64)
        squares, total = squares + float(block.dot(block)), total + float(np.add.reduce(block))
        nans, infs = nans + int(np.count_nonzero(np.isnan(block))), infs + int(np.count_nonzero(np.isinf(block)))
        low, high = min(low, float(np.fmin.reduce(block))), max(high, float(np.fmax.reduce(block)))
    return [total, squares, low, high, zeros, nans, infs]


def _side_by_side(tensors: Sequence[Tensor]) -> Floats:
    """Return the rows after the count of small tensors of any kind, which cost more to call for than to copy."""
    values = torch.cat([tensor.reshape(-1) for tensor in tensors]).double().numpy()
    sizes = list(map(Tensor.numel, tensors))
    starts = [0, *itertools.accumulate(sizes[:-1])]
    totals = np.add.reduceat(values, starts)
    odd = np.zeros((2, len(tensors)))
    if not np.isfinite(totals).all():
        odd[0] = np.add.reduceat(np.isnan(values), starts, dtype=np.int64)
        odd[1] = np.add.reduceat(np.isinf(values), starts, dtype=np.int64)
    hidden = odd[0] == sizes
    return np.stack(
        [
            totals,
            np.add.reduceat(np.square(values), starts),
            np.where(hidden, math.inf, np.fmin.reduceat(values, starts)),
            np.where(hidden, -math.inf, np.fmax.reduceat(values, starts)),
            np.add.reduceat(values == 0, starts, dtype=np.int64),
            *odd,
        ]
    )


def _by_torch(tensors: Sequence[Tensor]) -> Floats:
    """Return sum, sum of squares, min, max and zeros of tensors of any kind, each in few operations and one read."""
    narrow = [torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else None for tensor in tensors]
    extremes = [torch.aminmax(tensor) for tensor in tensors]
    parts = [tensor.sum(dtype=dtype) for tensor, dtype in zip(tensors, narrow, strict=True)]
    parts += _foreach_norms(tensors)
    parts += [pair.min for pair in extremes] + [pair.max for pair in extremes]
    # Subtracted as integers, because a float rounds counts above 16 million.
    parts += [tensor.numel() - torch.count_nonzero(tensor) for tensor in tensors]
    figures: Floats = torch.stack([part.double() for part in parts]).numpy().reshape(5, -1)
    squares = np.square(figures[1])
    vanish = (squares < _LEAST_SQUARES) & ((figures[2] != 0) | (figures[3] != 0))
    figures[1] = np.where(vanish, math.inf, squares)
    return figures


def _is_doubtful(table: Floats) -> NDArray[np.bool_]:
    """Tell of which tensors more has to be found out: single precision was not enough, or NaNs are not counted yet."""
    count, total, squares = table[COUNT], table[SUM], table[SQUARES]
    drowned = (table[LOW] < table[HIGH]) & (squares - total * total / np.maximum(count, 1) < _DROWNED * squares)
    unknown = ~np.isfinite(total) | ~np.isfinite(squares)
    doubtful: NDArray[np.bool_] = drowned | (unknown & (table[NANS] + table[INFS] == 0))
    return doubtful


def _portable_squares(tensors: Sequence[Tensor]) -> list[float]:
    """Return the sum of squares of tensors of one device, none of them empty; doubtful ones are summed in double."""
    squares = [norm * norm for norm in torch.stack(_foreach_norms(tensors)).tolist()]
    again = [at for at, square in enumerate(squares) if not _LEAST_SQUARES <= square < math.inf]
    if again:
        wide = torch.float32 if tensors[0].device.type == "mps" else torch.float64
        looks = [torch.linalg.vector_norm(tensors[at], 2, dtype=wide) for at in again]
        for at, norm in zip(again, torch.stack(looks).tolist(), strict=True):
            squares[at] = norm * norm
    return squares


def _foreach_norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the 2-norms of tensors of one device in one fused operation."""
    widest: torch.dtype | None = None
    if any(tensor.dtype != torch.float32 for tensor in tensors):
        # Without a type half precision gives a norm of three digits; single precision would refuse double tensors.
        widest = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
    made: Any = torch._foreach_norm(list(tensors), 2, dtype=widest)  # noqa: SLF001 -- the fused form has no public name
    return list(made)


__all__ = [
    "COUNT", "HIGH", "INFS", "LOW", "NANS", "NATIVE_TYPES", "SQUARES", "SUM", "TABLE", "ZEROS",
    "Floats", "lies_plain", "native_table", "squares_now", "table_now", "table_there", "wide_table",
]  # fmt: skip
