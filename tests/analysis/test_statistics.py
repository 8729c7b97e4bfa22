"""What `analysis.statistics` finds."""

from __future__ import annotations

import numpy as np
import pytest

from tracer.analysis.reduction import reduce_series
from tracer.analysis.statistics import deviation, ema, local_noise, moving_mean, noise_scale, quantiles, stretches

NAN, INF = float("nan"), float("inf")
NOISE = np.random.default_rng(0).standard_normal(5000)


def test_noise_is_measured_whatever_the_trend_and_the_spikes() -> None:
    trend = 50 * np.exp(-np.arange(5000) / 700)
    spiked = trend + 0.3 * NOISE
    spiked[::100] = 1e6
    spiked[5] = NAN

    assert noise_scale(spiked) == pytest.approx(0.3, rel=0.1)


def test_too_few_points_have_no_noise() -> None:
    assert [noise_scale(np.array(values)) for values in ([], [1.0], [1.0, 9.0, NAN])] == [0.0, 0.0, 0.0]


def test_noise_is_measured_where_the_point_is() -> None:
    values = np.concatenate([NOISE[:1000], 0.01 * NOISE[1000:2000]])

    found = local_noise(values)

    assert found[500] == pytest.approx(1, rel=0.5)
    assert found[1800] == pytest.approx(0.01, rel=0.5)


def test_a_deviation_is_not_moved_by_outliers() -> None:
    values = NOISE.copy()
    values[:200] = 1e9

    assert deviation(values) == pytest.approx(1, rel=0.1)
    assert deviation(np.array([NAN])) == 0.0


def test_a_moving_average_keeps_gaps_and_starts_unbiased() -> None:
    assert ema(np.array([4.0, 4.0, NAN, 4.0]), 0.99).tolist()[:2] == pytest.approx([4.0, 4.0])
    assert np.isnan(ema(np.array([4.0, NAN, 4.0]), 0.5)[1])


@pytest.mark.parametrize("weight", [-0.1, 1.0, NAN])
def test_a_weight_outside_its_range_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="at least 0 and less than 1"):
        ema(np.ones(3), weight)


def test_a_moving_mean_shrinks_at_the_ends_and_steps_over_gaps() -> None:
    assert moving_mean(np.array([1.0, 2.0, NAN, 4.0]), 3).tolist() == [1.5, 1.5, 3.0, 4.0]


def test_quantiles_are_those_of_the_finite_values() -> None:
    assert quantiles(np.array([1.0, 2.0, 3.0, INF, NAN]), (0.0, 0.5, 1.0)) == (1.0, 2.0, 3.0)
    assert np.isnan(quantiles(np.array([NAN]), (0.5,))[0])


def test_stretches_are_first_and_last_index() -> None:
    assert stretches(np.array([True, True, False, True])) == [(0, 1), (3, 3)]
    assert stretches(np.array([], dtype=bool)) == []


def test_a_reduced_series_keeps_every_extreme_and_every_oddity() -> None:
    x, y = np.arange(100_000.0), NOISE[np.arange(100_000) % 5000].copy()
    y[31_415], y[27_182], y[50_000:50_010], y[7], y[8] = 99.0, -99.0, NAN, INF, -INF

    reduced = reduce_series(x, y, 200)

    assert len(reduced.x) == 200
    assert (max(reduced.high), min(reduced.low)) == (99.0, -99.0)
    assert (reduced.x[0], reduced.x[-1]) == (0.0, 99_999.0)
    assert (reduced.nans[0], len(reduced.nans), reduced.highs, reduced.lows) == (50_000.0, 10, (7.0,), (8.0,))


def test_a_short_series_is_kept_as_it_is() -> None:
    reduced = reduce_series(np.array([1.0, 5.0]), np.array([3.0, 4.0]), 10)

    assert (reduced.x, reduced.low, reduced.high, reduced.last, reduced.mean) == ((1.0, 5.0), *[(3.0, 4.0)] * 4)


def test_nothing_but_nan_reduces_to_marks() -> None:
    reduced = reduce_series(np.arange(1000.0), np.full(1000, NAN), 10)

    assert (reduced.x, len(reduced.nans)) == ((), 10)


def test_values_near_the_end_of_a_doubles_range_stay_finite() -> None:
    reduced = reduce_series(np.arange(1000.0), np.full(1000, 1.7e308), 10)

    assert set(reduced.mean) == {1.7e308}
