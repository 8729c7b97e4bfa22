"""Programs written for Weights & Biases: what they say is recorded beside it, value by value."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from journals import only_run, series
from programs import run as run_program

from tracer import runfile
from tracer.capture.wandb_values import split

PRELUDE = """
import os
os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true", WANDB_X_DISABLE_STATS="true")
import tracer
from tracer.capture.patching import patches
patches.start(["wandb"])
"""

BY_HAND = """
import random
import wandb

random.seed(7)
run = wandb.init(project="my-first-project", name="first", config={"learning_rate": 0.02, "epochs": 10})
offset = random.random() / 5
for epoch in range(2, 10):
    acc = 1 - 2**-epoch - random.random() / epoch - offset
    loss = 2**-epoch + random.random() / epoch + offset
    run.log({"acc": acc, "loss": loss})
wandb.config.update({"late": True})
run.summary["best"] = 0.75
run.finish()
"""

WITH_STEPS = """
import wandb

with wandb.init(project="p", config={"lr": 0.1}) as run:
    for step in (0, 5, 10, 7):
        wandb.log({"train": {"loss": 1.0 / (step + 1)}, "nan": float("nan")}, step=step)
    wandb.log({"a": 1.0}, commit=False)
    wandb.log({"b": 2.0})
"""


def recorded(program: str, end: str = "", name: str = "beside") -> Path:
    """Run a program for `wandb` with capture, and return the run's folder."""
    whole = f"{PRELUDE}\nwith tracer.init(project='trackers', run_name={name!r}, quiet=True):\n"
    body = "".join(f"    {line}\n" for line in program.strip().splitlines())
    run_program(f"{whole}{body}    patches.stop()\n{end}")
    return only_run(Path(".tracer"))


def theirs() -> list[dict[str, Any]]:
    """Return what their own reader finds in the file of the run: one dictionary per step."""
    file = next(Path("wandb").glob("offline-run-*/*.wandb"))
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [record["history"] for record in found if record["type"] == "history"]


def values(history: dict[str, Any]) -> dict[str, Any]:
    """Return the values of one of their steps by name."""
    items = history.get("item", history)
    return items if isinstance(items, dict) else {one["key"]: json.loads(one["value_json"]) for one in items}


@pytest.mark.slow
def test_a_program_by_their_own_documentation_is_recorded_value_by_value() -> None:
    folder = recorded(BY_HAND)

    history = [values(one) for one in theirs()]
    assert len(history) == 8
    for name in ("acc", "loss"):
        assert series(folder, name) == [(one["_step"], one[name]) for one in history]
    facts = runfile.read(str(folder))
    assert facts["config"] == {"learning_rate": 0.02, "epochs": 10, "late": True}
    assert facts["summary"] == {"best": 0.75}
    assert facts["origins"] == {"acc": "wandb", "loss": "wandb"}


@pytest.mark.slow
def test_steps_that_go_backwards_are_kept_though_theirs_drops_them() -> None:
    folder = recorded(WITH_STEPS)

    assert series(folder, "train/loss") == [(0, 1.0), (5, 1 / 6), (7, 1 / 8), (10, 1 / 11)]
    assert [step for step, _ in series(folder, "nan")] == [0, 5, 7, 10]
    assert series(folder, "a")[0][0] == series(folder, "b")[0][0]
    assert len(theirs()) < 5


@pytest.mark.slow
def test_the_original_comes_back_however_often_capture_begins() -> None:
    program = """
import wandb
from wandb.sdk.wandb_run import Run
listening = Run.log
patches.stop()
assert Run.log is listening.__wrapped__, Run.log
for _ in range(20):
    patches.start(["wandb"])
    patches.stop()
assert Run.log is listening.__wrapped__, Run.log
"""
    run_program(f"{PRELUDE}\n{program}")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"a": 1, "b": {"c": 2.5, "d": {"e": "x"}}}, {"a": 1, "b/c": 2.5, "b/d/e": "x"}),
        ({"none": None, "yes": True}, {"none": None, "yes": True}),
        ({"odd": {1, 2}}, {"odd": "{1, 2}"}),
    ],
)
def test_values_are_parted_by_their_place(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert split(given, "") == (expected, [])


def test_media_come_with_their_bytes(tmp_path: Path) -> None:
    import numpy as np
    import wandb

    picture = wandb.Image(np.zeros((4, 4, 3), dtype=np.uint8), caption="black")
    table = wandb.Table(columns=["x", "y"], data=[[1, "a"], [2, "b"]])

    found, media = split({"loss": 0.5, "picture": picture, "rows": table, "h": wandb.Histogram([1, 1, 2])}, "run/")

    by_name: Callable[[str], Any] = dict(media).__getitem__
    assert found == {"run/loss": 0.5}
    assert by_name("run/picture").data[1:4] == b"PNG"
    assert by_name("run/picture").caption == "black"
    assert json.loads(by_name("run/rows").data) == {"columns": ["x", "y"], "rows": [[1, "a"], [2, "b"]]}
    assert sum(by_name("run/h").fields["counts"]) == 3
    assert tmp_path.exists()
