"""Programs as Keras' documentation writes them, run unchanged under `tracer run`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from classic_runs import recorded

KERAS = {"env": {"KERAS_BACKEND": "torch"}}

CONVNET = """
import json
import keras
import numpy as np
from keras import layers

num_classes = 10
input_shape = (8, 8, 1)
x_train = np.random.rand(64, 8, 8, 1).astype("float32")
y_train = keras.utils.to_categorical(np.random.randint(0, num_classes, 64), num_classes)
model = keras.Sequential(
    [
        keras.Input(shape=input_shape),
        layers.Conv2D(4, kernel_size=(3, 3), activation="relu"),
        layers.MaxPooling2D(pool_size=(2, 2)),
        layers.Flatten(),
        layers.Dropout(0.5),
        layers.Dense(num_classes, activation="softmax"),
    ]
)
batch_size = 16
epochs = 2
model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
history = model.fit(
    x_train, y_train, batch_size=batch_size, epochs=epochs, validation_split=0.25, verbose=0,
    callbacks=[keras.callbacks.CSVLogger("training.log")],
)
score = model.evaluate(x_train, y_train, verbose=0)
print(json.dumps([history.history, score]))
"""

FUNCTIONAL = """
import json
import keras
import numpy as np

inputs = keras.Input(shape=(16,), name="digits")
x = keras.layers.Dense(8, activation="relu", name="dense_1")(inputs)
outputs = keras.layers.Dense(3, activation="softmax", name="predictions")(x)
model = keras.Model(inputs=inputs, outputs=outputs)
model.compile(
    optimizer=keras.optimizers.RMSprop(),
    loss=keras.losses.SparseCategoricalCrossentropy(),
    metrics=[keras.metrics.SparseCategoricalAccuracy()],
)
x_train = np.random.rand(60, 16).astype("float32")
y_train = np.random.randint(0, 3, 60).astype("float32")
callbacks = [keras.callbacks.EarlyStopping(monitor="val_loss", min_delta=10.0, patience=2, verbose=0)]
history = model.fit(
    x_train[:-10], y_train[:-10], batch_size=10, epochs=20, verbose=0,
    validation_data=(x_train[-10:], y_train[-10:]), callbacks=callbacks,
)
predictions = model.predict(x_train[:3], verbose=0)
print(json.dumps(history.history))
"""


def test_a_convolutional_network_with_a_validation_split() -> None:
    run, printed = recorded(CONVNET, **KERAS)

    history, score = json.loads(printed)
    for name, values in history.items():
        assert run.series(name) == dict(zip((3, 6), values, strict=True))
    rows = list(csv.DictReader(Path("training.log").read_text(encoding="utf-8").splitlines()))
    assert run.values("val_accuracy") == [float(row["val_accuracy"]) for row in rows]
    assert [run.values("evaluate/loss"), run.values("evaluate/accuracy")] == [[score[0]], [score[1]]]
    assert (run.row.status, run.row.steps) == ("completed", 6)
    config = run.facts()["config"]
    assert (config["batch_size"], config["epochs"], config["loss"]) == (16, 2, "categorical_crossentropy")


def test_a_functional_model_that_stops_early() -> None:
    run, printed = recorded(FUNCTIONAL, **KERAS)

    history = json.loads(printed)
    for name, values in history.items():
        assert run.series(name) == dict(zip(range(5, 5 * len(values) + 1, 5), values, strict=True))
    assert len(history["loss"]) == 3
    assert len(run.series("batch/loss")) == 15
    assert run.events("keras.predict")[0]["batches"] == 1
