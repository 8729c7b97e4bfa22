"""Models and training steps to record in one process and replay in another: each case is a function by its name."""

# ruff: noqa: ANN401, D102 -- a forward takes what it takes, and needs no sentence

from __future__ import annotations

import dataclasses
import glob
import os
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_ as imported_by_name
from torch.utils.checkpoint import checkpoint

from tracer.flight.recorder import FlightRecorder
from tracer.flight.settings import FlightConfig
from tracer.flight.steps import Step
from tracer.sink import Guard

Pair = namedtuple("Pair", ["first", "second"])  # noqa: PYI024 -- untyped ones are common, and must work too


@dataclasses.dataclass
class Result:
    """An output that is a dataclass."""

    logits: Tensor
    extra: dict[str, Any]


class Small(nn.Module):
    """Dropout, normalisation over the batch, and enough layers to drift in."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.norm = nn.BatchNorm1d(16)
        self.drop = nn.Dropout(0.3)
        self.blocks = nn.ModuleList([nn.Linear(16, 16) for _ in range(3)])
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(torch.relu(self.norm(self.embed(x))))
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        out: Tensor = self.head(x)
        return out


class Keywords(Small):
    """Takes keyword arguments only, nested, with text and None among them."""

    def forward(self, *, batch: dict[str, Any], pair: Any, mode: str = "a", skip: None = None) -> Tensor:
        assert skip is None
        x = super().forward(batch["x"] if mode == "a" else batch["list"][0][0])
        out: Tensor = x + pair.first.sum() * pair.second
        return out


class Nested(Small):
    """Returns tensors in tuples, dictionaries and a dataclass; one is not differentiable."""

    def forward(self, x: Tensor) -> Any:
        out = super().forward(x)
        return {"parts": (out, [out.argmax(1)]), "result": Result(out * 2, {"norm": out.norm(), "name": "n"})}


class Checkpointed(Small):
    """Computes its blocks again in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = checkpoint(lambda y, layer=block: self.drop(torch.tanh(layer(y))), x, use_reentrant=False)
        out: Tensor = self.head(x)
        return out


class Tied(nn.Module):
    """One weight in two places, and part of the model frozen and in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.norm = nn.BatchNorm1d(6)
        self.frozen = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight
        self.frozen.requires_grad_(False)
        self.norm.eval()

    def forward(self, x: Tensor) -> Tensor:
        y = self.embedding(x).mean(1)
        out: Tensor = self.head(self.frozen(self.norm(y)))
        return out


class Conv(nn.Module):
    """Images with the channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))
        return out


def small() -> nn.Module:
    return Small()


def keywords() -> nn.Module:
    return Keywords()


def nested() -> nn.Module:
    return Nested()


def checkpointed() -> nn.Module:
    return Checkpointed()


def tied() -> nn.Module:
    return Tied()


def conv() -> nn.Module:
    return Conv().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def compiled() -> nn.Module:
    return Small()


def gpt() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=40, n_positions=16))


# The steps: each trains a model up to the moment before the optimizer's step, and yields when the step may be recorded.

Backward = Callable[[nn.Module], None]


def plain(model: nn.Module) -> None:
    model(torch.randn(6, 8)).square().mean().backward()


def accumulation(model: nn.Module) -> None:
    for _ in range(3):
        (model(torch.randn(6, 8)).square().mean() / 3).backward()


def clipped_by_name(model: nn.Module) -> None:
    (model(torch.randn(6, 8)).square().sum() * 100).backward()
    imported_by_name(model.parameters(), 0.25)


def several_calls(model: nn.Module) -> None:
    outs = [model(torch.randn(6, 8)) for _ in range(4)]
    sum(out.square().mean() * (i + 1) for i, out in enumerate(outs)).backward()  # type: ignore[union-attr]


def retained(model: nn.Module) -> None:
    out = model(torch.randn(6, 8))
    out.square().mean().backward(retain_graph=True)
    out.abs().sum().backward()


def bf16(model: nn.Module) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(torch.randn(6, 8)).float().square().mean()
    loss.backward()


def keyword_batch(model: nn.Module) -> None:
    x = torch.randn(6, 8)
    batch = {"x": x, "list": [(x,)], 3: "three", "none": None, "nan": float("nan")}
    model(batch=batch, pair=Pair(torch.randn(3), 2), mode="b").square().mean().backward()


def nested_loss(model: nn.Module) -> None:
    out = model(torch.randn(6, 8))
    (out["parts"][0].sum() + out["result"].logits.square().sum() + out["result"].extra["norm"]).backward()


