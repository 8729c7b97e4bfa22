"""A step runs again bit for bit, and leaves no trace."""

# ruff: noqa: D102 -- models have a `forward`

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from recorded import Recording
from torch import Tensor, nn

from tracer.capture import randomness
from tracer.flight.rerun import Phases, replaying, rerun, undisturbed, unwrapped
from tracer.flight.steps import Clip, Step
from tracer.flight.trees import Tree

pytestmark = pytest.mark.torch


class Small(nn.Module):
    """Dropout, batch statistics, and two uses of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.3)
        self.last = nn.Linear(8, 8)
        self.raises = False

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.drop(self.norm(self.first(x)).relu())
        hidden = self.last(self.last(hidden))
        if self.raises:
            message = "a fault of the model"
            raise LookupError(message)
        return hidden


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def trained(model: nn.Module, train: Callable[[nn.Module], None], *, upstream: bool = True) -> Step:
    """Run a training step up to its commit and return what was recorded."""
    kept = Recording(model, upstream=upstream)
    train(model)
    return kept.stop()


def dropout(model: nn.Module) -> None:
    model(torch.randn(16, 6)).square().mean().backward()


def accumulation(model: nn.Module) -> None:
    for _ in range(4):
        (model(torch.randn(16, 6)).square().mean() / 4).backward()


def several_calls_in_one_pass(model: nn.Module) -> None:
    outs = [model(torch.randn(16, 6)) for _ in range(4)]
    (outs[0] * outs[1] + outs[2].sigmoid() * outs[3]).sum().backward()


def two_passes_over_one_graph(model: nn.Module) -> None:
    out = model(torch.randn(16, 6))
    out.square().mean().backward(retain_graph=True)
    out.exp().mean().backward()


def interleaved_passes(model: nn.Module) -> None:
    first = model(torch.randn(16, 6))
    second = model(torch.randn(16, 6))
    second.square().mean().backward()
    third = model(torch.randn(16, 6))
    (first * third).mean().backward()


def half_precision(model: nn.Module) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        out = model(torch.randn(16, 6))
        loss = out.float().square().mean()
    loss.backward()


def calls_sharing_their_casts(model: nn.Module) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        outs = [model(torch.randn(16, 6)) for _ in range(3)]
    sum(out.float().square().mean() for out in outs).backward()


def output_changed_in_place(model: nn.Module) -> None:
    out = model(torch.randn(16, 6))
    out.mul_(3)
    out.square().mean().backward()


def from_another_graph(model: nn.Module) -> None:
    source = torch.randn(16, 6, requires_grad=True)
    model(source * 2).square().mean().backward()


def frozen_norm(model: nn.Module) -> None:
    model.norm.eval()  # type: ignore[union-attr,operator]
    dropout(model)


@pytest.mark.parametrize(
    "train",
    [
        dropout,
        accumulation,
        several_calls_in_one_pass,
        two_passes_over_one_graph,
        interleaved_passes,
        half_precision,
        calls_sharing_their_casts,
        output_changed_in_place,
        from_another_graph,
        frozen_norm,
    ],
)
def test_gradients_come_out_bit_for_bit(train: Callable[[nn.Module], None]) -> None:
    model = Small()
    step = trained(model, train)
    expected = gradients(model)

    again = rerun(model, step)

    assert same(again.gradients, expected)
    assert again.notes == []
    assert len(again.outputs) == len(step.calls)


def test_a_rerun_leaves_no_trace() -> None:
    model = Small()
    step = trained(model, accumulation)
    before = trace(model)

    rerun(model, step)

    assert trace(model) == before


def test_a_rerun_that_raises_leaves_no_trace() -> None:
    model = Small()
    step = trained(model, accumulation)
    model.raises = True
    before = trace(model)

    with pytest.raises(LookupError, match="a fault of the model"):
        rerun(model, step)

    assert trace(model) == before


def test_what_a_body_changes_comes_back() -> None:
    model = Small()
    model.own = torch.Generator()  # type: ignore[assignment]
    model.numbers = np.random.default_rng(3)
    model.dice = random.Random(3)  # noqa: S311 -- no secret
    dropout(model)
    before = trace(model)
    threads = torch.get_num_threads()

    def disturb() -> None:
        assert replaying()
        assert all(one.grad is None for one in model.parameters())
        model.eval()
        model.first.weight.requires_grad_(False)
        model.norm.running_mean = torch.ones(8)
        model.norm.num_batches_tracked.fill_(99)  # type: ignore[union-attr,operator]
        torch.rand(3, generator=model.own)
        model.numbers.random()
        model.dice.random()
        torch.rand(5), random.random(), np.random.rand()  # noqa: NPY002, S311 -- the global generators
        torch.set_autocast_enabled("cpu", True)
        torch.set_autocast_dtype("cpu", torch.float16)
        torch.use_deterministic_algorithms(mode=True)
        torch.set_num_threads(threads + 1)
        torch.set_grad_enabled(False)
        raise LookupError

    with pytest.raises(LookupError), undisturbed(model):
        disturb()

    assert trace(model) == before
    assert not replaying()


def trace(model: nn.Module) -> list[object]:
    """Return everything that a rerun might leave behind, as values that compare."""
    states = randomness.capture()
    return [
        {name: (id(one), id(one.grad), one.grad is not None and bits(one.grad), one.requires_grad)
         for name, one in model.named_parameters()},
        {name: (id(one), bits(one), one._version) for name, one in model.named_buffers()},
        [module.training for module in model.modules()],
        [(len(module._forward_hooks), len(module._forward_pre_hooks)) for module in model.modules()],
        (states.python, str(states.numpy), bits(states.cpu)),
        [str(vars(model)[name].bit_generator.state) for name in ("numbers",) if hasattr(model, name)],
        [vars(model)[name].getstate() for name in ("dice",) if hasattr(model, name)],
        [bits(vars(model)[name].get_state()) for name in ("own",) if hasattr(model, name)],
        (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled()),
        (torch.is_grad_enabled(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()),
        (torch.is_anomaly_enabled(), len(torch.nn.modules.module._global_forward_hooks)),
        len(torch.nn.modules.module._global_forward_pre_hooks),
        torch.autocast_decrement_nesting() - torch.autocast_increment_nesting(),
    ]  # fmt: skip


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def test_clips_are_applied_as_recorded_and_can_be_left_out() -> None:
    model = Small()
    step = trained(model, dropout)
    unclipped = gradients(model)
    names = tuple(unclipped)
    step.clips = [Clip("norm", 0.01, 2.0, names, None), Clip("value", 0.001, 2.0, names[:2], None)]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    torch.nn.utils.clip_grad_value_([dict(model.named_parameters())[name] for name in names[:2]], 0.001)

    assert same(rerun(model, step).gradients, gradients(model))
    assert same(rerun(model, step, clip=False).gradients, unclipped)


def test_a_scaler_divides_as_it_did() -> None:
    model = Small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=3000.0)

    def train(model: nn.Module) -> None:
        scaler.scale(model(torch.randn(16, 6)).square().mean()).backward()

    step = trained(model, train)
    step.scale = scaler.get_scale()
    scaled = gradients(model)
    scaler.unscale_(optimizer)

    assert same(rerun(model, step).gradients, gradients(model))
    step.still_scaled = True
    assert same(rerun(model, step).gradients, scaled)


@dataclass
class Answer:
    """What a model of the transformers kind returns."""

    loss: Tensor
    hidden: tuple[Tensor, ...]


class Chained(nn.Module):
    """Its outputs come from one another, and its loss is one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))

    def forward(self, *, batch: dict[str, Tensor]) -> Answer:
        hidden = [batch["x"]]
        for layer in self.layers:
            hidden.append(layer(hidden[-1]).tanh())
        return Answer(loss=hidden[-1].square().mean(), hidden=tuple(hidden))


