"""Which rows of the data set a loss comes from: rows that stand out again and again, and rows that make a spike.

A row stands out when its loss lies far outside what the bulk of the losses around it promises, on the plain and on the
logarithmic scale: the losses of single rows have heavy tails, and a hard row is no bad one. Bad is a row that stands
out whenever it comes, one that carries most of a batch, or one whose loss is no number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tracer.analysis.kinds import BAD_ROWS
from tracer.analysis.statistics import Values
from tracer.events import Finding

Ids = NDArray[Any]

#: Of a normal distribution: how many standard deviations nine tenths lie below.
_NINE_TENTHS = 1.2816
#: So many standard deviations on both scales, or so many on the plain one alone, stand out.
_BAR, _PLAIN_BAR = 5.0, 40.0
#: … where it is so many times as large as what was usual when the training began.
_WORSE = 2.0
#: A row that came so often and stood out at so large a share of its times is bad.
_TIMES, _OFTEN = 3, 0.8
#: A single row that carries so much of its batch, where a batch has so many rows, is bad at once.
_CARRIES, _SMALLEST_BATCH = 0.5, 8
#: What a finding lists, what is remembered, and how many losses make up what is usual.
_LISTED, _REMEMBERED, _POOL = 20, 1000, 4096
_FEWEST = 64
#: The batches whose rows can still be named when a spike turns up, and the values they may hold.
_RECENT, _RECENT_VALUES = 1024, 1 << 20
_MAX_IDS = 32
_EPSILON = 1e-12


class Batch(Protocol):
    """The rows of one batch as arrays."""

    step: int
    time: float
    ids: Ids | None
    loss: Values | None


class Record:
    """What is remembered of a row that stood out."""

    __slots__ = ("carried", "excess", "first_step", "last_step", "loss", "nans", "seen", "share", "stood_out")

    def __init__(self, step: int) -> None:
        self.seen = self.stood_out = self.nans = 0
        self.excess = self.loss = self.share = 0.0
        self.carried = False
        self.first_step = self.last_step = step

    @property
    def is_bad(self) -> bool:
        """Whether it is worth a person's look."""
        return bool(self.nans) or self.carried or (self.stood_out >= _TIMES and self.stood_out >= _OFTEN * self.seen)

    def to_json(self, row: object) -> dict[str, object]:
        """Return what a finding says of it."""
        loss = float("nan") if self.nans else round(self.loss, 6)
        steps = [self.first_step, self.last_step] if self.last_step != self.first_step else [self.first_step]
        return {
            "row": row,
            "loss": loss,
            "share": round(self.share, 4),
            "steps": steps,
            "times": max(self.stood_out, 1),
        }


