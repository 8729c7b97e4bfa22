"""Plain PyTorch loops that say nothing: their steps, their model and, where it is named, their loss."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from programs import run as run_program

import tracer
from tracer import runfile
from tracer.capture import returns
from tracer.capture.patching import patches
from tracer.errors import ConfigError
from tracer.storage import Store


@pytest.fixture
def listening() -> Iterator[None]:
    """Listen to plain loops for one test."""
    patches.start(["pytorch"])
    yield
    patches.stop()


def trained(steps: int, optimizers: int = 1) -> torch.nn.Module:
    """Train a small model so many steps, each with so many optimizers."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
    halves = [model[0].parameters(), model[1].parameters()] if optimizers == 2 else [model.parameters()]
    chosen = [torch.optim.SGD(half, lr=0.1) for half in halves]
    for _ in range(steps):
        model(torch.randn(3, 4)).square().mean().backward()
        for optimizer in chosen:
            optimizer.step()
            optimizer.zero_grad()
    return model


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("optimizers", [1, 2])
def test_the_steps_of_a_silent_loop_are_counted(optimizers: int) -> None:
    with tracer.init(project="loops", quiet=True) as run:
        trained(7, optimizers)
        patches.stop()

        assert run.step_count == 7


@pytest.mark.usefixtures("listening")
def test_its_model_is_found_and_watched() -> None:
    with tracer.init(project="loops", quiet=True) as run:
        model = trained(5)

        assert run.model is model
    assert runfile.read(run.folder)["config"]["optimizer"]["class"] == "SGD"
    assert runfile.read(run.folder)["config"]["optimizer"]["lr"] == 0.1


@pytest.mark.usefixtures("listening")
def test_a_program_that_counts_itself_is_not_counted_twice() -> None:
    with tracer.init(project="loops", quiet=True) as run:
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(6):
            model(torch.randn(3, 2)).mean().backward()
            optimizer.step()
            tracer.log({"loss": 1.0})
            tracer.step()
        patches.stop()

        assert run.step_count == 6


@pytest.mark.usefixtures("listening")
def test_a_loop_without_a_run_is_left_alone() -> None:
    trained(3)

    assert not Path(".tracer").exists()


@pytest.mark.parametrize("text", ["train", "train.py:", ":step", "train.py:a-b"])
def test_what_names_no_function_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="names no function"):
        returns.Wanted(text)


LOOP = """
import torch

model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

def train_step(x):
    loss = model(x).square().mean() + 1.0
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss

def main():
    with open("losses.txt", "w") as file:
        for _ in range(9):
            print(float(train_step(torch.ones(3, 2))), file=file)
"""


def test_the_loss_of_a_silent_loop_is_what_its_function_returns() -> None:
    Path("train.py").write_text(LOOP, encoding="utf-8")
    program = """
        import tracer
        from tracer.capture.patching import patches

        patches.start(["pytorch"])
        with tracer.init(project="loops", run_name="silent", quiet=True):
            import train
            train.main()
            patches.stop()
        assert train.train_step.__name__ == "train_step" and not hasattr(train.train_step, "__wrapped__")
    """
    run_program(program, env={returns.VARIABLE: "train.py:train_step=train/loss", "PYTHONPATH": str(Path.cwd())})

    expected = [float(line) for line in Path("losses.txt").read_text(encoding="utf-8").split()]
    with Store.open(".tracer") as store:
        series = store.series(store.run("silent").uid, "train/loss")
    # The optimizer was made before the function was defined; the first call, which makes its first step, is missed.
    assert [round(float(value), 6) for value in series.value] == [round(value, 6) for value in expected[1:]]
    assert list(series.step) == list(range(1, 9))
    assert "train" not in sys.modules


def test_a_fit_before_the_loop_does_not_take_its_steps() -> None:
    from sklearn.preprocessing import StandardScaler

    patches.start(["pytorch", "sklearn"])
    try:
        with tracer.init(project="loops", quiet=True) as run:
            StandardScaler().fit([[1.0, 2.0], [3.0, 4.0]])
            trained(7)
            patches.stop()

            assert run.step_count == 7
    finally:
        patches.stop()
