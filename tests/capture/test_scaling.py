"""A GradScaler's steps, skips and scale are noticed, and its class is put back."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from tracer.capture import scaling

pytestmark = pytest.mark.torch

ORIGINALS = (GradScaler.step, GradScaler.update)


class Notes:
    """Takes what it is told, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float]] = []

    def scaler_steps(self, scaler: GradScaler, optimizer: Optimizer) -> None:  # noqa: ARG002 -- the listener's signature
        """Take it."""
        self.seen.append(("steps", float(scaling.scale_of(scaler))))

    def scaler_stepped(self, scaler: GradScaler, optimizer: Optimizer) -> None:  # noqa: ARG002 -- the listener's signature
        """Take it."""
        self.seen.append(("stepped", float(scaling.scale_of(scaler))))

    def scaler_updated(self, scaler: GradScaler) -> None:
        """Take it."""
        self.seen.append(("updated", float(scaling.scale_of(scaler))))


def train(scaler: GradScaler, factor: float) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler.scale(model(torch.ones(4, 2)).sum() * factor).backward()
    scaler.step(optimizer)
    scaler.update()


def test_steps_and_updates_are_told_with_the_scale_of_that_moment() -> None:
    notes = Notes()
    end = scaling.listen(notes)
    train(GradScaler("cpu", init_scale=1024.0), 1.0)
    train(GradScaler("cpu", init_scale=1024.0), float("inf"))
    train(GradScaler("cpu", enabled=False), 1.0)
    end()

    assert notes.seen == [
        *[("steps", 1024.0), ("stepped", 1024.0), ("updated", 1024.0)],
        *[("steps", 1024.0), ("stepped", 1024.0), ("updated", 512.0)],
    ]


def test_the_class_is_put_back_with_the_last_listener() -> None:
    ends = [scaling.listen(Notes()), scaling.listen(Notes())]
    ends[0]()

    assert GradScaler.step is not ORIGINALS[0]
    ends[1]()
    assert (GradScaler.step, GradScaler.update) == ORIGINALS
