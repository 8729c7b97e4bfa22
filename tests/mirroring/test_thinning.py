"""Thinned series keep their first, lowest, highest and last value of each interval, whenever the lane is killed."""

from __future__ import annotations

import json
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tracer.mirroring.thinning import Thinner
from tracer.transfer import Points


def series(values: list[float], start: int = 0, step_us: int = 100_000) -> Points:
    steps = np.arange(start, start + len(values), dtype=np.int64)
    return Points("a", steps, steps * step_us, np.array(values))


def thinned(values: list[float], thin: int | str, *, piece: int = 7, restart: bool = False) -> list[tuple[int, float]]:
    """Feed the values in pieces; with `restart`, through JSON between two."""
    thinner, found = Thinner(), []
    for at in range(0, len(values), piece):
        points = thinner.take(series(values[at : at + piece], at), thin)
        found += [points] if points is not None else []
        if restart:
            thinner = Thinner(json.loads(json.dumps(thinner.waiting)))
    return [
        pair for one in [*found, *thinner.rest()] for pair in zip(one.steps.tolist(), one.values.tolist(), strict=True)
    ]


def test_first_lowest_highest_and_last_of_ten_steps() -> None:
    values = [5.0, 1.0, 9.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 6.0, 3.0]

    assert thinned(values, 10) == [(0, 5.0), (1, 1.0), (2, 9.0), (9, 6.0), (10, 3.0)]


def test_time_parts_intervals_too() -> None:
    assert [step for step, _ in thinned([float(one) for one in range(30)], "1s")] == [0, 9, 10, 19, 20, 29]


def test_a_nan_is_an_extreme() -> None:
    assert [step for step, _ in thinned([1.0, 1.0, math.nan, 1.0, 1.0, 1.0], 10)] == [0, 2, 5]


@given(st.lists(st.floats(width=32), min_size=1, max_size=60), st.integers(1, 25), st.integers(1, 9), st.booleans())
def test_whatever_comes_extremes_stay_and_the_order_too(
    values: list[float],
    length: int,
    piece: int,
    restart: bool,  # noqa: FBT001 (hypothesis gives it by place)
) -> None:
    found = thinned(values, length, piece=piece, restart=restart)

    steps = [step for step, _ in found]
    assert steps == sorted(set(steps))
    for begin in range(0, len(values), length):
        part = values[begin : begin + length]
        kept = [value for step, value in found if begin <= step < begin + length]
        assert len(kept) <= 5
        finite = [value for value in part if math.isfinite(value)]
        if finite:
            assert (min(finite), max(finite)) == (
                min(value for value in kept if math.isfinite(value)),
                max(value for value in kept if math.isfinite(value)),
            )
        assert begin in steps
        assert min(begin + length, len(values)) - 1 in steps
