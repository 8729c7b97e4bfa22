"""Two processes that train together are one run, and each value of it is there once."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from programs import CALM, write_program

pytest.importorskip("transformers", reason="needs transformers")
pytest.importorskip("accelerate", reason="needs accelerate")

from tracer.storage import Store

pytestmark = pytest.mark.torch

TRAINER = """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
    from tracer.integrations import TransformersCallback

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(
        vocab_size=50, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    ))
    data = [{"input_ids": row, "labels": row} for row in torch.randint(0, 50, (16, 8))]
    arguments = TrainingArguments(
        "out", max_steps=3, per_device_train_batch_size=2, logging_steps=1, save_strategy="no",
        use_cpu=True, report_to="none", disable_tqdm=True, ddp_backend="gloo",
    )
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=[TransformersCallback("ranks", "trainer")])
    trainer.train()
    if trainer.is_world_process_zero():
        trainer.state.save_to_json("state.json")
"""
ACCELERATE = """
    import torch
    from accelerate import Accelerator
    from tracer.integrations import TracerTracker

    accelerator = Accelerator(log_with=TracerTracker("ranks", name="accelerate"), cpu=True)
    accelerator.init_trackers("ranks", config={"lr": 0.1})
    assert accelerator.num_processes == 2
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.utils.data.DataLoader(torch.ones(12, 2), batch_size=2)
    model, optimizer, data = accelerator.prepare(model, optimizer, data)
    for step, batch in enumerate(data):
        loss = model(batch).square().mean()
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        accelerator.log({"loss": float(step)}, step=step)
    accelerator.end_training()
"""


def launch(program: str) -> None:
    """Run a program in two processes, as `torchrun` does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    command = [*launcher, "--master-port", str(port), str(write_program(program))]
    settings = {"PATH": "/usr/bin:/bin", "HOME": str(Path.cwd()), "TRACER_STRICT": "1", "GLOO_SOCKET_IFNAME": "lo"}
    environment = {**settings, **CALM, "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_trainer_on_two_ranks_is_one_run() -> None:
    launch(TRAINER)

    with Store.open(Path(".tracer")) as store:
        (row,) = store.runs()
        loss = store.series(row.uid, "loss")
    told = {entry["step"]: entry["loss"] for entry in json.loads(Path("state.json").read_text())["log_history"][:3]}
    assert (row.name, row.status, row.steps) == ("trainer", "completed", 3)
    assert dict(zip(loss.step.tolist(), loss.value.tolist(), strict=True)) == told


def test_an_accelerator_on_two_ranks_is_one_run() -> None:
    launch(ACCELERATE)

    with Store.open(Path(".tracer")) as store:
        (row,) = store.runs()
        loss = store.series(row.uid, "loss")
    assert (row.name, row.status, row.config["lr"]) == ("accelerate", "completed", 0.1)
    assert dict(zip(loss.step.tolist(), loss.value.tolist(), strict=True)) == {0: 0.0, 1: 1.0, 2: 2.0}
