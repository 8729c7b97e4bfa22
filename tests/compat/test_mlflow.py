"""`tracer.compat.mlflow`: a program written for MLflow, with one import changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from journals import only_run
from journals import series as points_of

from tracer import runfile
from tracer.compat import mlflow
from tracer.errors import UsageError


def series(name: str) -> list[tuple[int, float]]:
    """Return what was recorded of a metric."""
    return points_of(only_run(Path(".tracer")), name)


def test_a_program_keeps_its_lines() -> None:
    mlflow.set_experiment("quick start")
    with mlflow.start_run(run_name="first") as run:
        mlflow.log_params({"lr": 0.01, "optimizer": "adam"})
        for epoch in range(3):
            mlflow.log_metrics({"loss": 1.0 / (epoch + 1)}, step=epoch)
        for value in (3.0, 2.0):
            mlflow.log_metric("curve", value)
        mlflow.set_tag("stage", "test")

    facts = runfile.read(str(only_run(Path(".tracer"))))
    assert series("loss") == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert series("curve") == [(0, 3.0), (1, 2.0)]
    assert (facts["project"], facts["name"], facts["status"]) == ("quick start", "first", "completed")
    assert facts["config"] == {"lr": 0.01, "optimizer": "adam"}
    assert facts["labels"] == {"stage": "test"}
    assert run.info.status == "FINISHED"


def test_the_first_call_begins_a_run() -> None:
    mlflow.log_metric("loss", 1.0, step=4)
    assert mlflow.active_run() is not None
    mlflow.end_run()

    assert mlflow.active_run() is None
    assert series("loss") == [(4, 1.0)]


def test_a_nested_run_stands_under_its_name() -> None:
    with mlflow.start_run():
        with pytest.raises(UsageError, match="nested=True"):
            mlflow.start_run()
        with mlflow.start_run(run_name="fold 1", nested=True):
            mlflow.log_metric("loss", 0.5, step=1)
        mlflow.log_metric("loss", 0.25, step=1)

    assert series("fold 1/loss") == [(1, 0.5)]
    assert series("loss") == [(1, 0.25)]


def test_an_exception_marks_the_run_failed() -> None:
    with pytest.raises(ZeroDivisionError), mlflow.start_run():
        mlflow.log_metric("loss", 1 / 0)

    facts = runfile.read(str(only_run(Path(".tracer"))))
    assert facts["status"] == "failed"
    assert "ZeroDivisionError" in facts["reason"]


def test_what_is_not_served_says_so() -> None:
    with pytest.raises(AttributeError, match="no 'register_model'"):
        mlflow.register_model("a", "b")
