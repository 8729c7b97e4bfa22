"""What watching every gradient costs: Tracer natively and in Python, W&B's watch, and a hook per parameter."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypedDict

from figures import Spread, number, percent
from fresh import fresh, scratch
from report import progress, reporting

#: In the order in which they take turns.
MODES = ("bare", "tracer, native", "tracer, portable", "hook per parameter", "wandb.watch", "bare again")
_BLOCK, _WARM_UP = 8, 2

Training = Callable[[], float]


class Watched(TypedDict):
    """CPU of the training thread: each mode's steps in ms; and the direct time of our own part, in ms a step."""

    steps: dict[str, list[float]]
    direct: dict[str, list[float]]
    tensors: int


def training(rounds: int, folder: str) -> Watched:
    """Train in short blocks, each mode in turn."""
    from models import wide_gpt_step

    model, train = wide_gpt_step()
    steps: dict[str, list[float]] = {mode: [] for mode in MODES}
    direct: dict[str, list[float]] = {mode: [] for mode in MODES[1:3]}
    contexts = {
        "bare": lambda: contextlib.nullcontext(train),
        "bare again": lambda: contextlib.nullcontext(train),
        "tracer, native": lambda: _tracer(model, train, folder, direct["tracer, native"]),
        "tracer, portable": lambda: _portable(model, train, folder, direct["tracer, portable"]),
        "hook per parameter": lambda: _hooks(model, train),
        "wandb.watch": lambda: _wandb(model, train, folder),
    }
    for _ in range(10):
        train()
    for round_ in range(rounds):
        for mode in MODES if round_ % 2 else reversed(MODES):
            with contexts[mode]() as step:
                taken = [_timed(step) for _ in range(_WARM_UP + _BLOCK)]
            steps[mode] += taken[_WARM_UP:]
    return {"steps": steps, "direct": direct, "tensors": len(list(model.parameters()))}


@contextlib.contextmanager
def _tracer(model: object, train: Training, folder: str, direct: list[float]) -> Iterator[Training]:
    """Watch all gradients at every step, in a run that records nothing else beside the loss."""
    import tracer

    run = tracer.init(
        project="benchmark", storage_path=str(Path(folder) / ".tracer"), quiet=True, max_overhead=1.0,
        track_system_metrics=False, track_git=False, track_environment=False, maintain="off",
    )  # fmt: skip
    run.watch(model, weights=False, updates=False, activations=False, histograms=False, flight=False)

    def step() -> float:
        loss = train()
        tracer.log({"loss": loss})
        tracer.step()
        return loss

    yield step
    cost = run.cost()
    direct.append(1000 * cost["parts"]["gradients"] / (_WARM_UP + _BLOCK))
    run.finish()


@contextlib.contextmanager
def _portable(model: object, train: Training, folder: str, direct: list[float]) -> Iterator[Training]:
    """Watch without the native kernel."""
    from tracer.capture import native

    with native.switched_off(), _tracer(model, train, folder, direct) as step:
        yield step


@contextlib.contextmanager
def _hooks(model: object, train: Training) -> Iterator[Training]:
    """Reduce each gradient by itself as it comes, reading every figure at once."""
    import torch

    found: dict[str, dict[str, float]] = {}

    def hook(name: str) -> Callable[[torch.Tensor], None]:
        def look(gradient: torch.Tensor) -> None:
            found[name] = {
                "norm": gradient.norm().item(), "mean": gradient.mean().item(), "std": gradient.std().item(),
                "max": gradient.max().item(), "min": gradient.min().item(),
                "num_zeros": int((gradient == 0).sum().item()), "num_nans": int(torch.isnan(gradient).sum().item()),
                "num_infs": int(torch.isinf(gradient).sum().item()),
            }  # fmt: skip

        return look

    handles = [one.register_hook(hook(name)) for name, one in model.named_parameters()]  # type: ignore[attr-defined]
    yield train
    for handle in handles:
        handle.remove()


@contextlib.contextmanager
def _wandb(model: object, train: Training, folder: str) -> Iterator[Training]:
    """Watch with W&B, offline, at every step."""
    import wandb

    run = wandb.init(
        project="benchmark", mode="offline", dir=folder, reinit="finish_previous",
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True),
    )  # fmt: skip
    run.watch(model, log="gradients", log_freq=1)  # type: ignore[arg-type]  # a module

    def step() -> float:
        loss = train()
        run.log({"loss": loss})
        return loss

    yield step
    run.unwatch(model)  # type: ignore[arg-type]  # as above
    run.finish()


def _timed(step: Training) -> float:
    """Return the CPU time of a step in ms."""
    spent = time.thread_time_ns()
    step()
    return (time.thread_time_ns() - spent) / 1e6


def main() -> None:
    """Measure, print."""
    os.environ.setdefault("WANDB_MODE", "offline")
    how = (
        "A GPT of four layers and 3.7 million parameters trains on one core, in blocks of "
        f"{_BLOCK} steps in which the gradients of every step are watched in one of several ways, taking turns in one "
        "process; CPU time of the training thread. Eight statistics of each gradient, no checkpoint, no flight "
        "recorder. `direct` is the time of our own code alone, which the noise of whole steps does not touch."
    )
    with reporting("watch", "Watching every gradient", how) as report, scratch("watch") as folder:
        progress("watch")
        found = fresh(training, 3 if report.quick else 12, str(folder), folder=folder)
        bare = found["steps"]["bare"] + found["steps"]["bare again"]
        base, least = statistics.median(bare), min(bare)
        table = report.table("", "mode", "ms, min / median / max", "at the median", "at the minimum", "direct")
        for mode in MODES:
            steps = Spread.of(found["steps"][mode])
            direct = found["direct"].get(mode)
            share = percent(1 + statistics.median(direct) / base) if direct else ""
            shown = f"{number(statistics.median(direct))} ms, {share}" if direct else ""
            table.add(mode, str(steps), percent(steps.median / base), percent(steps.min / least), shown)


if __name__ == "__main__":
    main()
