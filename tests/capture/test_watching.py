"""What is recorded of a watched model, at which step, on real trainings."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.checkpoint import checkpoint

from tracer import sink
from tracer.capture.governor import Governor
from tracer.capture.watching import Watch, Watcher, check_optimizer
from tracer.events import Histograms, LayerValues

pytestmark = pytest.mark.torch

NOTHING = {"gradients": False, "weights": False, "updates": False, "activations": False, "histograms": False}


class Recording:
    """A watcher without limit, the run's step, and what was emitted."""

    def __init__(self, governor: Governor) -> None:
        self.step, self.events = 0, []
        self.watcher = Watcher(governor, guard=sink.Guard(strict=True), step=lambda: self.step, wanted=lambda: False)
        self._before = sink.listen(self.events.append)

    def watch(self, model: nn.Module, **chosen: Any) -> None:  # noqa: ANN401
        """Watch the chosen families only."""
        self.watcher.watch(model, Watch(**{**NOTHING, **chosen}))

    def end(self) -> None:
        """Stop, and let others listen again."""
        self.watcher.stop()
        sink.listen(self._before)

    def of(self, what: str) -> list[LayerValues]:
        """Return what was recorded of a family, in order."""
        return [one for one in self.events if isinstance(one, LayerValues) and one.axis.what == what]

    def table(self, what: str, statistic: str) -> dict[int | None, dict[str, float]]:
        """Return step → layer → value."""
        return {
            one.step: dict(zip(one.axis.layers, row(one, statistic).tolist(), strict=True)) for one in self.of(what)
        }


def row(values: LayerValues, statistic: str) -> NDArray[np.float32]:
    matrix = np.frombuffer(bytes(values.matrix), np.float32).reshape(len(values.axis.statistics), -1)
    found: NDArray[np.float32] = matrix[values.axis.statistics.index(statistic)]
    return found


@pytest.fixture
def recording() -> Iterator[Recording]:
    torch.manual_seed(0)
    made = Recording(Governor(1e9))  # so small a model takes less time than looking at it
    yield made
    made.end()


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int,
    recording: Recording,
    loss: Callable[[], torch.Tensor] | None = None,
) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        (loss() if loss is not None else model(torch.randn(8, 4)).square().mean()).backward()
        optimizer.step()
        recording.step += 1


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


def test_gradients_of_every_step_are_recorded_under_the_step_that_logged_beside_them(recording: Recording) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recording.watch(model, gradients=True)
    expected = []
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        expected.append([float(one.grad.norm()) for one in model.parameters() if one.grad is not None])
        optimizer.step()
        recording.step += 1

    found = [list(layers.values()) for layers in recording.table("gradients", "norm").values()]

    assert list(recording.table("gradients", "norm")) == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_loop_that_never_ends_a_step_is_counted_by_its_optimizer(recording: Recording) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recording.watch(model, gradients=True)
    for _ in range(3):
        model(torch.randn(8, 4)).mean().backward()
        optimizer.step()

    assert list(recording.table("gradients", "norm")) == [0, 1, 2]


def test_with_accumulation_the_statistics_are_those_the_optimizer_sees(recording: Recording) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recording.watch(model, gradients=True)
    for _ in range(3):
        model(torch.ones(4, 2)).sum().backward()
    optimizer.step()

    assert recording.table("gradients", "norm")[0]["bias"] == 12


def test_a_fused_optimizer_under_a_grad_scaler_shows_unscaled_gradients(recording: Recording) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    recording.watch(model, gradients=True)
    scaler.scale(model(torch.ones(4, 2)).sum()).backward()
    scaler.step(optimizer)
    scaler.update()

    assert recording.table("gradients", "norm")[0]["bias"] == 4


def test_an_unfused_optimizer_under_a_grad_scaler_shows_unscaled_gradients(recording: Recording) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    recording.watch(model, gradients=True)
    scaler.scale(model(torch.ones(4, 2)).sum()).backward()
    scaler.step(optimizer)
    scaler.update()

    assert recording.table("gradients", "norm")[0]["bias"] == 4


