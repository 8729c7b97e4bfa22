"""The statistics of many tensors as one fused batch.

Everything starts from a table of what can be added up, so that the shards of a tensor can be joined before a mean or a
deviation is derived; `tables` makes it. On the CPU it is there at once. On a device nothing may be read on the caller's
thread and there is no second look, so the whole table is computed there and copied to pinned memory behind the
training's own kernels; `Reduction.rows` reads it later.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tracer.capture import arrivals, tables
from tracer.capture.tables import COUNT, HIGH, LOW, NANS, SQUARES, SUM, ZEROS, Floats

Combine = Callable[[Tensor], Tensor]


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


#: What stands for a tensor that is not there: visible as a gap, and told from a NaN gradient by its missing counts.
ABSENT = Row(*[math.nan] * len(Row._fields))


class Reduction:
    """The statistics of tensors that lie on one device.

    Args:
        tensors: Floating-point tensors of one device, dense and real; see `plain`.
        scale: What the values were multiplied with, as a GradScaler does; the statistics are divided by it.
        later: Whether to leave the figures on the device until they are asked for.
        combine: Makes the table of the whole training from the table of this process: it is given a float64 tensor,
            `tables.TABLE` by tensors, where these lie, and returns one. Called once, and at once, whatever is in it.
    """

    __slots__ = ("_arrival", "_factor", "_figures", "_rows", "_table")

    def __init__(
        self,
        tensors: Sequence[Tensor],
        scale: Tensor | None = None,
        *,
        later: bool = False,
        combine: Combine | None = None,
    ) -> None:
        self._arrival: arrivals.Arrival | None = None
        self._table: Floats | None = None
        self._figures: Floats | None = None
        self._rows: list[Row] | None = None
        self._factor = 1.0
        if not later:
            self._factor = 1.0 if scale is None else float(scale)
            self._table = tables.table_now(tensors)
            if combine is not None:
                whole = combine(torch.from_numpy(np.ascontiguousarray(self._table)))
                self._table = whole.numpy(force=True)
        elif tensors:
            table = tables.table_there(tensors)
            if combine is not None:
                table = combine(table)
            self._arrival = arrivals.sent(_with_factor(table, scale))

    def arrived(self) -> bool:
        """Tell whether `rows` returns without waiting for the device."""
        return self._arrival is None or self._arrival.is_there()

    def figures(self) -> Floats:
        """Return the statistics as `Row` orders them, a column per tensor; waits for the device where it must."""
        if self._figures is None:
            table, factor = self._table, self._factor
            if self._arrival is not None:
                received = self._arrival.values()
                table, factor = received[:-1], float(received[-1, 0])
            self._figures = np.empty((len(Row._fields), 0)) if table is None else _derived(table, factor)
            self._table = self._arrival = None
        return self._figures

    def rows(self) -> list[Row]:
        """Return the statistics in the order of the tensors; waits for the device where it must."""
        if self._rows is None:
            self._rows = [Row(*column) for column in self.figures().T.tolist()]
        return self._rows


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


def norms(tensors: Sequence[Tensor]) -> list[float]:
    """Return the 2-norm of each tensor; waits for the device where they lie.

    Example:
        >>> norms([torch.tensor([3.0, 4.0]), torch.tensor([1e30])])
        [5.0, 1e+30]
    """
    return [math.sqrt(square) for square in tables.squares_now(tensors)]


def total_norm(tensors: Sequence[Tensor]) -> float:
    """Return the 2-norm of all values of these tensors; waits for the device where they lie.

    Squares that overflow or vanish in single precision are computed in double: the norm is NaN or infinite only where a
    value is, or where double precision ends.

    Example:
        >>> total_norm([torch.tensor([3.0]), torch.tensor([4.0])])
        5.0
    """
    return math.sqrt(sum(tables.squares_now(tensors)))


def _with_factor(table: Tensor, scale: Tensor | None) -> Tensor:
    """Return a table with a row for the scale, which is only known on the device."""
    row = torch.ones((), dtype=table.dtype, device=table.device) if scale is None else scale.detach().to(table)
    return torch.cat([table, row.reshape(1, 1).expand(1, table.shape[1])])


def _derived(table: Floats, factor: float) -> Floats:
    """Return the statistics of each column of a table, in the order of `Row`."""
    count, total, squares = table[COUNT], table[SUM], table[SQUARES]
    low, high = table[LOW], table[HIGH]
    with np.errstate(all="ignore"):  # NaN and Inf are what we are here for
        variance = np.maximum(squares - total * total / count, 0) / (count - 1)
        # Of a single value it is NaN, as in torch.
        known = (count > 1) & np.isfinite(squares) & np.isfinite(total)
        deviation = np.where(known, np.where(low == high, 0.0, np.sqrt(variance)), math.nan)
        hidden = table[NANS] >= count  # also where there are no values at all
        values = [
            np.sqrt(squares),
            total / count,
            deviation,
            np.where(hidden, math.nan, high),
            np.where(hidden, math.nan, low),
        ]
        return np.concatenate([np.stack(values) / factor, table[ZEROS:]])


__all__ = ["ABSENT", "Reduction", "Row", "norms", "plain", "total_norm"]