class RowLosses:
    """A running view of the rows of a run, in bounded memory.

    Example:
        >>> class Batch:
        ...     step, time, ids, loss = 7, 0.0, np.arange(100), np.r_[np.linspace(0.5, 1.5, 99), 400.0]
        >>> rows = RowLosses()
        >>> rows.add([Batch])
        >>> rows.finding().details["rows"][0]["row"]
        99
    """

    def __init__(self) -> None:
        self._known: dict[object, Record] = {}
        self._pool: Values = np.empty(0)
        self._recent: deque[Batch] = deque(maxlen=_RECENT)
        self._recent_values = 0
        self._beginning: float | None = None
        self._spiked: dict[object, list[int]] = {}
        self._first_step: int | None = None
        self._told = 0

    def add(self, batches: Sequence[Batch]) -> None:
        """Take the batches of the last second, all at once: what is usual is what they have in common."""
        measured: list[Batch] = []
        for batch in batches:
            if batch.ids is not None and len(batch.ids):
                self._recent.append(batch)
                self._recent_values += len(batch.ids)
            elif not self._completes(batch):
                continue
            if self._recent[-1].loss is not None:
                measured.append(self._recent[-1])
        while self._recent_values > _RECENT_VALUES and len(self._recent) > 1:
            self._recent_values -= len(_ids(self._recent.popleft()))
        if measured:
            self._measure(measured)

    def finding(self) -> Finding | None:
        """Return the rows that are bad so far; None while there are none that were not told before."""
        bad = {row: one for row, one in self._known.items() if one.is_bad}
        if len(bad) <= self._told:
            return None
        self._told = len(bad)
        if self._first_step is None:
            self._first_step = min(one.first_step for one in bad.values())
        ordered = sorted(bad.items(), key=lambda item: (-item[1].nans, -item[1].excess))
        listed = [one.to_json(row) for row, one in ordered[:_LISTED]]
        nans = sum(one.nans > 0 for one in bad.values())
        severity = "high" if nans or any(one.carried for one in bad.values()) else "medium"
        details = {"rows": listed, "count": len(bad), "share": max(one.share for one in bad.values()), "num_nans": nans}
        last_step = max(one.last_step for one in bad.values())
        return Finding(BAD_ROWS, severity, self._first_step, details, last_step)

    def of_spike(self, step: int, time: float | None, *, measured: bool = False) -> dict[str, object]:
        """Return what the details of a spike of the loss say of rows; empty when no batch of that step is known.

        Args:
            step: The step of the spike.
            time: When its loss was recorded; finds the batch of a program that counts steps by itself.
            measured: Say nothing where the rows' losses are not known.
        """
        batches = [one for one in self._recent if one.step == step]
        if not batches and time is not None:
            batches = [one for one in self._recent if one.time <= time][-1:]
        if not batches:
            return {}
        rows = np.concatenate([_ids(one) for one in batches])
        losses = [one.loss for one in batches if one.loss is not None]
        if losses and sum(len(one) for one in losses) == len(rows):
            listed = attribution(rows, np.concatenate(losses), self._steps_of)
            if not listed:
                return {}
            return {"rows": listed, "rows_share": round(min(sum(_number(one["share"]) for one in listed), 1.0), 4)}
        return {} if measured else self._of_ids(rows[:_REMEMBERED], step)

    def _completes(self, batch: Batch) -> bool:
        """Give the batch whose rows the loader named the losses that came for it afterwards."""
        before = self._recent[-1] if self._recent else None
        if before is None or before.loss is not None or batch.loss is None or len(_ids(before)) != len(batch.loss):
            return False
        before.loss, before.step = batch.loss, batch.step
        return True

    def _of_ids(self, rows: Ids, step: int) -> dict[str, object]:
        """Return the rows of a batch whose losses are not known, those first that were in other spikes too."""
        for row in rows.tolist():
            self._spiked.setdefault(row, []).append(step)
        while len(self._spiked) > _POOL:
            del self._spiked[next(iter(self._spiked))]
        ordered = sorted(rows.tolist(), key=lambda row: -len(self._spiked.get(row, ())))
        listed = [{"row": row, "steps": self._spiked.get(row, [step])[-_LISTED:]} for row in ordered[:_MAX_IDS]]
        recurring = [row for row in ordered if len(self._spiked.get(row, ())) > 1][:_MAX_IDS]
        return {"rows": listed, **({"recurring_rows": recurring} if recurring else {})}

    def _steps_of(self, row: object) -> list[int]:
        """Return first and last step at which a row stood out before."""
        one = self._known.get(row)
        return [] if one is None else [one.first_step, one.last_step]

    def _measure(self, measured: Sequence[Batch]) -> None:
        """Find the rows that stand out, and count how often those known came."""
        lengths = np.array([len(_ids(one)) for one in measured])
        losses = np.concatenate([one.loss for one in measured if one.loss is not None])
        ids = np.concatenate([_ids(one) for one in measured])
        steps = np.repeat(np.array([one.step for one in measured]), lengths)
        shares, sizes = _shares(losses, lengths), np.repeat(lengths, lengths)
        self._pool = np.concatenate([self._pool, losses[np.isfinite(losses)]])[-_POOL:]
        if self._beginning is None and len(self._pool) >= _FEWEST:
            self._beginning = float(np.median(self._pool[:_FEWEST]))
        scores, both = standing_out(losses, self._pool, self._beginning or 0.0)
        carries = (shares >= _CARRIES) & (sizes >= _SMALLEST_BATCH) & (both >= _BAR)
        # A batch that is bad as a whole tells of a broken model and not of its rows.
        broken = _share_of(~np.isfinite(losses), lengths) > _CARRIES
        outside = np.flatnonzero((scores > _BAR) | (~np.isfinite(losses) & ~broken))
        for place in outside.tolist():
            row, step = ids[place].item(), int(steps[place])
            one = self._known.get(row)
            if one is None:
                one = self._known[row] = Record(step)
            one.last_step, one.stood_out = max(one.last_step, step), one.stood_out + 1
            one.carried |= bool(carries[place])
            one.share = max(one.share, float(np.nan_to_num(shares[place])))
            if np.isfinite(losses[place]):
                one.excess += float(losses[place])
                one.loss = max(one.loss, float(losses[place]))
            else:
                one.nans += 1
        self._count(ids)
        self._forget()

    def _count(self, ids: Ids) -> None:
        """Count how often the rows that are remembered came."""
        if not self._known:
            return
        keys = np.array(list(self._known))
        if keys.dtype.kind != ids.dtype.kind:
            return
        for row in ids[np.isin(ids, keys)].tolist():
            self._known[row].seen += 1

    def _forget(self) -> None:
        """Forget the rows that stood out least."""
        if len(self._known) > _REMEMBERED:
            kept = sorted(self._known.items(), key=lambda item: (-item[1].nans, not item[1].is_bad, -item[1].excess))
            self._known = dict(kept[: _REMEMBERED * 3 // 4])


def attribution(ids: Ids, losses: Values, steps_of: Any = None, *, share: float = 0.5) -> list[dict[str, object]]:  # noqa: ANN401 -- a function or None
    """Return the few rows that carry a batch's loss, the heaviest first; none where the load is spread.

    Args:
        ids: The rows.
        losses: The loss of each.
        steps_of: Gives the steps at which a row stood out before.
        share: How much of the whole the rows must carry together to be named.

    Returns:
        `row`, `loss`, `share`, `steps` of each; a row whose loss is no number carries everything.

    Example:
        >>> attribution(np.array([5, 6, 7, 8]), np.array([0.1, 9.0, 0.2, 0.1]))
        [{'row': 6, 'loss': 9.0, 'share': 0.9574, 'steps': []}]
    """
    bad = np.flatnonzero(~np.isfinite(losses))
    if 0 < len(bad) <= max(len(ids) * share, 1):
        return [_said(ids[place], losses[place], 1.0, steps_of) for place in bad[:_LISTED].tolist()]
    weights = np.maximum(losses, 0)
    whole = float(weights.sum())
    if len(bad) or whole <= 0:
        return []
    order = np.argsort(-weights, kind="stable")
    carried = np.cumsum(weights[order]) / whole
    count = int(np.searchsorted(carried, share)) + 1
    # Few: a quarter of what an even load would need.
    if count > max(len(ids) * share / 4, 1) or count > _LISTED:
        return []
    usual = float(np.median(weights))
    while count < min(len(order), _LISTED) and weights[order[count]] > 10 * max(usual, _EPSILON):
        count += 1
    return [
        _said(ids[place], losses[place], float(weights[place]) / whole, steps_of) for place in order[:count].tolist()
    ]


def standing_out(losses: Values, pool: Values, beginning: float = 0.0) -> tuple[Values, Values]:
    """Return how far each loss lies outside the bulk of a pool, in standard deviations; 0 while the pool is small.

    Args:
        losses: The losses to judge.
        pool: What is usual.
        beginning: What was usual when the training began. A model that has learnt nearly everything leaves a few rows
            with all of a tiny loss; only a row that is worse than at the beginning may stand out on one scale alone.

    Returns:
        On both scales, or far on the plain one; and on both scales alone.

    Example:
        >>> standing_out(np.array([1.0, 500.0]), np.linspace(0.5, 1.5, 100))[1].round().tolist()
        [0.0, 24.0]
    """
    nothing = np.zeros(len(losses))
    if len(pool) < _FEWEST:
        return nothing, nothing
    middle, high = np.quantile(pool, (0.5, 0.9))
    both = nothing
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = max(high - middle, 0.01 * abs(middle), _EPSILON) / _NINE_TENTHS
        plain = (losses - middle) / spread
        if middle > 0 and pool.min() >= 0:
            log_spread = max(np.log(high / middle), 0.05) / _NINE_TENTHS
            both = _known(np.minimum(plain, np.log(np.maximum(losses, _EPSILON) / middle) / log_spread))
        alone = np.where(losses > _WORSE * beginning, plain * (_BAR / _PLAIN_BAR), 0.0)
    return np.maximum(both, _known(alone)), both


def _known(scores: Values) -> Values:
    """Return scores without what is no number or below 0."""
    return np.where(np.isfinite(scores), np.maximum(scores, 0.0), 0.0)


def _shares(losses: Values, lengths: NDArray[np.int64]) -> Values:
    """Return each row's share of its batch's loss."""
    weights = np.where(np.isfinite(losses), np.maximum(losses, 0.0), 0.0)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    wholes = np.repeat(np.add.reduceat(weights, starts), lengths)
    return np.where(np.isfinite(losses), weights / np.maximum(wholes, _EPSILON), 1.0)


def _share_of(marked: NDArray[np.bool_], lengths: NDArray[np.int64]) -> Values:
    """Return for each row how large a share of its batch is marked."""
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return np.repeat(np.add.reduceat(marked.astype(np.float64), starts) / lengths, lengths)


def _ids(batch: Batch) -> Ids:
    """Return the rows of a batch that has some."""
    return np.empty(0, np.int64) if batch.ids is None else batch.ids


def _said(row: Any, loss: float, share: float, steps_of: Any) -> dict[str, object]:  # noqa: ANN401 -- a NumPy scalar
    """Return what is said of one row."""
    name = row.item()
    return {"row": name, "loss": float(loss), "share": round(share, 4), "steps": steps_of(name) if steps_of else []}


def _number(value: object) -> float:
    """Return a figure of a finding."""
    return float(value) if isinstance(value, (int, float)) else 0.0


__all__ = ["RowLosses", "attribution", "standing_out"]
