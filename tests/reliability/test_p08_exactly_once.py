"""P8: each point is stored exactly once, through folds, restarts, kills and competing maintainers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from programs import CALMLY, SharedCounts, await_that, run, start

import tracer
from tracer.storage import Store

LIVES = 4096

#: One life of a writer: a run of its own, which publishes each call after it has returned.
WRITER = """
    import sys, time
    from programs import SharedCounts
    import tracer

    counts, life, pause = SharedCounts(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    tracer.init(project="storm", run_name=f"life{life}")
    step, mark = 0, life / 4096  # in every value, so that nothing of one run passes for another's
    while True:
        tracer.log({"a": step + mark, "b": -step - mark}, step=step)
        step += 1
        counts[life] = step
        if pause:
            time.sleep(pause)
"""

MAINTAINER = """
    import time
    from tracer.errors import StoreError
    from tracer.storage import Store

    while True:
        try:
            with Store.open(".tracer") as store:
                while True:
                    store.fold()
                    store.compact()
                    time.sleep(0.02)
        except StoreError as error:
            if "maintain" not in str(error):  # the other one is at it
                raise
"""

#: Reads what it finds, again and again: every series it sees is a beginning of what the writer wrote.
READER = """
    import os, sys
    import numpy as np
    from programs import SharedCounts
    from tracer.storage import Store

    reads, stop, seen = SharedCounts(sys.argv[1]), sys.argv[2], {}

    def check(row, series, expected):
        wrong = np.flatnonzero((series.step != np.arange(len(series.step))) | (series.value != expected))
        if len(wrong):
            at = wrong[0]
            near = list(zip(series.step[at - 2 : at + 3].tolist(), series.value[at - 2 : at + 3].tolist()))
            sys.exit(f"{row.name} {series.metric}: {len(wrong)} of {len(series.step)} are wrong from {at} on: {near}")

    while not os.path.exists(stop):
        with Store.open(".tracer") as store:
            for row in store.runs(limit=8):
                mark = int(row.name.removeprefix("life")) / 4096
                series = store.series(row.uid, "a")
                count = len(series.step)
                if count < seen.get(row.uid, 0):
                    sys.exit(f"{row.name}: {count} points, and there were {seen[row.uid]}")
                seen[row.uid] = count
                check(row, series, np.arange(count) + mark)
                other = store.series(row.uid, "b")
                check(row, other, -np.arange(len(other.step)) - mark)
                reads[0] += 1
"""


@dataclass
class Storm:
    """Processes that come and go."""

    chance: random.Random
    store: Path
    counts: SharedCounts
    lives: int = 0
    kills: int = 0

    def writer(self) -> subprocess.Popen[str]:
        """Start the next life of a writer."""
        life, self.lives = self.lives, self.lives + 1
        return start(WRITER, self.counts.path, life, self.chance.choice([0.0, 0.0005, 0.01]))

    def maintainer(self) -> subprocess.Popen[str]:
        """Start a maintainer."""
        return start(MAINTAINER)

    def kill(self, process: subprocess.Popen[str]) -> None:
        """Kill a process that must not have ended by itself."""
        died = process.poll()
        if died is None:
            os.killpg(process.pid, signal.SIGKILL)
        _, err = process.communicate()
        assert (died, err) == (None, ""), err
        self.kills += 1


@pytest.mark.storm
@pytest.mark.slow
@pytest.mark.timeout(0)
def test_p08_a_storm_loses_and_doubles_nothing(tmp_path: Path, storm_seconds: float, storm_seed: int) -> None:
    chance = random.Random(storm_seed)  # noqa: S311 (no secrets)
    storm = Storm(chance, tmp_path / ".tracer", SharedCounts(tmp_path / "counts", LIVES))
    reads, stop = SharedCounts(tmp_path / "reads"), tmp_path / "stop"
    writers = [storm.writer() for _ in range(3)]
    await_that(lambda: storm.counts[0], "the store is there")
    maintainers = [storm.maintainer() for _ in range(2)]
    readers = [start(READER, reads.path, stop) for _ in range(1)]

    end = time.monotonic() + storm_seconds
    while time.monotonic() < end and storm.lives < LIVES - 3:
        target = chance.uniform(0.1, 1.0)
        time.sleep(target)  # the moment of the kill is the random part
        victims, renew = chance.choice([(writers, storm.writer)] * 2 + [(maintainers, storm.maintainer)])
        number = chance.randrange(len(victims))
        storm.kill(victims[number])
        victims[number] = renew()
    for process in (*writers, *maintainers):
        storm.kill(process)
    stop.touch()
    for process in readers:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err

    acknowledged = stored = 0
    with Store.open(storm.store) as store:
        store.fold()
        for row in store.runs():
            life = int(row.name.removeprefix("life"))
            for metric, sign in (("a", 1), ("b", -1)):
                series = store.series(row.uid, metric)
                count = len(series.step)
                assert storm.counts[life] <= count <= storm.counts[life] + 1, row
                assert np.array_equal(series.step, np.arange(count)), row
                assert np.array_equal(series.value, sign * (np.arange(count) + life / LIVES)), row
                summaries = [found.n for found in store.metrics(row.uid) if found.metric == metric]
                assert summaries == ([count] if count else []), row
                stored += count
            acknowledged += storm.counts[life]
            assert row.status == "crashed"
            assert row.lost == 0
        assert {row.name for row in store.runs()} >= {
            f"life{life}" for life in range(storm.lives) if storm.counts[life]
        }
        store.check(repair=True)  # what the killed left half done
        report = store.check()
        assert (report.lost, report.problems) == (0, ())
    print(f"{storm.kills} kills, {storm.lives} lives, {acknowledged:,} calls, {stored:,} points, {reads[0]:,} reads")  # noqa: T201
    assert reads[0] > 0


def test_p08_a_fold_may_die_anywhere_and_be_repeated(tmp_path: Path) -> None:
    """Killed at its n-th rename, sync or unlink, for every n; what is read afterwards is always the same."""
    import shutil

    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    with tracer.init(project="fold", **CALMLY) as run_:
        for step in range(3000):
            run_.log({"a": float(step), "b": -float(step), "word": "x"}, step=step)
    expected = np.arange(3000.0)
    image = tmp_path / "image"
    shutil.copytree(tmp_path / ".tracer", image)
    fold = """
        from tracer.storage import Store
        with Store.open(".tracer") as store:
            store.fold()
    """
    survived = 0
    for call in ("rename,renameat,renameat2", "fdatasync,fsync", "unlink,unlinkat"):
        for number in range(1, 40):
            shutil.rmtree(tmp_path / ".tracer")
            shutil.copytree(image, tmp_path / ".tracer")
            process = start(
                fold,
                before=("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when={number}"),
            )
            _, err = process.communicate(timeout=120)
            with Store.open(tmp_path / ".tracer") as store:
                assert np.array_equal(store.series(run_.run_id, "a").value, expected), (call, number)
                store.fold()
                assert np.array_equal(store.series(run_.run_id, "a").value, expected), (call, number)
                assert np.array_equal(store.series(run_.run_id, "b").value, -expected), (call, number)
                assert {row.metric: row.n for row in store.metrics(run_.run_id) if not row.is_text} == {
                    "a": 3000,
                    "b": 3000,
                }
            if process.returncode == 0:
                break  # there was no such call any more
            assert process.returncode == -signal.SIGKILL or "killed" in err.lower() or process.returncode == 137, err
            survived += 1
    assert survived > 5


def test_p08_maintainers_at_the_same_time_fold_once(tmp_path: Path) -> None:
    with tracer.init(project="fold", **CALMLY) as run_:
        for step in range(20_000):
            run_.log({"a": float(step)}, step=step)
    fold = """
        from tracer.storage import Store
        with Store.open(".tracer") as store:
            store.fold()
    """
    maintainers = [start(fold) for _ in range(3)]
    for process in maintainers:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err

    with Store.open(tmp_path / ".tracer") as store:
        assert np.array_equal(store.series(run_.run_id, "a").value, np.arange(20_000.0))
        assert [row.n for row in store.metrics(run_.run_id)] == [20_000]


def test_p08_the_companion_folds_once_and_tells_the_end(tmp_path: Path) -> None:
    run(
        """
        import tracer

        with tracer.init(project="companion", maintain="companion") as run:
            step = 0
            while run._companion._pipe < 0:
                for _ in range(1000):
                    tracer.log({"a": float(step)}, step=step)
                    step += 1
        """,
        env={"TRACER_MAINTAIN": "companion"},
    )
    with Store.open(tmp_path / ".tracer") as store:
        (row,) = store.runs()
        folder = Path(store.run_folder(row))
        await_that(lambda: list(folder.rglob("*.parquet")), "the companion has folded")
        await_that(lambda: not list((folder / "journal").glob("*.trj")), "the companion has ended")
        series = store.series(row.uid, "a")

    assert np.array_equal(series.step, np.arange(len(series.step)))
    assert len(series.step) % 1000 == 0


def test_p08_logging_while_a_maintainer_folds_loses_nothing(tmp_path: Path) -> None:
    with tracer.init(project="fold", **CALMLY) as run_, Store.open(tmp_path / ".tracer") as store:
        for step in range(30_000):
            run_.log({"a": float(step)}, step=step)
            if step % 5000 == 2500:
                store.fold()
                assert len(store.series(run_.run_id, "a").step) == step + 1
        uid = run_.run_id

    with Store.open(tmp_path / ".tracer") as store:
        assert np.array_equal(store.series(uid, "a").value, np.arange(30_000.0))
