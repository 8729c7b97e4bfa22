"""The tracker that a program gives to accelerate itself."""

# ruff: noqa: ANN401 -- what the frameworks and the fixtures give has no types

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

accelerate = pytest.importorskip("accelerate", reason="needs accelerate")

import tracer  # noqa: E402 -- what may be missing comes first
from tracer.integrations import TracerTracker  # noqa: E402 -- as above

pytestmark = pytest.mark.torch

CALM = {"quiet": True, "maintain": "off", "track_system_metrics": False, "track_git": False}


def test_a_run_begins_with_the_trackers_and_ends_with_the_training(recorded: Any) -> None:
    accelerator = accelerate.Accelerator(log_with="tracer", cpu=True)
    accelerator.init_trackers(
        "my-project", config={"lr": 0.1}, init_kwargs={"tracer": {"name": "first", "tags": ["a"], **CALM}}
    )
    assert accelerator.get_tracker("tracer", unwrap=True).run_id == tracer.get_run_id()
    for step in range(4):
        accelerator.log({"loss": 1.0 / (step + 1)}, step=step)
    accelerator.end_training()

    run = recorded()
    assert (run.row.project, run.row.name, run.row.status, run.row.tags) == ("my-project", "first", "completed", ("a",))
    assert run.series("loss") == {0: 1.0, 1: 0.5, 2: 1.0 / 3.0, 3: 0.25}
    assert run.row.config["lr"] == 0.1
    with pytest.raises(RuntimeError):
        tracer.get_run_id()


def test_a_run_of_the_program_is_joined_and_left_open(recorded: Any) -> None:
    with tracer.init(project="mine", run_name="outer", **CALM) as run:
        accelerator = accelerate.Accelerator(log_with=TracerTracker(), cpu=True)
        accelerator.init_trackers("other", config={"lr": 0.1})
        accelerator.log({"loss": 1.0}, step=3)
        accelerator.end_training()
        assert tracer.get_run_id() == run.run_id

    found = recorded()
    assert found.runs() == 1
    assert (found.row.project, found.row.config["lr"], found.series("loss")) == ("mine", 0.1, {3: 1.0})


def test_pictures_are_kept() -> None:
    accelerator = accelerate.Accelerator(log_with="tracer", cpu=True)
    accelerator.init_trackers("p", init_kwargs={"tracer": CALM})
    accelerator.get_tracker("tracer").log_images({"samples": [np.zeros((4, 4, 3), np.uint8)]}, step=1)
    folder = Path(accelerator.get_tracker("tracer", unwrap=True).folder)
    accelerator.end_training()

    kept = [path.read_bytes() for path in (folder / "artifacts").rglob("*") if path.is_file()]
    assert [content[1:4] for content in kept] == [b"PNG"]


def test_a_setting_that_is_not_known_is_told_at_once() -> None:
    accelerator = accelerate.Accelerator(log_with="tracer", cpu=True)

    with pytest.raises(ValueError, match="colour"):
        accelerator.init_trackers("p", init_kwargs={"tracer": {"colour": "red"}})


def test_without_accelerate_the_command_that_brings_it_is_named() -> None:
    source = Path(tracer.__file__).parent.parent
    program = f"import sys; sys.path.insert(0, {str(source)!r})\nfrom tracer.integrations import TracerTracker"

    # Without `site` this Python has no packages at all.
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=False)

    assert "TracerTracker needs the accelerate package, which is not installed." in done.stderr
    assert "pip install 'ml-tracer[hf]'" in done.stderr
