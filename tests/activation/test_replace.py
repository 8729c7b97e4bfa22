"""`tracer run --replace`: programs written for other trackers, without these."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from journals import only_run

from tracer import runfile
from tracer.storage import Store

WANDB = """
import wandb

run = wandb.init(project="cats", name="first", config={"lr": 0.1})
for step in range(20):
    wandb.log({"loss": 1 / (step + 1)})
run.summary["best"] = 0.05
wandb.finish()
print(wandb.__name__)
"""
MLFLOW = """
import mlflow

mlflow.set_experiment("cats")
with mlflow.start_run(run_name="first"):
    mlflow.log_params({"lr": 0.1})
    for step in range(20):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
print(mlflow.__name__)
"""


@pytest.mark.parametrize(("name", "program"), [("wandb", WANDB), ("mlflow", MLFLOW)])
def test_the_program_is_recorded_as_if_it_were_written_for_tracer(name: str, program: str) -> None:
    Path("train.py").write_text(program, encoding="utf-8")

    command = [sys.executable, "-m", "tracer", "run", "--replace", "train.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"tracer.compat.{name}"]
    folder = only_run(Path(".tracer"))
    facts = runfile.read(str(folder))
    assert (facts["project"], facts["name"], facts["status"]) == ("cats", "first", "completed")
    assert facts["config"]["lr"] == 0.1
    with Store.open(".tracer") as store:
        assert store.series(folder.name, "loss").value.tolist() == [1 / (step + 1) for step in range(20)]
    assert not Path("wandb").exists()
    assert not Path("mlflow.db").exists()
