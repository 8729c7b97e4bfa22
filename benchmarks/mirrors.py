"""What back ends cost the training: a call of `log` with none and with six, taking turns."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from figures import number, percent
from fresh import fresh, scratch
from report import Bar, Report, progress, reporting

_BLOCK, _BLOCKS = 500, 60
_PAUSE_S = 0.02
#: All of them write to this machine, so they work as hard as they can beside the training.
_SIX = ("mlflow", "wandb", "aim", "tensorboard", "csv", "jsonl")
_LIMIT = 10.0


def calls(backends: list[str]) -> dict[str, float]:
    """Record in blocks with pauses, as a training does; return what a call took in µs of this thread, and more."""
    import tracer

    run = tracer.init(project="mirrors", quiet=True, backend=backends, finish_timeout_s=0.0, track_system_metrics=False)
    began = time.perf_counter()
    taken = []
    for block in range(_BLOCKS):
        spent = time.thread_time_ns()
        for number_ in range(_BLOCK):
            tracer.log({"loss": 0.5, "accuracy": 0.25}, step=block * _BLOCK + number_)
        taken.append((time.thread_time_ns() - spent) / _BLOCK / 1e3)
        time.sleep(_PAUSE_S)
    whole = time.perf_counter() - began
    run.finish()
    taken.sort()
    return {"median": statistics.median(taken), "p95": taken[int(len(taken) * 0.95)], "whole_s": whole}


def begin_ms(backends: list[str]) -> dict[str, float]:
    """Return how long `init` takes, after one that loaded our own rooms."""
    import tracer

    tracer.init(project="mirrors", quiet=True).finish()
    began = time.perf_counter()
    run = tracer.init(project="mirrors", quiet=True, backend=backends, finish_timeout_s=0.0)
    found = (time.perf_counter() - began) * 1e3
    run.finish()
    return {"ms": found}


def main() -> None:
    """Measure, judge, print."""
    how = (
        f"Two metrics are logged in blocks of {_BLOCK} calls with pauses between them, in CPU time of the thread that "
        f"logs; fresh processes with no back end and with six ({', '.join(_SIX)}) take turns. The six are served "
        "by the mirror process meanwhile, on the same cores."
    )
    with reporting("mirrors", "Back ends beside a training", how) as report:
        _judge(report)


def _judge(report: Report) -> None:
    """Compare calls and beginnings."""
    turns = 2 if report.quick else 8
    found: dict[int, list[dict[str, float]]] = {0: [], len(_SIX): []}
    starts: dict[int, list[float]] = {0: [], len(_SIX): []}
    for turn in range(turns):
        progress(f"mirrors: round {turn + 1} of {turns}")
        for backends in ([], list(_SIX)) if turn % 2 else (list(_SIX), []):
            with scratch("mirrors") as folder:
                found[len(backends)].append(fresh(calls, backends, folder=Path(folder)))
                starts[len(backends)].append(fresh(begin_ms, backends, folder=Path(folder))["ms"])
    table = report.table("A call of `log`, and `init`", "", "no back end", "six", "more")
    for name in ("median", "p95"):
        plain, mirrored = (statistics.median(one[name] for one in found[count]) for count in (0, len(_SIX)))
        table.add(f"log, {name}, µs", number(plain), number(mirrored), percent(mirrored / plain))
    plain, mirrored = (statistics.median(starts[count]) for count in (0, len(_SIX)))
    table.add("init, ms", number(plain), number(mirrored), percent(mirrored / plain))
    pairs = [b["median"] / a["median"] for a, b in zip(found[0], found[len(_SIX)], strict=True)]
    more = 100 * (statistics.median(pairs) - 1)
    least = 100 * (min(one["median"] for one in found[len(_SIX)]) / min(one["median"] for one in found[0]) - 1)
    report.bars.append(Bar.at_most("log with six back ends", _LIMIT, "%", max(more, 0.0), max(least, 0.0)))
    report.bars.append(Bar.at_most("init with six back ends", 50.0, "ms", mirrored, min(starts[len(_SIX)])))


if __name__ == "__main__":
    main()
