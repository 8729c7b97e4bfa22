"""What a whole training step of about 3 ms pays for recording ten scalars, beside the peers."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict

from contestants import CONTESTANTS, PEERS, pool
from figures import number, percent
from fresh import fresh, scratch
from report import Bar, Report, progress, reporting

_BLOCK = 100
_WARM_UP = 4
_KEYS = 10
_NAMES = tuple(pool(_KEYS, 1)[0])
_LIMIT = 0.5
#: With and without, so that a machine that slowly becomes busier hits both.
_ORDER = (True, False, False, True)


Record = Callable[[Mapping[str, float], int], object]


class Steps(TypedDict):
    """What one process measured: medians over the steps with recording ÷ without, and the cost of recording alone."""

    cpu: float
    wall: float
    process: list[float]
    step_ms: float
    direct_us: float


def alternating(which: str, rounds: int, folder: str) -> Steps:
    """Train in blocks with and without recording; `none` records nothing in either, and shows the noise."""
    from models import perceptron_step

    train = perceptron_step()
    record, finish = _recorder(which, Path(folder))
    cpu: dict[bool, list[int]] = {True: [], False: []}
    wall: dict[bool, list[int]] = {True: [], False: []}
    process: dict[bool, list[float]] = {True: [], False: []}
    step = 0
    for _ in range(_WARM_UP):  # also long enough for what `init` reads in the background
        _block(train, record, step)
        step += _BLOCK
    for recording in _ORDER * rounds:
        began = time.process_time()
        taken = _block(train, record if recording else _forget, step)
        process[recording].append(time.process_time() - began)
        cpu[recording] += taken[0]
        wall[recording] += taken[1]
        step += _BLOCK if recording else 0
    direct = _direct(train, record, step)
    finish()
    medians = {recording: statistics.median(taken) for recording, taken in cpu.items()}
    return {
        "cpu": medians[True] / medians[False],
        "wall": statistics.median(wall[True]) / statistics.median(wall[False]),
        "process": [a / b for a, b in zip(process[True], process[False], strict=True)],
        "step_ms": medians[False] / 1e6,
        "direct_us": direct,
    }


def _recorder(which: str, folder: Path) -> tuple[Record, Callable[[], object]]:
    """Return what records the scalars of one step, as a program of that contestant's user does."""
    if which == "none":
        return _forget, lambda: None
    log, finish = CONTESTANTS[which].open(folder)
    if which != "tracer":
        return lambda metrics, step: log(metrics, step=step), finish
    import tracer

    def record(metrics: Mapping[str, float], _: int) -> None:
        tracer.log(metrics)
        tracer.step()

    return record, finish


def _block(train: Callable[[], float], record: Record, step: int) -> tuple[list[int], list[int]]:
    """Return CPU and wall time of each step of a block, in ns."""
    cpu, wall = [], []
    for at in range(step, step + _BLOCK):
        began, spent = time.perf_counter_ns(), time.thread_time_ns()
        record(_values(train()), at)
        cpu.append(time.thread_time_ns() - spent)
        wall.append(time.perf_counter_ns() - began)
    return cpu, wall


def _direct(train: Callable[[], float], record: Record, step: int) -> float:
    """Return the median time of recording alone, each time after a step that leaves the caches to it, in µs."""
    taken = []
    for at in range(step, step + 5 * _BLOCK):
        values = _values(train())
        began = time.perf_counter_ns()  # the thread's own clock is a system call, which costs more than what is timed
        record(values, at)
        taken.append(time.perf_counter_ns() - began)
    return statistics.median(taken) / 1e3


def _values(loss: float) -> dict[str, float]:
    """Return ten numbers as a step leaves them; made whether they are recorded or not."""
    return {name: loss * factor for factor, name in enumerate(_NAMES, 1)}


def _forget(values: Mapping[str, float], step: int) -> None:
    """Record nothing."""


def measured(report: Report, turns: int, rounds: int) -> dict[str, list[Steps]]:
    """Let the contestants take turns, each turn in a process of its own."""
    names = ("none", "tracer", *PEERS)
    found: dict[str, list[Steps]] = {which: [] for which in names}
    for turn, which in itertools.product(range(turns), names):
        progress(f"{report.name}: round {turn + 1} of {turns}, {which}")
        with scratch(f"{report.name}-{which}") as folder:
            found[which].append(fresh(alternating, which, rounds, str(folder), folder=folder))
    return found


def main() -> None:
    """Measure, judge, print."""
    how = (
        f"A perceptron is trained on one core; blocks of {_BLOCK} steps with and without recording {_KEYS} scalars a "
        "step alternate in one process. The median step with recording is divided by the median step without: CPU of "
        "the training thread, and wall time; for the whole process, background threads included, the median of the "
        "blocks' ratios. The first row records nothing in either block: it is the noise."
    )
    with reporting("training_step", "A whole training step", how) as report:
        found = measured(report, *((1, 1) if report.quick else (3, 8)))
        table = report.table(
            "",
            *("recording with", "step ms", "CPU", "CPU, each round", "wall", "CPU of the process"),
            *("recording alone, µs", "share of the step"),
        )
        floor = statistics.median(one["direct_us"] for one in found["none"])
        for which, rounds in found.items():
            step_ms = statistics.median(one["step_ms"] for one in rounds)
            direct = statistics.median(one["direct_us"] for one in rounds) - floor
            table.add(
                "nothing (control)" if which == "none" else CONTESTANTS[which].title,
                number(step_ms),
                percent(statistics.median(one["cpu"] for one in rounds)),
                ", ".join(percent(one["cpu"]) for one in rounds),
                percent(statistics.median(one["wall"] for one in rounds)),
                percent(statistics.median(ratio for one in rounds for ratio in one["process"])),
                number(direct),
                percent(1 + direct / step_ms / 1e3),
            )
        ours = found["tracer"]
        ratios = [100 * (one["cpu"] - 1) for one in ours]
        shares = [(one["direct_us"] - floor) / one["step_ms"] / 10 for one in ours]
        what = f"training step of {statistics.median(one['step_ms'] for one in ours):.1f} ms, {_KEYS} scalars"
        report.bars += [
            Bar.at_most(f"{what}: whole step", _LIMIT, "%", statistics.median(ratios), min(ratios)),
            Bar.at_most(f"{what}: recording alone", _LIMIT, "%", statistics.median(shares), min(shares)),
        ]
        report.notes += [
            (
                "Recording alone is timed between two steps, when the model has pushed Python's code and data out of "
                "the processor's caches: a call costs several times what it costs in a tight loop, whoever is called. "
                "What an empty function costs there is taken off. A whole step's ratio carries the noise that the "
                "control shows; this figure does not."
            ),
            "W&B's service process works on the other core and is in no column.",
        ]


if __name__ == "__main__":
    main()
