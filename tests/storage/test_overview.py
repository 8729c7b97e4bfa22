"""Overviews: every point in its bucket, however they came, and little to store."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.storage.overview import LIMIT, POINTS, as_buckets, decode, encode, merged, of_points

FLOATS = st.floats(allow_nan=True, allow_infinity=True, width=64)
STEPS = st.one_of(st.integers(-10, 3000), st.integers(-(2**63), 2**63 - 1))


@settings(max_examples=150, deadline=None)
@given(points=st.dictionaries(STEPS, FLOATS, min_size=1, max_size=60))
def test_few_points_are_kept_as_they_are(points: dict[int, float]) -> None:
    steps = np.array(sorted(points), np.int64)
    values = np.array([points[step] for step in sorted(points)])

    found = decode(*encode(of_points(steps, values)))
    buckets = as_buckets(found)

    assert found.form == POINTS
    assert buckets.first_step.tolist() == buckets.last_step.tolist() == sorted(points)
    assert buckets.nan.tolist() == [int(not math.isfinite(value)) for value in values]
    np.testing.assert_allclose(buckets.mean, np.where(np.isfinite(values), values, np.nan), rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    start=st.integers(-(2**62), 2**62), gaps=st.sampled_from([1, 2, 3, 1000]), count=st.integers(1025, 5000),
    parts=st.integers(1, 9), order=st.sampled_from(["as logged", "shuffled"]), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_buckets_hold_every_point_however_they_arrive(
    start: int, gaps: int, count: int, parts: int, order: str, seed: int
) -> None:
    chance = np.random.default_rng(seed)
    steps = start + np.cumsum(chance.integers(1, gaps + 1, count))
    values = chance.standard_normal(count) * 10.0 ** chance.integers(-3, 4)
    values[chance.integers(0, count, 5)] = np.nan
    pieces = np.array_split(np.arange(count), parts)
    if order == "shuffled":
        chance.shuffle(pieces)

    overview = None
    for piece in pieces:
        overview = decode(*encode(merged(overview, steps[piece], values[piece])))
    buckets = as_buckets(overview, int(steps[0]), int(steps[-1]))

    assert len(buckets) <= LIMIT
    assert buckets.n.sum() == count
    assert buckets.nan.sum() == np.isnan(values).sum()
    assert (buckets.first_step[1:] > buckets.last_step[:-1]).all()
    assert (int(buckets.first_step[0]), int(buckets.last_step[-1])) == (int(steps[0]), int(steps[-1]))
    place = np.searchsorted(buckets.first_step, steps, side="right") - 1
    for bucket in range(0, len(buckets), 97):
        mine = values[place == bucket]
        good = mine[~np.isnan(mine)]
        assert buckets.n[bucket] == len(mine)
        if len(good):
            np.testing.assert_allclose(
                [buckets.min[bucket], buckets.max[bucket], buckets.mean[bucket]],
                [good.min(), good.max(), good.mean()], rtol=1e-5, atol=1e-6 * np.abs(values[~np.isnan(values)]).max(),
            )  # fmt: skip


def test_a_hundred_thousand_points_take_ten_kilobytes() -> None:
    steps = np.arange(100_000)
    values = np.cumsum(np.random.default_rng(1).standard_normal(100_000))

    form, base, shift, count, data = encode(of_points(steps, values))

    assert (form, base, shift, count) == (1, 0, 7, 782)
    assert len(data) < 9_600


def test_a_thousand_points_take_four_bytes_each() -> None:
    values = np.random.default_rng(1).standard_normal(1000).astype(np.float32)

    data = encode(of_points(np.arange(1000), values.astype(np.float64)))[4]

    assert len(data) < 4_000


@pytest.mark.parametrize("values", [[1e308, 1e308, -1e308], [5e-324, 1e-310, 0.0]])
def test_numbers_that_single_precision_cannot_hold_stay_double(values: list[float]) -> None:
    found = decode(*encode(of_points(np.arange(3), np.array(values))))

    assert found.mean.tolist() == values


def test_the_same_step_again_replaces_the_point() -> None:
    first = of_points(np.array([1, 2]), np.array([1.0, 2.0]))

    found = merged(first, np.array([2, 3]), np.array([20.0, 30.0]))

    assert as_buckets(found).mean.tolist() == [1.0, 20.0, 30.0]


def test_nothing_has_no_buckets() -> None:
    assert len(as_buckets(None)) == 0