def test_outputs_that_come_from_one_another_are_not_counted_twice() -> None:
    model = Chained()

    def train(model: nn.Module) -> None:
        answer = model(batch={"x": torch.randn(5, 6)})
        (answer.loss * 3 + answer.hidden[1].mean()).backward()

    step = trained(model, train)

    again = rerun(model, step)

    assert same(again.gradients, gradients(model))
    assert again.outputs[0].rebuilt().loss.shape == ()


def test_a_returned_loss_needs_no_record_of_the_backward_pass() -> None:
    model = Chained()
    step = trained(model, lambda model: model(batch={"x": torch.randn(5, 6)}).loss.backward(), upstream=False)

    again = rerun(model, step)

    assert same(again.gradients, gradients(model))
    assert again.notes == [
        "What reached the loss in the backward pass was not recorded: it was taken to be the scale, else 1."
    ]


def test_without_a_record_of_the_backward_pass_only_the_forward_part_runs() -> None:
    model = Small()
    step = trained(model, dropout, upstream=False)

    again = rerun(model, step)

    assert again.gradients == {}
    assert again.notes == [
        "What reached the outputs in the backward pass was not recorded: only the forward part was run again."
    ]


def test_the_users_batch_is_not_written_into_again() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(x.add_(1))

    model, x = InPlace(), torch.zeros(3, 6)
    kept = Recording(model)
    model(x).sum().backward()

    rerun(model, kept.stop())

    assert x.tolist() == torch.ones(3, 6).tolist()


