"""What listening costs: a wrapper around a function, a start under `tracer run`, and a loop with nothing to capture."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from figures import number, percent
from fresh import environment, fresh, scratch
from report import Bar, Report, progress, reporting

_CALLS, _ROUNDS = 20_000, 15
_WRAPPER_LIMIT_US, _LOOP_LIMIT = 1.0, 0.5
#: A loop of about 1 ms a step that no framework of ours hears of; the answer is what the training thread paid.
_LOOP = """
import json, statistics, sys, time, torch
torch.set_num_threads(1)
weight, batch = torch.randn(256, 256), torch.randn(256, 256)
def step():
    x = batch
    for _ in range(4):
        x = torch.relu(x @ weight) * 0.01
    return float(x.sum())
for _ in range(200):
    step()
taken, began = [], time.process_time()
for _ in range(int(sys.argv[1])):
    spent = time.thread_time_ns()
    step()
    taken.append(time.thread_time_ns() - spent)
with open(sys.argv[2], "w") as file:
    json.dump({"step_ms": statistics.median(taken) / 1e6, "process_s": time.process_time() - began}, file)
"""


def wrapper() -> dict[str, float]:
    """Return what a call of a method takes in µs: as it is, with a wrapper that listens, a deaf one, and after."""
    from tracer import sink
    from tracer.capture.patching import Hook

    class Writer:
        def add(self, name: str, value: float) -> float:  # noqa: ARG002 -- stands for a method of somebody else's
            return value

    hook, heard = Hook("benchmark"), 0

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def add(self: Writer, name: str, value: float) -> float:
            result: float = original(self, name, value)
            if hook.is_on:
                with hook:
                    hook.emit(name)
            return result

        return add

    def take(_: object) -> None:
        nonlocal heard
        heard += 1

    sink.listen(take)
    writer = Writer()
    found = {"as it is": _call_us(writer)}
    undo = hook.wrap(Writer, "add", make, parameters=("self", "name"))
    found["listening"] = _call_us(writer)
    hook.is_on = False
    found["deaf"] = _call_us(writer)
    undo()
    found["after"] = _call_us(writer)
    return found


def _call_us(writer: Any) -> float:  # noqa: ANN401 -- anything with `add`
    """Return the median CPU time of a call in blocks, in µs."""
    blocks = []
    for _ in range(_ROUNDS):
        began = time.thread_time_ns()  # a busy machine makes the wall clock tell of others
        for _ in range(_CALLS):
            writer.add("loss", 0.5)
        blocks.append((time.thread_time_ns() - began) / _CALLS / 1e3)
    return statistics.median(blocks)


def loop(folder: Path, steps: int, *, captured: bool) -> dict[str, float]:
    """Run the loop in a process of its own, under `tracer run` or not; return what a step took."""
    program, answer = folder / "loop.py", folder / "answer.json"
    program.write_text(_LOOP, encoding="utf-8")
    before = ["-m", "tracer", "run", "-q"] if captured else []
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, *before, str(program), str(steps), str(answer)],
        cwd=folder,
        env={**os.environ, **environment(folder)},
        check=True,
        capture_output=True,
    )
    found: dict[str, float] = json.loads(answer.read_text(encoding="utf-8"))
    return {**found, "whole_s": time.perf_counter() - began}


def start_ms(folder: Path, *, captured: bool) -> float:
    """Return the CPU time of a Python that does nothing: a child of a command, where TRACER_AUTO is set."""
    from tracer.activation.carriers import BOOT

    more = {"TRACER_AUTO": "1", "PYTHONPATH": BOOT} if captured else {}
    process = subprocess.Popen([sys.executable, "-c", "pass"], cwd=folder, env={**environment(folder), **more})
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return (used.ru_utime + used.ru_stime) * 1e3


def main() -> None:
    """Measure, judge, print."""
    how = (
        "A wrapper is timed around an empty method, in CPU time of its thread. The loop multiplies matrices for about "
        "1 ms a step and records nothing. Processes with and without `tracer run` take turns, and the median step of "
        "the one, in CPU time of the training thread, is divided by that of the other. Collectors and output run as "
        "they do by default."
    )
    with reporting("capture", "Listening without being asked", how) as report:
        _judge_wrapper(report)
        _judge_loop(report)


def _judge_wrapper(report: Report) -> None:
    """Measure what a wrapper adds to a call."""
    turns = 1 if report.quick else 5
    with scratch("capture-wrapper") as folder:
        found = [fresh(wrapper, folder=folder) for _ in range(turns)]
    table = report.table("A call", "the method", "µs")
    medians = {name: statistics.median(one[name] for one in found) for name in found[0]}
    for name, taken in medians.items():
        table.add(name, taken)
    added = [one["listening"] - one["as it is"] for one in found]
    report.bars.append(
        _bar("a wrapper that hands an event on", _WRAPPER_LIMIT_US, "µs", statistics.median(added), min(added))
    )


def _judge_loop(report: Report) -> None:
    """Measure a loop under `tracer run`, and the start of processes."""
    turns, steps = (2, 200) if report.quick else (8, 2000)
    steps_ms: dict[bool, list[float]] = {True: [], False: []}
    process_s: dict[bool, list[float]] = {True: [], False: []}
    starts: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(turns):
        progress(f"capture: round {turn + 1} of {turns}")
        for captured in (True, False) if turn % 2 else (False, True):
            with scratch("capture-loop") as folder:
                found = loop(folder, steps, captured=captured)
                starts[captured].append(start_ms(folder, captured=captured))
            steps_ms[captured].append(found["step_ms"])
            process_s[captured].append(found["process_s"])
    pairs = [a / b for a, b in zip(steps_ms[True], steps_ms[False], strict=True)]
    table = report.table("A loop with nothing to capture, and a start", "", "plain", "under `tracer run`", "more")
    for name, taken in (("step, ms", steps_ms), ("process, CPU s", process_s), ("start of a child, CPU ms", starts)):
        plain, listening = statistics.median(taken[False]), statistics.median(taken[True])
        table.add(name, number(plain), number(listening), percent(listening / plain))
    more, least = 100 * (statistics.median(pairs) - 1), 100 * (min(steps_ms[True]) / min(steps_ms[False]) - 1)
    report.bars.append(_bar("a step with nothing to capture", _LOOP_LIMIT, "%", more, least))


def _bar(what: str, limit: float, unit: str, median: float, minimum: float) -> Bar:
    """Judge a cost; below nothing is noise."""
    return Bar.at_most(what, limit, unit, max(median, 0.0), max(minimum, 0.0))


if __name__ == "__main__":
    main()
