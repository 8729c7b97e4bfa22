"""What the statistics of all gradients cost in a training step: the native kernel, the portable way, one value a time.

The file is not called after Python's own module of statistics, which would be hidden from the scripts beside it.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypedDict

from figures import Spread, number, percent
from fresh import fresh, scratch
from report import Bar, Report, progress, reporting

_VOCABULARY, _WIDTH, _LENGTH, _LAYERS, _BATCH = 1000, 256, 64, 4, 8
_LIMITS = {"native": 2.0, "portable": 4.0}
_TITLES = {
    "nothing": "nothing (control)",
    "native": "Tracer, native kernel, 8 statistics",
    "portable": "Tracer, portable, 8 statistics",
    "norm": "Tracer, the norm of all only, native",
    "read": "reading the gradients once (sum of squares, native)",
    "histogram": "Tracer, native, 8 statistics and exact histograms",
    "hook": "a hook per parameter with 8 reductions and `.item()`",
}


class Found(TypedDict):
    """Per mode, in ms of CPU: whole steps, and what came between backward and the optimizer; and what was trained."""

    steps: dict[str, list[float]]
    direct: dict[str, list[float]]
    alone: dict[str, list[float]]
    reason: str
    tensors: int
    parameters: int


def training(rounds: int) -> Found:
    """Train, each step in another mode, so that all of them see the same machine."""
    import torch

    from tracer.capture import native

    torch.set_num_threads(1)
    torch.manual_seed(1)
    model, optimizer, loss_of = _gpt()
    parameters = list(model.parameters())
    modes = _modes(parameters)
    steps: dict[str, list[float]] = {name: [] for name in _TITLES}
    direct: dict[str, list[float]] = {name: [] for name in _TITLES}
    for turn in range(rounds + 2):
        for name in random.sample(list(_TITLES), len(_TITLES)):
            began = time.thread_time_ns()
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of()
            with _hooked(parameters) if name == "hook" else _nothing():
                loss.backward()
            reached = time.thread_time_ns()
            modes[name]()
            took = time.thread_time_ns() - reached
            optimizer.step()
            if turn > 1:  # the first steps make what is kept: gradients, the optimizer's state, buffers
                steps[name].append((time.thread_time_ns() - began) / 1e6)
                direct[name].append(took / 1e6)
    alone = {name: [_timed(modes[name]) for _ in range(min(rounds, 15))] for name in _TITLES if name != "hook"}
    return {
        "steps": steps,
        "direct": direct,
        "alone": alone,
        "reason": native.reason(),
        "tensors": len(parameters),
        "parameters": sum(one.numel() for one in parameters),
    }


def _gpt():  # type: ignore[no-untyped-def]  # noqa: ANN202 -- torch is imported in the fresh process only
    """Return a GPT of 53 tensors, its optimizer, and what computes the loss of a batch."""
    import torch
    from torch import nn

    model = nn.ModuleDict(
        {
            "tokens": nn.Embedding(_VOCABULARY, _WIDTH),
            "places": nn.Embedding(_LENGTH, _WIDTH),
            "blocks": nn.ModuleList(
                nn.TransformerEncoderLayer(_WIDTH, 4, 4 * _WIDTH, dropout=0.0, batch_first=True, norm_first=True)
                for _ in range(_LAYERS)
            ),
            "norm": nn.LayerNorm(_WIDTH),
            "head": nn.Linear(_WIDTH, _VOCABULARY, bias=False),
        }
    )
    text = torch.randint(0, _VOCABULARY, (_BATCH, _LENGTH + 1))
    mask = nn.Transformer.generate_square_subsequent_mask(_LENGTH)

    def loss() -> torch.Tensor:
        x = model["tokens"](text[:, :-1]) + model["places"](torch.arange(_LENGTH))
        for block in model["blocks"]:  # type: ignore[attr-defined]
            x = block(x, src_mask=mask, is_causal=True)
        logits = model["head"](model["norm"](x))
        return nn.functional.cross_entropy(logits.reshape(-1, _VOCABULARY), text[:, 1:].reshape(-1))

    return model, torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True), loss


def _modes(parameters):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 -- torch again
    """Return what each mode does between backward and the optimizer."""
    from tracer.capture import native, reductions
    from tracer.capture.histograms import exponent_histograms
    from tracer.events import Axis

    names = tuple(str(at) for at in range(len(parameters)))
    axis = Axis("gradients", names, ("histogram",), [tuple(one.shape) for one in parameters])

    def gradients() -> list[object]:
        return [one.grad for one in parameters]

    def all_statistics() -> None:
        reductions.Reduction(gradients()).figures()

    def portable() -> None:
        with native.switched_off():
            all_statistics()

    def with_histogram() -> None:
        all_statistics()
        exponent_histograms(gradients(), axis)

    return {
        "nothing": lambda: None,
        "native": all_statistics,
        "portable": portable,
        "norm": lambda: reductions.total_norm(gradients()),
        "read": lambda: reductions.norms(gradients()),
        "histogram": with_histogram,
        "hook": lambda: None,
    }


@contextmanager
def _nothing() -> Iterator[None]:
    """Hook nothing."""
    yield


@contextmanager
def _hooked(parameters) -> Iterator[None]:  # type: ignore[no-untyped-def]  # noqa: ANN001 -- torch again
    """Measure as the Tracer documents show it: in a hook of each parameter, one value after the other."""
    kept: list[dict[str, float]] = []

    def hook(gradient) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        kept.append(
            {
                "norm": gradient.norm().item(),
                "mean": gradient.mean().item(),
                "std": gradient.std().item() if gradient.numel() > 1 else 0.0,
                "max": gradient.max().item(),
                "min": gradient.min().item(),
                "num_zeros": (gradient == 0).sum().item(),
                "num_nans": gradient.isnan().sum().item(),
                "num_infs": gradient.isinf().sum().item(),
            }
        )

    handles = [one.register_hook(hook) for one in parameters]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _timed(call: Callable[[], object]) -> float:
    """Return how long a call takes, in ms."""
    began = time.thread_time_ns()
    call()
    return (time.thread_time_ns() - began) / 1e6


def tell(report: Report, found: Found) -> None:
    """Write the table and judge."""
    step = statistics.median(found["steps"]["nothing"])
    table = report.table(
        "", "between backward and optimizer", "ms, min / median / max", "share of the step", "whole step", "warm, ms"
    )
    for name, title in _TITLES.items():
        direct = Spread.of(found["direct"][name])
        whole = statistics.median(found["steps"][name]) / step
        inside = name == "hook"  # its work is done inside backward
        table.add(
            title,
            "inside backward" if inside else str(direct),
            "" if inside else percent(1 + direct.median / step),
            percent(whole),
            number(statistics.median(found["alone"][name])) if name in found["alone"] else "",
        )
    for name, limit in _LIMITS.items():
        direct = Spread.of(found["direct"][name])
        report.bars.append(
            Bar.at_most(
                f"8 statistics of {found['tensors']} gradients, {name}, of a step of {step:.0f} ms",
                limit,
                "%",
                100 * direct.median / step,
                100 * direct.min / step,
            )
        )
    report.notes += [
        f"The native kernel is {found['reason']}.",
        (
            "The share of the step is the time between backward and optimizer over the median step without; the whole "
            "step's ratio says the same with the noise of a whole step. Warm means again and again on the same "
            "gradients."
        ),
    ]


def main() -> None:
    """Measure, judge, print."""
    how = (
        f"A GPT of {_LAYERS} layers, width {_WIDTH}, vocabulary {_VOCABULARY}, length {_LENGTH} and batch {_BATCH} "
        "trains on one core with fused AdamW; the steps take turns in what they do with the gradients. CPU time of the "
        "training thread."
    )
    with reporting("tensor_statistics", "Statistics of all gradients", how) as report, scratch("statistics") as folder:
        progress("tensor_statistics")
        tell(report, fresh(training, 6 if report.quick else 40, folder=folder))


if __name__ == "__main__":
    main()
