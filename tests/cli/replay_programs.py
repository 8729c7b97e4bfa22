"""Programs that train a small model under a flight recorder and leave a capsule, run in processes of their own."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from pathlib import Path

TRAIN = """
import sys
import torch
from torch import nn
from tracer.flight.recorder import FlightRecorder
from tracer.flight.settings import FlightConfig


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 1)

    def forward(self, x):
        x = self.first(x).clamp(max=3)
        x = torch.log(x + 4.0)
        return self.second(x)


def build():
    return Net()


def train(case, folder):
    torch.manual_seed(0)
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    snapshots = 16 if case == "steps" else "off"
    config = FlightConfig(upstream="on", stall_s="off", signal="off", snapshots=snapshots)
    last = 6 if case == "steps" else 2
    with FlightRecorder(model, optimizer, config, folder=folder) as recorder:
        for step in range(last + 1):
            x = torch.randn(3, 4)
            if case == "nan" and step == last:
                with torch.no_grad():
                    model.first.weight.copy_(torch.eye(4))
                    model.first.bias.zero_()
                x = torch.ones(3, 4)
                x[1, 2] = -5.0
            loss = model(x).square().mean()
            if case == "penalty":
                loss = loss + model.first.weight.square().sum()
            loss.backward()
            if case != "nan" and (step == last or (case == "twice" and step == 1)):
                recorder.request()
            optimizer.step()
            optimizer.zero_grad()


if __name__ == "__main__":
    train(sys.argv[1], sys.argv[2])
"""


WATCHED = (
    TRAIN.partition("def train")[0]
    + """
import tracer

torch.manual_seed(0)
model = build()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
with tracer.init(project="demo", run_name="watched", quiet=True, track_system_metrics=False, track_git=False):
    tracer.watch(model, optimizer)
    for step in range(4):
        x = torch.randn(3, 4).clamp(-1, 1)
        if step == 2:
            x[1] = float("nan")
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        tracer.log({"loss": loss})
        tracer.step()
"""
)


def watched_run() -> str:
    """Run a program that watches its model, and return the capsule in its run's folder."""
    Path("watched.py").write_text(WATCHED)
    environment = {**os.environ, "TRACER_FLIGHT_UPSTREAM": "on"}
    subprocess.run([sys.executable, "watched.py"], check=True, timeout=120, capture_output=True, env=environment)
    (path,) = glob.glob(".tracer/runs/*/capsules/*.trc")
    return path


def capsule_from(case: str) -> str:
    """Run a program and return the capsule it left."""
    folder = Path.cwd() / "training"
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(TRAIN)
    _train(folder / "train.py", case, str(folder))
    (path,) = glob.glob(str(folder / "*.trc"))
    return path


def in_a_store(case: str) -> str:
    """Record a run whose folder gets the program's capsules, and return its name."""
    import tracer

    with tracer.init(project="demo", run_name="capsuled", quiet=True, track_system_metrics=False) as run:
        run.log({"loss": 1.0})
    (folder,) = glob.glob(".tracer/runs/*")
    Path("train.py").write_text(TRAIN)
    _train(Path("train.py"), case, os.path.join(folder, "capsules"))
    return "capsuled"


def _train(program: Path, case: str, folder: str) -> None:
    subprocess.run([sys.executable, str(program), case, folder], check=True, timeout=120, capture_output=True)
