"""Keras on PyTorch: what `fit`, `evaluate` and `predict` say, at the optimizer's steps."""

# ruff: noqa: ANN401 -- Keras' objects

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from classic_runs import curve, entries, listening, of

from tracer import events
from tracer.capture.patching import patches

#: Keras reads PyTorch's tensors by way of NumPy, which says that this will change.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(5)


def data(rows: int = 40) -> tuple[Any, Any]:
    """Return inputs and targets."""
    generator = np.random.default_rng(0)
    return generator.random((rows, 4), dtype="float32"), generator.random((rows, 1), dtype="float32")


def model(**options: Any) -> keras.Model:
    """Return a small compiled model."""
    made = keras.Sequential(
        [keras.layers.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(1)], name="small"
    )
    made.compile(**{"optimizer": keras.optimizers.SGD(0.1), "loss": "mse", "metrics": ["mae"], **options})
    return made


def fit(trained: keras.Model, **options: Any) -> Any:
    """Train quietly: 5 batches per epoch."""
    return trained.fit(*data(), **{"batch_size": 8, "epochs": 3, "verbose": 0, **options})


def test_the_epochs_are_those_of_the_history_at_the_optimizers_steps() -> None:
    with listening("keras") as heard:
        history = fit(model(), validation_data=data(16)).history

    assert set(history) == {"loss", "mae", "val_loss", "val_mae"}
    for name, values in history.items():
        assert curve(heard, name) == dict(zip((5, 10, 15), values, strict=True))


def test_the_epochs_are_those_of_the_csv_logger(tmp_path: Path) -> None:
    with listening("keras") as heard:
        fit(model(), validation_split=0.2, callbacks=[keras.callbacks.CSVLogger(tmp_path / "log.csv")])

    rows = list(csv.DictReader((tmp_path / "log.csv").read_text(encoding="utf-8").splitlines()))
    for name in ("loss", "mae", "val_loss", "val_mae"):
        assert list(curve(heard, name).values()) == [float(row[name]) for row in rows]
    epochs = curve(heard, "epoch")
    assert [epochs[step] for step in curve(heard, "loss")] == [int(row["epoch"]) for row in rows]


def test_batches_that_keras_tells_from_its_pool_have_their_own_steps() -> None:
    with listening("keras") as heard:
        history = fit(model()).history  # no callback of the program's: Keras tells batches in any order

    losses = curve(heard, "batch/loss")
    assert sorted(losses) == list(range(1, 16))
    assert [losses[step] for step in (5, 10, 15)] == history["loss"]
    assert [event.step for event in of(heard, events.Steps)] == list(range(1, 16))


def test_every_batch_is_recorded_and_the_count_does_not_restart_at_an_epoch() -> None:
    logged: list[float] = []
    keep = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: logged.append(logs["loss"]))
    with listening("keras") as heard:
        fit(model(), callbacks=[keep])

    assert curve(heard, "batch/loss") == dict(enumerate(logged, 1))
    assert list(curve(heard, "batch/number").values()) == [0, 1, 2, 3, 4] * 3
    assert list(curve(heard, "epoch").values()) == [0] * 5 + [1] * 5 + [2] * 5


def test_a_second_fit_of_a_model_goes_on_counting() -> None:
    trained = model()
    with listening("keras") as heard:
        first = fit(trained, epochs=1).history["loss"]
        second = fit(trained, epochs=2, initial_epoch=1).history["loss"]

    assert curve(heard, "loss") == {5: first[0], 10: second[0]}
    assert [event.step for event in of(heard, events.Training)] == [0, 5]


def test_a_second_model_does_not_overwrite_the_first() -> None:
    with listening("keras") as heard:
        first = fit(model(), epochs=1).history["loss"]
        second = fit(model(), epochs=1).history["loss"]

    assert curve(heard, "loss") == {5: first[0]}
    assert curve(heard, "training_2/loss") == {5: second[0]}


