"""A real Accelerator, listened to without a word of the program."""

# ruff: noqa: ANN401 -- what the frameworks and the fixtures give has no types

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch

accelerate = pytest.importorskip("accelerate", reason="needs accelerate")

from accelerate import tracking  # noqa: E402 -- what may be missing comes first

from tracer import events  # noqa: E402 -- as above
from tracer.capture.patching import patches  # noqa: E402 -- as above

pytestmark = pytest.mark.torch


def accelerator(**settings: Any) -> Any:
    """Return an Accelerator whose trackers have begun."""
    made = accelerate.Accelerator(cpu=True, project_dir="logs", **settings)
    made.init_trackers("p", config={"lr": 0.1, "api_key": "sk-abcdefghijklmnop"})
    return made


def test_stopping_puts_everything_back() -> None:
    known, available = dict(tracking.LOGGER_TYPE_TO_CLASS), list(tracking._available_trackers)
    before = [*vars(accelerate.Accelerator).values(), *vars(tracking.TensorBoardTracker).values()]

    for _ in range(100):
        patches.start(["accelerate"])
        patches.start(["accelerate"])
        patches.stop()

    assert [*vars(accelerate.Accelerator).values(), *vars(tracking.TensorBoardTracker).values()] == before
    assert known == tracking.LOGGER_TYPE_TO_CLASS
    assert available == tracking._available_trackers


def test_values_are_heard_with_the_callers_steps_and_the_configuration_without_secrets(heard: Any) -> None:
    patches.start(["accelerate"])
    running = accelerator(log_with="tracer")

    for step in (0, 5, 3):
        assert running.log({"loss": torch.tensor(step / 2)}, step=step) is None
    running.log(values={"loss": np.float64(9.0)}, step=7)
    running.end_training()

    assert {step: float(value) for step, value in heard.series("loss").items()} == {0: 0.0, 5: 2.5, 3: 1.5, 7: 9.0}
    configs = [event.values for event in heard.of(events.Parameters) if "lr" in event.values]
    assert configs[0]["lr"] == 0.1
    assert all("sk-abcdefghijklmnop" not in str(values) for values in configs)


def test_values_without_a_step_are_counted_on_and_none_is_lost(heard: Any) -> None:
    patches.start(["accelerate"])
    running = accelerator()

    for loss in (3.0, 2.0, 1.0):
        running.log({"loss": loss})
    running.log({"loss": 0.5}, step=10)
    running.log({"accuracy": 0.9})

    assert heard.series("loss") == {0: 3.0, 1: 2.0, 2: 1.0, 10: 0.5}
    assert heard.series("accuracy") == {10: 0.9}


def test_an_accelerator_made_before_is_heard_as_well(heard: Any) -> None:
    running = accelerator(log_with="tensorboard")

    patches.start(["accelerate", "tensorboard"])
    running.log({"loss": 1.0}, step=1)
    patches.stop()
    running.log({"loss": 2.0}, step=2)
    running.end_training()

    assert heard.series("loss") == {1: 1.0}


def test_a_tracker_that_the_program_calls_itself_is_heard_once(heard: Any) -> None:
    patches.start(["accelerate", "tensorboard"])
    running = accelerator(log_with="tensorboard")

    running.get_tracker("tensorboard").log({"loss": 1.0 / 3.0}, step=4)
    running.end_training()

    assert heard.series("loss") == {4: 1.0 / 3.0}
    assert heard.repeated() == {}


def test_all_trackers_include_ours(heard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "_available_trackers", [])
    patches.start(["accelerate"])

    running = accelerator(log_with="all")
    running.log({"loss": 1.0}, step=1)
    running.end_training()

    assert [tracker.name for tracker in running.trackers] == ["tracer"]
    assert heard.series("loss") == {1: 1.0}
    assert heard.repeated() == {}


def test_pictures_are_kept_as_they_look(heard: Any) -> None:
    from PIL import Image

    patches.start(["accelerate"])
    running = accelerator(log_with="tracer")
    last, first = np.zeros((4, 6, 3), np.uint8), torch.ones(3, 4, 6)
    last[0, 0] = 255, 0, 7

    running.get_tracker("tracer").log_images({"samples": [last, first], "one": [Image.new("RGB", (2, 2))]}, step=3)

    told = heard.of(events.Media)
    assert [(one.name, one.kind, one.step) for one in told] == [
        ("samples/0", "image", 3), ("samples/1", "image", 3), ("one", "image", 3),
    ]  # fmt: skip
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(told[0].data))), last)
    assert np.asarray(Image.open(io.BytesIO(told[1].data))).tolist() == np.full((4, 6, 3), 255).tolist()


def test_a_value_that_cannot_be_recorded_is_ours_to_bear(heard: Any) -> None:
    patches.start(["accelerate"])
    running = accelerator()

    running.log({"loss": 1.0, "what": object()}, step=1)

    assert heard.series("loss") == {1: 1.0}
