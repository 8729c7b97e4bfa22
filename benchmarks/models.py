"""The two models whose steps are measured: a small perceptron of about 3 ms a step, and a small character GPT."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

_WIDTH, _BATCH = 384, 64
_VOCABULARY, _CONTEXT, _CHANNELS, _HEADS, _LAYERS, _GPT_BATCH = 64, 64, 128, 4, 4, 8


def perceptron_step() -> Callable[[], float]:
    """Return a training step of about 3 ms on one core: forward, backward, optimizer; it returns the loss."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = nn.Sequential(
        *(layer for _ in range(4) for layer in (nn.Linear(_WIDTH, _WIDTH), nn.ReLU())), nn.Linear(_WIDTH, 10)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    inputs, targets = torch.randn(_BATCH, _WIDTH), torch.randint(0, 10, (_BATCH,))

    def step() -> float:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not say
        optimizer.step()
        return float(loss.detach())

    return step


class Block(nn.Module):
    """One layer of the GPT: attention, then a perceptron, each beside a residual path."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_perceptron = nn.LayerNorm(_CHANNELS), nn.LayerNorm(_CHANNELS)
        self.attend, self.project = nn.Linear(_CHANNELS, 3 * _CHANNELS), nn.Linear(_CHANNELS, _CHANNELS)
        self.widen, self.narrow = nn.Linear(_CHANNELS, 4 * _CHANNELS), nn.Linear(4 * _CHANNELS, _CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch of sequences."""
        batch, length, channels = x.shape
        heads = self.attend(self.before_attention(x)).view(batch, length, 3, _HEADS, channels // _HEADS)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.project(mixed.transpose(1, 2).reshape(batch, length, channels))
        out: Tensor = x + self.narrow(functional.gelu(self.widen(self.before_perceptron(x))))
        return out


class GPT(nn.Module):
    """A character transformer with 53 parameter tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(_VOCABULARY, _CHANNELS), nn.Embedding(_CONTEXT, _CHANNELS)
        self.blocks = nn.ModuleList(Block() for _ in range(_LAYERS))
        self.norm = nn.LayerNorm(_CHANNELS)
        self.head = nn.Linear(_CHANNELS, _VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of each next character."""
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(self.norm(x))
        return out


def wide_gpt_step() -> tuple[GPT, Callable[[], float]]:
    """Return a GPT of 3.7 million parameters, of width 256 and with 1,000 tokens, and its training step on one core."""
    global _VOCABULARY, _CHANNELS
    _VOCABULARY, _CHANNELS = 1000, 256
    return gpt_step()


def gpt_step() -> tuple[GPT, Callable[[], float]]:
    """Return the GPT and its training step on one core."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = GPT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    text = torch.randint(0, _VOCABULARY, (_GPT_BATCH, _CONTEXT + 1))

    def step() -> float:
        optimizer.zero_grad()
        logits = model(text[:, :-1])
        loss = functional.cross_entropy(logits.reshape(-1, _VOCABULARY), text[:, 1:].reshape(-1))
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not say
        optimizer.step()
        return float(loss.detach())

    return model, step
