"""The statistics of tensors, against torch's own slow ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tracer.capture import native
from tracer.capture.reductions import Reduction, Row, norms, plain, total_norm
from tracer.capture.tables import TABLE

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


class Operations(TorchDispatchMode):
    """Counts the operations that torch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        """Count and go on."""
        self.counts[str(operation).split(".")[1]] += 1
        return operation(*args, **(kwargs or {}))


def expected(tensor: torch.Tensor) -> Row:
    """Return the statistics as torch computes them one by one, in double precision."""
    wide = tensor.double()
    known = wide[~wide.isnan()]
    return Row(
        wide.norm().item(),
        wide.mean().item(),
        wide.std().item() if wide.numel() > 1 else math.nan,
        known.max().item() if known.numel() else math.nan,
        known.min().item() if known.numel() else math.nan,
        (wide == 0).sum().item(),
        wide.isnan().sum().item(),
        wide.isinf().sum().item(),
    )


def assert_close(row: Row, wanted: Row, tolerance: float = 1e-4) -> None:
    assert tuple(row) == pytest.approx(tuple(wanted), rel=tolerance, abs=1e-9 * abs(wanted.norm), nan_ok=True)


TENSORS = {
    "plain": torch.linspace(-1, 2, 1000),
    "matrix": torch.arange(12.0).reshape(3, 4) - 5,
    "not contiguous": torch.arange(12.0).reshape(3, 4).t()[1:, ::2],
    "single value": torch.tensor([3.0]),
    "no dimension": torch.tensor(-2.5),
    "zeros": torch.zeros(100),
    "constant": torch.full((1000,), 0.1),
    "nearly constant": 100 + 1e-3 * torch.sin(torch.arange(1000.0)),
    "with zeros": torch.tensor([0.0, -0.0, 1.0, 2.0]),
    "one NaN": torch.tensor([1.0, math.nan, -3.0]),
    "only NaN": torch.full((3,), math.nan),
    "infinite": torch.tensor([1.0, math.inf, 2.0]),
    "both infinities": torch.tensor([math.inf, -math.inf, 1.0]),
    "NaN and infinite": torch.tensor([math.nan, math.inf, -1.0]),
    "squares overflow": torch.tensor([1e25, -2e25, 3e25]),
    "sum overflows": torch.full((4,), 3e38) * torch.tensor([1, 1, 1, 0.5]),
    "squares vanish": torch.tensor([1e-30, -2e-30, 0.0]),
    "double": torch.linspace(-1, 2, 1000, dtype=torch.float64) * 1e100,
    "bfloat16": torch.linspace(-1, 2, 1000).bfloat16(),
    "half": torch.linspace(-1, 2, 1000).half(),
    "half that overflows": torch.full((10_000,), 60_000.0).half(),
    "transposed": torch.linspace(-1, 2, 1000).reshape(10, 100).t(),
    "channels last": torch.linspace(-1, 2, 600).reshape(2, 3, 10, 10).to(memory_format=torch.channels_last),
    "not aligned": torch.linspace(-1, 2, 1003)[3:],
    "several blocks": torch.sin(torch.arange(70_001.0)),
    "one block overflows": torch.cat([torch.linspace(-1, 2, 5000), torch.full((5000,), 1e30)]),
    "denormal": torch.tensor([1e-40, -3e-45, 0.0, 1.0]),
    "negated in place": torch.tensor([1 + 2j, 3 - 4j]).conj().imag,
    "a NaN among many": torch.linspace(-1, 2, 100_000).index_fill(0, torch.tensor([77_777]), math.nan),
}


@pytest.mark.parametrize("later", [False, True], ids=["now", "later"])
@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS.keys())
def test_every_statistic_is_that_of_torch(tensor: torch.Tensor, *, later: bool) -> None:
    row = Reduction([tensor], later=later).rows()[0]

    assert_close(row, expected(tensor))


@pytest.mark.parametrize("later", [False, True], ids=["now", "later"])
def test_tensors_of_all_kinds_in_one_batch_do_not_change_each_other(*, later: bool) -> None:
    rows = Reduction(list(TENSORS.values()), later=later).rows()

    for row, tensor in zip(rows, TENSORS.values(), strict=True):
        assert_close(row, expected(tensor))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=40))
def test_any_floats_give_what_double_precision_gives(values: list[float]) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    wanted = expected(tensor)

    row = Reduction([tensor]).rows()[0]

    # A mean of values that cancel has no digits of its own: it is as exact as the sum of the sizes allows.
    room = 1e-5 * tensor.double().abs().mean().item() if math.isfinite(wanted.mean) else 0.0
    assert row.mean == pytest.approx(wanted.mean, rel=1e-4, abs=room, nan_ok=True)
    assert row.std == pytest.approx(wanted.std, rel=5e-3, abs=1e-6 * abs(wanted.norm), nan_ok=True)
    assert row.norm == pytest.approx(wanted.norm, rel=1e-4, nan_ok=True)
    assert tuple(row[3:]) == pytest.approx(tuple(wanted[3:]), nan_ok=True)


def test_an_empty_tensor_takes_a_place_of_its_own() -> None:
    first, empty, last = Reduction([torch.tensor([1.0, 2.0]), torch.empty(0, 3), torch.tensor([5.0])]).rows()

    assert (first.max, empty.norm, empty.zeros, last.max) == (2.0, 0.0, 0.0, 5.0)
    assert math.isnan(empty.max)


