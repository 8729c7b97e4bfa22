"""What an experiment hears without being told, and that it hears it once, whole, and only while it lasts."""

# ruff: noqa: ANN401 -- what reads a run back is a class of `conftest.py`
from __future__ import annotations

import time
from typing import Any

import pytest

import tracelet

pytestmark = pytest.mark.torch
tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="needs torch and tensorboard")


@pytest.fixture
def listening(calm: dict[str, Any]) -> dict[str, Any]:
    """Return settings of an experiment that listens to TensorBoard."""
    return {**calm, "track_metrics": True, "automagic_frameworks": [], "track_lightning": False}


def test_200_scalars_are_200_points_with_project_name_and_parameters(listening: dict[str, Any], recorded: Any) -> None:
    experiment = tracelet.start_logging("two-hundred", project="p", config=listening)
    experiment.log_params({"lr": 0.1})
    writer = tensorboard.SummaryWriter("runs")
    for step in range(200):
        writer.add_scalar("Loss/train", 0.5 / (step + 1), step)
    tracelet.stop_logging()
    writer.close()

    run = recorded("two-hundred")
    assert (run.row.project, run.facts["config"]) == ("p", {"lr": 0.1})
    points = run.series("Loss/train")
    assert list(points) == list(range(200))
    assert all(abs(value - 0.5 / (step + 1)) < 1e-7 for step, value in points.items())


def test_stop_returns_within_a_second_with_everything_on(recorded: Any) -> None:
    took = []
    for number in range(3):  # the machine may be busy; the promise is ours
        tracelet.start_logging(f"all-on-{number}", config={"quiet": True, "maintain": "off"})
        with tensorboard.SummaryWriter("runs") as writer:
            for step in range(200):
                writer.add_scalar("a", step, step)
            began = time.monotonic()
            tracelet.stop_logging()
            took.append(time.monotonic() - began)

    assert [len(recorded(f"all-on-{number}").series("a")) for number in range(3)] == [200] * 3
    assert min(took) < 1.0


def test_nothing_is_heard_after_the_end_and_the_second_run_hears_its_own(
    listening: dict[str, Any], recorded: Any
) -> None:
    original = tensorboard.writer.FileWriter.__dict__["add_event"]
    writer = tensorboard.SummaryWriter("runs")
    for name in ("first", "second"):
        tracelet.start_logging(name, config=listening)
        assert tensorboard.writer.FileWriter.__dict__["add_event"] is not original
        writer.add_scalar(f"of-{name}", 1.0, 0)
        tracelet.stop_logging()
        writer.add_scalar("after", 1.0, 0)
    writer.close()

    assert tensorboard.writer.FileWriter.__dict__["add_event"] is original
    assert (recorded("first").metrics(), recorded("second").metrics()) == ({"of-first"}, {"of-second"})


def test_a_flag_turns_a_framework_off(listening: dict[str, Any], recorded: Any) -> None:
    with (
        tracelet.start_logging("deaf", config={**listening, "track_tensorboard": False}),
        tensorboard.SummaryWriter("runs") as writer,
    ):
        writer.add_scalar("a", 1.0, 0)

    assert recorded("deaf").metrics() == set()


@pytest.mark.parametrize(
    ("settings", "capture"),
    [
        ({}, ["auto"]),
        ({"track_tensorboard": False, "track_lightning": False}, ["auto", "-tensorboard", "-lightning"]),
        ({"track_metrics": False}, ["off"]),
        ({"automagic_frameworks": ["sklearn", "pytorch"]}, ["lightning", "pytorch", "sklearn", "tensorboard"]),
    ],
)
def test_the_settings_say_what_is_listened_to(settings: dict[str, Any], capture: list[str]) -> None:
    from tracer.experiment.options import gather

    assert gather({}, settings).for_init()["capture"] == capture


def test_a_choice_by_our_own_name_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    from tracer.experiment.options import gather

    monkeypatch.setenv("TRACER_CAPTURE", "keras")

    assert "capture" not in gather({}, {}).for_init()
    assert gather({}, {"track_lightning": False}).for_init()["capture"] == ["auto", "-lightning"]


def test_a_hook_listens_and_stops_without_disturbing_the_others() -> None:
    from tracer.capture.patching import patches

    patches.start(["keras"])
    hook = tracelet.PyTorchFramework()
    hook.start_tracking()
    assert hook.is_active
    hook.stop_tracking()

    assert (hook.is_active, patches.is_on("keras"), patches.is_on("tensorboard")) == (False, True, False)