def test_bf16_autocast_changes_nothing_about_the_record(recording: Recording) -> None:
    model = network()
    recording.watch(model, gradients=True, activations=True)

    def loss() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(torch.randn(8, 4)).square().mean()

    train(model, torch.optim.AdamW(model.parameters()), 3, recording, loss)

    assert len(recording.of("gradients")) == 3
    assert all(math.isfinite(value) for value in recording.table("activations", "mean")[1].values())


@pytest.mark.slow
def test_a_compiled_model_is_watched_by_its_own_names_and_not_compiled_again(recording: Recording) -> None:
    model = network()
    compiled = torch.compile(model, backend="eager")
    recording.watch(compiled, gradients=True, weights=True, updates=True, activations="sampled")
    torch._dynamo.utils.counters.clear()
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), 6, recording, lambda: compiled(torch.randn(8, 4)).mean())

    assert recording.of("gradients")[0].axis.layers == ("0.weight", "0.bias", "2.weight", "2.bias")
    assert len(recording.of("gradients")) == 6
    assert recording.of("activations") == []
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_sparse_gradients_and_tied_weights_are_each_recorded_once(recording: Recording) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(10, 3, sparse=True)
            self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
            self.second.weight = self.first.weight

        def forward(self, at: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.second(self.first(self.embedding(at)))
            return out

    model = Tied()
    recording.watch(model, gradients=True, updates=True, weights=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, optimizer, 2, recording, lambda: model(torch.tensor([1, 1, 2])).sum())

    assert recording.of("gradients")[-1].axis.layers == ("embedding.weight", "first.weight")
    assert all(value > 0 for value in recording.table("gradients", "norm")[1].values())
    assert all(value > 0 for value in recording.table("updates", "ratio")[1].values())


def test_models_with_optimizers_of_their_own_give_one_record_a_step(recording: Recording) -> None:
    generator, critic = nn.Linear(2, 2), nn.Linear(2, 1)
    one, other = (torch.optim.SGD(model.parameters(), lr=0.1) for model in (generator, critic))
    recording.watch(generator, gradients=True, updates=True)
    recording.watch(critic, gradients=True, updates=True)
    for _ in range(3):
        critic(generator(torch.randn(4, 2))).mean().backward()
        one.step()
        other.step()
        recording.step += 1
        one.zero_grad()
        other.zero_grad()
    recording.watcher.stop()

    norms, ratios = recording.table("gradients", "norm"), recording.table("updates", "ratio")
    assert list(norms) == list(ratios) == [0, 1, 2]
    for table in (norms, ratios):
        assert all(math.isfinite(value) for layers in table.values() for value in layers.values())


def test_layers_frozen_and_added_during_the_training_show_as_gaps(recording: Recording) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recording.watch(model, gradients=True)
    train(model, optimizer, 1, recording)
    model[0].requires_grad_(requires_grad=False)
    train(model, optimizer, 1, recording)
    model.append(nn.Linear(4, 1))
    optimizer.add_param_group({"params": list(model[2].parameters())})
    train(model, optimizer, 1, recording)

    steps = recording.table("gradients", "norm")
    assert math.isfinite(steps[0]["0.weight"])
    assert math.isnan(steps[1]["0.weight"])
    assert math.isfinite(steps[2]["2.weight"])


def test_evaluation_is_not_looked_at(recording: Recording) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recording.watch(model, activations=True)
    train(model, optimizer, 2, recording)
    before = len(recording.of("activations"))
    model.eval()
    with torch.no_grad():
        model(torch.full((8, 4), 1e6))
    model.train()
    train(model, optimizer, 1, recording)
    recording.watcher.stop()

    absmax = recording.table("activations", "absmax")
    assert before >= 1
    assert all(value < 1e3 for layers in absmax.values() for value in layers.values())


def test_a_model_that_is_converted_or_resized_in_place_is_read_as_it_is_then(recording: Recording) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    recording.watch(model, gradients=True)
    train(model, optimizer, 1, recording, lambda: model(torch.ones(4, 2)).sum())
    model.to(torch.bfloat16)
    train(model, optimizer, 1, recording, lambda: model(torch.ones(4, 2, dtype=torch.bfloat16)).sum())
    model.to(torch.float32)
    model.weight.data, model.weight.grad = torch.ones(1, 3), None
    train(model, optimizer, 1, recording, lambda: model(torch.ones(4, 3)).sum())

    norms = recording.table("gradients", "norm")
    assert [norms[step]["weight"] for step in range(3)] == pytest.approx([math.sqrt(32), math.sqrt(32), math.sqrt(48)])
    assert [norms[step]["bias"] for step in range(3)] == [4, 4, 4]


def test_an_update_is_measured_in_relation_to_its_weight(recording: Recording) -> None:
    model = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(2.0)
    recording.watch(model, updates=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, optimizer, 1, recording, lambda: model(torch.ones(1, 3)).sum())

    assert recording.table("updates", "ratio")[0]["weight"] == pytest.approx(0.05)
    assert recording.table("updates", "norm")[0]["weight"] == pytest.approx(0.1 * math.sqrt(3))


def test_the_update_of_a_large_tensor_is_estimated_from_some_of_it(recording: Recording) -> None:
    model = nn.Linear(1000, 300, bias=False)
    recording.watch(model, updates=True)
    before = model.weight.detach().clone()
    train(
        model, torch.optim.AdamW(model.parameters()), 1, recording, lambda: model(torch.randn(8, 1000)).square().sum()
    )
    moved = model.weight.detach() - before

    found = recording.table("updates", "ratio")[0]["weight"], recording.table("updates", "norm")[0]["weight"]

    assert found == pytest.approx((float(moved.norm() / before.norm()), float(moved.norm())), rel=0.03)


def test_weights_are_those_before_the_step_and_optimizer_norms_those_after(recording: Recording) -> None:
    model = nn.Linear(3, 2)
    recording.watch(model, weights=True, updates=True)
    optimizer = torch.optim.AdamW(model.parameters())
    before = float(model.weight.detach().norm())
    train(model, optimizer, 1, recording, lambda: model(torch.ones(4, 3)).sum())

    assert recording.table("weights", "norm")[0]["weight"] == pytest.approx(before)
    [states] = recording.of("optimizer")
    assert states.axis.statistics == ("exp_avg", "exp_avg_sq")
    assert row(states, "exp_avg")[0] == pytest.approx(float(optimizer.state[model.weight]["exp_avg"].norm()))


def test_dead_and_saturated_units_are_counted(recording: Recording) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Tanh())
    with torch.no_grad():
        model[0].bias[:] = torch.tensor([-1e3, -1e3, -1e3, 1e3])
        model[2].bias[:] = torch.tensor([1e3, -1e3, 0.0, 0.0])
        model[2].weight.zero_()
    recording.watch(model, activations=True)
    train(model, torch.optim.SGD(model.parameters(), lr=0.0), 2, recording)
    recording.watcher.stop()

    [first, *_] = recording.of("activations")
    assert row(first, "dead")[first.axis.layers.index("1")] == pytest.approx(0.75)
    assert row(first, "saturated")[first.axis.layers.index("3")] == pytest.approx(0.5)


