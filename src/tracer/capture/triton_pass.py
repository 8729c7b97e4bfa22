"""The table of many tensors on a GPU in one pass: a program per 64 Ki values, then one per tensor that joins them.

Each program reads its chunk once and reduces it in single precision; only a chunk of which that cannot tell (its
squares overflow or vanish, or its mean drowns the deviation) is read again in double, by the same program. Nothing is
read on the host. With gradients that keep their place in memory nothing is copied to the device either.

Imported only where there is a GPU and Triton; `tables.wide_table` computes the same without.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from torch import Tensor

_CHUNK = 1 << 16
_LANES = 2048
_ROWS = 8
#: How many sets of tensors are remembered: a model's, and a few that a change of its layers leaves behind.
_PLANS = 8

#: What the kernel reads, and what it reduces in.
TYPES = {
    torch.float32: (tl.float32, tl.float32),
    torch.bfloat16: (tl.bfloat16, tl.float32),
    torch.float16: (tl.float16, tl.float32),
    torch.float64: (tl.float64, tl.float64),
}


class Plan:
    """Where each tensor's chunks stand, for tensors of these sizes and types; kept on the device."""

    __slots__ = ("_placed", "_where", "chunks", "firsts", "groups", "sizes")

    def __init__(self, sizes: Sequence[int], types: Sequence[torch.dtype], device: torch.device) -> None:
        owners: list[int] = []
        starts: list[int] = []
        firsts = [0] * len(sizes)
        ends = [0] * len(sizes)
        self.groups: list[tuple[torch.dtype, int, int]] = []
        for kind in dict.fromkeys(types):  # a launch per type of element, which most models have one or two of
            first = len(owners)
            for at, size in enumerate(sizes):
                if types[at] is kind:
                    firsts[at] = len(owners)
                    starts += range(0, size, _CHUNK)
                    owners += [at] * (len(starts) - len(owners))
                    ends[at] = len(owners)
            self.groups.append((kind, first, len(owners) - first))
        self.sizes = _on(device, sizes)
        self.chunks = _on(device, [*owners, *starts]).view(2, len(owners))
        self.firsts = _on(device, [*firsts, *ends]).view(2, len(sizes))
        self._where: list[int] = []
        self._placed = self.sizes

    def addresses(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the addresses of the tensors, on the device; copied there only if one has moved."""
        where = [tensor.data_ptr() for tensor in tensors]
        if where != self._where:
            self._placed, self._where = _on(self.sizes.device, where), where
        return self._placed


_plans: dict[tuple[torch.device, tuple[int, ...], tuple[torch.dtype, ...]], Plan] = {}


def table(tensors: Sequence[Tensor]) -> Tensor:
    """Return the table of tensors of one device, see `tables.TABLE`; nothing waits for the device.

    Args:
        tensors: Of the types in `TYPES`, each with its values one after the other in memory.
    """
    device, sizes = tensors[0].device, tuple(map(Tensor.numel, tensors))
    key = (device, sizes, tuple(tensor.dtype for tensor in tensors))
    plan = _plans.get(key)
    if plan is None:
        while len(_plans) >= _PLANS:
            del _plans[next(iter(_plans))]
        plan = _plans[key] = Plan(sizes, key[2], device)
    addresses = plan.addresses(tensors)
    partials = torch.empty(plan.chunks.shape[1], _ROWS, dtype=torch.float64, device=device)
    joined = torch.empty(_ROWS, len(tensors), dtype=torch.float64, device=device)
    for kind, first, count in plan.groups:
        if count:
            element, wide = TYPES[kind]
            _reduce[(count,)](
                addresses, plan.sizes, plan.chunks[0], plan.chunks[1], partials, first, element, wide, _CHUNK, _LANES,
                num_warps=8,
            )  # fmt: skip
    _join[(len(tensors),)](partials, plan.sizes, plan.firsts[0], plan.firsts[1], joined, len(tensors), 128)
    return joined


def _on(device: torch.device, numbers: Sequence[int]) -> Tensor:
    """Copy numbers to a device without waiting for it."""
    host = torch.tensor(numbers, dtype=torch.int64)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _reduce(  # type: ignore[no-untyped-def]  # noqa: ANN202, PLR0913, PLR0915, PLR0917 -- compiled for the device
    addresses,  # noqa: ANN001
    sizes,  # noqa: ANN001
    owners,  # noqa: ANN001
    starts,  # noqa: ANN001
    partials,  # noqa: ANN001
    first,  # noqa: ANN001
    ELEMENT: tl.constexpr,  # noqa: N803
    WIDE: tl.constexpr,  # noqa: N803
    CHUNK: tl.constexpr,  # noqa: N803
    LANES: tl.constexpr,  # noqa: N803
    LEAST_SQUARES: tl.constexpr = 1e-27,  # noqa: N803 -- both as in `tables`
    DROWNED: tl.constexpr = 1e-3,  # noqa: N803
):
    """Reduce one chunk to sum, squares, min, max, zeros, NaNs and infinities."""
    chunk = first + tl.program_id(0)
    owner = tl.load(owners + chunk)
    start = tl.load(starts + chunk)
    size = tl.load(sizes + owner)
    values = tl.load(addresses + owner).to(tl.pointer_type(ELEMENT))
    lanes = tl.arange(0, LANES)
    total = tl.zeros([LANES], WIDE)
    squares = tl.zeros([LANES], WIDE)
    low = tl.full([LANES], float("inf"), WIDE)
    high = tl.full([LANES], float("-inf"), WIDE)
    zeros = tl.zeros([LANES], tl.int32)
    nans = tl.zeros([LANES], tl.int32)
    infs = tl.zeros([LANES], tl.int32)
    for at in range(0, CHUNK, LANES):
        place = start + at + lanes
        inside = place < size
        value = tl.load(values + place, mask=inside, other=0.0).to(WIDE)
        is_nan = value != value  # noqa: PLR0124 -- what NaN is
        known = inside & (value == value)  # noqa: PLR0124
        total += value
        squares += value * value
        low = tl.minimum(low, tl.where(known, value, float("inf")))
        high = tl.maximum(high, tl.where(known, value, float("-inf")))
        zeros += (inside & (value == 0)).to(tl.int32)
        nans += is_nan.to(tl.int32)
        infs += (tl.abs(value) == float("inf")).to(tl.int32)
    count = tl.minimum(size - start, CHUNK)
    least = tl.min(low, 0)
    most = tl.max(high, 0)
    sum_1 = tl.sum(total, 0).to(tl.float64)
    sum_2 = tl.sum(squares, 0).to(tl.float64)
    empty = tl.sum(zeros, 0)
    trusted = (sum_2 >= LEAST_SQUARES) & (sum_2 < float("inf"))
    trusted = trusted & ((least == most) | (sum_2 - sum_1 * sum_1 / count >= DROWNED * sum_2))
    if not (trusted | (empty == count)):
        wide_total = tl.zeros([LANES], tl.float64)
        wide_squares = tl.zeros([LANES], tl.float64)
        for at in range(0, CHUNK, LANES):
            place = start + at + lanes
            value = tl.load(values + place, mask=place < size, other=0.0).to(tl.float64)
            wide_total += value
            wide_squares += value * value
        sum_1 = tl.sum(wide_total, 0)
        sum_2 = tl.sum(wide_squares, 0)
    row = partials + chunk * 8
    tl.store(row + 1, sum_1)
    tl.store(row + 2, sum_2)
    tl.store(row + 3, least.to(tl.float64))
    tl.store(row + 4, most.to(tl.float64))
    tl.store(row + 5, empty.to(tl.float64))
    tl.store(row + 6, tl.sum(nans, 0).to(tl.float64))
    tl.store(row + 7, tl.sum(infs, 0).to(tl.float64))


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _join(  # type: ignore[no-untyped-def]  # noqa: ANN202 -- compiled for the device
    partials,  # noqa: ANN001
    sizes,  # noqa: ANN001
    firsts,  # noqa: ANN001
    ends,  # noqa: ANN001
    joined,  # noqa: ANN001
    tensors,  # noqa: ANN001
    LANES: tl.constexpr,  # noqa: N803
):
    """Join the chunks of one tensor into its column."""
    tensor = tl.program_id(0)
    end = tl.load(ends + tensor)
    lanes = tl.arange(0, LANES)
    column = joined + tensor
    tl.store(column, tl.load(sizes + tensor).to(tl.float64))
    total = tl.zeros([LANES], tl.float64)
    squares = tl.zeros([LANES], tl.float64)
    low = tl.full([LANES], float("inf"), tl.float64)
    high = tl.full([LANES], float("-inf"), tl.float64)
    zeros = tl.zeros([LANES], tl.float64)
    nans = tl.zeros([LANES], tl.float64)
    infs = tl.zeros([LANES], tl.float64)
    for at in range(tl.load(firsts + tensor), end, LANES):
        chunk = at + lanes
        inside = chunk < end
        row = partials + chunk * 8
        total += tl.load(row + 1, mask=inside, other=0.0)
        squares += tl.load(row + 2, mask=inside, other=0.0)
        low = tl.minimum(low, tl.load(row + 3, mask=inside, other=float("inf")))
        high = tl.maximum(high, tl.load(row + 4, mask=inside, other=float("-inf")))
        zeros += tl.load(row + 5, mask=inside, other=0.0)
        nans += tl.load(row + 6, mask=inside, other=0.0)
        infs += tl.load(row + 7, mask=inside, other=0.0)
    tl.store(column + tensors, tl.sum(total, 0))
    tl.store(column + 2 * tensors, tl.sum(squares, 0))
    tl.store(column + 3 * tensors, tl.min(low, 0))
    tl.store(column + 4 * tensors, tl.max(high, 0))
    tl.store(column + 5 * tensors, tl.sum(zeros, 0))
    tl.store(column + 6 * tensors, tl.sum(nans, 0))
    tl.store(column + 7 * tensors, tl.sum(infs, 0))


__all__ = ["TYPES", "table"]
