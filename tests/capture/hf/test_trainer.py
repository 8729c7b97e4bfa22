"""A real Trainer of transformers, listened to without a word of the program."""

# ruff: noqa: ANN401, ARG002 -- the framework decides what it hands over, and of what type

from __future__ import annotations

import hashlib
import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs transformers")

from hf_trainings import history, listen_in, trainer  # noqa: E402 -- as above
from transformers import trainer as trainers  # noqa: E402 -- as above
from transformers.integrations import integration_utils  # noqa: E402 -- as above

import tracer  # noqa: E402 -- as above
from tracer import events  # noqa: E402 -- as above
from tracer.capture.patching import patches  # noqa: E402 -- as above
from tracer.capture.transformers_reporter import Listener  # noqa: E402 -- as above

pytestmark = pytest.mark.torch

_HUB = "hf_abcdefghijklmnopqrst"


def test_stopping_puts_everything_back_and_starting_often_adds_one_callback() -> None:
    handler, marked = trainers.CallbackHandler, integration_utils.TensorBoardCallback
    known = dict(integration_utils.INTEGRATION_TO_CALLBACK)
    before = [*vars(handler).values()], vars(marked)["on_log"], list(trainers.DEFAULT_CALLBACKS)

    for _ in range(100):
        patches.start(["transformers"])
        patches.start(["transformers"])
        listed = list(trainers.DEFAULT_CALLBACKS)
        assert [callback.__name__ for callback in listed].count("TracerCapture") == 1
        patches.stop()

    assert ([*vars(handler).values()], vars(marked)["on_log"], list(trainers.DEFAULT_CALLBACKS)) == before
    assert known == integration_utils.INTEGRATION_TO_CALLBACK


def test_every_trainer_gets_one_callback_which_is_one_of_transformers() -> None:
    patches.start(["transformers"])

    callbacks = trainer().callback_handler.callbacks

    ours = [callback for callback in callbacks if isinstance(callback, Listener)]
    assert [type(callback).__name__ for callback in ours] == ["TracerCapture"]
    assert isinstance(ours[0], transformers.TrainerCallback)
    assert isinstance(pickle.loads(pickle.dumps(ours[0])), type(ours[0]))  # noqa: S301 -- what we have just written


def test_a_trainer_made_before_is_heard_from_its_next_training_on(heard: Any) -> None:
    training = trainer()
    training.train()
    assert heard.names() == set()

    patches.start(["transformers"])
    training.train()

    assert {name: heard.series(name) for name in heard.names()} == history(training)


def test_nothing_is_heard_any_more_after_the_end(heard: Any) -> None:
    patches.start(["transformers"])
    training = trainer()
    patches.stop()

    training.train()

    assert heard.names() == set()


def test_the_training_itself_is_told_with_model_optimizer_and_parameters(heard: Any) -> None:
    patches.start(["transformers"])
    training = trainer(gradient_accumulation_steps=2, hub_token=_HUB)
    training.train()

    (told,) = heard.of(events.Training)
    assert (told.origin, told.model, told.step) == ("transformers", training.model, 0)
    assert told.optimizer is training.optimizer.optimizer
    assert (told.parameters["gradient_accumulation_steps"], told.parameters["model"]["n_embd"]) == (2, 8)
    assert _HUB not in json.dumps(told.parameters)
    assert [event.step for event in heard.of(events.Steps)] == [1, 2, 3]


def test_what_is_known_of_the_whole_training_is_its_summary_and_replaces_no_curve(heard: Any) -> None:
    class Logs(transformers.Trainer):
        def log(self, logs: dict[str, float], *args: Any) -> None:
            super().log({**logs, "train_loss": logs["loss"]} if "loss" in logs else logs, *args)

    patches.start(["transformers"])
    training = trainer(cls=Logs)
    training.train()

    final = training.state.log_history[-1]
    (summary,) = [event.changes["summary"] for event in heard.of(events.Metadata) if "summary" in event.changes]
    assert summary == {name: value for name, value in final.items() if name not in ("epoch", "step")}
    assert heard.series("train_loss") == heard.series("loss")
    assert heard.series("train_runtime") == {3: final["train_runtime"]}
    assert heard.repeated() == {}


def test_checkpoints_are_noted_where_they_lie_and_the_best_is_named(heard: Any) -> None:
    patches.start(["transformers"])
    trainer(
        save_strategy="steps", save_steps=1, eval_strategy="steps", eval_steps=1,
        load_best_model_at_end=True, metric_for_best_model="eval_loss",
    ).train()  # fmt: skip

    noted = heard.of(events.Artifact)
    assert [(one.name, one.type, one.step) for one in noted] == [
        (f"checkpoint-{step}", "checkpoint", step) for step in (1, 2, 3)
    ]
    assert [one.path for one in noted] == [str(Path("out").resolve() / f"checkpoint-{step}") for step in (1, 2, 3)]
    assert ("best",) in [one.aliases for one in noted]


