"""Fabric under both of its names: what a loop of the program's own logs, sets up, steps and saves."""

# ruff: noqa: ANN401 -- the framework decides what it hands over, and of what type

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import journals  # type: ignore[import-not-found]  # found on the path of the suite
import numpy as np
import pytest
import torch
from lit_programs import CALMLY
from torch import nn

import tracer
from tracer import events
from tracer.capture.patching import patches
from tracer.testing import capture_events


@pytest.fixture(params=["lightning.fabric", "lightning_fabric"])
def fabric(request: pytest.FixtureRequest) -> Any:
    """Return Fabric by either name."""
    return importlib.import_module(request.param)


def train(fabric: Any, made: Any, folder: Path, *, optimizers: int = 1) -> nn.Module:
    """Train as Fabric's documents do: a loop with `fabric.setup`, `fabric.backward` and `fabric.log`."""
    fabric.seed_everything(1, verbose=False)
    original = nn.Linear(4, 1)
    model, *steppers = made.setup(
        original, *(torch.optim.SGD(original.parameters(), lr=0.1) for _ in range(optimizers))
    )
    for step in range(4):
        for stepper in steppers:
            stepper.zero_grad()
            loss = model(torch.ones(2, 4)).square().mean()
            made.backward(loss)
            stepper.step()
        made.log("loss", loss, step=step)
        made.log_dict(metrics={"python": 1.5, "numpy": np.float32(2.5)}, step=step)
    made.save(folder / "state.ckpt", {"model": model})
    return original


def of(kind: type, heard: list[Any]) -> list[Any]:
    return [event for event in heard if type(event) is kind]


def test_metrics_model_steps_and_checkpoints_are_recorded(fabric: Any, tmp_path: Path) -> None:
    patches.start(["lightning"])
    with capture_events() as heard:
        model = train(fabric, fabric.Fabric(accelerator="cpu"), tmp_path)

    series: dict[str, list[tuple[int, float]]] = {}
    for event in of(events.Scalars, heard):
        for name, value in event.values.items():
            series.setdefault(name, []).append((event.step, float(value)))
    assert {name: [step for step, _ in points] for name, points in series.items()} == {
        "loss": [0, 1, 2, 3],
        "python": [0, 1, 2, 3],
        "numpy": [0, 1, 2, 3],
    }
    assert series["numpy"][0][1] == 2.5
    (training,) = of(events.Training, heard)
    assert training.model is model
    assert isinstance(training.optimizer, torch.optim.SGD)
    assert [event.step for event in of(events.Steps, heard)] == [1, 2, 3, 4]
    assert [(one.name, one.type, one.path) for one in of(events.Artifact, heard)] == [
        ("state.ckpt", "checkpoint", str(tmp_path / "state.ckpt"))
    ]


def test_several_optimizers_are_no_more_steps(fabric: Any, tmp_path: Path) -> None:
    patches.start(["lightning"])
    with capture_events() as heard:
        train(fabric, fabric.Fabric(accelerator="cpu"), tmp_path, optimizers=2)

    assert sorted({event.step for event in of(events.Steps, heard)}) == [1, 2, 3, 4]


def test_a_writer_that_fabric_feeds_brings_no_second_row(tmp_path: Path) -> None:
    fabric = importlib.import_module("lightning.fabric")
    patches.start(["tensorboard", "lightning"])
    with tracer.init(project="p", track_gradients=False, **CALMLY):
        train(fabric, fabric.Fabric(accelerator="cpu", loggers=fabric.loggers.TensorBoardLogger("board")), tmp_path)

    points = journals.points(journals.only_run(tmp_path / ".tracer"))
    assert [step for name, step, _ in points if name == "loss"] == [0, 1, 2, 3]


def test_the_weights_are_the_same_with_and_without_and_nothing_is_left_behind(fabric: Any, tmp_path: Path) -> None:
    places = ("log_dict", "setup", "setup_module", "save")
    before = [vars(fabric.Fabric)[name] for name in places]
    alone = train(fabric, fabric.Fabric(accelerator="cpu"), tmp_path)
    patches.start(["lightning"])
    with tracer.init(project="p", **CALMLY):
        captured = train(fabric, fabric.Fabric(accelerator="cpu"), tmp_path)
    patches.stop()

    assert torch.equal(alone.weight, captured.weight)
    assert [vars(fabric.Fabric)[name] for name in places] == before
