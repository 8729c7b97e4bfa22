"""A change to a recorded step, and whether the anomaly vanishes."""

# ruff: noqa: D102 -- a forward takes what it takes, and needs no sentence

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from replayed import Small, nan, plain, recorded, recorded_step
from torch import Tensor, nn

from tracer.flight.capsule import Capsule, Facts, collect, load_capsule, write
from tracer.flight.what_if import WhatIfResult

pytestmark = pytest.mark.torch


class Exponential(nn.Module):
    """Overflows in half precision where single precision is enough."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(2, 4, bias=False)
        self.head = nn.Linear(4, 1)
        with torch.no_grad():
            self.body.weight.fill_(3.0)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(
            self.body(x).half().exp().to(x.dtype) if x.dtype == torch.float32 else self.body(x).exp()
        )
        return out.mean()


class Averaging(nn.Module):
    """Treats each sample for itself and returns their mean loss."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(self.body(x).abs()).mean()


@pytest.fixture
def capsule_of(tmp_path: Path) -> Callable[..., Capsule]:
    """Make a capsule of one step of a model."""

    def make(build: Callable[[], nn.Module], backward: Callable[[nn.Module], object], **facts: object) -> Capsule:
        model = build()
        step = recorded_step(model, backward)
        return load_capsule(write(collect(model, step, Facts(**facts)), str(tmp_path)), entry=build)  # type: ignore[arg-type]

    return make


def test_another_type_makes_an_overflow_vanish(capsule_of: Callable[..., Capsule]) -> None:
    capsule = capsule_of(Exponential, lambda model: model(torch.full((3, 2), 2.0)).backward(), kind="nan_or_inf")

    result = capsule.what_if(dtype="float64", clip=1.0)

    assert result.appears
    assert [one.change for one in result.outcomes] == ["dtype=float64", "clip=1"]
    assert [one.vanishes for one in result.outcomes] == [True, False]
    assert "clipping cannot repair NaN" in result.outcomes[1].notes[0]
    assert result.best is result.outcomes[0]


def test_leaving_a_sample_out_makes_its_nan_vanish(capsule_of: Callable[..., Capsule]) -> None:
    def with_nan(model: nn.Module) -> None:
        x = torch.randn(4, 8)
        x[2, 0] = float("nan")
        model(x).backward()

    capsule = capsule_of(Averaging, with_nan, kind="nan_or_inf")

    result = capsule.what_if(**{"drop-samples": "2"}, seed=1)
    by_change = {one.change: one for one in result.outcomes}

    assert by_change["drop-samples=2"].vanishes
    assert by_change["drop-samples=2"].notes == ("with a mean loss the remaining samples keep their old weight 1/N",)
    assert by_change["seed=1"].vanishes is False


def test_the_least_change_comes_first(capsule_of: Callable[..., Capsule]) -> None:
    capsule = capsule_of(Small, lambda model: (model(torch.randn(6, 8)) * 1e4).square().sum().backward(),
                         kind="gradient_explosion", value=1e9)  # fmt: skip

    result = capsule.what_if(clip=[1.0, 100.0], threads=1)

    assert [one.change for one in result.outcomes][:2] == ["clip=100", "clip=1"]
    moved = [one.moved for one in result.outcomes]
    assert moved[0] is not None
    assert moved[1] is not None
    assert 0 < moved[0] < moved[1]


def test_without_a_change_those_that_make_sense_are_tried(capsule_of: Callable[..., Capsule]) -> None:
    capsule = capsule_of(Small, nan, kind="nan_or_inf")

    result = capsule.what_if()

    assert {one.change for one in result.outcomes} == {"drop-samples=3", "dtype=float64", "clip=1", "seed=0"}
    assert result.best is not None
    assert result.best.change == "drop-samples=3"
    assert "counts as zero" in result.notes[0]


def test_a_fault_of_the_loss_is_not_blamed_on_the_model(capsule_of: Callable[..., Capsule]) -> None:
    capsule = capsule_of(Small, lambda model: (model(torch.randn(6, 8)) * 0).sqrt().sum().backward(), kind="nan_or_inf")

    result = capsule.what_if(dtype="float64")

    assert result.outcomes[0].vanishes is False
    assert "The fault comes from the loss, outside of the model" in result.notes[0]


def test_a_healthy_step_says_that_there_is_nothing_to_mend(capsule_of: Callable[..., Capsule]) -> None:
    result = capsule_of(Small, plain, kind="nan_or_inf").what_if(seed=4, deterministic="on")

    assert result.appears is False
    assert result.notes == ("The anomaly does not appear without a change either.",)
    same = next(one for one in result.outcomes if one.change == "deterministic=on")
    assert same.moved == 0.0


def test_autocast_can_be_switched_off(capsule_of: Callable[..., Capsule]) -> None:
    def low(model: nn.Module) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            out = model(torch.randn(6, 8))
        out.float().square().mean().backward()

    result = capsule_of(Small, low).what_if(autocast="off")

    assert result.outcomes[0].error is None
    assert result.outcomes[0].moved is not None
    assert 0 < result.outcomes[0].moved < 0.1


def test_a_learning_rate_is_changed_over_the_steps_before(tmp_path: Path) -> None:
    path = recorded("clipped", str(tmp_path), steps=4, before=16)

    with load_capsule(path, entry=Small) as capsule:
        result = capsule.what_if(lr=["0x", "1x"])

    by_change = {one.change: one.moved for one in result.outcomes}
    assert by_change["lr=1x"] == 0.0
    assert by_change["lr=0x"] != 0.0


def test_what_cannot_be_run_says_so(capsule_of: Callable[..., Capsule]) -> None:
    result = capsule_of(Small, nan, kind="nan_or_inf").what_if(drop_samples=99)

    assert result.outcomes[0].vanishes is None
    assert result.outcomes[0].error == "ValueError: the batch has the samples 0 to 5"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": "red"}, r"There is no change 'colour'\. Accepted: dtype, autocast, drop-samples, clip"),
        ({"dtype": "int8"}, r"dtype='int8' makes no sense\. dtype takes float64, float32, bfloat16 or float16"),
        ({"clip": "-1"}, r"clip takes the largest norm"),
        ({"threads": 0}, r"threads takes a whole number of at least 1"),
        ({"autocast": "maybe"}, r"autocast takes off, bfloat16 or float16"),
        ({"lr": "fast"}, r"lr takes a learning rate"),
    ],
)
def test_a_change_that_makes_no_sense_is_a_mistake(
    changes: dict[str, object], said: str, capsule_of: Callable[..., Capsule]
) -> None:
    with pytest.raises(ValueError, match=said):
        capsule_of(Small, plain).what_if(**changes)


def test_a_result_is_a_document_and_a_text(capsule_of: Callable[..., Capsule]) -> None:
    result: WhatIfResult = capsule_of(Small, nan, kind="nan_or_inf").what_if(clip=1)

    document = json.loads(json.dumps(result.to_json()))

    assert document["outcomes"][0]["change"] == "clip=1"
    assert str(result).startswith("clip=1                   it stays")
