"""Programs written for MLflow: what they say is recorded beside it, value by value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from journals import only_run, series
from programs import run as run_program

from tracer import runfile
from tracer.capture.mlflow import Steps

PRELUDE = """
import os
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_TRACKING_URI="sqlite:///mlflow.db")
import tracer
from tracer.capture.patching import patches
patches.start(["mlflow"])
"""

#: What their own store holds, written as JSON: parameters, and each metric's history.
THEIRS = """
import json, mlflow
client = mlflow.MlflowClient()
found = {}
for one in client.search_runs(["0", "1"], order_by=["attributes.start_time ASC"]):
    uid = one.info.run_id
    curves = {name: [[m.step, m.value] for m in client.get_metric_history(uid, name)] for name in one.data.metrics}
    found[uid] = {"params": one.data.params, "metrics": curves}
with open("theirs.json", "w") as file:
    json.dump(found, file)
"""

QUICK_START = """
import mlflow

mlflow.set_experiment("quick start")
with mlflow.start_run() as run:
    mlflow.log_params({"lr": 0.01, "optimizer": "adam"})
    mlflow.log_param("epochs", 5)
    for epoch in range(5):
        mlflow.log_metrics({"train_loss": 1.0 / (epoch + 1), "accuracy": epoch / 5}, step=epoch)
    mlflow.log_metric("final", 0.25)
    mlflow.set_tag("stage", "test")
    mlflow.log_text("all is well", "notes.txt")
"""

WITHOUT_STEPS = """
import mlflow

mlflow.start_run()
for value in (3.0, 2.0, 1.0):
    mlflow.log_metric("loss", value)
client = mlflow.MlflowClient()
client.log_metric(mlflow.active_run().info.run_id, "by client", 5.0, step=9)
with mlflow.start_run(run_name="inner", nested=True):
    mlflow.log_metric("loss", 7.0, step=1)
mlflow.end_run()
"""


def recorded(program: str) -> tuple[Path, dict[str, dict[str, dict[str, list[list[float]]]]]]:
    """Run a program for MLflow with capture; return the run's folder and what MLflow has itself."""
    body = "".join(f"    {line}\n" for line in program.strip().splitlines())
    run_program(f"{PRELUDE}\nwith tracer.init(project='trackers', quiet=True):\n{body}    patches.stop()\n{THEIRS}")
    return only_run(Path(".tracer")), json.loads(Path("theirs.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_program_by_their_own_documentation_is_recorded_value_by_value() -> None:
    folder, theirs = recorded(QUICK_START)

    (one,) = theirs.values()
    assert set(one["metrics"]) == {"train_loss", "accuracy", "final"}
    for name, points in one["metrics"].items():
        assert series(folder, name) == [(step, value) for step, value in points]
    facts = runfile.read(str(folder))
    assert facts["config"] == {"lr": 0.01, "optimizer": "adam", "epochs": 5}
    assert facts["labels"] == {"stage": "test"}


@pytest.mark.slow
def test_a_curve_without_steps_is_a_curve_and_a_nested_run_stands_apart() -> None:
    folder, theirs = recorded(WITHOUT_STEPS)

    inner = next(uid for uid, one in theirs.items() if one["metrics"]["loss"] == [[1, 7.0]])
    assert series(folder, "loss") == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert series(folder, "by client") == [(9, 5.0)]
    assert series(folder, f"{inner[:8]}/loss") == [(1, 7.0)]


def test_given_steps_are_believed() -> None:
    steps = Steps()

    assert [steps.of("r", "loss", step) for step in (0, 1, 2, 0)] == [0, 1, 2, 0]
    assert [steps.of("r", "other", step) for step in (0, 0, 0)] == [0, 1, 2]
