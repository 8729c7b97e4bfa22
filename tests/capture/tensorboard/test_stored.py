"""What was heard, read back from the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from programs import CALMLY

import tracer
from tracer import runfile, sink
from tracer.capture.patching import Hook, patches
from tracer.storage import Store


def test_media_texts_and_files_are_found_in_the_run(package: Any, tmp_path: Path) -> None:  # noqa: ANN401 -- a module
    with (
        tracer.init(project="p", capture=["tensorboard"], **CALMLY),
        package.SummaryWriter(str(tmp_path / "log")) as writer,
    ):
        writer.add_image("sample", torch.zeros(3, 2, 2), 1)
        writer.add_text("said", "something", 2)
        writer.add_histogram("weights", torch.arange(8.0), 3)
        writer.add_embedding(torch.eye(3), tag="layer")

    store = Store.open(tmp_path / ".tracer")
    found = store.media(store.run("@last").uid)
    assert [(one.name, one.kind, one.step, one.origin) for one in found] == [
        ("sample", "image", 1, "tensorboard"),
        ("said", "text", 2, "tensorboard"),
        ("weights", "histogram", 3, "tensorboard"),
    ]
    assert found[1].text == "something"
    assert sum(found[2].fields["counts"]) == 8


def test_parameters_results_and_where_series_come_from_stand_in_the_run(package: Any, tmp_path: Path) -> None:  # noqa: ANN401 -- a module
    with (
        tracer.init(project="p", config={"lr": 0.5}, capture=["tensorboard"], **CALMLY) as run,
        package.SummaryWriter(str(tmp_path / "log")) as writer,
    ):
        writer.add_scalar("loss", 1.0)
        writer.add_hparams({"lr": 0.1, "layers": 3}, {"loss": 0.25})

    facts = runfile.read(run.folder)
    assert facts["config"] == {"lr": 0.5, "layers": 3}, "what the program told Tracer itself stands"
    assert facts["summary"] == {"loss": 0.25}
    assert facts["origins"] == {"loss": "tensorboard"}
    assert facts["tensorboard"] == {"folders": {"loss": str(tmp_path / "log")}, "automatic_steps": {"loss": True}}


def test_a_run_that_the_first_value_begins_goes_on_counting(package: Any, tmp_path: Path) -> None:  # noqa: ANN401 -- a module
    """The step of that value was given before the run was there."""

    def begin() -> None:
        run = tracer.init(project="p", **CALMLY)
        Hook.guard = run.guard

    patches.start(["tensorboard"])
    before = Hook.guard
    sink.begin_with(begin)
    try:
        with package.SummaryWriter(str(tmp_path / "log")) as writer:
            for value in range(3):
                writer.add_scalar("loss", value)
    finally:
        sink.begin_with(None)
        patches.stop()
        Hook.guard = before
        tracer.finish()

    store = Store.open(tmp_path / ".tracer")
    series = store.series(store.run("@last").uid, "loss")
    assert series.step.tolist() == [0, 1, 2]
    assert series.value.tolist() == [0.0, 1.0, 2.0]