def test_a_graph_that_still_waits_for_its_backward_pass_is_undisturbed() -> None:
    class Buffered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(6, 1)
            self.register_buffer("scale", torch.full((6,), 2.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.last(x) * self.scale.sum() + (self.last.weight * self.scale).sum()

    model = Buffered()
    kept = Recording(model)
    loss = model(torch.ones(3, 6)).sum()

    rerun(model, kept.stop())

    loss.backward()  # raises if a saved buffer seemed to have changed


def test_what_runs_after_accumulation_does_not_run_again() -> None:
    model, seen = Small(), []
    step = trained(model, dropout)
    handle = model.first.weight.register_post_accumulate_grad_hook(lambda parameter: seen.append(parameter.shape))

    rerun(model, step)
    assert seen == []

    dropout(model)
    assert len(seen) == 1
    handle.remove()


def test_a_step_whose_calls_were_dropped_is_refused() -> None:
    with pytest.raises(ValueError, match="Step 4 cannot be run again"):
        rerun(Small(), Step(4))


def test_watchers_are_told_of_calls_and_passes() -> None:
    model, told = Small(), []

    class Told(Phases):
        def before_call(self, number: int, inputs: Tree) -> None:
            told.append(("call", number, len(inputs.tensors)))

        def before_backward(self, outputs: Sequence[Tensor], gradients: Sequence[Tensor], calls: Sequence[int]) -> None:
            told.append(("backward", len(outputs), len(gradients), list(calls)))

    step = trained(model, interleaved_passes)

    rerun(model, step, phases=Told())

    assert told == [("call", 0, 1), ("call", 1, 1), ("backward", 1, 1, [1]), ("call", 2, 1), ("backward", 2, 2, [0, 2])]


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_a_distributed_model_runs_again_without_its_peers() -> None:
    model = nn.parallel.DistributedDataParallel(Small())
    step = trained(model, dropout)
    expected = gradients(model.module)

    assert same(rerun(model, step).gradients, expected)
    assert unwrapped(model) is model.module


@pytest.mark.parametrize("backend", ["aot_eager", "eager"])
def test_a_compiled_model_runs_again_as_compiled(backend: str) -> None:
    model = torch.compile(Small(), backend=backend)
    step = trained(model, accumulation)
    expected = gradients(unwrapped(model))

    assert same(rerun(model, step).gradients, expected)
