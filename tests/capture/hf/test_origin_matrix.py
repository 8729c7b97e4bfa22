"""One value, one row, however many ways there are to hear it."""

# ruff: noqa: ANN401 -- what the frameworks and the fixtures give has no types

from __future__ import annotations

from typing import Any

import pytest

transformers = pytest.importorskip("transformers", reason="needs transformers")
accelerate = pytest.importorskip("accelerate", reason="needs accelerate")

from hf_trainings import history, trainer  # noqa: E402 -- what may be missing comes first

import tracer  # noqa: E402 -- as above
from tracer.capture.patching import patches  # noqa: E402 -- as above
from tracer.integrations import TracerTracker, TransformersCallback  # noqa: E402 -- as above

pytestmark = pytest.mark.torch

ALL = ["transformers", "accelerate", "tensorboard"]
#: How a training is heard: without a word of the program, as its arguments ask, by hand, and several of these.
WAYS = [(True, False, False), (False, True, False), (False, False, True), (True, False, True), (True, True, True)]


@pytest.mark.parametrize("logs_itself", [False, True], ids=["", "log"])
@pytest.mark.parametrize("tensorboard", [False, True], ids=["", "tensorboard"])
@pytest.mark.parametrize(("listens", "asks", "by_hand"), WAYS)
def test_a_trainer_is_recorded_once(
    heard: Any, *, listens: bool, asks: bool, by_hand: bool, tensorboard: bool, logs_itself: bool
) -> None:
    patches.start(ALL if listens else ["tensorboard"])
    report_to = [name for name, wanted in (("tensorboard", tensorboard), ("tracer", asks)) if wanted]
    training = trainer([TransformersCallback("p")] if by_hand else [], report_to=report_to, eval_strategy="epoch")
    training.train()
    if logs_itself:
        tracer.log({"mine": 1.0, "loss": 0.0}, step=99)
    training.evaluate()

    told = history(training)
    again = {("eval_loss", 3), ("eval_runtime", 3), ("eval_samples_per_second", 3), ("eval_steps_per_second", 3)}
    assert set(heard.repeated()) - again == set()
    assert {name: heard.series(name) for name in heard.names()} == told
    assert heard.origins() == {"transformers"}


@pytest.mark.parametrize("logs_itself", [False, True], ids=["", "log"])
@pytest.mark.parametrize("tensorboard", [False, True], ids=["", "tensorboard"])
@pytest.mark.parametrize(("listens", "asks", "by_hand"), WAYS)
def test_an_accelerator_is_recorded_once(
    heard: Any, *, listens: bool, asks: bool, by_hand: bool, tensorboard: bool, logs_itself: bool
) -> None:
    patches.start(ALL if listens else ["tensorboard"])
    names = [name for name, wanted in (("tensorboard", tensorboard), ("tracer", asks)) if wanted]
    trackers = [*names, *([TracerTracker()] if by_hand else [])]
    accelerator = accelerate.Accelerator(log_with=trackers or None, project_dir="logs", cpu=True)
    accelerator.init_trackers("p", config={"lr": 0.1})
    for step in range(3):
        accelerator.log({"loss": 1.0 / 3.0 + step, "share": step / 7}, step=step)
        if logs_itself:
            tracer.log({"mine": 1.0}, step=step)
    accelerator.end_training()

    assert heard.repeated() == {}
    assert heard.series("loss") == {step: 1.0 / 3.0 + step for step in range(3)}
    assert heard.names() == {"loss", "share"}
    assert heard.origins() == {"accelerate"}


def test_without_our_ears_the_copy_in_tensorboard_is_the_only_one_and_is_kept(heard: Any) -> None:
    patches.start(["tensorboard"])
    training = trainer(report_to=["tensorboard"])
    training.train()

    assert list(heard.series("train/loss")) == [1, 2, 3]
    assert heard.origins() == {"tensorboard"}


def test_what_a_program_writes_to_tensorboard_itself_is_no_copy(heard: Any) -> None:
    from torch.utils.tensorboard import SummaryWriter

    patches.start(ALL)
    writer = SummaryWriter("own")

    class Writes(transformers.TrainerCallback):  # type: ignore[misc]  # untyped
        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            writer.add_scalar("own", 0.5, state.global_step)

    trainer([Writes()], report_to=["tensorboard"]).train()
    writer.close()

    assert heard.series("own") == {1: 0.5, 2: 0.5, 3: 0.5}
