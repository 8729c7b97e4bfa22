"""Planted faults, each named by operation, module, line and sample."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from faulty_models import (
    BACKWARD,
    BATCH,
    FORWARD,
    LENGTH,
    VOCABULARY,
    Block,
    Faulty,
    Pictures,
    Regression,
    RootMeanSquare,
    Spread,
    Transformer,
    line_of,
    masked_later,
    overwritten,
    unset,
)
from recorded import Recording
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 -- its usual name

from tracer.flight.origin import Origin, find_origin
from tracer.sink import Guard

pytestmark = pytest.mark.torch
ALL = tuple(range(BATCH))
Training = tuple[nn.Module, Callable[[nn.Module], Tensor]]


@dataclass
class Case:
    """A fault: a step that shows it, and how it must be named."""

    name: str
    run: Callable[[], Training]  # a model, and what gives its loss
    op: str
    module: str = ""
    phase: str = "forward"
    kind: str = "nan"
    mark: str = ""  # of the line
    samples: tuple[int, ...] | None = ()  # None: any
    argument: str = ""  # or parameter
    says: str = ""


def ids() -> Tensor:
    return torch.randint(1, VOCABULARY, (BATCH, LENGTH))


def gains(sample: int, value: float, other: float = 0.5) -> Tensor:
    found = torch.full((BATCH,), other)
    found[sample] = value
    return found


def text_loss(model: nn.Module, **more: Tensor) -> Tensor:
    logits = model(ids(), **more)
    return F.cross_entropy(logits.flatten(0, 1), ids().flatten())


def in_block(fault: Callable[..., Tensor], value: float, sample: int = 3, other: float = 0.5) -> Training:
    """Return a transformer with a fault in its second block, that one sample's number brings out."""
    model = Transformer(Block(), Block(scale=Faulty(fault)))
    return model, lambda model: text_loss(model, gain=gains(sample, value, other))


def forward(name: str, value: float, op: str, *, kind: str = "nan", samples: tuple[int, ...] = (3,)) -> Case:
    return Case(name, lambda: in_block(FORWARD[name], value), op, "blocks.1.scale", "forward", kind, name, samples)


def backward(
    name: str, op: str, *, value: float = 0.0, kind: str = "inf", samples: tuple[int, ...] = (3,), mark: str = ""
) -> Case:
    return Case(
        name, lambda: in_block(BACKWARD[name], value), op, "blocks.1.scale", "backward", kind, mark or name, samples
    )


def all_masked() -> Training:
    padding = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    padding[5] = True
    return Transformer(), lambda model: text_loss(model, padding=padding)


def norm_of_zeros() -> Training:
    batch = ids()
    batch[2] = 0  # padding only, whose embedding is zero
    model = Transformer(Block(norm=RootMeanSquare()))
    model.drop.p = 0.0
    return model, lambda model: F.cross_entropy(model(batch).flatten(0, 1), ids().flatten())


def changed(model: nn.Module, parameter: str, value: float, at: tuple[int, ...] = (7, 1)) -> nn.Module:
    with torch.no_grad():
        model.get_parameter(parameter)[at] = value
    return model


def blown_up() -> Training:
    model = Transformer()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e12)
    return model, text_loss


def pictures(model: nn.Module, bad: float | None = None) -> Training:
    images = torch.randn(BATCH, 3, 9, 9)
    if bad is not None:
        images[6, 1, 4, 4] = bad
    return model, lambda model: F.cross_entropy(model(images), torch.randint(4, (BATCH,)))


def features(bad: float | None = None) -> tuple[Tensor, Tensor]:
    inputs, labels = torch.randn(BATCH, 5), torch.randn(BATCH, 1)
    if bad is not None:
        inputs[4] = bad
    return inputs, labels


def data_row_of_infinities() -> Training:
    inputs, labels = features(-math.inf)
    return Regression(), lambda model: F.mse_loss(model(inputs), labels)


def label_inside() -> Training:
    inputs, labels = features()
    labels[1] = math.nan
    return Regression(), lambda model: model(inputs, labels=labels)


def label_outside() -> Training:
    inputs, labels = features()
    labels[1] = math.nan
    return Regression(), lambda model: F.mse_loss(model(inputs), labels)


def every_label_ignored() -> Training:
    return Transformer(), lambda model: F.cross_entropy(model(ids()).flatten(0, 1), torch.full((BATCH * LENGTH,), -100))


def loss_inside() -> Training:
    model = Transformer()
    with torch.no_grad():
        model.head.bias[5] = 300.0
    return model, lambda model: model(ids().clamp(max=4), labels=ids().clamp(max=4))


def half_overflow(dtype: torch.dtype, size: float) -> Training:
    model = Transformer()
    with torch.no_grad():
        model.blocks[1].mlp[1].weight.fill_(size)
        model.blocks[1].mlp[0].bias.fill_(1.0)

    def loss(model: nn.Module) -> Tensor:
        with torch.autocast("cpu", dtype):
            return text_loss(model)

    return model, loss


def loss_scale_too_large() -> Training:
    model = Regression().half()
    inputs, labels = features()[0].half(), torch.full((BATCH, 1), 3.0).half()
    return model, lambda model: F.mse_loss(model(inputs), labels) * 60000.0


def bad_statistics() -> Training:
    model = Pictures()
    model.body[1].running_var[2] = math.nan
    return pictures(model.eval())


def spread() -> Training:
    model, loss = pictures(Pictures(Spread()))
    return model, loss


