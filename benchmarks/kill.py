"""What survives `kill -9`: calls that returned against points that a fresh process reads back, beside the peers."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import random
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from contestants import CONTESTANTS, PEERS
from fresh import fresh, scratch, started
from report import Bar, Report, progress, reporting

_PLACES = 64
_WORD = struct.Struct("<q")
_PACE_S = 0.005
_PACES = {"tight loop": 0.0, "200 calls a second": _PACE_S}
#: Keys, workers, how the workers are made, pause between calls.
_OURS = tuple(itertools.product((1, 3, 100), ("one thread", "three threads", "three forks"), (0.0, _PACE_S)))


@dataclass(slots=True)
class Tally:
    """What the trials of one contestant came to."""

    trials: int = 0
    returned: int = 0
    kept: int = 0
    lost: int = 0
    duplicated: int = 0
    errors: int = 0
    lost_s: list[float] = field(default_factory=list)


def record(which: str, keys: int, workers: str, pause_s: float, folder: str, counters: str) -> None:
    """Log for ever; after each call that returned, count it where the parent can see it."""
    log, _ = CONTESTANTS[which].open(Path(folder))
    with open(counters, "r+b") as file:
        shared = mmap.mmap(file.fileno(), _PLACES * _WORD.size)
    if workers == "three forks":
        for number in (1, 2):
            if os.fork() == 0:
                _log_for_ever(log, number, keys, pause_s, shared)
    elif workers == "three threads":
        for number in (1, 2):
            threading.Thread(target=_log_for_ever, args=(log, number, keys, pause_s, shared), daemon=True).start()
    _log_for_ever(log, 0, keys, pause_s, shared)


def _log_for_ever(log: Callable[..., object], number: int, keys: int, pause_s: float, shared: mmap.mmap) -> None:
    """Be one worker; its metrics bear its number, and a value tells its step."""
    names = _names(number, keys)
    for step in itertools.count():
        log({name: float(step + place) for place, name in enumerate(names)}, step=step)
        _WORD.pack_into(shared, number * _WORD.size, step + 1)
        if pause_s:
            time.sleep(pause_s)


def _names(number: int, keys: int) -> list[str]:
    """Return the metrics of one worker."""
    return [f"worker{number}/metric{place}" for place in range(keys)]


def kept_points(which: str, folder: str) -> dict[str, tuple[int, int, int]]:
    """Return of each metric how many values were kept, how many different steps, and how many values are wrong."""
    if which != "tracer":
        read = CONTESTANTS[which].steps
        kept = () if read is None else read(Path(folder))
        return {name: (len(steps), len(set(steps)), 0) for name, steps in kept}
    from tracer.storage import Store

    found = {}
    with Store.open(Path(folder) / ".tracer") as store:
        uid = store.run("@last").uid
        for row in store.metrics(uid):
            if row.metric.startswith("worker"):
                series = store.series(uid, row.metric)
                place = int(row.metric.rpartition("metric")[2])
                wrong = int((series.value != series.step + place).sum())
                steps = len(set(series.step.tolist()))
                found[row.metric] = (row.n, steps, wrong)
    return found


def trial(which: str, keys: int, workers: str, pause_s: float, after_s: float, tally: Tally, folder: Path) -> None:
    """Let a process log, kill it and all its children, and compare."""
    counters = folder / "counters"
    counters.write_bytes(bytes(_PLACES * _WORD.size))
    process = started(record, which, keys, workers, pause_s, str(folder), str(counters), folder=folder)
    began = _await_calls(process, counters)
    time.sleep(after_s)
    _kill_tree(process)
    lasted = time.monotonic() - began
    returned = [count for (count,) in _WORD.iter_unpack(counters.read_bytes()) if count]
    tally.trials += 1
    tally.returned += sum(returned) * keys
    try:
        found = fresh(kept_points, which, str(folder), folder=folder)
    except (RuntimeError, subprocess.TimeoutExpired):
        tally.errors += 1
        found = {}
    lost = 0
    for number, count in enumerate(returned):
        for name in _names(number, keys):
            n, steps, wrong = found.get(name, (0, 0, 0))
            tally.kept += steps - wrong
            tally.duplicated += n - steps
            tally.errors += wrong
            lost += max(0, count - steps + wrong)
    tally.lost += lost
    tally.lost_s.append(lasted * lost / max(1, sum(returned) * keys))


def _await_calls(process: subprocess.Popen[bytes], counters: Path, timeout_s: float = 60.0) -> float:
    """Return when the first call had returned."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        if any(counters.read_bytes()):
            return time.monotonic()
        if process.poll() is not None:
            break
        time.sleep(0.005)
    message = f"The process that was to be killed logged nothing; it ended with {process.poll()}."
    raise RuntimeError(message)


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Stop a process, so that it makes no new children, then kill it and all it has."""
    tree = psutil.Process(process.pid)
    tree.suspend()
    for one in (*tree.children(recursive=True), tree):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


def measured(report: Report, trials: int, peer_trials: int) -> dict[str, Tally]:
    """Kill at random moments; the seed is fixed, the moments are not: the machine adds its own."""
    moments = random.Random(2)
    tallies: dict[str, Tally] = {}
    tallies["tracer"] = Tally()
    for number, way in zip(range(trials), itertools.cycle(_OURS), strict=False):
        progress(f"{report.name}: Tracer, trial {number + 1} of {trials}, {way}")
        with scratch("kill-tracer") as folder:
            trial("tracer", *way, moments.uniform(0.0, 2.0), tallies["tracer"], folder)
    for which, (pace, pause_s), number in itertools.product(PEERS, _PACES.items(), range(peer_trials)):
        progress(f"{report.name}: {which}, {pace}, trial {number + 1} of {peer_trials}")
        with scratch(f"kill-{which}") as folder:
            tally = tallies.setdefault(f"{which} {pace}", Tally())
            trial(which, 1, "one thread", pause_s, moments.uniform(1.0, 3.0), tally, folder)
    return tallies


def main() -> None:
    """Measure, judge, print."""
    how = (
        "A process logs and counts each returned call in shared memory, until it is killed together with its children "
        "at a random moment; then a fresh process reads back. Tracer: 1, 3 and 100 keys; one thread, three "
        "threads, three forked processes, tight and paced, in turn. Peers: one key, one thread."
    )
    with reporting("kill", "What survives `kill -9`", how) as report:
        tallies = measured(report, *((4, 1) if report.quick else (54, 3)))
        table = report.table(
            "",
            *("logger", "trials", "points returned from", "read back", "lost", "lost, worst, as seconds of calls"),
            *("duplicated", "read errors"),
        )
        for which, tally in tallies.items():
            name, _, pace = which.partition(" ")
            title = f"{CONTESTANTS[name].title}{', ' if pace else ''}{pace}"
            table.add(
                title,
                tally.trials,
                tally.returned,
                tally.kept,
                tally.lost,
                max(tally.lost_s),
                tally.duplicated,
                tally.errors,
            )
        ours = tallies["tracer"]
        for what, count in (("lost", ours.lost), ("duplicated", ours.duplicated), ("read errors", ours.errors)):
            report.bars.append(Bar.at_most(f"`kill -9`, {ours.trials} trials: {what}", 0, "points", count))
        if ours.lost or ours.duplicated or ours.errors:
            report.notes.append("POINTS WERE LOST, DUPLICATED OR UNREADABLE: this is a fault, not a figure.")


if __name__ == "__main__":
    main()
