"""`SklearnCallback`, in scikit-learn's own protocol."""

from __future__ import annotations

from classic_runs import Run
from programs import CALMLY
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tracer
from tracer.capture.patching import patches
from tracer.integrations import SklearnCallback

X, Y = load_iris(return_X_y=True)


def test_the_run_begins_and_ends_with_the_fit_and_holds_its_tasks() -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5))
    model.set_callbacks(SklearnCallback("mine", "first", **CALMLY)).fit(X, Y)

    run = Run()
    assert (run.row.name, run.row.status) == ("first", "completed")
    tasks = run.events("sklearn.task")
    assert [task["parent"] for task in tasks if task["class"] == "StandardScaler"] == ["Pipeline.fit"]
    iterations = [task["number"] for task in tasks if task["task"] == "lbfgs-iter"]
    assert iterations == list(range(len(iterations)))
    assert len(iterations) >= int(model[-1].n_iter_[0])
    assert run.facts()["config"]["Pipeline"]["steps"][1][1]["C"] == 0.5


def test_beside_capture_a_fit_is_told_once() -> None:
    patches.start(["sklearn"])
    try:
        with tracer.init("mine", **CALMLY):
            LogisticRegression(max_iter=500).set_callbacks(SklearnCallback("other")).fit(X, Y)
    finally:
        patches.stop()

    told = [fit["class"] for fit in Run().events("sklearn.fit")]
    assert told.count("LogisticRegression") == 1
    assert Run().events("sklearn.task") == []
