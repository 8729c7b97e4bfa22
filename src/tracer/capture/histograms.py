"""Exact histograms of many tensors: how many values have each sign and power of two.

The power of two is what a float stores, so counting needs no edges and no second pass, and sums of such histograms are
histograms again. They show directly what would vanish or overflow in a narrower type. On the CPU the native kernel
counts where it is present (see `native`), torch elsewhere; on a device torch counts there, and nothing waits for it
until the counts are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tracer.capture import arrivals, native, tables
from tracer.events import Axis, Histograms

#: The smallest exponent, which only denormals have, and how many there are: of every type but double, and of double.
_SPAN = (-149, 277)
_DOUBLE_SPAN = (-1074, 2098)
#: Values of a tensor that are looked at together: what is made of them takes up to 40 bytes each.
_PIECE = 1 << 20
_MOST = 2**32 - 1
_SMALLEST_NORMAL = 2.0**-126


class ExponentCounts:
    """The exponents of the values of tensors that lie on one device, counted there.

    Args:
        tensors: Floating-point tensors of one device, dense and real; see `reductions.plain`.
    """

    __slots__ = ("_arrival", "_counts", "_lowest")

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        double = any(tensor.dtype == torch.float64 for tensor in tensors)
        self._lowest, bins = _DOUBLE_SPAN if double else _SPAN
        self._arrival: arrivals.Arrival | None = None
        self._counts: NDArray[Any] = np.zeros((2, len(tensors), bins), np.uint32)
        if tensors and not tensors[0].is_cpu:
            there = torch.stack([_counted(tensor, self._lowest, bins) for tensor in tensors], dim=1)
            self._arrival = arrivals.sent(there)
            return
        table, readable = tables.native_table(tensors)
        if table is not None:
            counts = np.frombuffer(native.exponents(table, self._lowest, bins), np.uint32)
            self._counts[:, readable] = counts.reshape(2, -1, bins)
        for at in sorted(set(range(len(tensors))) - set(readable)):
            self._counts[:, at] = _counted(tensors[at].detach(), self._lowest, bins).clamp(max=_MOST).numpy()

    def arrived(self) -> bool:
        """Tell whether `histograms` returns without waiting for the device."""
        return self._arrival is None or self._arrival.is_there()

    def histograms(self, axis: Axis, step: int | None = None, time: float | None = None) -> Histograms:
        """Return the counts from the lowest exponent that occurs to the highest; waits for the device where it must.

        Args:
            axis: The layers, in the order of the tensors.
            step: The step they belong to.
            time: When they were counted.
        """
        if self._arrival is not None:
            self._counts = np.minimum(self._arrival.values(), _MOST).astype(np.uint32)
            self._arrival = None
        taken = np.flatnonzero(self._counts.any(axis=(0, 1)))
        first, last = (int(taken[0]), int(taken[-1])) if taken.size else (-self._lowest, -self._lowest)
        counts = np.ascontiguousarray(self._counts[:, :, first : last + 1])
        return Histograms(axis, self._lowest + first, last + 1 - first, counts.tobytes(), step, time)


def exponent_histograms(tensors: Sequence[Tensor], axis: Axis, step: int | None = None) -> Histograms:
    """Return exact histograms of tensors of one device, which this waits for; `ExponentCounts` does not.

    Zeros and values that are not finite are in no bin. Without any other value there is one empty bin.

    Args:
        tensors: Floating-point tensors, dense and real; see `reductions.plain`.
        axis: The layers, in the order of the tensors.
        step: The step they belong to.

    Example:
        >>> axis = Axis("gradients", ("weight",), ("histogram",))
        >>> found = exponent_histograms([torch.tensor([1.0, 1.5, -0.25, 0.0])], axis)
        >>> found.lowest, found.bins, memoryview(found.counts).cast("I").tolist()
        (-2, 3, [1, 0, 0, 0, 0, 2])
    """
    return ExponentCounts(tensors).histograms(axis, step)


def _counted(tensor: Tensor, lowest: int, bins: int) -> Tensor:
    """Return the counts of one tensor, a row of bins per sign, where it lies and without waiting for it."""
    if tensor.dtype == torch.float32 and tensor.is_cpu:
        return _counted_by_bits(tensor.reshape(-1), lowest, bins)
    device = tensor.device
    # One place more, for what is not counted: to leave it out, its number would have to be known on the host.
    counts = torch.zeros(2 * bins + 1, dtype=torch.int64, device=device)
    for piece in torch.split(tensor.reshape(-1), _PIECE):
        values = piece if piece.dtype == torch.float64 else piece.float()
        exponents = torch.frexp(values).exponent + (-1 - lowest)  # torch's fractions begin at a half
        exponents = torch.where(values > 0, exponents + bins, exponents)
        places = torch.where(values.isfinite() & (values != 0), exponents, 2 * bins).long()
        if device.type == "cpu":
            counts += torch.bincount(places, minlength=2 * bins + 1)
        else:  # bincount waits for the device
            counts.scatter_add_(0, places, torch.ones_like(places))
    return counts[:-1].view(2, bins)


def _counted_by_bits(tensor: Tensor, lowest: int, bins: int) -> Tensor:
    """Return the same for single floats on the CPU, whose upper nine bits are the sign and the exponent."""
    fields = torch.zeros(512, dtype=torch.int64)
    for piece in torch.split(tensor, _PIECE):
        fields += torch.bincount(piece.view(torch.int32).bitwise_right_shift(23).bitwise_and_(511), minlength=512)
    counts = torch.zeros(2, bins, dtype=torch.int64)
    first = -126 - lowest
    counts[1, first : first + 254], counts[0, first : first + 254] = fields[1:255], fields[257:511]
    if int(fields[0] + fields[256]):  # zeros, and denormals, which are rare
        small = tensor[(tensor != 0) & (tensor.abs() < _SMALLEST_NORMAL)].double()
        if small.numel():
            counts += _counted(small, lowest, bins)
    return counts


__all__ = ["ExponentCounts", "exponent_histograms"]
