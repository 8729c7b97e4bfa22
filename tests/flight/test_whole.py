"""Everything at once, as a program uses it: the training is what it would be without Tracer."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tracer
from tracer.flight.recorder import FlightRecorder

pytestmark = pytest.mark.torch

DIAGNOSED, BAD = 10, 20


class Network(nn.Module):
    """A little of all that draws random numbers or keeps a state."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(8, 32), nn.BatchNorm1d(32), nn.Dropout(0.3)
        self.last = nn.Linear(32, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Draw from every generator."""
        noise = random.random() + float(np.random.rand())  # noqa: NPY002, S311 -- the global generators are the point
        out: torch.Tensor = self.last(self.drop(self.norm(torch.relu(self.first(x + 0.01 * noise)))))
        return out


def trained(*, watched: bool, folder: Path) -> tuple[str, tuple[float, float, float]]:
    """Train; return a hash of all that was learned, and the next number of each generator."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 -- as above
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
    if watched:
        tracer.init(project="whole", storage_path=str(folder), quiet=True, max_overhead=1e6, on_anomaly="skip")
        tracer.watch(model, optimizer, activations=True)
    for step in range(40):
        loss = one_step(model, optimizer, step, watched=watched)
        schedule.step()
        if watched:
            tracer.log({"loss": loss})
            tracer.step()
    if watched:
        tracer.finish()
    held = [part for parts in optimizer.state.values() for part in parts.values() if torch.is_tensor(part)]
    state = [one.detach().numpy().tobytes() for one in (*model.state_dict().values(), *held)]
    digest = hashlib.sha256(b"".join(state)).hexdigest()
    return digest, (random.random(), float(np.random.rand()), float(torch.rand(())))  # noqa: NPY002, S311 -- as above


def one_step(model: Network, optimizer: torch.optim.Optimizer, step: int, *, watched: bool) -> torch.Tensor:
    """Do a step; the eleventh is diagnosed in the middle, the twenty-first is bad and its update left out."""
    x = torch.randn(16, 8)
    if step == BAD:
        x[3] = torch.inf
    buffers = {name: one.clone() for name, one in model.named_buffers()}
    loss: torch.Tensor = model(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    if step == DIAGNOSED and watched:
        recorder = FlightRecorder.of(model)
        assert recorder is not None
        assert recorder.diagnose() is None  # nothing is wrong: it ran the whole step again
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if step == BAD and not watched:  # what Tracer was asked to do
        optimizer.zero_grad(set_to_none=True)
    optimizer.step()
    if step == BAD:
        for name, one in model.named_buffers():
            one.copy_(buffers[name])
    return loss


def test_a_training_that_is_watched_recorded_and_diagnosed_ends_bit_for_bit_as_without(tmp_path: Path) -> None:
    assert trained(watched=True, folder=tmp_path / "store") == trained(watched=False, folder=tmp_path)


def test_what_went_wrong_in_it_is_known_with_its_capsule(tmp_path: Path) -> None:
    trained(watched=True, folder=tmp_path / "store")

    from tracer.storage import Store

    with Store.open(tmp_path / "store") as store:
        [run] = store.runs()
        found = [one for one in store.findings(run.uid) if one.kind == "nan_or_inf"]
        assert [(one.step, one.severity) for one in found[:1]] == [(20, "critical")]
        assert found[0].details["origin"]["phase"] == "input"  # type: ignore[index]  # as the flight recorder writes it
        assert list(found[0].details["origin"]["samples"]) == [3]  # type: ignore[index]  # as above
        assert found[0].details["capsule"] == "step-20-nan_or_inf.trc"
        for axis in ("gradients", "weights", "updates", "optimizer", "activations"):
            assert store.layer_names(run.uid, axis), axis
