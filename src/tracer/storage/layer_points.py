"""Layer values as columns: for each statistic of each layer its steps and values, one behind the other.

A journal holds a matrix for each step; whoever asks wants one layer over all steps. So a fold turns the matrices
around once, and from then on everything is kept and merged layer by layer. The times of the steps are a statistic
like any other, without a name and of a layer without a name, so that they are kept once and not with each value.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tracer.storage.columns import Layers
    from tracer.storage.values import Integers

#: Stands for the times of an axis where other parts have the name of a statistic, and for their only layer.
TIMES = ""
#: Counts of values in a tensor are never NaN; where one is, its layer was not measured at that step.
_COUNTS = ("nans", "infs", "zeros")

Key = tuple[str, str, int]


@dataclass(slots=True)
class LayerPart:
    """One statistic of one axis and rank: layers sorted by name, the values of each sorted by step."""

    axis: str
    stat: str
    rank: int
    layers: tuple[str, ...]
    counts: Integers
    step: Integers
    value: Any

    @property
    def key(self) -> Key:
        """Return what tells this part from the others of a file."""
        return self.axis, self.stat, self.rank

    @property
    def order(self) -> tuple[bool, str, str, int]:
        """Return where it stands in a file: times come first."""
        return self.stat != TIMES, *self.key

    def __len__(self) -> int:
        return len(self.step)

    def pieces(self) -> Iterator[tuple[str, Integers, Any]]:
        """Yield steps and values layer by layer."""
        ends = np.cumsum(self.counts).tolist()
        for layer, begin, end in zip(self.layers, [0, *ends], ends, strict=False):
            yield layer, self.step[begin:end], self.value[begin:end]


def arrange(records: Iterable[Layers]) -> list[LayerPart]:
    """Return records of layer values layer by layer, in the order of a file; of equal steps the last record's."""
    together: dict[tuple[str, int], list[Layers]] = {}
    for one in records:
        together.setdefault((one.axis["what"], one.rank), []).append(one)
    found: dict[Key, list[LayerPart]] = {}
    for (what, rank), ours in together.items():
        ours.sort(key=lambda one: one.arrival)
        steps, last = _last_of_equal(np.array([one.step for one in ours], np.int64))
        times = np.array([one.time for one in ours], np.int64)[last]
        found[what, TIMES, rank] = [LayerPart(what, TIMES, rank, (TIMES,), np.array([len(steps)]), steps, times)]
        for group in _groups(ours):
            for part in _turned(group):
                found.setdefault(part.key, []).append(part)
    return sorted((merge(parts) for parts in found.values()), key=lambda part: part.order)


def extent(parts: Sequence[LayerPart]) -> tuple[Integers, Integers]:
    """Return the first and the last step of parts, and the first and the last time, each as an array."""
    found = []
    for arrays in ([part.step for part in parts], [part.value for part in parts if part.stat == TIMES]):
        there = [array for array in arrays if len(array)]
        ends = [min(int(one.min()) for one in there), max(int(one.max()) for one in there)] if there else []
        found.append(np.array(ends, np.int64))
    return found[0], found[1]


def merge(parts: Sequence[LayerPart]) -> LayerPart:
    """Return parts of one key as one; of equal steps of a layer the later part's."""
    if len(parts) == 1:
        return parts[0]
    pieces: dict[str, list[tuple[Integers, Any]]] = {}
    for part in parts:
        for layer, step, value in part.pieces():
            if len(step):
                pieces.setdefault(layer, []).append((step, value))
    layers = tuple(sorted(pieces))
    steps: list[Any] = []
    values: list[Any] = []
    counts = np.zeros(len(layers), np.int64)
    for at, layer in enumerate(layers):
        ours = pieces[layer]
        if any(one[0][-1] >= other[0][0] for one, other in itertools.pairwise(ours)):
            step, last = _last_of_equal(np.concatenate([one[0] for one in ours]))
            ours = [(step, np.concatenate([one[1] for one in ours])[last])]
        steps += [one[0] for one in ours]
        values += [one[1] for one in ours]
        counts[at] = sum(len(one[0]) for one in ours)
    first = parts[0]
    if not layers:
        return LayerPart(*first.key, (), counts, np.zeros(0, np.int64), first.value[:0])
    return LayerPart(*first.key, layers, counts, np.concatenate(steps), np.concatenate(values))


def _groups(records: list[Layers]) -> Iterator[list[Layers]]:
    """Part records so that no step is in two groups, but for such that come alone, in the order of arrival."""
    axes: dict[int, list[Layers]] = {}
    for one in records:
        axes.setdefault(id(one.axis), []).append(one)
    if len(axes) == 1:
        yield records
        return
    seen: set[int] = set()
    twice: set[int] = set()
    for ours in axes.values():
        steps = {one.step for one in ours}
        twice |= steps & seen
        seen |= steps
    for ours in axes.values():
        rest = [one for one in ours if one.step not in twice]
        if rest:
            yield rest
    for one in records:
        if one.step in twice:
            yield [one]


def _turned(records: list[Layers]) -> Iterator[LayerPart]:
    """Yield the statistics of records of one axis, layer by layer."""
    axis, rank = records[0].axis, records[0].rank
    steps, last = _last_of_equal(np.array([one.step for one in records], np.int64))
    cube = np.stack([records[at].matrix for at in last.tolist()])
    names: list[str] = axis["layers"]
    statistics: list[str] = axis["statistics"]
    order = sorted(range(len(names)), key=names.__getitem__)
    # Of two layers with one name the last counts, as of two values of one step.
    order = [
        at for at, after in zip(order, [*order[1:], None], strict=True) if after is None or names[at] != names[after]
    ]
    layers = tuple(names[at] for at in order)
    count = next((statistics.index(name) for name in _COUNTS if name in statistics), None)
    gaps = None if count is None else np.isnan(cube[:, count, :])
    there = None if gaps is None or not gaps.any() else ~gaps[:, order].T
    every = np.tile(steps, len(layers)) if there is None else np.broadcast_to(steps, there.shape)[there]
    counts = np.full(len(layers), len(steps), np.int64) if there is None else there.sum(axis=1)
    for at, statistic in enumerate(statistics):
        values = np.ascontiguousarray(cube[:, at, :].T[order])
        yield LayerPart(
            axis["what"], statistic, rank, layers, counts, every, values.reshape(-1) if there is None else values[there]
        )


def _last_of_equal(step: Integers) -> tuple[Integers, Integers]:
    """Return steps sorted, each once, and where the last of each stands."""
    if (step[1:] > step[:-1]).all():
        return step, np.arange(len(step))
    order = np.argsort(step, kind="stable")
    ordered = step[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    return ordered[last], order[last]


__all__ = ["TIMES", "Key", "LayerPart", "arrange", "extent", "merge"]
