"""What is usual for each layer: robust figures of the rows before, on a logarithmic scale, in blocks of rows.

A block's figures are its median, its spread and its second largest value. A row is measured against the blocks that end
before its own begins, so that it never speaks for itself; one outlier in a block changes none of the three.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tracer.analysis.statistics import Values
from tracer.analysis.windows import Matrix

BLOCK = 16
#: So many blocks are the past: what was usual long ago is not what is usual now.
_PAST = 8
_MAD_TO_SIGMA = 1.4826
#: No series of norms is quieter than five per cent from step to step.
_LEAST_SPREAD = 0.05
_COLUMNS = 32
_FEW_BLOCKS = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class Usual:
    """What was usual for each layer before each row: logarithms; NaN in the first block and where nothing was measured.

    `lowest` is the least median of any block before.
    """

    middle: Values
    spread: Values
    top: Values
    lowest: Values


def logarithms(values: Matrix) -> Values:
    """Return natural logarithms in double precision; what is not positive and finite becomes NaN."""
    values = np.asarray(values, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.isfinite(values) & (values > 0), np.log(values), np.nan)


def usual(logs: Values, block: int = BLOCK) -> Usual:
    """Return what is usual before each row of a matrix of logarithms."""
    rows, columns = logs.shape
    count = rows // block
    if not count:
        nothing = np.full((rows, columns), np.nan)
        return Usual(nothing, nothing, nothing, nothing)
    middles, spreads, tops = block_figures(logs[: count * block], block)
    past = _past(middles)
    middle = _middle(past)
    between = _MAD_TO_SIGMA * _middle(np.abs(past - middle[:, :, None]))
    spread = np.fmax(np.fmax(_middle(_past(spreads)), between), _LEAST_SPREAD)
    spread *= np.maximum(1.0, _FEW_BLOCKS / np.arange(1, count + 1))[:, None]  # few rows know little of their noise
    top = np.fmax.reduce(_past(tops), axis=2)
    lowest = np.fmin.accumulate(middles, axis=0)
    return Usual(*(_spread_out(figure, rows, block) for figure in (middle, spread, top, lowest)))


def block_figures(logs: Values, block: int = BLOCK) -> tuple[Values, Values, Values]:
    """Return median, spread and second largest value of each block of rows; one row per block."""
    parts = np.sort(logs.reshape(-1, block, logs.shape[1]), axis=1)  # NaN comes last
    known = np.isfinite(parts).sum(axis=1)
    middle = _at(parts, known, 0.5)
    away = np.sort(np.abs(parts - middle[:, None, :]), axis=1)
    spread = _MAD_TO_SIGMA * _at(away, known, 0.5)
    second = np.take_along_axis(parts, np.maximum(known - 2, 0)[:, None, :], axis=1)[:, 0, :]
    return middle, spread, np.where(known > 0, second, np.nan)


def column_groups(columns: int, size: int = _COLUMNS) -> Iterator[slice]:
    """Yield slices over the columns, so that the intermediate figures of a long run with many layers stay small."""
    for start in range(0, columns, size):
        yield slice(start, min(start + size, columns))


def _at(ordered: Values, known: NDArray[np.int_], share: float) -> Values:
    """Return the value that so large a share of the known ones lies below; NaN where fewer than half are known."""
    place = np.floor(np.maximum(known - 1, 0) * share).astype(np.int64)
    found: Values = np.take_along_axis(ordered, place[:, None, :], axis=1)[:, 0, :]
    return np.where(known * 2 >= ordered.shape[1], found, np.nan)


def _past(figures: Values) -> Values:
    """Return, for each block, the figures of the last blocks up to it."""
    padded = np.concatenate([np.full((_PAST - 1, figures.shape[1]), np.nan), figures])
    found: Values = sliding_window_view(padded, _PAST, axis=0)
    return found


def _middle(values: Values) -> Values:
    """Return the median along the last axis; many times as fast as numpy's `nanmedian`."""
    ordered = np.sort(values, axis=2)  # NaN comes last
    known = np.isfinite(ordered).sum(axis=2)
    low, high = np.maximum(known - 1, 0) // 2, np.minimum(known // 2, values.shape[2] - 1)
    both = np.take_along_axis(ordered, low[:, :, None], axis=2) + np.take_along_axis(ordered, high[:, :, None], axis=2)
    found: Values = both[:, :, 0] / 2
    return found


def _spread_out(figure: Values, rows: int, block: int) -> Values:
    """Give each row the figure of the blocks that end before its own begins."""
    place = np.arange(rows) // block - 1
    return np.where(place[:, None] >= 0, figure[np.maximum(place, 0)], np.nan)


__all__ = ["BLOCK", "Usual", "block_figures", "column_groups", "logarithms", "usual"]
