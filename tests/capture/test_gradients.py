"""When gradients are measured, and what is said of them."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from tracer.capture import gradients, tensor_statistics
from tracer.capture.gradients import GradientStatistics
from tracer.capture.hooks import GradientHook, HookManager
from tracer.config import Config
from tracer.events import DOCUMENTED_STATISTICS, TENSOR_STATISTICS, LayerValues

pytestmark = pytest.mark.torch


def table(values: LayerValues | None) -> dict[str, dict[str, float]]:
    """Return layer → statistic → value."""
    assert values is not None
    figures = memoryview(values.matrix).cast("f").tolist()
    width = len(values.axis.layers)
    return {
        layer: dict(zip(values.axis.statistics, figures[column::width], strict=True))
        for column, layer in enumerate(values.axis.layers)
    }


def norms(values: LayerValues | None) -> dict[str, float]:
    return {layer: statistics["norm"] for layer, statistics in table(values).items()}


def backward(model: nn.Module, factor: float = 1.0) -> None:
    """Give a `Linear(2, 1)` the gradient 4 · factor for its bias."""
    (model(torch.ones(4, 2)).sum() * factor).backward()


Watch = Callable[..., GradientStatistics]


class Checkpoints:
    """Tells that a checkpoint is next, when it is told so."""

    def __init__(self) -> None:
        self.next, self.asked = True, 0

    def __call__(self) -> bool:
        """Count how often this is asked."""
        self.asked += 1
        return self.next


@pytest.fixture
def watched() -> Iterator[Watch]:
    """Watch models, and stop at the end."""
    made: list[GradientStatistics] = []

    def watch(*models: nn.Module, **options: Any) -> GradientStatistics:  # noqa: ANN401
        statistics = GradientStatistics()
        made.append(statistics)
        for model in models:
            statistics.attach(model, **options)
        return statistics

    yield watch
    for statistics in made:
        statistics.detach()


def test_gradients_are_measured_at_the_checkpoint_when_no_optimizer_stepped(watched: Watch) -> None:
    model = nn.Linear(2, 1)
    statistics = watched(model)
    backward(model)

    values = statistics.measure(step=7)

    assert (values.step, values.axis.what, values.axis.statistics) == (7, "gradients", TENSOR_STATISTICS)
    assert values.axis.shapes == ((1, 2), (1,))
    bias = table(values)["bias"]
    assert math.isnan(bias.pop("std"))
    assert bias == {"norm": 4, "mean": 4, "max": 4, "min": 4, "zeros": 0, "nans": 0, "infs": 0}


@pytest.mark.parametrize("set_to_none", [True, False])
def test_what_the_optimizer_saw_outlives_zero_grad(watched: Watch, *, set_to_none: bool) -> None:
    model = nn.Linear(2, 1)
    statistics, optimizer = watched(model, due=Checkpoints()), torch.optim.SGD(model.parameters(), lr=0.1)
    backward(model)
    optimizer.step()
    optimizer.zero_grad(set_to_none=set_to_none)

    assert norms(statistics.measure())["bias"] == 4


def test_the_accumulated_and_clipped_gradient_is_measured(watched: Watch) -> None:
    model = nn.Linear(2, 1)
    statistics, optimizer = watched(model), torch.optim.SGD(model.parameters(), lr=0.1)
    backward(model)
    backward(model, 2.0)
    total = nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
    optimizer.step()
    optimizer.zero_grad()

    found = norms(statistics.measure())

    assert total > 1
    assert math.hypot(*found.values()) == pytest.approx(1.0, rel=1e-4)


def test_while_no_checkpoint_is_near_a_step_only_asks(watched: Watch) -> None:
    model, due = nn.Linear(2, 1), Checkpoints()
    due.next = False
    statistics, optimizer = watched(model, due=due), torch.optim.SGD(model.parameters(), lr=0.1)
    backward(model)
    for _ in range(5):
        optimizer.step()
    optimizer.zero_grad()

    assert due.asked == 5
    assert statistics.measure() is None


def test_the_optimizer_of_another_model_is_left_alone(watched: Watch) -> None:
    model, other = nn.Linear(2, 1), nn.Linear(2, 1)
    statistics = watched(model)
    backward(other)
    torch.optim.SGD(other.parameters(), lr=0.1).step()

    assert statistics.measure() is None


def test_two_optimizers_each_give_their_part(watched: Watch) -> None:
    generator, critic = nn.Linear(2, 1), nn.Linear(2, 1)
    statistics = watched(generator, critic, due=Checkpoints())
    for model, factor in ((generator, 1.0), (critic, 10.0)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        backward(model, factor)
        optimizer.step()
        optimizer.zero_grad()

    found = norms(statistics.measure())

    assert (found["bias"], found["Linear.bias"]) == (4, 40)


def test_an_optimizer_with_a_closure_is_measured_after_its_step(watched: Watch) -> None:
    model = nn.Linear(2, 1)
    statistics, optimizer = watched(model), torch.optim.SGD(model.parameters(), lr=0.1)
    backward(model, 100.0)  # stale: the closure computes anew

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(4, 2)).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    optimizer.zero_grad()

    assert norms(statistics.measure())["bias"] == 4


def test_of_several_optimizer_steps_before_a_checkpoint_the_last_one_counts(watched: Watch) -> None:
    model = nn.Linear(2, 1)
    statistics, optimizer = watched(model, due=Checkpoints()), torch.optim.SGD(model.parameters(), lr=0.1)
    for factor in (1.0, 2.0, 3.0):
        optimizer.zero_grad()
        backward(model, factor)
        optimizer.step()

    assert norms(statistics.measure())["bias"] == 12


def test_measuring_while_a_checkpoint_stays_due_is_rare(watched: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(2, 1)
    statistics, optimizer = watched(model, due=Checkpoints()), torch.optim.SGD(model.parameters(), lr=0.0)
    now = [0.0]
    monkeypatch.setattr(gradients.clock, "monotonic", lambda: now[0])
    reductions = []
    make = tensor_statistics.Reduction

    def counted(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        now[0] += 1.0  # measuring takes a second
        reductions.append(1)
        return make(*args, **kwargs)

    monkeypatch.setattr(tensor_statistics, "Reduction", counted)
    for _ in range(500):
        backward(model)
        optimizer.step()
        optimizer.zero_grad()
        now[0] += 1.0  # and so does the rest of the step

    assert len(reductions) == 6  # one per cent of the time that passed, and the first
    assert norms(statistics.measure())["bias"] == 4


def test_the_scale_of_a_grad_scaler_is_divided_out(watched: Watch) -> None:
    model = nn.Linear(2, 1)
    statistics = watched(model)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(model(torch.ones(4, 2)).sum()).backward()
    assert model.bias.grad is not None
    assert model.bias.grad.item() == 4096
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()

    assert norms(statistics.measure())["bias"] == 4


def test_a_step_that_a_grad_scaler_skips_shows_its_infinity(watched: Watch) -> None:
    model = nn.Linear(2, 1)
    statistics, optimizer = watched(model), torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(model(torch.ones(4, 2)).sum() * math.inf).backward()
    scaler.step(optimizer)

    bias = table(statistics.measure())["bias"]

    assert (bias["norm"], bias["infs"]) == (math.inf, 1)


def test_a_layer_without_gradient_is_a_visible_gap_and_not_a_nan_gradient(watched: Watch) -> None:
    model = nn.ModuleDict({"used": nn.Linear(2, 1), "unused": nn.Linear(2, 1), "frozen": nn.Linear(2, 1)})
    model["frozen"].requires_grad_(requires_grad=False)
    statistics = watched(model)
    (model["used"](torch.ones(1, 2)) * math.nan).sum().backward()

    found = table(statistics.measure())

    assert (math.isnan(found["used.bias"]["norm"]), found["used.bias"]["nans"]) == (True, 1)
    for layer in ("unused.bias", "frozen.weight"):
        assert all(math.isnan(value) for value in found[layer].values())


def test_tied_weights_appear_once(watched: Watch) -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    statistics = watched(model)
    model(torch.ones(1, 2)).sum().backward()

    assert list(norms(statistics.measure())) == ["0.weight"]


def test_layers_that_come_later_join_and_the_axis_stays_one_object_until_then(watched: Watch) -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    statistics = watched(model)
    model(torch.ones(1, 2)).sum().backward()
    first, second = statistics.measure(), statistics.measure()
    model.append(nn.Linear(2, 1))
    model(torch.ones(1, 2)).sum().backward()

    third = statistics.measure()

    assert first.axis is second.axis
    assert third.axis.layers == ("0.weight", "0.bias", "1.weight", "1.bias")


def test_only_chosen_layers_are_measured(watched: Watch) -> None:
    model = nn.Linear(2, 1)
    statistics = watched(model, layers=["bias"])
    backward(model)

    assert norms(statistics.measure()) == {"bias": 4}


def test_a_sparse_gradient_is_measured(watched: Watch) -> None:
    model = nn.Embedding(10, 3, sparse=True)
    statistics = watched(model)
    model(torch.tensor([1, 1, 2])).sum().backward()

    assert table(statistics.measure())["weight"]["max"] == 2


def test_what_lies_on_a_device_arrives_later_with_its_own_step(watched: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_statistics, "reads_later", lambda device: True)  # noqa: ARG005
    there = [False]
    monkeypatch.setattr(tensor_statistics.Reduction, "arrived", lambda self: there[0])  # noqa: ARG005
    model = nn.Linear(2, 1)
    statistics = watched(model)
    backward(model)

    assert statistics.measure(step=3) is None
    assert statistics.arrived() == []
    model.zero_grad()  # the figures were taken before
    there[0] = True
    values = statistics.arrived()

    assert [(value.step, norms(value)["bias"]) for value in values] == [(3, 4.0)]
    assert statistics.arrived() == []


def test_finish_waits_for_what_is_underway(watched: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_statistics, "reads_later", lambda device: True)  # noqa: ARG005
    monkeypatch.setattr(tensor_statistics.Reduction, "arrived", lambda self: False)  # noqa: ARG005
    model = nn.Linear(2, 1)
    statistics = watched(model)
    for step in (1, 2):
        backward(model)
        statistics.measure(step)

    assert [value.step for value in statistics.arrived(wait=True)] == [1, 2]


def test_watching_twice_is_watching_once(watched: Watch) -> None:
    model = nn.Linear(2, 1)
    statistics = watched(model, model)
    backward(model)

    assert list(norms(statistics.measure())) == ["weight", "bias"]


def test_a_watched_model_is_not_kept_alive(watched: Watch) -> None:
    model = nn.Linear(2, 1)
    statistics = watched(model)
    backward(model)
    statistics.measure()
    gone = weakref.ref(model)

    del model
    gc.collect()

    assert gone() is None
    assert statistics.measure() is None


def test_after_detach_no_hook_is_left() -> None:
    from torch.optim import optimizer

    before = len(optimizer._global_optimizer_pre_hooks), len(optimizer._global_optimizer_post_hooks)
    statistics = GradientStatistics()
    statistics.attach(nn.Linear(2, 1))

    statistics.detach()

    assert (len(optimizer._global_optimizer_pre_hooks), len(optimizer._global_optimizer_post_hooks)) == before


def test_measuring_changes_nothing_in_training(watched: Watch) -> None:
    def trained(*, watch: bool) -> list[float]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        optimizer = torch.optim.Adam(model.parameters())
        statistics = watched(model) if watch else None
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.randn(16, 4)).square().mean().backward()
            optimizer.step()
            if statistics is not None:
                statistics.measure()
        return [value for parameter in model.parameters() for value in parameter.flatten().tolist()]

    assert trained(watch=True) == trained(watch=False)


def test_a_failure_of_ours_does_not_reach_the_optimizer(capsys: pytest.CaptureFixture[str], watched: Watch) -> None:
    model = nn.Linear(2, 1)
    model_gradient = torch.ones(1)
    watched(model)
    model.bias.grad = model_gradient
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    optimizer.param_groups.append({**optimizer.param_groups[0], "params": None})

    with pytest.raises(TypeError, match="NoneType"):  # the optimizer's own
        optimizer.step()

    assert "measuring gradients failed" in capsys.readouterr().err


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Only a torch\.nn\.Module can be watched; got list\. Pass the model itself\."):
        GradientStatistics().attach([])  # type: ignore[arg-type]


# The documents' classes.


def test_the_hook_manager_gives_statistics_by_layer_after_a_backward() -> None:
    model, manager = nn.Linear(2, 1), HookManager(Config())
    manager.attach_all(model)
    backward(model)

    data = manager.get_all_data()
    manager.detach_all()

    assert list(data) == ["GradientHook"]
    assert list(data["GradientHook"]) == ["weight", "bias"]
    assert tuple(data["GradientHook"]["bias"]) == DOCUMENTED_STATISTICS
    assert data["GradientHook"]["weight"]["norm"] == pytest.approx(math.sqrt(32))
    assert data["GradientHook"]["weight"]["num_zeros"] == 0


def test_the_hook_manager_follows_the_settings() -> None:
    assert HookManager(Config(track_gradients=False)).hooks == []
    model, manager = nn.Linear(2, 1), HookManager(Config(gradient_layers=["bias"]))
    manager.attach_all(model)
    backward(model)

    assert list(manager.get_all_data()["GradientHook"]) == ["bias"]
    manager.detach_all()


def test_a_gradient_hook_keeps_its_data_until_reset() -> None:
    model, hook = nn.Linear(2, 1), GradientHook(Config())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    hook.attach(model)
    backward(model)
    optimizer.step()
    optimizer.zero_grad()

    assert hook.get_data()["bias"]["norm"] == 4
    assert hook.get_data()["bias"]["norm"] == 4
    hook.reset()
    assert hook.get_data() == {}
    hook.detach()


def test_a_layer_without_gradient_is_left_out_of_the_hooks_data() -> None:
    model, hook = nn.ModuleList([nn.Linear(2, 1), nn.Linear(2, 1)]), GradientHook(Config())
    hook.attach(model)
    backward(model[0])

    assert list(hook.get_data()) == ["0.weight", "0.bias"]
    hook.detach()
