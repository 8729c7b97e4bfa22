"""Statistics of layers made fit for a screen: some layers, rows of several, what stands out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tracer.storage.values import LayerOverview

#: Statistics whose zero means something, and which are therefore never shown on a logarithmic scale.
COUNTS = frozenset({"zeros", "nans", "infs"})


def fold_rows(grid: LayerOverview, lines: int) -> tuple[LayerOverview, str]:
    """Return a grid in at most so many rows, and a sentence that says what was put together.

    Layers of one block are put together if that leaves enough rows; else neighbours are, in the model's order.
    A row's mean is that of its layers, and a layer that is not finite shows in its row.
    """
    count = len(grid.layers)
    if count <= lines:
        return grid, ""
    parts = [name.split(".") for name in grid.layers]
    groups: list[list[int]] = []
    depth = 0
    for depth in range(max(map(len, parts)) - 1, 0, -1):
        groups = _by_beginning(parts, depth)
        if len(groups) <= lines:
            break
    if len(groups) > lines or 2 * len(groups) < lines:
        finer = _by_beginning(parts, depth + 1) if len(groups) <= lines else groups
        if len(finer) <= lines:
            finer = [[at] for at in range(count)]
        edges = [len(finer) * at // lines for at in range(lines + 1)]
        groups = [list(itertools.chain(*finer[begin:end])) for begin, end in itertools.pairwise(edges)]
    names = [_together([grid.layers[at] for at in group]) for group in groups]
    folded = replace(grid, layers=tuple(names), **_summed(grid, groups))
    return folded, f"{count:,} layers in {len(groups)} rows, neighbours together; a cell is the mean of its layers."


def chosen_rows(grid: LayerOverview, layers: Sequence[str]) -> LayerOverview:
    """Return the rows of some layers."""
    wanted = set(layers)
    at = [row for row, name in enumerate(grid.layers) if name in wanted]
    tables = {name: getattr(grid, name)[at] for name in ("n", "bad", "min", "max", "mean")}
    return replace(grid, layers=tuple(grid.layers[row] for row in at), **tables)


def bad_layers(grid: LayerOverview) -> list[tuple[str, int]]:
    """Return the layers that held NaN or an infinity with the first step of the bucket in which they did first."""
    rows = np.flatnonzero(grid.bad.any(axis=1))
    found = [(grid.layers[row], int(grid.first_step[np.argmax(grid.bad[row] > 0)])) for row in rows]
    return sorted(found, key=lambda one: one[1])


def is_logarithmic(grid: LayerOverview, statistic: str) -> bool:
    """Tell whether a logarithmic scale shows a statistic best: no value is negative, and it counts nothing."""
    known = grid.mean[np.isfinite(grid.mean)]
    return statistic not in COUNTS and bool(len(known)) and bool((known >= 0).all()) and bool((known > 0).any())


def _by_beginning(parts: Sequence[Sequence[str]], depth: int) -> list[list[int]]:
    """Return neighbours whose names begin with the same parts."""
    groups: list[list[int]] = []
    before: Sequence[str] | None = None
    for at, one in enumerate(parts):
        if groups and one[:depth] == before:
            groups[-1].append(at)
        else:
            groups.append([at])
        before = one[:depth]
    return groups


def _together(names: Sequence[str]) -> str:
    """Return what a row of several layers is called."""
    if len(names) == 1:
        return names[0]
    parts = [name.split(".") for name in names]
    shared = 0
    while shared < min(map(len, parts)) and len({one[shared] for one in parts}) == 1:
        shared += 1
    begin = ".".join(parts[0][:shared])
    first, last = (one[shared] if shared < len(one) else "" for one in (parts[0], parts[-1]))
    if begin and first.isdigit() and last.isdigit() and first != last:
        return f"{begin}.{first}-{last}"
    return f"{begin}.*" if begin else f"{names[0]} + {len(names) - 1}"


def _summed(grid: LayerOverview, groups: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return the tables of rows put together."""
    tables: dict[str, list[Any]] = {name: [] for name in ("n", "bad", "min", "max", "mean")}
    for group in groups:
        at = list(group)
        known = np.isfinite(grid.mean[at])
        count = known.sum(axis=0)
        total = np.where(known, grid.mean[at], 0.0).sum(axis=0, dtype=np.float64)
        mean = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
        low = np.where(known, grid.min[at], np.inf).min(axis=0)
        high = np.where(known, grid.max[at], -np.inf).max(axis=0)
        low[count == 0] = high[count == 0] = np.nan
        rows = (grid.n[at].sum(axis=0), grid.bad[at].sum(axis=0), low, high, mean)
        for name, row in zip(tables, rows, strict=True):
            tables[name].append(row)
    return {name: np.array(rows) for name, rows in tables.items()}


__all__ = ["COUNTS", "bad_layers", "chosen_rows", "fold_rows", "is_logarithmic"]