def test_the_channels_of_an_image_are_its_units(recording: Recording) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 1))
    with torch.no_grad():
        model[0].bias[0] = -1e3
    recording.watch(model, activations=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    train(model, optimizer, 1, recording, lambda: model(torch.randn(2, 1, 8, 8)).sum())
    recording.watcher.stop()

    assert recording.table("activations", "dead")[0]["1"] == pytest.approx(0.25)


def test_bad_activations_are_counted(recording: Recording) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    recording.watch(model, activations=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    bad = torch.tensor([[math.inf, 1.0], [1.0, 1.0]])
    train(model, optimizer, 1, recording, lambda: model(bad).sum())
    recording.watcher.stop()

    assert recording.table("activations", "infs")[0]["0"] + recording.table("activations", "nans")[0]["0"] == 2


def test_what_activation_checkpointing_computes_again_is_not_counted_twice(recording: Recording) -> None:
    calls: list[int] = []

    class Counting(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            return super().forward(x) * len(calls)  # the recomputation puts out something else

    layer = Counting(4, 4)
    model = nn.Sequential(layer)
    recording.watch(model, activations=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.ones(2, 4, requires_grad=True)
    expected = float(nn.functional.linear(x, layer.weight, layer.bias).detach().abs().max())
    train(
        model, optimizer, 1, recording,
        lambda: checkpoint(model, x, use_reentrant=False, determinism_check="none").sum(),
    )  # fmt: skip
    recording.watcher.stop()

    assert len(calls) == 2
    assert recording.table("activations", "absmax")[0]["0"] == pytest.approx(expected)


def test_only_chosen_layers_are_recorded(recording: Recording) -> None:
    model = network()
    recording.watch(model, gradients=True, weights=True, layers=("re:^2", "*.bias"))
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), 1, recording)

    assert recording.of("gradients")[0].axis.layers == ("0.bias", "2.weight", "2.bias")
    assert recording.of("weights")[0].axis.layers == ("0.bias", "2.weight", "2.bias")


def test_a_step_with_a_closure_shows_the_gradients_the_closure_computed(recording: Recording) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=1)
    recording.watch(model, gradients=True)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(4, 2)).sum()
        loss.backward()
        return loss

    optimizer.step(closure)

    assert recording.table("gradients", "norm")[0]["bias"] == 4


