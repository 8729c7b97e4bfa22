"""Sharded tensors: statistics of the whole out of those of the parts, without gathering a tensor.

Each rank reduces its own shards; two small reductions between the ranks then make sums and extremes those of the whole.
All ranks of the mesh must come here at the same steps, so how often that is depends on figures that they share: the
dearest rank's cost and the slowest rank's step travel with the table, and are read at the look after it, when they have
certainly come from the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed

#: Rows of the table that `Reduction` hands over: count, sum, squares, low, high, zeros, NaNs, infinities.
_LOW, _HIGH = 3, 4
_SUMS = (0, 1, 2, 5, 6, 7)

Combine = Callable[[Tensor], Tensor]


class Pace(NamedTuple):
    """What a look cost and how long a step took, in seconds."""

    cost: float
    step: float


class _Mesh(NamedTuple):
    """Between whom a tensor is sharded."""

    mesh: Any
    dimensions: tuple[int, ...]

    def reduce(self, table: Tensor, operation: Any) -> None:  # noqa: ANN401 -- torch's own kind of constant
        """Reduce a table in place between the ranks that hold parts."""
        for dimension in self.dimensions:
            distributed.all_reduce(table, operation, group=self.mesh.get_group(dimension))


class Shards:
    """Tells sharded tensors from whole ones, and combines the statistics of their parts.

    Attributes:
        any: Whether sharded tensors were seen.
    """

    def __init__(self) -> None:
        self.any = False
        self._name, self._mine = "", Pace(0.0, 0.0)
        self._on_their_way: dict[str, Tensor] = {}

    def begin(self, name: str, mine: Pace) -> Pace | None:
        """Begin a look: say what this rank brings to the agreement, and learn what all brought to the look before.

        Args:
            name: The instrument that looks.
            mine: The cost of its last look on this rank, and this rank's step.

        Returns:
            The largest of all ranks; None while nothing sharded was seen.
        """
        self._name, self._mine = name, mine
        arrived = self._on_their_way.pop(name, None)
        return None if arrived is None else Pace(*arrived.tolist())

    def groups(
        self, tensors: Iterable[tuple[int, Tensor]]
    ) -> Iterator[tuple[Combine | None, list[tuple[int, Tensor]]]]:
        """Yield the tensors in groups that are combined in one way; whole ones first, which need none."""
        whole: list[tuple[int, Tensor]] = []
        sharded: dict[_Mesh, list[tuple[int, Tensor]]] = {}
        for key, tensor in tensors:
            where = _mesh_of(tensor)
            if where is None:
                whole.append((key, tensor))
            else:
                sharded.setdefault(where, []).append((key, tensor))
        if whole:
            yield None, whole
        for where, members in sharded.items():
            yield self._combining(where), members

    def whole_norms(self, norms: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Return norms of local shards as norms of the whole tensors.

        Args:
            norms: The last dimension runs over the parameters.
            parameters: The tensors; those that are not sharded keep their norm.
        """
        columns: dict[_Mesh, list[int]] = {}
        for column, parameter in enumerate(parameters):
            where = _mesh_of(parameter)
            if where is not None:
                columns.setdefault(where, []).append(column)
        for where, mine in columns.items():
            squares = norms[..., mine].square()
            where.reduce(squares, distributed.ReduceOp.SUM)
            norms[..., mine] = squares.sqrt()
            pace = torch.tensor(self._mine, dtype=torch.float64).to(norms.device, non_blocking=True)
            where.reduce(pace, distributed.ReduceOp.MAX)
            self._agree(pace)
        return norms

    def _agree(self, largest: Tensor) -> None:
        """Keep what all ranks brought until the next look of the same instrument."""
        self.any = True
        self._on_their_way[self._name] = largest

    def _combining(self, where: _Mesh) -> Combine:
        """Return what makes the table of the local shards that of the whole tensors."""

        def combine(table: Tensor) -> Tensor:
            sums = table[list(_SUMS)]
            mine = torch.tensor(self._mine, dtype=table.dtype).to(table.device, non_blocking=True)
            edges = torch.cat([-table[_LOW], table[_HIGH], mine])
            where.reduce(sums, distributed.ReduceOp.SUM)
            where.reduce(edges, distributed.ReduceOp.MAX)
            count = table.shape[1]
            self._agree(edges[2 * count :])
            whole = torch.empty_like(table)
            whole[list(_SUMS)] = sums
            whole[_LOW], whole[_HIGH] = -edges[:count], edges[count : 2 * count]
            return whole

        return combine


def _mesh_of(tensor: Tensor) -> _Mesh | None:
    """Return between whom a tensor is sharded; None when this rank holds all of it."""
    placements = getattr(tensor, "placements", None)  # a DTensor's; its class would load torch's distributed tensors
    if placements is None:
        return None
    dimensions = tuple(at for at, placement in enumerate(placements) if placement.is_shard())
    return _Mesh(tensor.device_mesh, dimensions) if dimensions else None  # type: ignore[attr-defined]  # see above


__all__ = ["Combine", "Pace", "Shards"]
