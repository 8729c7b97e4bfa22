"""Models of the usual kinds with places for faults; the line of each fault bears a mark: `fault: its name`."""

# ruff: noqa: D102, ARG005 -- models have a `forward`, and faults take the same arguments

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F  # noqa: N812 -- its usual name

BATCH, LENGTH, WIDTH, VOCABULARY = 8, 6, 16, 32


def line_of(fault: str) -> int:
    """Return the line that bears the mark of a fault."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    [found] = [number for number, line in enumerate(lines, 1) if line.endswith(f"# fault: {fault}")]
    return found


class Attention(nn.Module):
    """Causal attention with -Inf for what must not be seen, and for padding."""

    def __init__(self, *, additive: bool = False) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.additive = additive
        self.register_buffer("mask", torch.triu(torch.full((LENGTH, LENGTH), -math.inf), 1))

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        scores = q @ k.transpose(-1, -2) / k.shape[-1] ** 0.5  # fault: scores
        scores = scores + self.mask if self.additive else scores.masked_fill(self.mask < 0, -math.inf)
        if padding is not None:
            scores = scores.masked_fill(padding[:, None, None, :], -math.inf)
        weights = scores.softmax(-1)  # fault: all masked
        return self.out((weights @ v).transpose(1, 2).flatten(-2))


class Plain(nn.Module):
    """Changes nothing."""

    def forward(self, x: Tensor, gain: Tensor) -> Tensor:  # noqa: ARG002 -- as its faulty siblings
        return x


class Faulty(nn.Module):
    """Does to the hidden values what it is told, with a number per sample; `w` is a weight of 1."""

    def __init__(self, fault: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1, 1, WIDTH))
        self.fault = fault

    def forward(self, x: Tensor, gain: Tensor) -> Tensor:
        return self.fault(x, gain[:, None, None], self.w)


class RootMeanSquare(nn.Module):
    """A norm without an epsilon."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.pow(2).mean(-1, keepdim=True).sqrt()  # fault: norm of zeros


class Block(nn.Module):
    """Attention, a small network, and a place for a fault."""

    def __init__(
        self, scale: nn.Module | None = None, norm: nn.Module | None = None, *, additive: bool = False
    ) -> None:
        super().__init__()
        self.norm = norm or nn.LayerNorm(WIDTH)
        self.attn = Attention(additive=additive)
        self.mlp = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )
        self.scale = scale or Plain()

    def forward(self, x: Tensor, gain: Tensor, padding: Tensor | None) -> Tensor:
        x = x + self.attn(self.norm(x), padding)
        return self.scale(x + self.mlp(x), gain)


class Transformer(nn.Module):
    """Returns logits, or the loss when it is given labels."""

    def __init__(self, *blocks: Block) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH, padding_idx=0)
        self.blocks = nn.ModuleList(blocks or (Block(), Block()))
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(
        self, ids: Tensor, gain: Tensor | None = None, padding: Tensor | None = None, labels: Tensor | None = None
    ) -> Tensor:
        x = self.embed(ids)
        gain = torch.ones(len(ids)) if gain is None else gain
        for block in self.blocks:
            x = block(self.drop(x), gain, padding)
        logits = self.head(x)
        if labels is None:
            return logits
        chosen = logits.softmax(-1).gather(-1, labels[..., None])
        return -chosen.log().mean()  # fault: loss inside


class Pictures(nn.Module):
    """Convolutions with batch statistics."""

    def __init__(self, middle: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            middle or nn.Identity(),
            nn.Conv2d(8, 8, 3, stride=2),
        )
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


class Spread(nn.Module):
    """Divides by the deviation of each picture's single brightest value."""

    def forward(self, x: Tensor) -> Tensor:
        brightest = x.amax((2, 3), keepdim=True)
        return x * brightest.var((2, 3), keepdim=True)  # fault: variance of one


class Regression(nn.Module):
    """A small network that measures its own error when it is given the truth."""

    def __init__(self, *inside: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 32), nn.Tanh(), *inside, nn.Linear(32, 1))

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        out = self.net(features)
        return out if labels is None else F.mse_loss(out, labels)


class Wrong(torch.autograd.Function):
    """Its derivative divides by zero."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return gradient / (x - x)  # fault: custom backward


def spoil_gradient(gradient: Tensor) -> Tensor:
    return gradient * math.nan  # fault: gradient hook


def with_hook(x: Tensor, gain: Tensor, w: Tensor) -> Tensor:  # noqa: ARG001
    y = x * w
    y.register_hook(spoil_gradient)
    return y


def masked_later(x: Tensor, gain: Tensor, w: Tensor) -> Tensor:
    ratio = 1 / (gain - gain)  # an Inf that nobody sees: the next line leaves it out
    x = torch.where(torch.isfinite(ratio), ratio, w) * x
    return x * gain.log()  # fault: after a masked one


def overwritten(x: Tensor, gain: Tensor, w: Tensor) -> Tensor:  # noqa: ARG001
    y = x.clone()
    y.mul_(gain).log_()  # fault: in place
    return y


def unset(x: Tensor, gain: Tensor, w: Tensor) -> Tensor:  # noqa: ARG001
    room = torch.empty_like(x)
    room.copy_(x)
    return room * gain.log()  # fault: after empty


# fmt: off
FORWARD: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "log": lambda x, gain, w: x * gain.log(),  # fault: log
    "divide": lambda x, gain, w: x / gain,  # fault: divide
    "sqrt": lambda x, gain, w: x * gain.sqrt(),  # fault: sqrt
    "exp": lambda x, gain, w: x * gain.exp(),  # fault: exp
    "pow": lambda x, gain, w: x * gain**0.3,  # fault: pow
    "zero times inf": lambda x, gain, w: x + (gain < 0) * -math.inf,  # fault: zero times inf
    "acos": lambda x, gain, w: x * gain.acos(),  # fault: acos
    "asin": lambda x, gain, w: x * torch.asin(gain),  # fault: asin
    "atanh": lambda x, gain, w: x * gain.atanh(),  # fault: atanh
    "mean of none": lambda x, gain, w: x + x[gain.flatten() > 99].mean(),  # fault: mean of none
    "logsumexp": lambda x, gain, w: x * (x * gain).exp().sum(-1, keepdim=True).log(),  # fault: logsumexp
    "reciprocal": lambda x, gain, w: x * gain.reciprocal(),  # fault: reciprocal
    "rsqrt": lambda x, gain, w: x * gain.rsqrt(),  # fault: rsqrt
}
BACKWARD: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "sqrt at 0": lambda x, gain, w: x + (w * gain).sqrt(),  # fault: sqrt at 0
    "norm at 0": lambda x, gain, w: x + (w * gain).pow(2).sum(-1, keepdim=True).sqrt(),  # fault: norm at 0
    "where": lambda x, gain, w: x + torch.where(gain > 0, (w * gain).sqrt(), 0.0),  # fault: where
    "pow at 0": lambda x, gain, w: x + (w * gain).pow(0.5),  # fault: pow at 0
    "hypot at 0": lambda x, gain, w: x + torch.hypot(w * gain, w * gain),  # fault: hypot at 0
    "acos at 1": lambda x, gain, w: x + torch.acos(w + 0 * gain),  # fault: acos at 1
    "std of constant": lambda x, gain, w: x + (w * gain + x * 0).var(-1, keepdim=True).sqrt(),  # fault: std of constant
    "log at 0, masked": lambda x, gain, w: x + torch.where(gain > 0, (w * gain).log(), 0.0),  # fault: log at 0, masked
    "custom": lambda x, gain, w: Wrong.apply(x),
    "hook": with_hook,
}
# fmt: on
