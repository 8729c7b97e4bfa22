"""Others listen at the same places: MLflow's automatic logging and W&B's synchronisation, in any order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from programs import run as run_program

#: What both programs begin with: who turns what on and off, in which order, and what became of it.
_BOTH = """
import itertools, json, os, sys, warnings
warnings.simplefilter("ignore")
import torch.utils.tensorboard.writer as module
from torch.utils.tensorboard import SummaryWriter
from tracer.capture.patching import patches
from tracer.events import Scalars
from tracer.testing import capture_events

def place():
    return module.FileWriter.__dict__["add_event"], module.SummaryWriter.__dict__["add_hparams"], module.EventFileWriter

def written(folder):
    with capture_events() as heard:
        with SummaryWriter(folder) as writer:
            for step in range(3):
                writer.add_scalar("loss", step / 2, step)
            writer.add_hparams({"lr": 0.5, "folder": folder}, {"final": 1.0}, run_name="session")
    return [[event.step, event.values["loss"]] for event in heard if isinstance(event, Scalars)]

turn_on = {"ours": lambda: patches.start(["tensorboard"])}
turn_off = {"ours": patches.stop}

def all_orders(read):
    before, outcomes = place(), []
    for on, off in itertools.product(itertools.permutations(turn_on), itertools.permutations(turn_off)):
        name = "-".join((*on, *off))
        for who in on:
            turn_on[who]()
        ours, theirs = read(name)
        for who in off:
            turn_off[who]()
        restored = [now is was for now, was in zip(place(), before)]
        outcomes.append({"name": name, "ours": ours, "theirs": theirs, "after": written(name + "-after"),
                         "restored": all(restored), "last_off_first_on": on[0] == off[0] == "ours"})
    json.dump(outcomes, open("outcomes.json", "w"))
"""

_MLFLOW = (
    _BOTH
    + """
import mlflow
from mlflow.pytorch._pytorch_autolog import flush_metrics_queue
from mlflow.utils.autologging_utils import revert_patches

turn_on["mlflow"] = lambda: mlflow.pytorch.autolog(log_models=False, log_every_n_step=1)
def off():
    mlflow.pytorch.autolog(disable=True)
    revert_patches("pytorch")
turn_off["mlflow"] = off

def read(name):
    with mlflow.start_run() as run:
        ours = written(name)
        flush_metrics_queue()
    client = mlflow.MlflowClient()
    points = [[one.step, one.value] for one in client.get_metric_history(run.info.run_id, "loss")]
    return ours, {"points": sorted(points), "lr": client.get_run(run.info.run_id).data.params["lr"]}

all_orders(read)
"""
)

_WANDB = (
    _BOTH
    + """
import wandb

def on():
    wandb.init(project="p", dir=".", sync_tensorboard=True)
def off():
    wandb.finish()
    wandb.tensorboard.unpatch()
turn_on["wandb"], turn_off["wandb"] = on, off

def read(name):
    folders = []
    original = type(wandb.run)._tensorboard_callback
    def told(self, logdir, *args, **kwargs):
        folders.append(logdir)
        return original(self, logdir, *args, **kwargs)
    type(wandb.run)._tensorboard_callback = told
    ours = written(name)
    type(wandb.run)._tensorboard_callback = original
    return ours, {"folders": sorted(folders)}

all_orders(read)
"""
)
#: Its database takes long to be made, and is nothing to us.
_QUICK_MLFLOW = {
    "MLFLOW_TRACKING_URI": "file:./mlruns",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
POINTS = [[0, 0.0], [1, 0.5], [2, 1.0]]


def test_mlflow_and_tracer_hear_the_same_writer_in_any_order() -> None:
    pytest.importorskip("mlflow", reason="needs mlflow")

    run_program(_MLFLOW, env=_QUICK_MLFLOW)

    for outcome in json.loads(Path("outcomes.json").read_text(encoding="utf-8")):
        assert outcome["ours"] == POINTS, outcome["name"]
        assert outcome["theirs"] == {"points": POINTS, "lr": "0.5"}, outcome["name"]
        assert outcome["after"] == [], outcome["name"]
        # MLflow puts back what it found: where that was ours, ours stays, deaf.
        assert outcome["restored"] or outcome["last_off_first_on"], outcome["name"]


def test_wandb_and_tracer_hear_the_same_writer_in_any_order() -> None:
    pytest.importorskip("wandb", reason="needs wandb")

    run_program(_WANDB, env={"WANDB_MODE": "offline", "WANDB_SILENT": "true"})

    for outcome in json.loads(Path("outcomes.json").read_text(encoding="utf-8")):
        assert outcome["ours"] == POINTS, outcome["name"]
        assert outcome["theirs"] == {"folders": sorted([outcome["name"], f"{outcome['name']}/session"])}
        assert outcome["after"] == [], outcome["name"]
        assert outcome["restored"], outcome["name"]