def tokens(model: nn.Module) -> None:
    model(torch.randint(0, 11, (5, 7))).logsumexp(1).mean().backward()


def images(model: nn.Module) -> None:
    model(torch.randn(4, 3, 9, 9).to(memory_format=torch.channels_last)).square().mean().backward()


def language(model: nn.Module) -> None:
    ids = torch.randint(0, 40, (3, 9))
    model(input_ids=ids, labels=ids).loss.backward()


def penalised(model: nn.Module) -> None:
    loss = model(torch.randn(6, 8)).square().mean()
    (loss + 0.1 * model.get_parameter("blocks.1.weight").pow(2).sum()).backward()


def noisy_after(model: nn.Module) -> None:
    plain(model)
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.add_(torch.randn_like(parameter.grad))


def nan(model: nn.Module) -> None:
    x = torch.randn(6, 8)
    x[3, 2] = float("nan")
    model(x).square().mean().backward()


def scaled(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Scale the loss as GradScaler does; the optimizer may divide by the scale itself."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with torch.autocast("cpu", torch.float16):
        loss = model(torch.randn(6, 8)).float().square().mean()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()


def scaled_and_clipped(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(model(torch.randn(6, 8)).square().sum() * 9).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    scaler.step(optimizer)
    scaler.update()


def clipped(model: nn.Module) -> None:
    (model(torch.randn(6, 8)).square().sum() * 100).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.25)


def clipped_by_value(model: nn.Module) -> None:
    (model(torch.randn(6, 8)).square().sum() * 100).backward()
    torch.nn.utils.clip_grad_value_(model.parameters(), 0.01)


def then_step(backward: Backward) -> Callable[[nn.Module, torch.optim.Optimizer], None]:
    """Return a step of training: backward, then the optimizer."""

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        backward(model)
        optimizer.step()

    return step


#: Case → what builds the model, and a step of its training.
CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, torch.optim.Optimizer], None]]] = {
    "dropout-batchnorm": (small, then_step(plain)),
    "accumulation": (small, then_step(accumulation)),
    "clipped": (small, then_step(clipped)),
    "clipped-by-value": (small, then_step(clipped_by_value)),
    "clipped-by-name": (small, then_step(clipped_by_name)),
    "several-calls": (small, then_step(several_calls)),
    "retain-graph": (small, then_step(retained)),
    "bf16": (small, then_step(bf16)),
    "scaler": (small, scaled),
    "scaler-fused": (small, scaled),
    "scaler-clipped": (small, scaled_and_clipped),
    "keywords": (keywords, then_step(keyword_batch)),
    "nested-outputs": (nested, then_step(nested_loss)),
    "checkpointing": (checkpointed, then_step(plain)),
    "tied-frozen": (tied, then_step(tokens)),
    "channels-last": (conv, then_step(images)),
    "gpt2-loss": (gpt, then_step(language)),
    "nan-row": (small, then_step(nan)),
}


def recorded(name: str, folder: str, *, steps: int = 2, before: int | None = None) -> str:
    """Train a case with a recorder for some steps, and return the capsule of the next one.

    Args:
        name: The case.
        folder: Where the capsule is written.
        steps: How many steps come before it.
        before: How many of them are kept from a snapshot on.
    """
    build, step = CASES.get(name, (small, then_step(plain)))
    torch.manual_seed(7)
    model = build()
    run = torch.compile(model) if name == "compiled" else model
    optimizer = torch.optim.AdamW(
        [one for one in model.parameters() if one.requires_grad], lr=1e-2, fused=name == "scaler-fused"
    )
    config = FlightConfig(upstream="on", signal="off", stall_s="off", snapshots=before or "off")
    with FlightRecorder(run, optimizer, config, folder=folder) as recorder:
        for _ in range(steps):
            (then_step(plain) if name == "nan-row" else step)(run, optimizer)
            optimizer.zero_grad()
        if name != "nan-row":  # that one speaks for itself
            recorder.request()
        step(run, optimizer)
    (path,) = glob.glob(os.path.join(folder, "*.trc"))
    return path


def recorded_step(model: nn.Module, backward: Callable[[nn.Module], object], *, upstream: str = "on") -> Step:
    """Return what a recorder keeps of a step that its optimizer has not taken yet."""
    config = FlightConfig(upstream=upstream, signal="off", stall_s="off", diagnose=False)
    recorder = FlightRecorder(model, config=config, guard=Guard(strict=True))
    backward(model)
    step = recorder._calls.step
    recorder.stop()
    return step
