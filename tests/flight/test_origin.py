"""The search for an origin: what it leaves alone, how it follows, what it says, and that it leaves no trace."""

# ruff: noqa: D102 -- models have a `forward`

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from faulty_models import (
    BATCH,
    LENGTH,
    VOCABULARY,
    Block,
    Faulty,
    Regression,
    Transformer,
    masked_later,
)
from recorded import Recording
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 -- its usual name
from torch.utils.checkpoint import checkpoint

from tracer.flight.origin import Origin, find_origin, largest_growth
from tracer.flight.steps import Step
from tracer.sink import Guard
from tracer.testing import FakeClock

pytestmark = pytest.mark.torch


def stepped(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> Step:
    kept = Recording(model)
    value = loss(model)
    value.backward()
    step: Step = kept.stop()
    step.loss = value.item()
    return step


def found(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> Origin | None:
    return find_origin(model, stepped(model, loss), guard=Guard(strict=True))


def ids() -> Tensor:
    return torch.randint(1, VOCABULARY, (BATCH, LENGTH))


def text_loss(model: nn.Module, **more: Tensor) -> Tensor:
    return F.cross_entropy(model(ids(), **more).flatten(0, 1), ids().flatten())


def some_padding() -> Tensor:
    padding = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    padding[:, 4:] = True
    return padding


@pytest.mark.parametrize("additive", [False, True])
def test_masks_are_no_origin(additive: bool) -> None:  # noqa: FBT001
    model = Transformer(Block(additive=additive), Block(additive=additive))

    assert found(model, lambda model: text_loss(model, padding=some_padding())) is None


@pytest.mark.parametrize("additive", [False, True])
def test_masks_are_listed_beside_a_fault(additive: bool) -> None:  # noqa: FBT001
    model = Transformer(
        Block(additive=additive), Block(scale=Faulty(lambda x, gain, _: x * gain.log()), additive=additive)
    )
    gain = torch.full((BATCH,), 0.5)
    gain[3] = -1.0

    origin = found(model, lambda model: text_loss(model, gain=gain, padding=some_padding()))

    assert origin is not None
    assert (origin.op, origin.module, origin.samples) == ("aten.log.default", "blocks.1.scale", (3,))
    assert any("masked_fill" in one and "blocks.0.attn" in one for one in origin.on_purpose)
    assert "-Inf in the buffer blocks.0.attn.mask" in origin.on_purpose
    assert "What is infinite on purpose was passed over: -Inf in the buffer blocks.0.attn.mask and " in origin.text


def test_an_infinity_that_is_masked_out_later_is_no_origin() -> None:
    model = Transformer(Block(), Block(scale=Faulty(masked_later)))

    assert found(model, lambda model: text_loss(model, gain=torch.full((BATCH,), 0.5))) is None


class Odd(nn.Module):
    """Empty, integer, boolean, complex and sparse tensors on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4, sparse=True)
        self.last = nn.Linear(4, 1)

    def forward(self, x: Tensor, factor: Tensor) -> Tensor:
        hidden = self.table(x)
        nothing = hidden[:0].sum() + torch.cat([hidden[:0], hidden[:0]]).sum()
        waves = torch.fft.fft(hidden, dim=-1)
        waves = waves * torch.log(factor)[:, None].to(waves.dtype)
        graph = torch.sparse_coo_tensor(
            torch.tensor([[0, 1], [1, 0]]), torch.ones(2), (len(x), len(x)), check_invariants=True
        )
        mixed = torch.sparse.mm(graph, hidden)
        counts = (x > 3).sum() // 2
        return self.last(torch.fft.ifft(waves, dim=-1).real + mixed) + nothing + counts


def test_odd_tensors_pass() -> None:
    factor = torch.full((5,), 2.0)

    assert found(Odd(), lambda model: model(torch.arange(5), factor).square().mean()) is None


def test_a_fault_among_odd_tensors_is_found() -> None:
    factor = torch.full((5,), 2.0)
    factor[2] = -1.0

    origin = found(Odd(), lambda model: model(torch.arange(5), factor).square().mean())

    assert origin is not None
    assert (origin.op, origin.samples, origin.inputs[0]["name"]) == ("aten.log.default", (2,), "factor")


def test_a_fault_in_a_recomputed_block_is_found() -> None:
    class Recomputed(Transformer):
        def forward(self, ids: Tensor, gain: Tensor) -> Tensor:  # type: ignore[override]
            x = self.embed(ids)
            for block in self.blocks:
                x = checkpoint(block, x, gain, None, use_reentrant=False)
            return self.head(x)

    gain = torch.full((BATCH,), 0.5)
    gain[6] = 0.0
    model = Recomputed(Block(), Block(scale=Faulty(lambda x, gain, w: x + (w * gain).sqrt())))

    origin = found(model, lambda model: text_loss(model, gain=gain))

    assert origin is not None
    assert (origin.op, origin.module, origin.phase, origin.samples) == (
        "aten.div.Tensor", "blocks.1.scale", "backward", (6,),
    )  # fmt: skip
    assert str(origin.file).endswith("test_origin.py")


@dataclass
class Answer:
    """What a model of the transformers kind returns."""

    loss: Tensor
    logits: Tensor


class Answering(Transformer):
    """Returns its loss and its logits, of which the loss was computed."""

    def __init__(self, fault: Callable[..., Tensor]) -> None:
        super().__init__(Block(scale=Faulty(fault)))
        self.fault = fault

    def forward(self, ids: Tensor, gain: Tensor, labels: Tensor) -> Answer:  # type: ignore[override]
        logits = super().forward(ids, gain)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return Answer(loss=(loss * gain.repeat_interleave(LENGTH).sqrt()).mean(), logits=logits)


def test_a_fault_between_logits_and_loss_is_found() -> None:
    gain = torch.full((BATCH,), 0.5)
    gain[6] = -1.0

    origin = found(Answering(lambda x, gain, _: x * gain), lambda model: model(ids(), gain, ids()).loss)

    assert origin is not None
    assert (origin.op, origin.module, origin.phase) == ("aten.sqrt.default", "", "forward")


def test_a_steep_slope_between_logits_and_loss_is_found() -> None:
    class Steep(Transformer):
        def forward(self, ids: Tensor) -> Answer:  # type: ignore[override]
            logits = super().forward(ids)
            return Answer(loss=(logits * 0).sqrt().mean(), logits=logits)  # finite, but not its slope

    origin = found(Steep(), lambda model: model(ids()).loss)

    assert origin is not None
    assert (origin.op, origin.node, origin.phase) == ("aten.div.Tensor", "SqrtBackward0", "backward")


def test_the_call_at_fault_gives_the_samples() -> None:
    model = Regression()

    def loss(model: nn.Module) -> Tensor:
        batches = torch.randn(4, BATCH, 5)
        batches[2, 7, 1] = math.nan
        total = torch.zeros(())
        for batch in batches:
            total = total + model(batch).square().mean() / 4
        return total

    origin = found(model, loss)

    assert origin is not None
    assert (origin.phase, origin.samples, origin.name) == ("input", (7,), "features")


def test_a_model_that_raises_on_its_own_nan_is_still_explained() -> None:
    class Checked(Regression):
        strict = False

        def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:  # noqa: ARG002
            hidden = self.net[0](features).log()
            if self.strict and hidden.isnan().any():
                message = "NaN!"
                raise ArithmeticError(message)
            return hidden.mean()

    model = Checked()
    step = stepped(model, lambda model: model(torch.randn(BATCH, 5)))
    model.strict = True

    origin = find_origin(model, step, guard=Guard(strict=False, quiet=True))

    assert origin is not None
    assert origin.op == "aten.log.default"


def test_a_model_that_raises_for_another_reason_has_no_origin() -> None:
    model = Regression()
    step = stepped(model, lambda model: model(torch.randn(BATCH, 5)).mean())
    model.net = nn.Linear(4, 4)
    guard = Guard(quiet=True)

    assert find_origin(model, step, guard=guard) is None
    assert guard.counters.nonzero() == {"internal_errors": 1}


def test_a_search_that_takes_too_long_is_given_up(clock: FakeClock) -> None:
    class Slow(Regression):
        def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
            clock.advance(1.0)
            return super().forward(features, labels).log()

    model = Slow()
    step = stepped(model, lambda model: model(torch.randn(BATCH, 5)).mean())

    assert find_origin(model, step, limit_s=0.5) is None
    assert find_origin(model, step, limit_s=30.0) is not None


def test_a_clean_step_has_no_origin() -> None:
    assert found(Regression(), lambda model: model(torch.randn(BATCH, 5)).square().mean()) is None


def test_a_loss_that_is_bad_alone_is_named() -> None:
    model = Regression()
    step = stepped(model, lambda model: model(torch.randn(BATCH, 5)).square().mean())
    step.loss = math.inf

    origin = find_origin(model, step)

    assert origin is not None
    assert (origin.op, origin.module, origin.phase, origin.kind) == ("loss", "(loss)", "forward", "inf")


def test_the_text_tells_it_all() -> None:
    model = Transformer(Block(), Block(scale=Faulty(lambda x, gain, _: x * gain.log())))
    gain = torch.full((BATCH,), 0.5)
    gain[3] = -35.4
    step = stepped(model, lambda model: text_loss(model, gain=gain))
    step.rows = tuple(range(800, 800 + BATCH))

    origin = find_origin(model, step)

    assert origin is not None
    before, _, rest = origin.text.partition(" at ")
    after = rest.partition("`). ")[2]
    assert before == "The first NaN came from `aten.log.default` in the forward pass of module `blocks.1.scale`"
    assert after.startswith(
        "Sample 3 of 8 in the batch (in the data set: 803). What went in: `gain` -35.4 to 0.5 (8 by 1 by 1, float32). "
        "The logarithm of a negative number is NaN, and that of zero is -Inf. It went on to aten.mul.Tensor in "
        "blocks.1.scale"
    )
    assert origin.chain[0].startswith("aten.mul.Tensor in blocks.1.scale (")
    assert len(origin.chain) <= 20
    assert origin.positions == ((3, 0, 0),)


def test_former_sizes_tell_how_weights_have_grown() -> None:
    model = Regression()
    sizes = {name: one.detach().square().mean().sqrt().item() for name, one in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e30)
    step = stepped(model, lambda model: model(torch.randn(BATCH, 5) * 1e9).square().mean())

    origin = find_origin(model, step, sizes=sizes)

    assert origin is not None
    assert (origin.kind, origin.module) == ("overflow", "net.2")
    assert "2 of 2 weights have blown up" in origin.text
    assert "1e+30 times its former size" in origin.text


def test_a_compiled_model_is_searched_in_eager_mode() -> None:
    model = torch.compile(Regression(nn.Linear(32, 32)), backend="eager")
    batch = torch.randn(BATCH, 5)
    batch[4, 0] = math.nan

    origin = found(model, lambda model: model(batch).square().mean())

    assert origin is not None
    assert (origin.phase, origin.samples) == ("input", (4,))


def weights_after(*, diagnosed: bool, raising: bool = False) -> str:
    """Return a hash of a model and its optimizer after steps of training, one of them diagnosed on the way."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for number in range(6):
        optimizer.zero_grad()
        kept = Recording(model) if number == 3 else None
        model(torch.randn(BATCH, 5)).square().mean().backward()
        if kept is not None:
            step = kept.stop()
            if diagnosed:
                handle = model[3].register_forward_hook(_raise) if raising else None
                find_origin(model, step, guard=Guard(quiet=True))
                largest_growth(model, step, guard=Guard(quiet=True))
                if handle is not None:
                    handle.remove()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    values = [*model.state_dict().values(), *(v for s in optimizer.state.values() for v in s.values()), torch.rand(4)]
    return hashlib.sha256(b"".join(value.detach().numpy().tobytes() for value in values)).hexdigest()


def _raise(*_: object) -> None:
    message = "a hook of the user's"
    raise LookupError(message)


def test_training_that_is_diagnosed_ends_with_the_same_bits() -> None:
    plain = weights_after(diagnosed=False)

    assert weights_after(diagnosed=True) == plain
    assert weights_after(diagnosed=True, raising=True) == plain


def test_no_hook_is_left_behind() -> None:
    model = Transformer()
    step = stepped(model, text_loss)
    everywhere = torch.nn.modules.module

    find_origin(model, step)
    largest_growth(model, step)

    assert not everywhere._global_forward_hooks
    assert not everywhere._global_forward_pre_hooks
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())


def test_rows_that_stand_out_explain_an_explosion() -> None:
    batch = torch.randn(BATCH, 5)
    batch[2] *= 1e5
    model = Regression()

    origin = largest_growth(model, stepped(model, lambda model: model(batch).square().mean()))

    assert origin is not None
    assert (origin.kind, origin.phase, origin.name, origin.samples) == ("growth", "input", "features", (2,))
    assert "The input `features` has rows" in origin.text


def test_the_operation_where_values_jump_is_named() -> None:
    model = Transformer(Block(), Block(scale=Faulty(lambda x, gain, _: x * gain.exp())))
    gain = torch.full((BATCH,), 0.5)
    gain[5] = 20.0

    origin = largest_growth(model, stepped(model, lambda model: text_loss(model, gain=gain)))

    assert origin is not None
    assert (origin.op, origin.module, origin.phase, origin.samples) == (
        "aten.exp.default", "blocks.1.scale", "forward", (5,),
    )  # fmt: skip
    assert "Values first grew in `aten.exp.default` in the forward pass of module `blocks.1.scale`" in origin.text


def test_a_steep_slope_is_named() -> None:
    model = Transformer(Block(), Block(scale=Faulty(lambda x, gain, w: x + (w * gain).sqrt())))
    gain = torch.full((BATCH,), 0.5)
    gain[1] = 1e-14

    origin = largest_growth(model, stepped(model, lambda model: text_loss(model, gain=gain)))

    assert origin is not None
    assert (origin.op, origin.module, origin.phase, origin.samples) == (
        "aten.div.Tensor", "blocks.1.scale", "backward", (1,),
    )  # fmt: skip


def test_a_healthy_step_has_no_jump() -> None:
    model = Transformer()

    assert largest_growth(model, stepped(model, text_loss)) is None


class Between(nn.Module):
    """A linear layer, and whatever follows it."""

    def __init__(self, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.first(x))


@pytest.mark.parametrize(
    ("then", "op", "kind"),
    [
        (lambda h: h * torch.tensor(math.nan), "aten.mul.Tensor", "nan"),
        (lambda h: h + torch.tensor([1.0, math.inf, 1.0, 1.0]), "aten.add.Tensor", "inf"),
        (lambda h: torch.full_like(h, math.nan) + h, "aten.full_like.default", "nan"),
    ],
)
def test_what_was_written_down_is_named_when_nothing_else_is_bad(
    then: Callable[[Tensor], Tensor], op: str, kind: str
) -> None:
    origin = found(Between(then), lambda model: model(torch.randn(BATCH, 4)).sum())

    assert origin is not None
    assert (origin.op, origin.kind, origin.phase) == (op, kind, "forward")
    assert str(origin.file).endswith("test_origin.py")


@pytest.mark.parametrize(
    ("then", "op"),
    [
        (torch.func.vmap(torch.log), "aten.log.default"),
        (lambda h: checkpoint(torch.sqrt, h, use_reentrant=True), "aten.sqrt.default"),
        (lambda h: torch.autograd.grad(h.square().sum(), h, create_graph=True)[0].sqrt(), "aten.sqrt.default"),
        (
            lambda h: torch.nested.as_nested_tensor([h[:2], h[2:]], layout=torch.jagged).log().values(),
            "aten.log.default",
        ),
        (lambda h: torch.zeros_like(h).index_put((torch.arange(len(h)),), h.log()), "aten.log.default"),
        (lambda h: h.clone().mul_(-1).log_(), "aten.log_.default"),
    ],
    ids=["vmap", "reentrant checkpoint", "second derivative", "jagged", "index_put", "in place"],
)
def test_unusual_ways_to_compute_are_seen_through(then: Callable[[Tensor], Tensor], op: str) -> None:
    origin = found(Between(then), lambda model: model(torch.randn(BATCH, 4)).sum())

    assert origin is not None
    assert (origin.op, origin.phase) == (op, "forward")


@pytest.mark.parametrize("where", ["outside", "in place", "inside"])
def test_compiled_models_are_searched_by_operation(where: str) -> None:
    model: nn.Module = Between(torch.log)
    if where == "outside":
        model = torch.compile(model, backend="aot_eager")
    elif where == "in place":
        model.compile(backend="aot_eager")
    else:
        model.first = torch.compile(nn.Linear(4, 4), backend="aot_eager")

    origin = found(model, lambda model: model(torch.randn(BATCH, 4)).sum())

    assert origin is not None
    assert (origin.op, origin.line) == ("aten.log.default", Between.forward.__code__.co_firstlineno + 1)
