"""Programs as the frameworks' own guides write them, unmodified, with the oldest and the newest versions."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs transformers")
pytest.importorskip("tensorboard", reason="needs tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tracer.storage import Store

pytestmark = pytest.mark.torch

HERE = Path(__file__).resolve().parent
PROGRAMS = [HERE / "programs" / f"{name}.py" for name in ("tracking", "accumulation", "quick_start", "classification")]
PYTHONS = {"newest": Path(sys.executable), "oldest": Path(sys.prefix) / "older" / "bin" / "python"}


@pytest.fixture(scope="module", params=PYTHONS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all the programs in one process, which saves importing the frameworks again; return where."""
    python = PYTHONS[request.param]
    if not python.exists():
        pytest.skip("needs the environment with older frameworks")
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # the first worker that needs it runs it for all
        shared = shared.parent
    folder = shared / f"hf-{request.param}"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "found.json").exists():
            _run_all(python, folder)
    return folder


def _run_all(python: Path, folder: Path) -> None:
    """Run the programs; `found.json` is written when all have ended."""
    calm = {"TRACER_STRICT": "1", "TRACER_TRACK_SYSTEM_METRICS": "0", "TRACER_TRACK_GIT": "0", "OMP_NUM_THREADS": "1"}
    command = [str(python), str(HERE / "listened.py"), *map(str, PROGRAMS)]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "HF_HUB_OFFLINE": "1", **calm}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class Run:
    """What is known of a program's run: its row, its series, its facts, and what the frameworks themselves wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store.open(folder / ".tracer")
        self.row = self.store.run(folder.name)
        self.facts = json.loads(next((folder / ".tracer/runs").glob("*/run.json")).read_text())

    def series(self, name: str) -> dict[int, float]:
        """Return step → value."""
        found = self.store.series(self.row.uid, name)
        return dict(zip(found.step.tolist(), found.value.tolist(), strict=True))

    def names(self) -> set[str]:
        """Return the names of the program's metrics."""
        found = {row.metric for row in self.store.metrics(self.row.uid)}
        return {name for name in found if not name.startswith(("system/", "tracer/"))}

    def history(self) -> dict[str, dict[int, float]]:
        """Return what the Trainer remembers: name → step → value, the last one wins."""
        (path,) = self.folder.glob("*/trainer_state.json")
        told: dict[str, dict[int, float]] = {}
        for entry in json.loads(path.read_text())["log_history"]:
            for name, value in entry.items():
                if name != "step":
                    told.setdefault(name, {})[entry["step"]] = value
        return told

    def tensorboard(self) -> dict[str, dict[int, float]]:
        """Return what TensorBoard reads in its own files."""
        told: dict[str, dict[int, float]] = {}
        for path in self.folder.rglob("*tfevents*"):
            reader = EventAccumulator(str(path.parent)).Reload()
            for tag in reader.Tags()["scalars"]:
                told[tag] = {event.step: event.value for event in reader.Scalars(tag)}
        return told


@pytest.fixture
def recorded(folder: Path) -> Callable[[str], Run]:
    """Return what reads the run of a program."""
    return lambda program: Run(folder / program)


def test_every_hook_was_in_place(folder: Path) -> None:
    found = json.loads((folder / "found.json").read_text())

    states = {name: state for program in found.values() for name, state in program["hooks"].items()}
    assert {name: state for name, state in states.items() if state[0] != "active"} == {}
    assert {name.split()[0].partition(".")[0] for name in states} == {"transformers", "accelerate", "tensorboard"}


def test_the_quick_start_is_recorded_as_the_trainer_remembers_it(recorded: Callable[[str], Run]) -> None:
    run = recorded("quick_start")

    assert {name: run.series(name) for name in run.names()} == run.history()
    assert list(run.series("loss")) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (run.row.status, run.row.steps) == ("completed", 8)
    assert (run.row.config["learning_rate"], run.row.config["model"]["n_embd"]) == (2e-3, 16)
    assert set(run.facts["origins"].values()) >= {"transformers"}


def test_a_classification_is_recorded_with_its_metrics_and_without_tensorboards_copies(
    recorded: Callable[[str], Run],
) -> None:
    run = recorded("classification")

    told, copies = run.history(), run.tensorboard()
    assert {name: run.series(name) for name in run.names() if not name.startswith("test_")} == told
    assert list(run.series("eval_accuracy")) == [5, 10, 15]
    assert list(run.series("test_accuracy")) == [15]
    assert copies["train/loss"] == pytest.approx(run.series("loss"))
    assert copies["eval/accuracy"] == pytest.approx(run.series("eval_accuracy"))
    assert run.facts["summary"]["train_loss"] == told["train_loss"][15]


def test_an_accelerate_loop_is_recorded_with_its_own_steps(recorded: Callable[[str], Run]) -> None:
    run = recorded("tracking")

    copies = run.tensorboard()
    assert run.names() == {"training_loss", "epoch_loss", "iteration"}
    assert list(run.series("training_loss")) == list(range(25))
    assert copies["training_loss"] == pytest.approx(run.series("training_loss"))
    assert copies["epoch_loss"] == pytest.approx(run.series("epoch_loss"))
    assert run.row.config["loss_function"] == "mse"


def test_an_accumulation_is_recorded_once_for_all_trackers(recorded: Callable[[str], Run]) -> None:
    run = recorded("accumulation")

    said = {int(step): loss for step, loss in json.loads((run.folder / "said.json").read_text()).items()}
    assert run.series("train_loss") == said
    assert list(said) == [1, 2, 3, 4]
    assert list(run.series("final")) == [4]
    assert run.names() == {"train_loss", "lr", "final"}
    assert run.row.config["lr"] == 0.01
