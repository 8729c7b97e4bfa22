"""The examples run as they stand, from an empty folder."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"

pytestmark = pytest.mark.torch


def run(name: str, *arguments: str, folder: Path) -> str:
    """Run an example in a folder, and return what it printed."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "run_name", "steps", "learned", "checkpoints", "samples"),
    [
        ("basic_pytorch.py", "simple-training", 320, "loss", 3, 0),
        ("custom_training_loop.py", "custom-loop", 300, "val/loss", 6, 6),
        ("huggingface_example.py", "harbour-tales", 60, "eval_loss", 3, 0),
    ],
)
def test_an_example_learns_and_is_recorded(
    name: str, run_name: str, steps: int, learned: str, checkpoints: int, samples: int, tmp_path: Path
) -> None:
    from tracer.storage import Store
    from tracer.storage.samples import read_samples

    if name.startswith("huggingface"):
        pytest.importorskip("transformers", reason="needs transformers")
    printed = run(name, folder=tmp_path)

    assert f"tracer show {run_name}" in printed
    with Store.open(tmp_path / ".tracer") as store:
        row = store.run(run_name)
        series = store.series(row.uid, learned)
        norms = store.layers(row.uid, "norm")
        files = store.samples(row.uid)
    assert (row.status, row.steps) == ("completed", steps)
    assert series.value[-1] < series.value[0]
    assert len(norms.steps) >= checkpoints
    assert (norms.values > 0).all()
    assert len(files) == samples
    for file in files:
        losses = read_samples(file)["loss"]
        assert len(losses) == 5
        assert losses == sorted(losses, reverse=True)


def test_the_demonstration_loses_nothing_to_a_kill_and_begins_anew_each_time(tmp_path: Path) -> None:
    (tmp_path / "examples").mkdir()
    for name in ("demo.py", "text.py"):  # a copy writes beside itself and not into this repository
        shutil.copy(EXAMPLES / name, tmp_path / "examples")
    (tmp_path / "demo" / ".tracer" / "runs" / "stale").mkdir(parents=True)

    done = subprocess.run(
        [sys.executable, str(tmp_path / "examples" / "demo.py"), "--steps", "40"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "16 calls of log() had returned when it died; the store holds 16 values of its loss." in done.stdout
    for command in ("list", "show killed", "plot too-fast loss", "anomalies too-fast", "compare steady too-fast"):
        assert f"$ tracer {command}" in done.stdout
    assert len(list((tmp_path / "demo" / ".tracer" / "runs").iterdir())) == 3


def test_the_story_is_always_the_same() -> None:
    story: Any = runpy.run_path(str(EXAMPLES / "text.py"))["story"]

    assert story(500) == story(500)
    assert story(500) != story(500, seed=1)
    assert (len(story(500)), story(500).isascii()) == (500, True)


def test_the_example_of_a_nan_names_the_sample_and_what_would_have_helped(tmp_path: Path) -> None:
    said = run("replay_a_nan.py", folder=tmp_path)

    assert "step-30-nan_or_inf.trc: Bit-exact, 4/4 gradients" in said
    assert "`aten.div.Tensor` in the forward pass of module `scale`" in said
    assert "Sample 5 of 16" in said
    assert "drop-samples=5           the anomaly vanishes" in said
