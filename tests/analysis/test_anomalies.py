"""What the detectors of losses, gradients, memory and NaN find, given arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tracer.analysis.finiteness import layer_nan_or_inf, nan_or_inf
from tracer.analysis.gradients import gradient_anomalies, norm_anomalies
from tracer.analysis.losses import loss_anomalies
from tracer.analysis.memory import memory_spikes
from tracer.events import Finding

Curve = NDArray[np.float64]
NAN, INF = float("nan"), float("inf")


def exponential(t: Curve, noise: Curve) -> Curve:
    return 2.3 * np.exp(-t / 400) + 0.1 + 0.02 * noise


def flat(t: Curve, noise: Curve) -> Curve:
    return 1 + 0.1 * noise + 0 * t


def skewed(t: Curve, noise: Curve) -> Curve:
    return (3 / (1 + t / 20) + 0.5) * np.exp(0.3 * noise)


def heavily_skewed(t: Curve, noise: Curve) -> Curve:
    return np.exp(0.5 * noise) + 0 * t


def power_law(t: Curve, noise: Curve) -> Curve:
    return 10 * (t + 1) ** -0.3 * (1 + 0.02 * noise)


def negative(t: Curve, noise: Curve) -> Curve:
    return -t / 40 + noise


def through_zero(t: Curve, noise: Curve) -> Curve:
    return 1 - t / 1000 + 0.1 * noise


def lower_each_epoch(t: Curve, noise: Curve) -> Curve:
    return 2 - 0.15 * (t % 500) / 500 - 0.2 * (t // 500) + 0.05 * noise


def wave(t: Curve, noise: Curve) -> Curve:
    return 1 + 0.5 * np.cos(t / 30) + 0.05 * noise


def growing_noise(t: Curve, noise: Curve) -> Curve:
    return 1 + 0.0005 * np.sqrt(t + 1) * noise


def shrinking_noise(t: Curve, noise: Curve) -> Curve:
    return (1 + 0.3 * noise) ** 2 / (1 + t / 50) + 0.01


def rounded(t: Curve, noise: Curve) -> Curve:
    return np.round(2 * np.exp(-t / 100) + 0.3 + 0.05 * noise, 1)


def plateau_then_fall(t: Curve, noise: Curve) -> Curve:
    return 2.3 - 2 / (1 + np.exp(np.clip(-(t - 1000) / 20, -50, 50))) + 0.02 * noise


def constant(t: Curve, noise: Curve) -> Curve:
    return np.full(len(t), 0.693) + 0 * noise


def without_noise(t: Curve, noise: Curve) -> Curve:
    return 2 * np.exp(-t / 30) + 0.01 + 0 * noise


def random_walk(t: Curve, noise: Curve) -> Curve:
    return 20 + np.cumsum(0.1 * noise) + 0 * t


CLEAN = (
    exponential, flat, skewed, heavily_skewed, power_law, negative, through_zero, lower_each_epoch, wave, growing_noise,
    shrinking_noise, rounded, plateau_then_fall, constant, without_noise, random_walk,
)  # fmt: skip


def made(shape: Callable[[Curve, Curve], Curve], count: int, seed: int) -> tuple[NDArray[np.int64], Curve]:
    steps = np.arange(count)
    return steps, shape(steps.astype(float), np.random.default_rng(seed).standard_normal(count))


def told(findings: list[Finding]) -> list[tuple[str, int, int | None]]:
    return [(found.kind, found.step, found.last_step) for found in findings]


@pytest.mark.parametrize("shape", CLEAN)
@pytest.mark.parametrize("count", [40, 300, 2000, 20_000])
def test_a_clean_curve_raises_no_alarm(shape: Callable[[Curve, Curve], Curve], count: int) -> None:
    found = [told(loss_anomalies(*made(shape, count, seed))) for seed in range(5)]

    assert found == [[]] * 5


@pytest.mark.parametrize("shape", [exponential, flat, power_law, negative, through_zero, wave, constant, rounded])
@pytest.mark.parametrize("seed", range(5))
def test_a_spike_is_found_at_its_step(shape: Callable[[Curve, Curve], Curve], seed: int) -> None:
    steps, values = made(shape, 300, seed)
    values[200] += 40 * max(np.std(np.diff(values)), 0.1)

    found = loss_anomalies(steps, values)

    assert told(found) == [("loss_spike", 200, 200)]
    assert found[0].details["loss"] == values[200]
    assert found[0].details["recovered"] is True


def test_a_loss_that_leaps_and_stays_is_one_finding_that_did_not_recover() -> None:
    steps, values = made(exponential, 500, seed=1)
    values[300:] += 5

    found = loss_anomalies(steps, values)

    assert [(one.kind, one.step) for one in found] == [("loss_spike", 300)]
    assert found[0].details["recovered"] is False


def test_a_sudden_fall_is_a_drop() -> None:
    steps, values = made(flat, 300, seed=2)
    values[200:] -= 5

    found = loss_anomalies(steps, values)

    assert [(one.kind, one.step) for one in found] == [("loss_drop", 200)]


def test_the_bigger_departure_is_the_graver_one() -> None:
    steps, values = made(flat, 300, seed=3)
    small, large = values.copy(), values.copy()
    small[200], large[200] = 2.5, 50.0

    severities = [loss_anomalies(steps, series)[0].severity for series in (small, large)]

    assert severities == ["medium", "high"]


def test_steps_need_not_be_evenly_spaced_and_nan_is_stepped_over() -> None:
    steps, values = made(flat, 200, seed=4)
    values[100], values[150] = NAN, 9.0

    found = loss_anomalies(steps * 37 - 500, values)

    assert told(found) == [("loss_spike", 150 * 37 - 500, 150 * 37 - 500)]


def test_fewer_points_than_the_window_say_nothing() -> None:
    steps = np.arange(10)

    assert loss_anomalies(steps, np.array([1.0] * 9 + [99.0])) == []


def test_a_smaller_window_sees_a_shorter_past() -> None:
    steps, values = np.arange(8), np.array([1.0, 1.1, 0.9, 1.0, 1.1, 0.9, 1.0, 99.0])

    found = loss_anomalies(steps, values, window_size=5)

    assert told(found) == [("loss_spike", 7, 7)]


def test_an_exploding_layer_is_one_finding_for_the_whole_stretch() -> None:
    norms = np.ones((6, 2))
    norms[2:5, 1] = [150, 4000, 200]

    found = gradient_anomalies(np.arange(0, 60, 10), ["fc1", "fc2"], norms)

    assert told(found) == [("gradient_explosion", 20, 40)]
    assert found[0].severity == "critical"
    assert found[0].details == {"layer": "fc2", "norm": 4000.0, "threshold": 100.0}


def test_a_norm_that_leaps_far_above_its_own_past_exploded_below_the_threshold_too() -> None:
    norms = np.full((30, 1), 0.05)
    norms[25] = 40.0

    found = gradient_anomalies(np.arange(30), ["fc"], norms)

    assert told(found) == [("gradient_explosion", 25, 25)]
    assert (found[0].severity, found[0].details["ratio"]) == ("medium", pytest.approx(800))


def test_a_vanished_layer_and_an_infinite_norm_are_found() -> None:
    norms = np.array([[1.0, 0.0], [1.0, 0.0], [INF, 0.0]])

    found = gradient_anomalies(np.arange(3), ["fc1", "fc2"], norms)

    assert told(found) == [("vanishing_gradient", 0, 2), ("gradient_explosion", 2, 2)]
    assert found[1].severity == "critical"


def test_a_layer_that_was_not_measured_is_no_finding() -> None:
    assert gradient_anomalies(np.arange(3), ["fc"], np.full((3, 1), NAN)) == []


def test_thresholds_of_gradients_can_be_set() -> None:
    norms = np.array([[5.0], [0.5]])

    found = gradient_anomalies(np.arange(2), ["fc"], norms, explosion_threshold=4.0, vanishing_threshold=0.6)

    assert told(found) == [("gradient_explosion", 0, 0), ("vanishing_gradient", 1, 1)]


def test_noisy_gradient_norms_raise_no_alarm() -> None:
    noise = np.random.default_rng(0).standard_normal((1000, 20))

    assert gradient_anomalies(np.arange(1000), [str(i) for i in range(20)], np.exp(noise)) == []


def test_a_norm_logged_as_a_metric_explodes_against_its_own_past() -> None:
    values = np.exp(0.3 * np.random.default_rng(1).standard_normal(200))
    values[120] = 500.0

    found = norm_anomalies(np.arange(200), values, metric="grad_norm")

    assert told(found) == [("gradient_explosion", 120, 120)]
    assert (found[0].severity, found[0].details["metric"]) == ("high", "grad_norm")


def test_nan_and_infinity_are_counted_for_each_stretch() -> None:
    values = np.array([1.0, NAN, NAN, INF, 1.0, -INF])

    found = nan_or_inf(np.arange(6) * 5, values, metric="loss")

    assert told(found) == [("nan_or_inf", 5, 15), ("nan_or_inf", 25, 25)]
    assert found[0].details == {"metric": "loss", "layer": None, "num_nans": 2, "num_infs": 1}
    assert {one.severity for one in found} == {"critical"}


def test_bad_values_in_a_layer_are_those_of_the_first_bad_step() -> None:
    nans = np.array([[0.0, 0.0], [0.0, 7.0], [0.0, 100.0]])
    infs = np.array([[0.0, 0.0], [0.0, 1.0], [NAN, 0.0]])

    found = layer_nan_or_inf(np.arange(3), ["fc1", "fc2"], nans, infs)

    assert told(found) == [("nan_or_inf", 1, 2)]
    assert found[0].details == {"layer": "fc2", "num_nans": 7, "num_infs": 1}


def test_full_memory_is_one_finding_with_its_peak() -> None:
    percents = np.array([80.0, 91.0, 97.0, 92.0, NAN, 99.0])

    found = memory_spikes(np.arange(6), percents, gpu="0")

    assert told(found) == [("memory_spike", 1, 3), ("memory_spike", 5, 5)]
    assert found[0].details == {"gpu": "0", "memory_util": 97.0, "threshold": 90.0}
    assert found[0].severity == "high"