def test_steps_are_updates_under_accumulation() -> None:
    with listening("keras") as heard:
        fit(model(optimizer=keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)), epochs=2)

    assert of(heard, events.Steps)[-1].step == 5


def test_an_evaluation_of_its_own_has_names_of_its_own() -> None:
    trained = model()
    with listening("keras") as heard:
        fit(trained, epochs=1)
        found = trained.evaluate(*data(16), verbose=0, return_dict=True)

    assert curve(heard, "evaluate/loss") == {5: found["loss"]}
    assert curve(heard, "evaluate/mae") == {5: found["mae"]}


def test_a_prediction_is_told_without_its_values() -> None:
    with listening("keras") as heard:
        model().predict(data()[0], batch_size=8, verbose=0)

    (fields,) = entries(heard, "keras.predict")
    assert (fields["model"], fields["batches"]) == ("small", 5)
    assert of(heard, events.Training) == []


def test_the_parameters_are_told() -> None:
    with listening("keras") as heard:
        fit(model(optimizer=keras.optimizers.Adam(0.001)))

    said = of(heard, events.Training)[0].parameters
    assert said["optimizer"]["class"] == "Adam"
    assert said["optimizer"]["learning_rate"] == 0.001  # and not that of 32 bits
    assert {name: value for name, value in said.items() if name != "optimizer"} == {
        "model": "small",
        "parameters": 19,
        "loss": "mse",
        "epochs": 3,
        "steps": 5,
        "batch_size": 8,
    }


def test_a_loop_of_the_programs_own_says_nothing() -> None:
    with listening("keras") as heard:
        trained = model()
        for _ in range(3):
            trained.train_on_batch(*data())

    assert heard == []


def test_weights_and_random_streams_are_the_same_with_and_without() -> None:
    def outcome() -> list[Any]:
        keras.utils.set_random_seed(3)
        trained = model()
        fit(trained, validation_split=0.2)
        drawn = [random.random(), np.random.rand(), float(torch.rand(1)), float(keras.random.uniform((1,))[0])]  # noqa: NPY002, S311 -- streams that programs draw from
        return [*(weight.tolist() for weight in trained.get_weights()), drawn]

    plain = outcome()
    with listening("keras"):
        heard = outcome()

    assert heard == plain


def test_an_exception_of_a_callback_passes_through() -> None:
    def fail(_epoch: int, _logs: Any) -> None:
        message = "mine"
        raise ValueError(message)

    with listening("keras") as heard, pytest.raises(ValueError, match="mine"):
        fit(model(), callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=fail)])

    assert len(of(heard, events.Training)) == 1


def test_the_programs_own_list_of_callbacks_is_not_touched() -> None:
    mine = [keras.callbacks.TerminateOnNaN()]
    with listening("keras"):
        fit(model(), callbacks=mine)

    assert len(mine) == 1


def test_a_list_that_was_made_before_stays_deaf_and_one_that_outlives_us_too() -> None:
    trained = model()
    before = keras.callbacks.CallbackList(model=trained)
    with listening("keras") as heard:
        during = keras.callbacks.CallbackList(model=trained)
        before.on_train_begin()
    during.on_train_begin()
    during.on_train_batch_end(0, {"loss": 1.0})

    assert heard == []


def test_everything_is_put_back() -> None:
    lists = keras.callbacks.CallbackList.__init__
    for _ in range(3):
        with listening("keras"):
            assert keras.callbacks.CallbackList.__init__.__wrapped__ is lists

    assert keras.callbacks.CallbackList.__init__ is lists


def test_an_unknown_signature_leaves_the_original_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from keras.src.callbacks import callback_list

    class CallbackList:
        def __init__(self, hooks: Any) -> None:
            self.hooks = hooks

    original = CallbackList.__init__
    monkeypatch.setattr(callback_list, "CallbackList", CallbackList)

    patches.start(["keras"])
    patches.stop()

    assert CallbackList.__init__ is original
    assert capsys.readouterr().err.count("CallbackList.__init__") == 1
