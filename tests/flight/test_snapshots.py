"""Copies of the state, how often they are made, and that the steps since lead to where the training is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tracer.flight import snapshots
from tracer.flight.recorder import FlightRecorder
from tracer.flight.rerun import rerun
from tracer.flight.settings import FlightConfig
from tracer.flight.snapshots import SHARE, Snapshots
from tracer.flight.steps import Step
from tracer.sink import Guard
from tracer.testing import FakeClock

pytestmark = pytest.mark.torch


def made() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1))
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def test_eight_steps_from_a_snapshot_end_in_the_same_parameters() -> None:
    model, optimizer = made()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    config = FlightConfig(signal="off", snapshots=8)
    recorder = FlightRecorder(model, optimizer, config, guard=Guard(strict=True, quiet=True))
    for _ in range(17):
        optimizer.zero_grad()
        model(torch.randn(6, 4)).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        schedule.step()
    assert recorder._snapshots is not None
    data = recorder._snapshots.data(recorder._calls.step)
    assert data is not None
    wanted = {name: one.detach().clone() for name, one in model.named_parameters()}

    fresh, other = made()
    fresh.load_state_dict({**data.parameters, **data.buffers})
    named = dict(fresh.named_parameters())
    for group, names in zip(other.param_groups, data.members, strict=True):
        group["params"] = [named[name] for name in names]
    for name, values in data.state.items():
        other.state[named[name]] = {key: _copied(value) for key, value in values.items()}
    for step, groups in zip(data.steps, data.groups, strict=True):
        found = rerun(fresh, step)
        for name, parameter in named.items():
            parameter.grad = found.gradients[name]
        for group, values in zip(other.param_groups, groups, strict=True):
            group.update(values)
        other.step()
    recorder.stop()

    assert [step.number for step in data.steps] == list(range(data.number, 17))
    assert len(data.steps) >= 8
    assert all(torch.equal(named[name], wanted[name]) for name in wanted)


def _copied(value: Any) -> Any:  # noqa: ANN401 -- a tensor or a number
    return value.clone() if isinstance(value, Tensor) else value


def test_the_interval_follows_from_what_a_copy_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = made()
    with FakeClock() as clock:
        copy = snapshots._Slot.copy

        def slow(*arguments: Any) -> None:  # noqa: ANN401
            copy(*arguments)
            clock.advance(0.010)

        monkeypatch.setattr(snapshots._Slot, "copy", slow)
        taken = Snapshots(model, interval=None, most_bytes=1e9)
        for number in range(400):
            taken.step_begins(Step(number, index=number), optimizer, 0.02)

    assert taken.interval in {100, 101}
    assert taken.copy_s / taken.copies / (taken.interval * 0.02) <= SHARE


def test_a_copy_that_breaks_off_leaves_the_other_one_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = made()
    taken = Snapshots(model, interval=2, most_bytes=1e9)
    for number in range(3):
        taken.step_begins(Step(number, index=number), optimizer, 0.02)
        taken.step_ended(Step(number, index=number), optimizer.param_groups)

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    taken.step_begins(Step(3, index=3), optimizer, 0.02)
    taken.step_ended(Step(3, index=3), optimizer.param_groups)
    monkeypatch.setattr(torch, "_foreach_copy_", broken)
    with pytest.raises(KeyboardInterrupt):
        taken.step_begins(Step(4, index=4), optimizer, 0.02)

    data = taken.data(Step(4, index=4))
    assert data is not None
    assert (data.number, [step.number for step in data.steps]) == (2, [2, 3])


def test_a_state_that_is_too_large_is_not_copied() -> None:
    model, optimizer = made()
    taken = Snapshots(model, interval=1, most_bytes=100)
    taken.step_begins(Step(0, index=0), optimizer, 0.02)

    assert taken.data(Step(1, index=1)) is None
    assert taken.switched_off is not None
    assert "host_memory_share" in taken.switched_off


def test_the_slots_memory_is_made_once() -> None:
    model, optimizer = made()
    taken = Snapshots(model, interval=1, most_bytes=1e9)
    taken.step_begins(Step(0, index=0), optimizer, 0.02)
    taken.step_begins(Step(1, index=1), optimizer, 0.02)
    first = {one.data_ptr() for slot in taken._slots for one in slot._copies.values()}
    for number in range(2, 6):
        taken.step_begins(Step(number, index=number), optimizer, 0.02)

    assert {one.data_ptr() for slot in taken._slots for one in slot._copies.values()} == first
