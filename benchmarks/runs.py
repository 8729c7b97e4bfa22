"""How fast `tracer list` answers in a store of 10,000 runs."""

from __future__ import annotations

import sys
from pathlib import Path

from figures import Spread
from fresh import fresh, scratch, started
from imports import Started
from report import Bar, progress, reporting

_TRACER = str(Path(sys.executable).parent / "tracer")
_LIMIT_MS = 300.0
_COMMANDS = {
    "`tracer list`": ["list"],
    "`tracer list --sort metric:loss`": ["list", "--sort", "metric:loss"],
    "`tracer list --where 'config.lr < 0.02'`": ["list", "--where", "config.lr < 0.02"],
    "`tracer list --limit 0 --json`, all runs": ["list", "--limit", "0", "--json"],
    "`tracer show @last`": ["show", "@last"],
}


def many_runs(first: int, count: int, store: str) -> None:
    """Record short runs one after another, as a sweep does."""
    import tracer

    for number in range(first, first + count):
        run = tracer.init(
            project=f"sweep-{number % 7}",
            run_name=f"run-{number:05d}",
            config={"lr": (number % 100 + 1) / 1000, "optimizer": ("adamw", "sgd")[number % 2], "seed": number},
            storage_path=store,
            durability="none",  # ten thousand syncs would measure the disk
            maintain="off",
            track_system_metrics=False,
            track_git=False,
            track_environment=False,
            quiet=True,
        )
        for step in range(10):
            tracer.log({"loss": 2.5 / (1 + step) + number / 1e5, "accuracy": step / 10})
            tracer.step()
        run.finish()


def main() -> None:
    """Measure, judge, print."""
    how = (
        "Runs of ten steps with two metrics, made by real `init` and `finish` in two processes. Each command is a "
        "fresh process, warm page cache; ms from its start to its end."
    )
    with reporting("runs", "Ten thousand runs in one store", how) as report, scratch("runs") as folder:
        count, repeats = (200, 2) if report.quick else (10_000, 7)
        store = str(folder / ".tracer")
        progress(f"runs: recording {count:,} runs")
        half = count // 2
        makers = [started(many_runs, first, half, store, folder=folder) for first in (0, half)]
        if sum(maker.wait() for maker in makers):
            raise RuntimeError((folder / "output.txt").read_text(encoding="utf-8"))
        progress("runs: the first list")
        first = Started()
        first.run([_TRACER, "list"], folder)
        table = report.table(f"{count:,} runs", "command", "wall ms min / median / max", "CPU ms median")
        table.add("the first `tracer list`, which finds the runs", str(Spread.of(first.wall)), first.cpu[0])
        asked = {name: Started() for name in _COMMANDS}
        for turn in range(repeats):
            for name, arguments in _COMMANDS.items():
                progress(f"runs: round {turn + 1} of {repeats}, {name}")
                asked[name].run([_TRACER, *arguments], folder)
        for name, taken in asked.items():
            table.add(name, str(Spread.of(taken.wall)), Spread.of(taken.cpu).median)
        wall = Spread.of(asked["`tracer list`"].wall)
        report.bars.append(Bar.at_most(f"`tracer list`, {count:,} runs", _LIMIT_MS, "ms", wall.median, wall.min))
        progress("runs: fold")
        fresh(fold_all, store, folder=folder)
        folded = Started()
        for _ in range(repeats):
            folded.run([_TRACER, "list"], folder)
        table.add(
            "`tracer list` once every journal is folded", str(Spread.of(folded.wall)), Spread.of(folded.cpu).median
        )


def fold_all(store: str) -> int:
    """Turn every journal into Parquet."""
    from tracer.storage import Store

    with Store.open(store) as opened:
        return opened.fold()


if __name__ == "__main__":
    main()
