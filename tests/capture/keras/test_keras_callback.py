"""`KerasCallback`, added by hand."""

# ruff: noqa: ANN401 -- Keras' objects

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from classic_runs import Run
from programs import CALMLY

import tracer
from tracer.capture.patching import patches
from tracer.integrations import KerasCallback

#: Keras reads PyTorch's tensors by way of NumPy, which says that this will change.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def trained(*callbacks: Any, epochs: int = 2) -> tuple[keras.Model, Any]:
    """Train a small model; return it with its history."""
    generator = np.random.default_rng(0)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(
        generator.random((20, 4)), generator.random((20, 1)), 5, epochs, verbose=0, callbacks=list(callbacks)
    )
    return model, history.history


def test_the_run_begins_and_ends_with_the_training() -> None:
    _, history = trained(KerasCallback("mine", "first", **CALMLY))

    run = Run()
    assert (run.row.name, run.row.status, run.row.steps) == ("first", "completed", 8)
    assert run.series("loss") == dict(zip((4, 8), history["loss"], strict=True))
    assert run.facts()["config"]["optimizer"]["class"] == "SGD"


def test_a_run_of_the_program_is_joined_and_left_open() -> None:
    with tracer.init("mine", "whole", **CALMLY) as active:
        trained(KerasCallback("other"))
        tracer.log({"mine": 1.0})

    run = Run()
    assert run.row.uid == active.run_id
    assert {"loss", "mine"} <= run.metrics()


def test_an_evaluation_afterwards_belongs_to_the_run() -> None:
    callback = KerasCallback("mine", "first", **CALMLY)
    model, _ = trained(callback)
    found = model.evaluate(np.zeros((4, 4)), np.ones((4, 1)), verbose=0, callbacks=[callback], return_dict=True)

    run = Run()
    assert len(run.store.runs()) == 1
    assert run.series("evaluate/loss") == {8: found["loss"]}


def test_beside_capture_each_value_is_kept_once() -> None:
    patches.start(["keras"])
    try:
        _, history = trained(KerasCallback("mine", **CALMLY))
    finally:
        patches.stop()

    run = Run()
    assert run.series("loss") == dict(zip((4, 8), history["loss"], strict=True))
    assert not {name for name in run.metrics() if name.startswith("training_2")}
    assert next(row for row in run.store.metrics(run.row.uid) if row.metric == "loss").n == 2
