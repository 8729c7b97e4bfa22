"""`report_to="tracer"` where nothing else is listened to: it begins and ends runs as the training arguments say."""

# ruff: noqa: ANN401 -- what the frameworks and the fixtures give has no types

from __future__ import annotations

from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs transformers")

import tracer.integrations.transformers  # noqa: E402 -- it makes the name known

pytestmark = pytest.mark.torch


def trainer(*callbacks: object, **arguments: Any) -> Any:
    """Return a Trainer of a tiny language model: three steps."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, loss_type="ForCausalLM")
    data = [{"input_ids": tokens, "labels": tokens} for tokens in torch.randint(0, 50, (8, 8))]
    settings = {
        "output_dir": "out", "max_steps": 3, "per_device_train_batch_size": 2, "logging_steps": 1,
        "save_strategy": "no", "use_cpu": True, "report_to": "tracer", "disable_tqdm": True,
    }  # fmt: skip
    return transformers.Trainer(
        transformers.GPT2LMHeadModel(config),
        transformers.TrainingArguments(**{**settings, **arguments}),
        train_dataset=data,
        eval_dataset=data[:4],
        callbacks=list(callbacks),
    )


def test_the_run_is_named_as_the_arguments_say(recorded: Any) -> None:
    training = trainer(run_name="from-arguments", project="books")
    training.train()
    training.evaluate()

    run = recorded()
    assert run.runs() == 1
    assert (run.row.name, run.row.project, run.row.status, run.row.steps) == ("from-arguments", "books", "completed", 3)
    assert list(run.series("loss")) == [1, 2, 3]
    assert list(run.series("eval_loss")) == [3]


def test_the_project_of_the_environment_counts_where_the_arguments_name_none(
    recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACER_PROJECT", "of-the-team")

    trainer().train()

    assert recorded().row.project == "of-the-team"


def test_a_callback_added_by_hand_says_more_and_so_it_speaks(recorded: Any) -> None:
    trainer(tracer.integrations.TransformersCallback("by-hand", "mine")).train()

    run = recorded()
    assert run.runs() == 1
    assert (run.row.name, run.row.project) == ("mine", "by-hand")
    assert list(run.series("loss")) == [1, 2, 3]
