"""How long `init` and `finish` take, after 100,000 calls, and how much memory the process then has."""

from __future__ import annotations

import itertools
import resource
import time
from pathlib import Path
from typing import TypedDict

from contestants import CONTESTANTS, PEERS, pool
from figures import Spread
from fresh import fresh, scratch
from report import progress, reporting


class Ends(TypedDict):
    """What one process measured."""

    init_ms: float
    finish_ms: float
    memory_mb: float


def begin_and_end(which: str, calls: int, folder: str) -> Ends:
    """Open, log, finish."""
    warmed = {"tensorboard": "torch.utils.tensorboard"}.get(which, which)
    __import__(warmed)  # an import is another script's figure
    began = time.perf_counter()
    log, finish = CONTESTANTS[which].open(Path(folder))
    opened = time.perf_counter() - began
    for step, metrics in zip(range(calls), itertools.cycle(pool(3)), strict=False):
        log(metrics, step=step)
    began = time.perf_counter()
    finish()
    ended = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"init_ms": opened * 1e3, "finish_ms": ended * 1e3, "memory_mb": peak}


def main() -> None:
    """Measure, print."""
    how = (
        "Fresh processes that import, begin a run, log three keys a call, and finish; wall time, ms min / median / max."
    )
    with reporting("finish", "`init` and `finish`", how) as report:
        calls, repeats, peer_repeats = (2_000, 1, 1) if report.quick else (100_000, 9, 3)
        found: dict[str, list[Ends]] = {which: [] for which in ("tracer", *PEERS)}
        for turn, which in itertools.product(range(repeats), found):
            if which == "tracer" or turn < peer_repeats:
                progress(f"finish: round {turn + 1} of {repeats}, {which}")
                with scratch(f"finish-{which}") as folder:
                    found[which].append(fresh(begin_and_end, which, calls, str(folder), folder=folder))
        table = report.table("", "logger", "`init`", f"`finish` after {calls:,} calls", "peak memory MB")
        for which, ends in found.items():
            spreads = [str(Spread.of([end[key] for end in ends])) for key in ("init_ms", "finish_ms")]
            table.add(CONTESTANTS[which].title, *spreads, Spread.of([end["memory_mb"] for end in ends]).median)
        report.notes.append("W&B's service process has memory of its own beside this.")


if __name__ == "__main__":
    main()
