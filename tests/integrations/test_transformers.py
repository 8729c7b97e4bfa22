"""A real Trainer of transformers, recorded."""

# ruff: noqa: ANN401, ARG002 -- the framework decides what it hands over, and of what type

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import programs
import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs transformers")

import tracer  # noqa: E402 -- what may be missing comes first
from tracer.integrations import TransformersCallback  # noqa: E402 -- as above

pytestmark = pytest.mark.torch


def trainer(callback: object, model: Any = None, **arguments: Any) -> Any:
    """Return a Trainer of a tiny language model: six steps of two batches each."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "n_positions": 16, "n_embd": 16, "n_layer": 1, "n_head": 2}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, loss_type="ForCausalLM")
    data = [{"input_ids": tokens, "labels": tokens} for tokens in torch.randint(0, 50, (64, 16))]
    settings = {
        "output_dir": "out", "max_steps": 6, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2,
        "logging_steps": 1, "save_strategy": "no", "use_cpu": True, "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip
    return transformers.Trainer(
        model or transformers.GPT2LMHeadModel(config),
        transformers.TrainingArguments(**{**settings, **arguments}),
        train_dataset=data,
        eval_dataset=data[:8],
        callbacks=[callback],
    )


def test_the_callback_is_one_of_transformers_and_has_its_other_name() -> None:
    from tracer.integrations.transformers import TracerCallback

    assert TracerCallback is TransformersCallback
    assert isinstance(TransformersCallback("p"), transformers.TrainerCallback)


def test_everything_the_trainer_reports_is_recorded_at_its_global_step(recorded: Any) -> None:
    training = trainer(TransformersCallback("p", "hf", checkpoint_interval=2), eval_strategy="steps", eval_steps=3)
    training.train()

    run = recorded()
    losses = {entry["step"]: entry["loss"] for entry in training.state.log_history if "loss" in entry}
    assert (run.row.name, run.row.project, run.row.status, run.row.steps) == ("hf", "p", "completed", 6)
    assert run.series("loss") == losses
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    assert list(run.series("eval_loss")) == [3, 6]
    assert list(run.series("train_loss")) == [6]
    assert {"grad_norm", "learning_rate", "epoch"} <= run.metrics()


def test_gradients_are_those_of_the_whole_accumulation_before_clipping_changed_its_direction(recorded: Any) -> None:
    training = trainer(TransformersCallback("p", checkpoint_interval=2), max_grad_norm=1e9)
    training.train()

    norms = recorded().norms()
    total = {entry["step"]: entry["grad_norm"] for entry in training.state.log_history if "grad_norm" in entry}
    assert {2, 4, 6} <= set(norms)
    for step, by_layer in norms.items():
        assert math.sqrt(sum(norm**2 for norm in by_layer.values())) == pytest.approx(total[step], rel=1e-3)


def test_hyperparameters_of_trainer_and_model_are_the_runs_and_the_users_win(recorded: Any) -> None:
    trainer(TransformersCallback("p", config={"learning_rate": "mine"}, tags=["a"])).train()

    row = recorded().row
    assert row.config["per_device_train_batch_size"] == 4
    assert row.config["model"]["n_embd"] == 16
    assert row.config["learning_rate"] == "mine"
    assert row.tags == ("a",)


def test_an_evaluation_afterwards_goes_to_the_same_run(recorded: Any) -> None:
    training = trainer(TransformersCallback("p", "hf"))
    training.train()
    training.evaluate()

    run = recorded()
    assert run.runs() == 1
    assert (run.row.status, run.row.steps) == ("completed", 6)
    assert list(run.series("eval_loss")) == [6]
    assert list(run.series("loss")) == [1, 2, 3, 4, 5, 6]


def test_a_run_of_the_program_is_joined_and_left_open(recorded: Any) -> None:
    with tracer.init(project="mine", run_name="outer", config={"seed": 1}, quiet=True) as run:
        trainer(TransformersCallback("other")).train()
        assert tracer.get_run_id() == run.run_id
        tracer.log({"after": 1.0})

    found = recorded()
    assert found.runs() == 1
    assert (found.row.name, found.row.project) == ("outer", "mine")
    assert found.row.config["seed"] == 1
    assert found.row.config["max_steps"] == 6
    assert found.series("after") == {6: 1.0}


def test_a_training_that_raised_and_was_caught_is_a_failed_run(recorded: Any) -> None:
    class Breaks(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                message = "out of memory"
                raise MemoryError(message)

    callback = TransformersCallback("p", "first")
    training = trainer(callback)
    training.add_callback(Breaks())
    with pytest.raises(MemoryError):
        training.train()
    training.pop_callback(Breaks)
    training.train()

    failed = recorded("first") if recorded().row.name != "first" else recorded("@last:2")
    assert (failed.row.status, failed.row.reason) == ("failed", "the training did not reach its end")
    assert list(failed.series("loss")) == [1, 2]
    assert recorded().row.status == "completed"


def test_a_training_continued_from_a_checkpoint_goes_on_at_its_step(recorded: Any) -> None:
    trainer(TransformersCallback("p", "first"), max_steps=3, save_strategy="steps", save_steps=3).train()
    trainer(TransformersCallback("p", "second", checkpoint_interval=2)).train(resume_from_checkpoint=True)

    run = recorded()
    assert (run.row.name, run.row.steps) == ("second", 6)
    assert list(run.series("loss")) == [4, 5, 6]
    assert {4, 6} <= set(run.norms())


def test_a_nan_loss_is_recorded_as_it_is(recorded: Any) -> None:
    training = trainer(TransformersCallback("p"), logging_nan_inf_filter=False, max_steps=2)
    with torch.no_grad():
        next(training.model.parameters()).fill_(math.nan)
    training.train()

    assert [math.isnan(loss) for loss in recorded().series("loss").values()] == [True, True]


def test_a_training_that_ends_the_program_is_a_failed_run_with_its_reason(recorded: Any) -> None:
    program = """
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments
        from tracer.integrations import TransformersCallback

        class Breaks(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                raise ValueError("the data is gone")

        sizes = {"vocab_size": 50, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
        model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
        data = [{"input_ids": row, "labels": row} for row in torch.randint(0, 50, (16, 8))]
        arguments = TrainingArguments("out", max_steps=3, save_strategy="no", use_cpu=True, report_to="none")
        Trainer(model, arguments, train_dataset=data, callbacks=[TransformersCallback("p", "x"), Breaks()]).train()
    """

    done = programs.run(program, code=1)

    assert "\nValueError: the data is gone" in done.stderr
    row = recorded().row
    assert (row.status, row.reason) == ("failed", "ValueError: the data is gone")


def test_importing_the_room_loads_no_framework() -> None:
    program = "import sys, tracer.integrations; print({'torch', 'transformers', 'lightning'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"


def test_without_transformers_the_command_that_brings_it_is_named() -> None:
    source = Path(tracer.__file__).parent.parent
    program = f"import sys; sys.path.insert(0, {str(source)!r})\nfrom tracer.integrations import TransformersCallback"

    # Without `site` this Python has no packages at all.
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=False)

    assert "TransformersCallback needs the transformers package, which is not installed." in done.stderr
    assert "pip install 'ml-tracer[hf]'" in done.stderr
