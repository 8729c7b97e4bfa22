"""What `analysis.curves` finds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tracer.analysis.curves import align, ending, first_difference, parting, relative_difference

Curve = NDArray[np.float64]
NAN = float("nan")


def course(count: int) -> Curve:
    return 2 * np.exp(-np.arange(count) / (count / 4)) + 0.3


def noise(count: int, seed: int, size: float = 0.05) -> Curve:
    return size * np.random.default_rng(seed).standard_normal(count)


def parts_at(left: Curve, right: Curve) -> int | None:
    steps = np.arange(len(left))
    found = parting(align(steps, left, steps, right))
    return None if found is None else found.step


@pytest.mark.parametrize("count", [8, 20, 60, 300, 3000])
@pytest.mark.parametrize("seed", range(6))
def test_curves_of_one_kind_never_part(count: int, seed: int) -> None:
    left, right = noise(count, seed), noise(count, seed + 100)

    found = [
        parts_at(course(count) + left, course(count) + right),
        parts_at(course(count) * np.exp(6 * left), course(count) * np.exp(6 * right)),
        parts_at(left, right),
        parts_at(course(count), course(count)),
    ]

    assert found == [None] * 4


@pytest.mark.parametrize("count", [60, 300, 3000])
@pytest.mark.parametrize("seed", range(6))
def test_a_lasting_step_is_found_at_its_step(count: int, seed: int) -> None:
    leap = np.where(np.arange(count) < count // 2, 0.0, 0.5)

    found = parts_at(course(count) + noise(count, seed), course(count) + noise(count, seed + 100) + leap)

    assert found == count // 2


def test_a_slow_departure_is_found_soon_after_it_began() -> None:
    ramp = np.maximum(np.arange(1000) - 500, 0) / 500

    found = parts_at(course(1000) + noise(1000, 1, 0.02), course(1000) + noise(1000, 2, 0.02) + ramp)

    assert found is not None
    assert 500 <= found <= 560


def test_one_spike_is_no_parting() -> None:
    spiked = course(300)
    spiked[150] = 1e30

    assert parts_at(course(300), spiked) is None


def test_a_curve_that_turns_nan_for_good_parts_there() -> None:
    broken = course(300)
    broken[120:] = NAN

    assert parts_at(course(300), broken) == 120


def test_a_gap_of_nan_is_no_parting() -> None:
    gap = course(300)
    gap[120:130] = NAN

    assert parts_at(course(300), gap) is None


def test_curves_with_unequal_steps_are_aligned_by_interpolation() -> None:
    every, third = np.arange(300), np.arange(0, 300, 3)
    right = course(300)[::3] + noise(100, 5, 0.02) + np.where(third < 150, 0.0, 0.5)

    found = parting(align(every, course(300) + noise(300, 4, 0.02), third, right))

    assert found is not None
    assert 147 <= found.step <= 150


def test_beyond_what_both_cover_nothing_is_made_up() -> None:
    both = align(np.array([0, 10, 20]), np.array([0.0, 1.0, 2.0]), np.array([5, 15, 40]), np.array([1.0, 1.0, 1.0]))

    assert both.steps.tolist() == [5, 10, 15, 20]
    assert both.left.tolist() == [0.5, 1.0, 1.5, 2.0]


def test_curves_without_common_steps_have_nothing_to_say() -> None:
    both = align(np.array([0, 1]), np.array([0.0, 1.0]), np.array([5, 6]), np.array([0.0, 1.0]))

    assert (len(both.steps), parting(both), first_difference(both)) == (0, None, None)


def test_an_empty_curve_has_no_common_steps() -> None:
    empty = np.array([], dtype=np.int64)

    assert len(align(empty, empty.astype(float), np.array([1]), np.array([1.0])).steps) == 0


def test_the_first_difference_counts_every_bit() -> None:
    steps, left = np.arange(50), course(50)
    right = left.copy()
    right[30] *= 1 + 1e-9

    assert first_difference(align(steps, left, steps, right)) == 30
    assert first_difference(align(steps, left, steps, left)) is None


def test_a_parting_tells_the_values_and_their_relation() -> None:
    steps = np.arange(100)

    found = parting(align(steps, np.ones(100), steps, np.where(steps < 40, 1.0, 3.0)))

    assert found is not None
    assert (found.step, found.left, found.right, found.relative, found.noise) == (40, 1.0, 3.0, 2.0, 0.0)


@pytest.mark.parametrize(
    ("base", "other", "expected"),
    [
        (2.0, 1.0, -0.5),
        (-2.0, -1.0, 0.5),
        (-1.0, -2.0, -1.0),
        (-1.0, 1.0, 2.0),
        (0.0, 0.0, 0.0),
        (0.0, 1.0, None),
        (NAN, 1.0, None),
    ],
)
def test_the_relative_difference_has_the_sign_of_the_difference(
    base: float, other: float, expected: float | None
) -> None:
    assert relative_difference(base, other) == expected


def test_an_ending_is_the_mean_of_the_last_tenth() -> None:
    found = ending(np.concatenate([np.zeros(90), np.ones(10), [NAN]]))

    assert found is not None
    assert (found.mean, found.points) == (1.0, 10)


def test_a_curve_of_nan_has_no_ending() -> None:
    assert ending(np.full(5, NAN)) is None