def test_histograms_count_every_finite_value_once(recording: Recording) -> None:
    model = nn.Linear(2, 1, bias=False)
    recording.watch(model, histograms=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, optimizer, 1, recording, lambda: model(torch.tensor([[3.0, -0.25]])).sum())

    [found] = [one for one in recording.events if isinstance(one, Histograms)]
    counts = np.frombuffer(bytes(found.counts), np.uint32).reshape(2, 1, found.bins)
    places = {(("negative", "positive")[sign], found.lowest + at) for sign, _, at in np.argwhere(counts)}
    assert places == {("positive", 1), ("negative", -2)}


def test_weights_and_random_numbers_are_what_they_would_be_without(recording: Recording) -> None:
    def trained(*, watched: bool) -> tuple[list[float], float]:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.BatchNorm1d(16), nn.Linear(16, 1))
        if watched:
            recording.watch(model, gradients=True, weights=True, updates=True, activations=True, histograms=True)
        train(model, torch.optim.AdamW(model.parameters()), 20, recording)
        weights = torch.cat([one.detach().flatten() for one in model.state_dict().values()])
        return weights.tolist(), float(torch.rand(()))

    assert trained(watched=True) == trained(watched=False)


def test_watching_keeps_no_model_alive_and_leaves_no_hook(recording: Recording) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recording.watch(model, gradients=True, weights=True, updates=True, activations=True)
    train(model, optimizer, 3, recording)
    recording.watcher.stop()
    assert all(not module._forward_hooks for module in model.modules())
    gone = weakref.ref(model)
    del model, optimizer
    gc.collect()

    assert gone() is None


def test_a_watched_model_can_be_copied_and_saved_in_the_middle_of_a_sample(recording: Recording) -> None:
    import copy
    import pickle

    model = network()
    recording.watch(model, activations=True)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), 1, recording)

    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))  # noqa: S301 -- our own bytes

    assert torch.equal(again(torch.ones(1, 4)), model(torch.ones(1, 4)))


def test_the_optimizer_of_another_model_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"SGD holds no parameter of the model Linear\. Pass the optimizer"):
        check_optimizer(nn.Linear(2, 1), torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1))


def test_what_is_no_module_is_refused(recording: Recording) -> None:
    with pytest.raises(TypeError, match=r"Only a torch\.nn\.Module can be watched; got dict"):
        recording.watch({})  # type: ignore[arg-type]


def test_a_step_reads_no_more_than_a_handful_of_values_from_tensors(recording: Recording) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    reads: list[str] = []

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
            if func is torch.ops.aten._local_scalar_dense.default:
                reads.append(str(func))
            return func(*args, **(kwargs or {}))

    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(30)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recording.watch(model, gradients=True)
    train(model, optimizer, 2, recording)
    reads.clear()
    with Counting():
        optimizer.step()

    assert reads == []
