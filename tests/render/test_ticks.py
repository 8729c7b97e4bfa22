"""What `render.ticks` makes."""

from __future__ import annotations

import math

import pytest

from tracer.render.ticks import label, log_ticks, ticks


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [
        (0, 10, 5, [0, 2, 4, 6, 8, 10]),
        (-1, 1, 4, [-1, -0.5, 0, 0.5, 1]),
        (0.123, 0.131, 4, [0.124, 0.126, 0.128, 0.13]),
        (0, 99_999, 5, [0, 20_000, 40_000, 60_000, 80_000]),
        (3, 3, 5, [3]),
        (math.nan, 3, 5, []),
    ],
)
def test_marks_are_round(low: float, high: float, count: int, expected: list[float]) -> None:
    assert ticks(low, high, count) == pytest.approx(expected)


@pytest.mark.parametrize(("low", "high"), [(-1.7e308, 1.7e308), (1e15, 1e15 + 0.25), (0, 5e-324), (1e300, 1.1e300)])
def test_marks_of_extreme_ranges_stay_within_and_few(low: float, high: float) -> None:
    marks = ticks(low, high, 5)

    assert 1 <= len(marks) <= 60
    assert all(low <= mark <= high for mark in marks)


def test_logarithmic_marks_are_powers_of_ten_or_finer_where_there_is_room() -> None:
    assert log_ticks(0.01, 100, 5) == [0.01, 0.1, 1.0, 10.0, 100.0]
    assert log_ticks(1, 10, 6) == [1.0, 2.0, 5.0, 10.0]
    assert log_ticks(1e-12, 1e12, 4) == pytest.approx([1e-7, 1, 1e7])
    assert log_ticks(4.1, 4.4, 4) == pytest.approx([4.1, 4.2, 4.3, 4.4])


def test_labels_tell_neighbours_apart() -> None:
    marks = ticks(1_000_000, 1_000_010, 5)

    texts = [label(mark, marks[1] - marks[0]) for mark in marks]

    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(20_000, "20k"), (2.5e6, "2.5M"), (-0.5, "-0.5"), (1e-9, "1e-9"), (1.5e20, "1.5e20"), (math.inf, "Inf")],
)
def test_labels_are_short(value: float, expected: str) -> None:
    assert label(value) == expected
