"""The eight statistics of many tensors, in batches by device and way of sharding, as one record of layer values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tracer.capture.reductions import Reduction, plain
from tracer.capture.shards import Shards
from tracer.events import Axis, LayerValues

#: A batch, and the row of a tensor in it.
Place = tuple[Reduction, int]


def reduced(tensors: Sequence[tuple[int, Tensor]], shards: Shards, scale: Tensor | None = None) -> dict[int, Place]:
    """Return where the statistics of each tensor stand, by the key that came with it.

    Args:
        tensors: Keys and tensors of any device and layout; what cannot be measured without waiting is left out.
        shards: Combines the parts of sharded tensors.
        scale: What the values were multiplied with; divided out.
    """
    places: dict[int, Place] = {}
    with torch.no_grad():
        for combine, group in shards.groups(tensors):
            batches: dict[torch.device, tuple[list[int], list[Tensor]]] = {}
            for key, tensor in group:
                dense = plain(tensor)
                if dense is not None:
                    keys, dense_ones = batches.setdefault(dense.device, ([], []))
                    keys.append(key)
                    dense_ones.append(dense)
            for device, (keys, dense_ones) in batches.items():
                reduction = Reduction(dense_ones, scale, later=reads_later(device), combine=combine)
                places.update((key, (reduction, row)) for row, key in enumerate(keys))
    return places


def reads_later(device: torch.device) -> bool:
    """Tell whether reading from this device would wait for it."""
    return device.type != "cpu"


def layer_values(axis: Axis, places: Sequence[Place | None], step: int | None, time: float) -> LayerValues:
    """Return the statistics as one matrix of single floats, a statistic per row and a layer per column."""
    matrix = np.full((len(axis.statistics), len(places)), np.nan, np.float32)
    batches: dict[int, tuple[Reduction, list[int], list[int]]] = {}
    for column, place in enumerate(places):
        if place is not None:
            _, columns, rows = batches.setdefault(id(place[0]), (place[0], [], []))
            columns.append(column)
            rows.append(place[1])
    with np.errstate(over="ignore"):  # what is beyond single precision becomes infinite
        for reduction, columns, rows in batches.values():
            matrix[:, columns] = reduction.figures()[:, rows]
    return LayerValues(axis, matrix.tobytes(), step, time)


__all__ = ["Place", "layer_values", "reads_later", "reduced"]
