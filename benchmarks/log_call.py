"""What one `log` call costs the thread that calls it, for 1, 3, 10 and 100 keys, beside the peers."""

from __future__ import annotations

import itertools
import statistics
import time
from pathlib import Path
from typing import TypedDict

from contestants import CONTESTANTS, counted, pool
from figures import TIMES, Spread, number
from fresh import fresh, scratch
from report import Bar, Report, progress, reporting

_KEYS = (1, 3, 10, 100)
_LIMITS_US = {1: 1.0, 10: 2.5, 100: 6.0}
_RATIOS = {1: 30.0, 100: 50.0}
_WARM_UP_MS = 20.0


class Loop(TypedDict):
    """What one process measured, in ns of one call: a figure per batch, and all threads' CPU until `finish` ended."""

    cpu: list[float]
    wall: list[float]
    calls: int
    threads: float


def tight_loop(which: str, keys: int, batches: int, batch_ms: float, folder: str) -> Loop:
    """Time batches of calls on prepared dictionaries; a batch is as long as the contestant's cost asks for."""
    log, finish = CONTESTANTS[which].open(Path(folder))
    metrics = pool(keys)
    calls = size = 25
    cost = _batch(log, metrics, 0, size)[0]
    while cost * size < _WARM_UP_MS * 1e6:
        size *= 2
        cost = _batch(log, metrics, calls, size)[0]
        calls += size
    size = max(10, int(batch_ms * 1e6 / cost))
    cpu, wall = [], []
    every_thread = time.process_time_ns()
    for _ in range(batches):
        spent, took = _batch(log, metrics, calls, size)
        cpu.append(spent)
        wall.append(took)
        calls += size
    finish()
    threads = (time.process_time_ns() - every_thread) / (batches * size)
    return {"cpu": cpu, "wall": wall, "calls": calls, "threads": threads}


def _batch(log: object, metrics: list[dict[str, float]], first: int, size: int) -> tuple[float, float]:
    """Return CPU and wall time of one call, averaged over a batch; the loop itself is in it, some 40 ns."""
    assert callable(log)  # noqa: S101 -- for the type checker
    calls = zip(range(first, first + size), itertools.cycle(metrics), strict=False)
    wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
    for step, values in calls:
        log(values, step=step)
    return (time.thread_time_ns() - cpu) / size, (time.perf_counter_ns() - wall) / size


def measured(report: Report, keys: int, rounds: int, batches: int, batch_ms: float) -> dict[str, list[Loop]]:
    """Let the contestants take turns, each turn in a process of its own whose points are then counted."""
    loops: dict[str, list[Loop]] = {which: [] for which in CONTESTANTS}
    for turn, which in itertools.product(range(rounds), CONTESTANTS):
        progress(f"{report.name}: {keys} keys, round {turn + 1} of {rounds}, {which}")
        with scratch(f"{report.name}-{which}") as folder:
            loop = fresh(tight_loop, which, keys, batches, batch_ms, str(folder), folder=folder)
            loops[which].append(loop)
            if CONTESTANTS[which].steps is not None:
                kept = fresh(counted, which, str(folder), folder=folder)
                if [tuple(kept.get(name, ())) for name in pool(keys)[0]] != [(loop["calls"], loop["calls"])] * keys:
                    message = f"{which} kept {kept} of {loop['calls']} calls with {keys} keys: nothing to compare."
                    raise RuntimeError(message)
    return loops


def tell(report: Report, keys: int, loops: dict[str, list[Loop]]) -> None:
    """Add the table and the bars for one number of keys."""
    cpu = {which: Spread.of([ns for loop in found for ns in loop["cpu"]]) / 1e3 for which, found in loops.items()}
    ours, called = cpu["tracer"], f"{keys} {'key' if keys == 1 else 'keys'}"
    table = report.table(
        called,
        *("logger", "CPU µs min / median / max", "ratio at the median", "ratio at the min"),
        *("wall µs median", "CPU µs of all threads", "when `log` returned, a value is"),
    )
    for which, contestant in CONTESTANTS.items():
        spread = cpu[which]
        ratios = (f"{number(spread.median / ours.median)}{TIMES}", f"{number(spread.min / ours.min)}{TIMES}")
        wall = statistics.median(ns for loop in loops[which] for ns in loop["wall"]) / 1e3
        threads = statistics.median(loop["threads"] for loop in loops[which]) / 1e3
        table.add(contestant.title, str(spread), *ratios, wall, threads, contestant.safe)
    if keys in _LIMITS_US:
        title = '`log({"loss": x})`' if keys == 1 else f"`log` of {called}"
        report.bars.append(Bar.at_most(title, _LIMITS_US[keys], "µs", ours.median, ours.min))
    if keys in _RATIOS:
        cheaper = min(cpu["tensorboard"], cpu["tensorboard-queued"], key=lambda spread: spread.median)
        for which, spread in (("tensorboard", cheaper), ("wandb", cpu["wandb"])):
            what = f"`log` of {called}, cheaper than {CONTESTANTS[which].title}"
            ratio, best = spread.median / ours.median, spread.min / ours.min
            report.bars.append(Bar.at_least(what, _RATIOS[keys], TIMES, ratio, best))


def main() -> None:
    """Measure, judge, print."""
    how = (
        "CPU time of the calling thread for one `log(metrics, step=step)`, in µs: smallest, median and largest average "
        "of a batch. Each turn is a process of its own, the contestants take turns, and every point is read back "
        "afterwards. Ratios are to Tracer's figure in the same rounds."
    )
    with reporting("log_call", "What a `log` call costs", how) as report:
        rounds, batches, batch_ms = (1, 5, 10.0) if report.quick else (3, 20, 50.0)
        for keys in _KEYS:
            tell(report, keys, measured(report, keys, rounds, batches, batch_ms))
        report.notes += [
            "TensorBoard's users call `add_scalar` once for each key; its bar takes the cheaper of its two rows.",
            "`list.append` stands for the least that recording can cost: a tuple with the time, kept in memory.",
            (
                "All threads: CPU of the process from the first batch until `finish` has ended, a call. It leaves "
                "out W&B's service process and Tracer's companion, which folds long runs at low priority."
            ),
        ]


if __name__ == "__main__":
    main()
