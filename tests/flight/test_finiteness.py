"""What is not finite is seen in every kind of tensor, and nothing else is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tracer.flight.finiteness import FINE, Bad, describe, examine, mask, positions, rough_rows, rows

pytestmark = pytest.mark.torch
NAN, PLUS, MINUS = Bad(True, False, False), Bad(False, True, False), Bad(False, False, True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("value", "bad"), [(math.nan, NAN), (math.inf, PLUS), (-math.inf, MINUS), (3.0, FINE)])
def test_one_value_is_seen(dtype: torch.dtype, value: float, bad: Bad) -> None:
    tensor = torch.zeros(3, 5, dtype=dtype)
    tensor[1, 2] = value

    assert examine(tensor) == bad
    assert examine(tensor.t()[2:4]) == bad
    assert examine(tensor[2:]) == FINE


def test_all_that_is_there_is_told() -> None:
    tensor = torch.tensor([1.0, math.nan, math.inf, -math.inf])

    assert examine(tensor) == Bad(True, True, True)
    assert str(examine(tensor)) == "NaN"
    assert str(examine(tensor[2:])) == "Inf and -Inf"


@pytest.mark.parametrize(
    "tensor",
    [
        torch.full((4, 4), 3e38),  # their sum is Inf
        torch.full((40,), 60000.0, dtype=torch.float16),
        torch.zeros(0),
        torch.arange(4),
        torch.ones(3, dtype=torch.bool),
        torch.ones(3, device="meta"),
        torch.ones(3, dtype=torch.complex64),
        torch.ones(3).to(torch.float8_e4m3fn),
        torch.eye(3).to_sparse(),
        torch.tensor(1.0),
    ],
    ids=lambda tensor: f"{tensor.dtype} {tensor.layout} {tensor.device} {tuple(tensor.shape)}",
)
def test_what_is_finite_is_not_suspected(tensor: Tensor) -> None:
    assert examine(tensor) == FINE
    assert describe(tensor)["nonfinite"] == 0


def test_both_parts_of_a_complex_number_count() -> None:
    tensor = torch.complex(torch.ones(3), torch.tensor([0.0, math.nan, 0.0]))
    found = mask(tensor)

    assert examine(tensor) == NAN
    assert found is not None
    assert found.tolist() == [False, True, False]


def test_the_values_of_a_sparse_tensor_count() -> None:
    assert examine(torch.tensor([[0.0, math.inf], [0.0, 0.0]]).to_sparse()) == PLUS


def test_rows_and_positions_say_where() -> None:
    tensor = torch.zeros(4, 2, 3)
    tensor[1, 0, 2] = tensor[3] = math.nan
    found = mask(tensor)

    assert found is not None
    assert rows(found) == rough_rows(tensor) == (1, 3)
    assert positions(found) == ((1, 0, 2), (3, 0, 0), (3, 0, 1), (3, 0, 2), (3, 1, 0))


def test_a_tensor_is_described_by_its_finite_values() -> None:
    facts = describe(torch.tensor([[-2.0, math.inf], [5.0, math.nan]]), "x")

    assert facts == {"name": "x", "shape": [2, 2], "dtype": "float32", "min": -2.0, "max": 5.0, "nonfinite": 2}
