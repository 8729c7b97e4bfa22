"""A rank of a job of two, to be started twice: one of them gets a bad row."""

from __future__ import annotations

import json
import os
import sys

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tracer import sink
from tracer.events import Finding
from tracer.flight.recorder import FlightRecorder
from tracer.flight.settings import FlightConfig
from tracer.sink import Guard


class Root(nn.Module):
    """Gives NaN in backward where a row's sum is negative."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch."""
        return (x * self.scale).sum(1).sqrt()


def main(folder: str, store: str) -> None:
    """Train four steps, and print what was found."""
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    found: list[Finding] = []
    sink.listen(lambda event: found.append(event) if isinstance(event, Finding) else None)
    model = DistributedDataParallel(Root())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    config = FlightConfig(on_anomaly="skip", signal="off")
    with FlightRecorder(model, optimizer, config, folder=folder, guard=Guard(strict=True, quiet=True)):
        for step in range(4):
            x = torch.ones(5, 4)
            if (step, rank) == (2, 1):
                x[3] = -1.0
            optimizer.zero_grad()
            model(x).mean().backward()
            optimizer.step()
    weights = model.module.scale.tolist()
    told = [
        [one.kind, one.step, one.details["rank"], one.details.get("culprit"), one.details["capsule"]] for one in found
    ]
    print(json.dumps({"told": told, "weights": weights, "capsules": sorted(os.listdir(folder))}))  # noqa: T201
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
