"""The examples of experiments run as they stand, from an empty folder."""

# ruff: noqa: ANN401 -- what reads a run back is a class of `conftest.py`
from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(name: str, *arguments: str) -> str:
    """Run an example, and return what it printed."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.torch
@pytest.mark.slow
def test_the_quick_start_is_recorded_with_its_model(recorded: Any) -> None:
    pytest.importorskip("torch.utils.tensorboard", reason="needs torch and tensorboard")

    assert "kept tracer://" in run("tracelet_quickstart.py", "5")

    found = recorded("sine")
    assert list(found.series("Loss/train")) == [0, 1, 2, 3, 4]
    assert found.facts["config"]["learning_rate"] == 0.01
    assert [one.name for one in found.store.artifacts(found.row.uid)] == ["sine"]


def test_the_plugin_gets_what_the_store_holds(recorded: Any) -> None:
    assert run("tracelet_plugin.py").startswith("100 values in values.jsonl")

    assert len(recorded("two-places").series("loss")) == 100
