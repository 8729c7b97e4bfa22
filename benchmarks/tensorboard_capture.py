"""What listening to TensorBoard adds to `add_scalar`, beside the same call unheard in the same process.

The file is not called `tensorboard`: that would hide the package from the scripts beside it.
"""

from __future__ import annotations

import statistics
import time
from typing import Any, TypedDict

from figures import Spread
from fresh import fresh, scratch
from report import Bar, Report, progress, reporting

_LIMIT_US, _AIM_US = 5.0, 3.0
_FINISH_S = 1.0
_PACKAGES = {"torch": "torch.utils.tensorboard", "tensorboardX": "tensorboardX"}


class Found(TypedDict):
    """In µs of CPU of the calling thread, one figure per batch: unheard, and heard right after it; and the rest."""

    plain: list[float]
    heard: list[float]
    is_original: bool
    calls: int
    kept: int
    finish_s: float


def turns(package: str, rounds: int, calls: int) -> Found:
    """Write batches, in turn unheard and heard, with the same writer and within one run."""
    import importlib

    import tracer
    from tracer.capture.patching import patches
    from tracer.storage import Store

    module: Any = importlib.import_module(f"{_PACKAGES[package]}.writer")
    original = module.FileWriter.add_event
    run = tracer.init(project="bench", quiet=True, track_git=False, track_environment=False, maintain="off")
    writer = module.SummaryWriter("log")
    plain, heard, is_original = [], [], True
    _batch(writer, 0, calls)
    for turn in range(rounds):
        first = (2 * turn + 1) * calls
        is_original &= module.FileWriter.add_event is original
        plain.append(_batch(writer, first, calls))
        patches.start(["tensorboard"])
        _batch(writer, first, 1)  # the first call names the series
        heard.append(_batch(writer, first + calls, calls))
        patches.stop()
    writer.close()
    began = time.perf_counter()
    run.finish()
    took = time.perf_counter() - began
    store = Store.open(".tracer")
    kept = len(store.series(store.run("@last").uid, "loss"))
    return {
        "plain": plain, "heard": heard, "is_original": is_original,
        "calls": rounds * (calls + 1), "kept": kept, "finish_s": took,
    }  # fmt: skip


def _batch(writer: Any, first: int, calls: int) -> float:  # noqa: ANN401 -- of either package
    """Return the CPU time of one call, averaged over a batch."""
    began = time.thread_time_ns()
    for step in range(first, first + calls):
        writer.add_scalar("loss", 0.5, step)
    return (time.thread_time_ns() - began) / calls / 1e3


def tell(report: Report, package: str, found: list[Found]) -> None:
    """Add the row and the bars of one package."""
    plain = [us for one in found for us in one["plain"]]
    heard = [us for one in found for us in one["heard"]]
    added = [after - before for before, after in zip(plain, heard, strict=True)]
    kept = f"{sum(one['kept'] for one in found):,} of {sum(one['calls'] for one in found):,}"
    off = "the original itself" if all(one["is_original"] for one in found) else "a wrapper"
    report.tables[0].add(package, str(Spread.of(plain)), str(Spread.of(heard)), str(Spread.of(added)), kept, off)
    median, least = statistics.median(added), min(heard) - min(plain)
    for limit in (_LIMIT_US, _AIM_US):
        what = f"listening to `add_scalar` of {package}" + (" (aim)" if limit == _AIM_US else "")
        report.bars.append(Bar.at_most(what, limit, "µs", median, least))
    finish = [one["finish_s"] for one in found]
    report.bars.append(Bar.at_most(f"`finish` after {package}", _FINISH_S, "s", statistics.median(finish), min(finish)))


def main() -> None:
    """Measure, judge, print."""
    how = (
        "CPU time of the calling thread for one `writer.add_scalar`, in µs: smallest, median and largest average of a "
        "batch. Batches unheard and heard follow each other with one writer in one process; what is added is the "
        "difference of neighbours. Every point is read back afterwards."
    )
    with reporting("tensorboard_capture", "What listening to TensorBoard costs", how) as report:
        processes, rounds, calls = (1, 5, 100) if report.quick else (3, 40, 500)
        report.table("", "package", "unheard", "heard", "added", "points kept", "`add_event` when off")
        for package in _PACKAGES:
            found = []
            for turn in range(processes):
                progress(f"{report.name}: {package}, process {turn + 1} of {processes}")
                with scratch(f"{report.name}-{package}") as folder:
                    found.append(fresh(turns, package, rounds, calls, folder=folder))
            tell(report, package, found)


if __name__ == "__main__":
    main()