CASES = [
    forward("log", -1.0, "aten.log.default"),
    forward("divide", 0.0, "aten.div.Tensor", kind="inf"),
    forward("sqrt", -2.0, "aten.sqrt.default"),
    forward("exp", 100.0, "aten.exp.default", kind="overflow"),
    forward("pow", -1.0, "aten.pow.Tensor_Scalar"),
    forward("zero times inf", -1.0, "aten.mul.Tensor", samples=(0, 1, 2, 4, 5, 6, 7)),
    forward("acos", 1.5, "aten.acos.default"),
    forward("asin", -1.5, "aten.asin.default"),
    forward("atanh", 1.0, "aten.atanh.default", kind="inf"),
    forward("mean of none", 0.5, "aten.mean.default", samples=()),
    forward("logsumexp", 1e4, "aten.exp.default", kind="overflow"),
    forward("reciprocal", 0.0, "aten.reciprocal.default", kind="inf"),
    forward("rsqrt", -1.0, "aten.rsqrt.default"),
    Case("softmax of nothing", all_masked, "aten._softmax.default", "blocks.0.attn", mark="all masked", samples=(5,)),
    Case("norm of zeros", norm_of_zeros, "aten.div.Tensor", "blocks.0.norm", mark="norm of zeros", samples=(2,)),
    Case("variance of one", spread, "aten.var.correction", "body.3", mark="variance of one", samples=ALL),
    Case("after a masked one", lambda: in_block(masked_later, -1.0), "aten.log.default", "blocks.1.scale",
         mark="after a masked one", samples=(3,)),
    Case("in place", lambda: in_block(overwritten, 0.0, other=0.0), "aten.log_.default", "blocks.1.scale",
         kind="inf", mark="in place", samples=ALL),
    Case("after empty", lambda: in_block(unset, -1.0), "aten.log.default", "blocks.1.scale", mark="after empty",
         samples=(3,)),
    backward("sqrt at 0", "aten.div.Tensor"),
    backward("norm at 0", "aten.div.Tensor"),
    backward("where", "aten.div.Tensor", kind="nan"),
    backward("pow at 0", "aten.pow.Tensor_Scalar"),
    backward("hypot at 0", "aten.div.Tensor", kind="nan"),
    backward("acos at 1", "aten.rsqrt.default", samples=ALL),
    backward("std of constant", "aten.div.Tensor", samples=ALL),
    backward("log at 0, masked", "aten.div.Tensor", kind="nan"),
    backward("custom", "aten.div.Tensor", samples=ALL, mark="custom backward"),
    backward("hook", "aten.mul.Tensor", kind="nan", samples=ALL, mark="gradient hook"),
    Case("corrupted embedding", lambda: (changed(Transformer(), "embed.weight", math.nan), text_loss), "parameter",
         "embed", "parameter", argument="embed.weight"),
    Case("corrupted weight", lambda: (changed(Transformer(), "blocks.1.mlp.1.weight", math.nan), text_loss),
         "parameter", "blocks.1.mlp.1", "parameter", argument="blocks.1.mlp.1.weight"),
    Case("huge weight", lambda: (changed(Transformer(), "blocks.0.mlp.3.weight", 3e38), text_loss),
         "aten.addmm.default", "blocks.0.mlp.3", kind="overflow", samples=None, says="blocks.0.mlp.3.weight"),
    Case("spoiled statistics", bad_statistics, "buffer", "body.1", "parameter", argument="body.1.running_var"),
    Case("learning rate too high", blown_up, "aten.bmm.default", "blocks.0.attn", kind="overflow",
         samples=None, says="10 of 10 weights have blown up"),
    Case("float16 overflow", lambda: half_overflow(torch.float16, 8e3), "aten.addmm.default", "blocks.1.mlp.1",
         kind="overflow", says="float16"),
    Case("bfloat16 overflow", lambda: half_overflow(torch.bfloat16, 3e38), "aten.addmm.default", "blocks.1.mlp.1",
         kind="overflow", says="bfloat16"),
    Case("loss scale too large", loss_scale_too_large, "aten.mm.default", "net.2", "backward", "overflow"),
    Case("picture with a NaN", lambda: pictures(Pictures(), math.nan), "input", "(input)", "input", samples=(6,),
         argument="x"),
    Case("row of -Inf", data_row_of_infinities, "input", "(input)", "input", "inf", samples=(4,), argument="features"),
    Case("label inside", label_inside, "input", "(input)", "input", samples=(1,), argument="labels"),
    Case("label outside", label_outside, "loss", "(loss)", "backward", samples=(1,), says="loss function outside"),
    Case("every label ignored", every_label_ignored, "loss", "(loss)", "forward", says="are all of them ignored?"),
    Case("loss inside", loss_inside, "aten.log.default", "", kind="inf", mark="loss inside", samples=ALL),
]  # fmt: skip


def origin_of(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> Origin | None:
    """Run a step up to its commit, as training would, and look for its origin."""
    kept = Recording(model)
    value = loss(model)
    value.backward()
    step = kept.stop()
    step.loss = value.item()
    return find_origin(model, step, guard=Guard(strict=True))


@pytest.mark.filterwarnings("ignore:var\\(\\)")  # of torch, about the variance of one value
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fault_is_named(case: Case) -> None:
    model, loss = case.run()

    origin = origin_of(model, loss)

    assert origin is not None
    found = (origin.op, origin.module, origin.phase, origin.kind, origin.samples, origin.name)
    assert found == (
        case.op,
        case.module,
        case.phase,
        case.kind,
        origin.samples if case.samples is None else case.samples,
        case.argument or origin.name,
    )
    if case.mark:
        assert (str(origin.file).endswith("faulty_models.py"), origin.line) == (True, line_of(case.mark)), origin.code
    assert case.says in origin.text
    assert Origin.from_json(origin.to_json()) == origin
