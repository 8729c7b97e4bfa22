"""Exact histograms by sign and power of two."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.capture import native
from tracer.capture.histograms import ExponentCounts, exponent_histograms
from tracer.events import Axis, Histograms

pytestmark = pytest.mark.torch


@pytest.fixture(autouse=True, params=["native", "portable"])
def _way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Take both ways: every test here holds for each."""
    if request.param == "portable":
        with native.switched_off():
            yield
    elif native.available():
        yield
    else:
        pytest.skip("needs the native kernel, which is built where a C compiler is")


def taken(tensors: list[torch.Tensor]) -> Histograms:
    """Return the histograms of tensors that have no names."""
    return exponent_histograms(tensors, Axis("gradients", tuple(map(str, range(len(tensors)))), ("histogram",)), 3)


def counts(histograms: Histograms) -> np.ndarray:
    """Return the counts by sign, layer and bin."""
    return np.frombuffer(histograms.counts, np.uint32).reshape(2, -1, histograms.bins)


def expected(tensor: torch.Tensor) -> Counter[tuple[bool, int]]:
    """Return sign and exponent of each value, found one by one."""
    values = [value for value in tensor.double().reshape(-1).tolist() if value and math.isfinite(value)]
    return Counter((value > 0, math.frexp(value)[1] - 1) for value in values)


def found(histograms: Histograms, layer: int = 0) -> Counter[tuple[bool, int]]:
    """Return the same from histograms."""
    rows = counts(histograms)[:, layer]
    return Counter(
        {
            (bool(sign), histograms.lowest + place): int(rows[sign, place])
            for sign, place in zip(*np.nonzero(rows), strict=True)
        }
    )


def test_negative_values_come_first_then_the_layers_then_the_powers_of_two() -> None:
    histograms = taken([torch.tensor([1.0, 1.5, -0.25]), torch.tensor([0.5])])

    assert (histograms.lowest, histograms.bins, histograms.step) == (-2, 3, 3)
    assert counts(histograms).tolist() == [[[1, 0, 0], [0, 0, 0]], [[0, 0, 2], [0, 1, 0]]]


def test_zeros_and_what_is_not_finite_are_in_no_bin() -> None:
    histograms = taken([torch.tensor([0.0, -0.0, math.nan, -math.inf, math.inf, 4.0])])

    assert (histograms.lowest, counts(histograms).tolist()) == (2, [[[0]], [[1]]])


@pytest.mark.parametrize("tensors", [[torch.zeros(5)], [torch.empty(0)], [torch.zeros(2), torch.empty(0)]])
def test_without_any_value_there_is_one_empty_bin(tensors: list[torch.Tensor]) -> None:
    histograms = taken(tensors)

    assert (histograms.lowest, histograms.bins, counts(histograms).sum()) == (0, 1, 0)
    assert counts(histograms).shape == (2, len(tensors), 1)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(width=32), max_size=60),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_any_values_are_counted_exactly(values: list[float], dtype: torch.dtype) -> None:
    tensor = torch.tensor(values, dtype=torch.float32).to(dtype)

    assert found(taken([tensor])) == expected(tensor)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(), max_size=60))
def test_double_values_are_counted_exactly_beside_single_ones(values: list[float]) -> None:
    double, single = torch.tensor(values, dtype=torch.float64), torch.tensor([1.0, 1e-45])

    histograms = taken([double, single])

    assert (found(histograms, 0), found(histograms, 1)) == (expected(double), expected(single))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_value_of_sixteen_bits_is_counted(dtype: torch.dtype) -> None:
    tensor = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)

    assert found(taken([tensor])) == expected(tensor)


def test_large_and_strided_tensors() -> None:
    tensor = torch.sin(torch.arange(3 * 2**20 + 5.0)) * 1e-3
    strided = torch.arange(12.0).reshape(3, 4)[:, ::2]

    histograms = taken([tensor, strided])

    assert counts(histograms)[:, 0].sum() == torch.count_nonzero(tensor)
    assert found(histograms, 1) == expected(strided)


def test_they_have_come_at_once_on_the_cpu() -> None:
    counted = ExponentCounts([torch.ones(3)])

    assert counted.arrived()
    assert found(counted.histograms(Axis("gradients", ("weight",), ("histogram",)))) == {(True, 0): 3}
