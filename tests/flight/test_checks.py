"""What counts as an outlier, and how a norm is found and read."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import nn

from tracer.flight.checks import NORM_RATIO, Late, Outliers, chosen_mode, gradient_norm, suspected_rows

pytestmark = pytest.mark.torch


def fired(series: list[float], ratio: float | None = None) -> list[int]:
    outliers = Outliers(ratio)
    return [step for step, value in enumerate(series) if outliers.score(value) is not None]


def falling(count: int = 400, noise: float = 0.05, seed: int = 1) -> list[float]:
    draw = random.Random(seed)  # noqa: S311 -- made-up numbers
    return [2 * math.exp(-step / 200) + 0.5 + noise * draw.gauss(0, 1) for step in range(count)]


def test_a_falling_noisy_loss_is_sound() -> None:
    assert [fired(falling(seed=seed)) for seed in range(20)] == 20 * [[]]


@pytest.mark.parametrize("spike", [3.0, 9.0, 1e6])
def test_a_spike_is_found_at_its_step_only(spike: float) -> None:
    series = falling()
    series[300] += spike

    assert fired(series) == [300]


def test_a_heavy_tailed_loss_raises_its_own_bar() -> None:
    draw = random.Random(3)  # noqa: S311 -- made-up numbers
    series = [abs(draw.gauss(0, 1)) ** 3 for _ in range(600)]

    assert len(fired(series)) <= 2
    assert fired([*series, 1e4])[-1] == 600


def test_a_loss_at_rest_may_tremble() -> None:
    assert fired([0.5 + 1e-9 * (step % 3) for step in range(200)]) == []
    assert fired([0.5] * 100 + [0.52] + [0.5] * 50) == []
    assert fired([0.0] * 100 + [0.0]) == []


def test_a_norm_explodes_from_ten_times_its_median() -> None:
    draw = random.Random(3)  # noqa: S311 -- made-up numbers
    series = [math.exp(0.1 * draw.gauss(0, 1)) for _ in range(200)]

    assert fired([*series, 9.0], NORM_RATIO) == []
    assert fired([*series, 30.0], NORM_RATIO) == [200]


def test_the_first_steps_of_a_training_may_leap() -> None:
    assert fired([1.0, 100.0, 1.0, 5000.0] * 6) == []


def test_numbers_that_are_not_finite_are_no_outliers() -> None:
    assert fired([*falling(), math.nan, math.inf, -math.inf]) == []


def test_a_new_level_is_accepted_in_time() -> None:
    found = fired(
        [1.0 + 0.01 * (step % 5) for step in range(100)] + [50.0 + 0.1 * (step % 5) for step in range(100)], NORM_RATIO
    )

    assert found[0] == 100
    assert len(found) < 64


@pytest.mark.parametrize("kind", ["perceptron", "recurrent"])
def test_real_trainings_that_go_well_are_sound(kind: str) -> None:
    torch.manual_seed(1)
    model: nn.Module = nn.GRU(8, 16, batch_first=True) if kind == "recurrent" else nn.Linear(8, 16)
    head = nn.Linear(16, 8)
    both = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(both, lr=0.01)
    losses, norms = [], []
    for _ in range(200):
        x = torch.randn(4, 3, 8)
        hidden = model(x)[0] if kind == "recurrent" else model(x).relu()
        loss = (head(hidden) - x.sin()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        norms.append(float(nn.utils.clip_grad_norm_(both, 1.0)))
        optimizer.step()

    assert (fired(losses), fired(norms, NORM_RATIO)) == ([], [])


def test_the_norm_of_gradients_of_all_kinds() -> None:
    sparse = torch.sparse_coo_tensor([[0, 0]], [3.0, 0.0], (4,), check_invariants=True)
    mixed = [torch.tensor([4.0], dtype=torch.float64), torch.tensor([12.0], dtype=torch.bfloat16), torch.empty(0)]

    assert float(gradient_norm([sparse, *mixed])) == pytest.approx(13.0)
    assert float(gradient_norm([torch.tensor([3 + 4j])])) == pytest.approx(5.0)
    assert gradient_norm([]) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_bad_value_makes_the_norm_bad(bad: float) -> None:
    values = torch.ones(1000)
    values[717] = bad

    assert not math.isfinite(float(gradient_norm([torch.ones(3), values])))


def test_large_finite_values_do_not_overflow_the_norm() -> None:
    assert float(gradient_norm([torch.full((4,), 1e30)])) == pytest.approx(2e30)


def test_when_the_norm_is_read() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")

    assert chosen_mode("auto", cpu, user_waits=False) == "sync"
    assert chosen_mode("auto", cuda, user_waits=False) == "delayed"
    assert chosen_mode("auto", cuda, user_waits=True) == "sync"
    assert chosen_mode("sync", cuda, user_waits=False) == "sync"
    assert chosen_mode("delayed", cpu, user_waits=True) == "delayed"


def test_a_late_value_is_that_of_its_moment() -> None:
    value = torch.tensor(2.0)
    late = Late(value)
    value.fill_(3.0)

    assert (late.arrived(), late.value()) == (True, 2.0)


def test_rows_with_a_far_larger_gradient_are_suspected() -> None:
    gradient = torch.full((6, 3), 0.1)
    gradient[4] = 7.0

    assert suspected_rows([gradient]) == [4]
    assert suspected_rows([torch.tensor(1.0)]) == []
    assert suspected_rows([torch.ones(6, 3)]) == []
