"""An experiment in one call: a loop that writes to TensorBoard is recorded without being told to Tracer."""

from __future__ import annotations

import math
import sys

import torch
from torch.utils.tensorboard import SummaryWriter

import tracelet


def main(epochs: int = 20) -> None:
    """Fit a sine, and write the loss to TensorBoard as ever."""
    torch.manual_seed(0)
    experiment = tracelet.start_logging("sine", project="examples", config={"metrics_interval": 2.0})
    model = torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    experiment.log_params({"learning_rate": 0.01, "epochs": epochs})
    experiment.capture_model(model)

    x = torch.linspace(-math.pi, math.pi, 256).unsqueeze(1)
    with SummaryWriter("runs/sine") as writer:
        for epoch in range(epochs):
            loss = (model(x) - x.sin()).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            writer.add_scalar("Loss/train", loss.item(), epoch)

    kept = experiment.log_artifact(experiment.create_artifact("sine", "model").add_model(model))["local"]
    tracelet.stop_logging()
    print(f"kept {kept.uri}")
    print("see it with: tracer show sine; tracer plot sine Loss/train")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:2]))
