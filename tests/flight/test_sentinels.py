"""Small gradients stand watch for the large ones, and everything is read as often as the time allows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tracer.flight import sentinels
from tracer.flight.checks import gradient_norm
from tracer.flight.holdings import Held
from tracer.flight.recorder import FlightRecorder
from tracer.flight.settings import FlightConfig
from tracer.testing import FakeClock

#: Seconds that the tests let a million values take to be read.
_S_PER_MILLION = 1.0


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> list[int]:
    """Count how many values each look reads; reading takes its time."""
    counted: list[int] = []

    def counting(gradients: Sequence[Tensor]) -> Tensor | float:
        counted.append(sum(one.numel() for one in gradients))
        clock.advance(counted[-1] / 1e6 * _S_PER_MILLION)
        return gradient_norm(gradients)

    monkeypatch.setattr(sentinels, "gradient_norm", counting)
    return counted


def held(model: nn.Module) -> Held:
    """Return what an optimizer would hold of a model whose gradients are all ones."""
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return Held(list(model.parameters()))


def test_all_are_read_while_the_length_of_steps_is_unknown(reads: list[int]) -> None:
    watch, one = sentinels.Sentinels(thorough=False), held(nn.Linear(100, 100))

    norms = [watch.norm(one, 0.0) for _ in range(3)]

    assert reads == [10_100] * 3
    assert norms == [math.sqrt(10_100)] * 3


def test_then_all_of_them_take_half_a_per_cent_of_the_time(reads: list[int]) -> None:
    watch, one = sentinels.Sentinels(thorough=False), held(nn.Linear(100, 100))
    step_s = 0.5  # a full look takes 10.1 ms: four steps' worth of half a per cent

    norms = [watch.norm(one, step_s) for _ in range(11)]

    assert watch.interval == 5
    assert reads == [10_100, 100, 100, 100, 100] * 2 + [10_100]
    assert [norm is not None for norm in norms] == [step % 5 == 0 for step in range(11)]


@pytest.mark.parametrize("thorough", [True, False])
def test_what_must_be_read_fully_is(reads: list[int], thorough: bool) -> None:  # noqa: FBT001 -- a case
    watch, one = sentinels.Sentinels(thorough=thorough), held(nn.Linear(100, 100))

    for _ in range(4):
        watch.norm(one, 0.001, fully=not thorough)

    assert reads == [10_100] * 4


def test_a_bad_number_in_a_small_gradient_has_all_of_them_read_at_once(reads: list[int]) -> None:
    model = nn.Linear(100, 100)
    watch, one = sentinels.Sentinels(thorough=False), held(model)
    watch.norm(one, 0.5)
    model.bias.grad[3] = math.nan  # type: ignore[index]  # it was set above

    norm = watch.norm(one, 0.5)

    assert isinstance(norm, float)
    assert math.isnan(norm)
    assert reads == [10_100, 100, 10_100]


def test_a_model_without_small_tensors_is_read_fully(reads: list[int]) -> None:
    watch, one = sentinels.Sentinels(thorough=False), held(nn.Linear(100, 100, bias=False))

    for _ in range(3):
        watch.norm(one, 0.5)

    assert reads == [10_000] * 3


@pytest.mark.usefixtures("reads")
def test_a_nan_of_the_forward_pass_is_found_in_its_own_step_between_full_looks(clock: FakeClock) -> None:
    model = nn.Sequential(nn.Linear(60, 60), nn.ReLU(), nn.Linear(60, 60))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    recorder = FlightRecorder(model, optimizer, FlightConfig())
    bad = 30

    for step in range(40):
        optimizer.zero_grad()
        x = torch.randn(4, 60)
        if step == bad:
            x[1, 2] = math.nan
        model(x).square().mean().backward()
        optimizer.step()
        clock.advance(0.1)
        if recorder.stats()["anomalies"]:
            break

    recorder.stop()
    assert recorder._numbers._sentinels.interval > 1
    assert step == bad
    assert recorder.stats()["anomalies"] == {"nan_or_inf": 1}
