"""What `tracer.watch` costs: the gradient statistics of a small GPT at each checkpoint, beside bare training."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

from figures import Spread, number, percent
from fresh import fresh, scratch
from report import progress, reporting

_INTERVAL = 100
_ORDER = (True, False, False, True)


class Watched(TypedDict):
    """CPU of the training thread in ms: a block's steps in all, single steps, and the steps of checkpoints."""

    blocks: dict[str, list[float]]
    steps: dict[str, list[float]]
    checkpoints: list[float]
    tensors: int


def training(rounds: int, block: int, folder: str) -> Watched:
    """Train in blocks, each with a run of its own that watches the model, or with none."""
    import tracer
    from models import gpt_step

    model, train = gpt_step()
    blocks: dict[str, list[float]] = {"watched": [], "bare": []}
    steps: dict[str, list[float]] = {"watched": [], "bare": []}
    checkpoints: list[float] = []
    _block(train, lambda _: None, 10)
    for watched in _ORDER * rounds:
        if watched:
            run = tracer.init(
                project="benchmark",
                storage_path=str(Path(folder) / ".tracer"),
                checkpoint_interval=_INTERVAL,
                quiet=True,
            )
            run.watch(model)
            time.sleep(1.0)  # what `init` reads in the background must not be counted as the cost of watching
            taken = _block(train, _recording(tracer), block)
            run.finish()
            checkpoints += taken[_INTERVAL - 1 :: _INTERVAL]
        else:
            taken = _block(train, lambda _: None, block)
        name = "watched" if watched else "bare"
        blocks[name].append(sum(taken))
        steps[name] += taken
    return {"blocks": blocks, "steps": steps, "checkpoints": checkpoints, "tensors": len(list(model.parameters()))}


def _recording(tracer: object) -> Callable[[float], None]:
    """Return what a user's loop does after each step."""
    log, step = tracer.log, tracer.step  # type: ignore[attr-defined]  # the module, imported in the fresh process only

    def record(loss: float) -> None:
        log({"loss": loss})
        step()

    return record


def _block(train: Callable[[], float], record: Callable[[float], None], count: int) -> list[float]:
    """Return the CPU time of each step in ms."""
    taken = []
    for _ in range(count):
        spent = time.thread_time_ns()
        record(train())
        taken.append((time.thread_time_ns() - spent) / 1e6)
    return taken


def main() -> None:
    """Measure, print."""
    how = (
        "A GPT of 0.8 million parameters trains on one core, in blocks with `tracer.watch(model)`, one scalar a step "
        f"and a checkpoint each {_INTERVAL} steps, and in blocks without any run, alternating in one process; "
        "CPU time of the training thread."
    )
    with reporting("watch", "Gradient statistics at checkpoints", how) as report, scratch("watch") as folder:
        progress("watch")
        rounds, block = (1, _INTERVAL) if report.quick else (3, 2 * _INTERVAL)
        found = fresh(training, rounds, block, str(folder), folder=folder)
        watched, bare = (Spread.of(found["blocks"][name]) for name in ("watched", "bare"))
        plain = statistics.median(found["steps"]["bare"])
        checkpoint = Spread.of(found["checkpoints"])
        extra = checkpoint.median - statistics.median(found["steps"]["watched"])
        table = report.table("", "what", "figure")
        table.add("bare step, ms", number(plain))
        table.add("step at a checkpoint, ms, min / median / max", str(checkpoint))
        table.add(f"a checkpoint more than another step, ms ({found['tensors']} tensors, 8 statistics)", number(extra))
        table.add(f"the same, a share of {_INTERVAL} steps", percent(1 + extra / plain / _INTERVAL))
        table.add("whole blocks, at the median", percent(watched.median / bare.median))
        table.add("whole blocks, at the minimum", percent(watched.min / bare.min))


if __name__ == "__main__":
    main()
