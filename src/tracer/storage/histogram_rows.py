"""Histograms of layers: how many values lie between two powers of two, at the steps at which they were taken.

At rest a row per layer, step and exponent that holds something; a histogram without any value has one empty row, so
that it is known to have been taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tracer.storage.columns import HistogramRecord

NUMBERS = (
    ("rank", np.int16), ("step", np.int64), ("time", np.int64), ("exponent", np.int16),
    ("negative", np.int64), ("positive", np.int64),
)  # fmt: skip


@dataclass(slots=True, eq=False)
class HistogramRows:
    """Rows as they lie in a file: sorted by axis, rank, layer, step, exponent."""

    axis: Any
    layer: Any
    rank: Any
    step: Any
    time: Any
    exponent: Any
    negative: Any
    positive: Any

    def __len__(self) -> int:
        return len(self.step)

    def numbers(self) -> dict[str, Any]:
        """Return the columns that are numbers, each in the type it is kept in."""
        return {name: np.asarray(getattr(self, name), kind) for name, kind in NUMBERS}

    def at(self, rows: Any) -> HistogramRows:  # noqa: ANN401 -- an index of numpy's
        """Return some of the rows."""
        return HistogramRows(*(getattr(self, one.name)[rows] for one in fields(self)))


def rows_of(records: Iterable[HistogramRecord]) -> HistogramRows:
    """Return records as rows, those of one histogram written twice as the last one has them."""
    parts = [_rows(record) for record in sorted(records, key=lambda one: one.arrival)]
    return merged(parts)


def merged(parts: Sequence[HistogramRows]) -> HistogramRows:
    """Return rows of several folds as those of one file; of a histogram written twice the later part's."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return HistogramRows(*(np.zeros(0, object) for _ in range(2)), *(np.zeros(0, kind) for _, kind in NUMBERS))
    rows = HistogramRows(
        *(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(HistogramRows))
    )
    part = np.repeat(np.arange(len(parts)), [len(one) for one in parts])
    axis, layer = (_codes(column) for column in (rows.axis, rows.layer))
    order = np.lexsort((rows.exponent, part, rows.step, layer, rows.rank, axis))
    keys = np.stack([one[order] for one in (axis, rows.rank, layer, rows.step)]).astype(np.int64)
    is_new = np.append(True, (keys[:, 1:] != keys[:, :-1]).any(axis=0))
    starts = np.flatnonzero(is_new)
    last = np.maximum.reduceat(part[order], starts)
    return rows.at(order[part[order] == last[np.cumsum(is_new) - 1]])


def _rows(record: HistogramRecord) -> HistogramRows:
    """Return the rows of one record."""
    names: list[str] = record.axis["layers"]
    counts = record.counts.astype(np.int64)
    holds = counts.any(axis=0)
    holds[~holds.any(axis=1), 0] = True
    layer, bin_ = np.nonzero(holds)
    same = len(layer)
    return HistogramRows(
        np.full(same, record.axis["what"], object), np.array([names[at] for at in layer] + [None], object)[:-1],
        np.full(same, record.rank, np.int16), np.full(same, record.step), np.full(same, record.time),
        (bin_ + record.lowest).astype(np.int16), counts[0][layer, bin_], counts[1][layer, bin_],
    )  # fmt: skip


def _codes(texts: Any) -> Any:  # noqa: ANN401 -- arrays
    """Return texts as numbers that sort as they do."""
    number = {text: at for at, text in enumerate(sorted(set(texts)))}
    return np.array([number[text] for text in texts], np.int64)


__all__ = ["NUMBERS", "HistogramRows", "merged", "rows_of"]