def test_an_evaluation_and_a_prediction_need_no_training(heard: Any) -> None:
    patches.start(["transformers"])
    training = trainer()

    evaluated = training.evaluate()
    predicted = training.predict(training.eval_dataset).metrics

    assert heard.series("eval_loss") == {0: evaluated["eval_loss"]}
    assert heard.series("test_loss") == {0: predicted["test_loss"]}
    assert heard.of(events.Training) == []


def test_a_training_continued_from_a_checkpoint_goes_on_with_its_curves(heard: Any) -> None:
    patches.start(["transformers"])
    training = trainer(save_strategy="steps", save_steps=2, max_steps=2)
    training.train()
    training.args.max_steps = 4
    training.train(resume_from_checkpoint=True)

    assert list(heard.series("loss")) == [1, 2, 3, 4]
    assert [event.step for event in heard.of(events.Steps)] == [1, 2, 3, 4]
    assert heard.repeated() == {}


def test_a_second_training_has_names_of_its_own_and_the_runs_steps_go_on(heard: Any) -> None:
    patches.start(["transformers"])
    first, second = trainer(), trainer()
    first.train()
    second.train()
    second.evaluate()

    assert {name: heard.series(name) for name in history(first)} == history(first)
    assert {name: heard.series(f"training_2/{name}") for name in history(second)} == history(second)
    assert [event.step for event in heard.of(events.Steps)] == [1, 2, 3, 4, 5, 6]
    assert heard.repeated() == {}


def test_an_exception_passes_through_and_fails_the_run_with_its_reason() -> None:
    class Breaks(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            message = f"out of memory at {state.global_step}"
            raise MemoryError(message)

    patches.start(["transformers"])
    with (
        pytest.raises(MemoryError, match="out of memory at 1"),
        tracer.init(project="p", quiet=True, maintain="off") as run,
    ):
        trainer([Breaks()]).train()

    facts = json.loads((Path(run.folder) / "run.json").read_text())
    assert (facts["status"], facts["reason"]) == ("failed", "MemoryError: out of memory at 1")


def test_the_command_line_of_a_script_asks_for_it_by_name(heard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(integration_utils.INTEGRATION_TO_CALLBACK, "tracer", raising=False)  # of another test
    patches.start(["transformers"])
    parser = transformers.HfArgumentParser((transformers.TrainingArguments,))

    (arguments,) = parser.parse_args_into_dataclasses(["--output_dir", "out", "--report_to", "tracer"])
    training = trainer(report_to=arguments.report_to)
    training.train()

    assert arguments.report_to == ["tracer"]
    assert {"TracerCapture", "TracerReport"} <= {type(one).__name__ for one in training.callback_handler.callbacks}
    assert {name: heard.series(name) for name in heard.names()} == history(training)
    assert heard.repeated() == {}
    patches.stop()
    assert "tracer" not in integration_utils.INTEGRATION_TO_CALLBACK


def test_a_place_that_is_not_as_known_is_left_alone_and_the_rest_is_heard(
    heard: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def on_log(self: Any, everything: Any) -> None:
        """A method of a version to come."""

    monkeypatch.setattr(integration_utils.MLflowCallback, "on_log", on_log)
    patches.start(["transformers"])
    patches.stop()
    patches.start(["transformers"])
    training = trainer()
    training.train()

    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tracer:")]
    assert len(said) == 1
    assert "MLflowCallback.on_log" in said[0]
    assert "Your program is unaffected." in said[0]
    assert integration_utils.MLflowCallback.on_log is on_log
    assert {name: heard.series(name) for name in heard.names()} == history(training)


def _trained(folder: str) -> dict[str, Any]:
    """Train with dropout and shuffling from a seed; return everything that a training leaves behind."""
    transformers.set_seed(7)
    training = trainer(output_dir=folder, save_strategy="steps", save_steps=2, eval_strategy="steps", eval_steps=2)
    training.train()
    files = sorted(path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file())
    weights = b"".join(value.numpy().tobytes() for value in training.model.state_dict().values())
    same = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "config.json")
    return {
        "weights": hashlib.sha256(weights).hexdigest(),
        "files": files,
        "bytes": {path: (Path(folder) / path).read_bytes() for path in files if path.name in same},
        "losses": history(training)["loss"],
        "random": (random.getstate()[1], np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist()),  # noqa: NPY002 -- the stream that transformers draws from
        "state": _timeless(json.loads((Path(folder) / "checkpoint-3" / "trainer_state.json").read_text())),
    }


def _timeless(state: dict[str, Any]) -> dict[str, Any]:
    """Return a saved state without what the clock says."""
    timed = ("runtime", "per_second", "best_model_checkpoint")
    state["log_history"] = [
        {name: value for name, value in entry.items() if not name.endswith(timed)} for entry in state["log_history"]
    ]
    return state


def test_weights_files_and_random_streams_are_the_same_with_and_without_us() -> None:
    without = _trained("without")

    patches.start(["transformers", "accelerate", "tensorboard"])
    with tracer.init(project="p", quiet=True, maintain="off"):
        heard = listen_in()
        listened = _trained("with")

    assert list(heard.series("loss")) == [1, 2, 3]
    assert listened == without