@pytest.mark.parametrize("later", [False, True], ids=["now", "later"])
def test_a_scale_is_divided_out_of_values_but_not_of_counts(*, later: bool) -> None:
    tensor = torch.tensor([0.0, -2.0, 4.0])

    row = Reduction([tensor * 1024], torch.tensor([1024.0]), later=later).rows()[0]

    assert_close(row, expected(tensor))


def test_zeros_are_counted_exactly_above_16_million() -> None:
    tensor = torch.ones(2**24 + 3)
    tensor[:5] = 0

    assert Reduction([tensor]).rows()[0].zeros == 5


def test_complex_values_are_measured_as_pairs() -> None:
    gradient = plain(torch.tensor([3 + 4j, 0 + 0j]).conj())
    assert gradient is not None

    row = Reduction([gradient]).rows()[0]

    assert (row.norm, row.max, row.min, row.zeros) == (5.0, 3.0, -4.0, 2)


def test_a_sparse_gradient_is_measured_by_its_values_summed() -> None:
    twice = torch.sparse_coo_tensor(
        torch.tensor([[1, 1, 3]]), torch.tensor([1.0, 2.0, 4.0]), (10,), check_invariants=True
    )
    gradient = plain(twice)
    assert gradient is not None

    row = Reduction([gradient]).rows()[0]

    assert (row.norm, row.max, row.min, row.zeros) == (5.0, 4.0, 3.0, 0)


def test_no_single_value_is_read_through_torch() -> None:
    tensors = [torch.randn(8, 4) for _ in range(53)] + [torch.randn(8).bfloat16(), torch.tensor([math.nan])]

    with Operations() as operations:
        Reduction(tensors).rows()

    assert "_local_scalar_dense" not in operations.counts
    assert operations.counts["_foreach_norm"] <= 1


def test_without_values_there_are_no_rows() -> None:
    assert Reduction([]).rows() == []
    assert (norms([]), total_norm([])) == ([], 0.0)


@pytest.mark.parametrize("later", [False, True], ids=["now", "later"])
def test_shards_are_combined_before_anything_is_derived(*, later: bool) -> None:
    whole = [torch.linspace(-1, 2, 1000), torch.tensor([0.0, 5.0])]
    shards = [[whole[0][:300], whole[1][:2]], [whole[0][300:], whole[1][2:]]]
    sums = [TABLE.index(name) for name in ("count", "sum", "squares", "zeros", "nans", "infs")]
    seen: list[torch.Tensor] = []

    def keep(table: torch.Tensor) -> torch.Tensor:
        seen.append(table.clone())
        return table

    def join(table: torch.Tensor) -> torch.Tensor:
        both = torch.stack([seen[0], table])
        joined = table.clone()
        joined[sums] = both.sum(0)[sums]
        joined[TABLE.index("min")], joined[TABLE.index("max")] = both.amin(0)[3], both.amax(0)[4]
        return joined

    Reduction(shards[0], later=later, combine=keep)
    rows = Reduction(shards[1], later=later, combine=join).rows()

    assert (seen[0].dtype, seen[0].shape, seen[0].is_contiguous()) == (torch.float64, (8, 2), True)
    for row, tensor in zip(rows, whole, strict=True):
        assert_close(row, expected(tensor))


def test_figures_are_the_rows_as_one_array() -> None:
    reduction = Reduction([torch.tensor([3.0, 4.0]), torch.tensor([1.0])])

    assert reduction.figures().shape == (8, 2)
    assert reduction.figures()[0].tolist() == [row.norm for row in reduction.rows()]


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS.keys())
def test_a_norm_is_that_of_double_precision(tensor: torch.Tensor) -> None:
    wanted = tensor.double().norm().item()

    assert norms([tensor, tensor]) == pytest.approx([wanted] * 2, rel=1e-5, nan_ok=True)


def test_the_total_norm_takes_all_tensors_together() -> None:
    tensors = [tensor for name, tensor in TENSORS.items() if "NaN" not in name and "infini" not in name]
    wanted = torch.cat([tensor.double().reshape(-1) for tensor in tensors]).norm().item()

    assert total_norm(tensors) == pytest.approx(wanted, rel=1e-5)


def test_a_norm_whose_squares_overflow_is_not_taken_for_infinite() -> None:
    assert total_norm([torch.tensor([3e30]), torch.tensor([4e30])]) == pytest.approx(5e30)
    assert total_norm([torch.tensor([math.inf])]) == math.inf
    assert math.isnan(total_norm([torch.tensor([1e30, math.nan])]))


def test_parameters_that_need_gradients_are_measured_too() -> None:
    parameter = torch.nn.Parameter(torch.tensor([3.0, 4.0]))

    assert (Reduction([parameter]).rows()[0].norm, total_norm([parameter])) == (5.0, 5.0)


def test_a_device_is_not_asked_for_a_value_before_the_rows_are() -> None:
    tensors = [torch.randn(8, 4), torch.tensor([math.nan, math.inf]), torch.tensor([1e30])]

    with Operations() as operations:
        reduction = Reduction(tensors, torch.tensor(2.0), later=True)

    assert "_local_scalar_dense" not in operations.counts
    assert "nonzero" not in operations.counts  # its size would have to be known on the host
    assert reduction.arrived()
