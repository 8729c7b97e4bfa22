"""How long a single `log` call takes beside one busy Python thread, as a data loader is one."""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path

from contestants import pool
from figures import percentile
from fresh import fresh, scratch
from report import Bar, progress, reporting

_SHARES = (0.5, 0.99, 0.999)
_LIMIT_US = 15.0


def stalls(folder: str, rounds: int, calls: int) -> dict[str, list[float]]:
    """Time every call on its own; return the percentiles of each way to hand a value over, in µs."""
    import tracer

    tracer.init(project="benchmark", storage_path=str(Path(folder) / ".tracer"), quiet=True)
    one, ten = pool(1), pool(10)
    file = os.open(Path(folder) / "written", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    waiting: queue.Queue[Mapping[str, float]] = queue.Queue()
    record = bytes(40)
    # What gives the interpreter away takes 5 ms a call here: a twentieth of the calls has to do.
    ways: dict[str, tuple[Callable[[Mapping[str, float], int], object], list[dict[str, float]], int]] = {
        "`log` of 1 key": (tracer.log, one, calls),
        "`log` of 10 keys": (tracer.log, ten, calls),
        "`queue.Queue.put`": (lambda metrics, _: waiting.put(metrics), one, calls),
        "`os.write` of 40 bytes": (lambda _, __: os.write(file, record), one, calls // 20),
    }
    done = threading.Event()
    thread = threading.Thread(target=_count_until, args=(done,), daemon=True)
    thread.start()
    times = {name: array("q") for name in ways}
    step = 0
    for _, (name, (call, metrics, count)) in itertools.product(range(rounds), ways.items()):
        step = _timed(call, metrics, count, step, times[name])
    done.set()
    thread.join()
    tracer.finish()
    os.close(file)
    return {name: [percentile(sorted(taken), share) / 1e3 for share in _SHARES] for name, taken in times.items()}


def _count_until(done: threading.Event) -> None:
    """Keep the interpreter busy with pure Python."""
    number = 0
    while not done.is_set():
        for _ in range(1000):
            number = (number * 1_103_515_245 + 12_345) & 0x7FFFFFFF


def _timed(
    call: Callable[[Mapping[str, float], int], object],
    metrics: list[dict[str, float]],
    count: int,
    step: int,
    times: array[int],
) -> int:
    """Time so many calls; the two looks at the clock are in each figure, some 0.1 µs."""
    now = time.perf_counter_ns
    for values in itertools.islice(itertools.cycle(metrics), count):
        began = now()
        call(values, step)
        times.append(now() - began)
        step += 1
    return step


def main() -> None:
    """Measure, judge, print."""
    how = (
        "Every call is timed on its own, in one process with one busy pure-Python thread, µs of wall time. "
        "What lets go of the interpreter waits for the thread's switch interval of 5 ms to get it back."
    )
    with reporting("busy_thread", "Beside a busy Python thread", how) as report, scratch("busy_thread") as folder:
        progress("busy_thread")
        rounds, calls = (2, 2_000) if report.quick else (10, 20_000)
        found = fresh(stalls, str(folder), rounds, calls, folder=folder)
        table = report.table("", "call", "p50", "p99", "p99.9")
        for name, percentiles in found.items():
            table.add(name, *percentiles)
        for name in ("`log` of 1 key", "`log` of 10 keys"):
            report.bars.append(Bar.at_most(f"p99 of {name} beside a busy thread", _LIMIT_US, "µs", found[name][1]))
        report.notes.append(
            "`queue.Queue.put` keeps the value in memory only; `os.write` is safe from `kill -9`, as `log` is."
        )


if __name__ == "__main__":
    main()
