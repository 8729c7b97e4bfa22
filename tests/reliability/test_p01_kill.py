"""P1: what `log()` returned from survives `kill -9` of the process or its whole tree."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from journals import only_run, rows, wait_until_released
from programs import SharedCounts, await_that, start

WRITERS = 3
TRIALS = 3

#: Logs until it is killed, on one thread, on three, or in a process and its two forked children. Each publishes how
#: many calls have returned *after* the call, so it may be one behind.
WRITING = """
    import os, sys, threading, time
    from programs import SharedCounts
    import tracer

    path, kind, keys, pause = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    counts = SharedCounts(path)
    tracer.init(project="kill")

    def write(writer):
        names = [f"w{writer}/m{key}" for key in range(keys)]
        offsets = [key / 128 for key in range(keys)]
        step = 0
        while True:
            tracer.log(dict(zip(names, [step + offset for offset in offsets])), step=step)
            step += 1
            counts[writer] = step
            if pause:
                time.sleep(pause)

    for writer in (1, 2):
        if kind == "threads":
            threading.Thread(target=write, args=(writer,), daemon=True).start()
        elif kind == "children" and os.fork() == 0:
            write(writer)
    write(0)
"""


def check(folder: Path, counts: SharedCounts, writers: int, keys: int) -> int:
    """Compare what is read with what was acknowledged; return how many calls that were."""
    steps: dict[int, list[int]] = defaultdict(list)
    for row in rows(folder):
        writer = int(next(iter(row.values))[1 : next(iter(row.values)).index("/")])
        assert row.values == {f"w{writer}/m{key}": row.step + key / 128 for key in range(keys)}
        steps[writer].append(row.step)
    for writer in range(writers):
        acknowledged, found = counts[writer], steps[writer]
        assert [step for step, times in Counter(found).items() if times > 1] == []
        assert found == list(range(len(found)))
        assert acknowledged <= len(found) <= acknowledged + 1
    return sum(counts[writer] for writer in range(writers))


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.0, 0.002], ids=["tight", "paced"])
@pytest.mark.parametrize("keys", [1, 3, 100])
@pytest.mark.parametrize("kind", ["main", "threads", "children"])
def test_p01_nothing_is_lost_at_kill_9(tmp_path: Path, storm_seed: int, kind: str, keys: int, pause: float) -> None:
    chance = random.Random(f"{storm_seed} {kind} {keys} {pause}")  # noqa: S311 (no secrets)
    writers = 1 if kind == "main" else WRITERS
    acknowledged = 0
    for trial in range(TRIALS):
        place = tmp_path / str(trial)
        place.mkdir()
        os.chdir(place)
        counts = SharedCounts(place / "counts")
        enough = chance.randint(1, 40 if pause else 20_000 // keys + 50)
        process = start(WRITING, counts.path, kind, keys, pause)
        await_that(
            lambda counts=counts, enough=enough, process=process: (
                min(counts[writer] for writer in range(writers)) >= enough or process.poll() is not None
            ),
            "the writers have written",
        )

        # The process alone, which leaves its children writing for a moment, or the whole tree at once.
        if chance.random() < 0.5:
            os.kill(process.pid, signal.SIGKILL)
        os.killpg(process.pid, signal.SIGKILL)
        _, err = process.communicate()

        assert (process.returncode, err) == (-signal.SIGKILL, "")
        folder = only_run(place / ".tracer")
        wait_until_released(folder)
        acknowledged += check(folder, counts, writers, keys)
    assert acknowledged > 0


def test_p01_an_append_journal_keeps_what_was_written_out(tmp_path: Path) -> None:
    """On a network file system the promise is weaker: what is a fifth of a second old is there."""
    counts = SharedCounts(tmp_path / "counts")
    process = start(WRITING, counts.path, "main", 3, 0.001, env={"TRACER_JOURNAL": "append"})
    await_that(lambda: counts[0] > 500, "the writer has written")
    folder = only_run(tmp_path / ".tracer")
    await_that(lambda: len(rows(folder)) >= 500, "what was logged is written out")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    found = [row.step for row in rows(folder)]
    assert found == list(range(len(found)))
    assert 500 <= len(found) <= counts[0] + 1


def test_p01_a_kill_in_the_middle_of_a_record_tears_nothing(tmp_path: Path) -> None:
    """The process dies while the values of a record are packed: the record before is the last."""
    process = start(
        """
        import os
        import tracer
        from tracer import journal

        class Kills:
            def __float__(self):
                os.kill(os.getpid(), 9)

        run = tracer.init(project="kill")
        for step in range(100):
            tracer.log({"a": float(step), "b": 1.0}, step=step)
        writer = run._recorder.writer()
        schema = writer.schema
        # What `log` does, with a value that kills between the first and the last word of the record.
        head = schema.length, schema.number, 100, 0.0
        schema.pack(writer.buffer, writer.at, *head, 100.0, Kills(), writer.sequence, writer.key ^ writer.sequence)
        """
    )
    process.communicate()

    assert process.returncode == -signal.SIGKILL
    assert [row.step for row in rows(only_run(tmp_path / ".tracer"))] == list(range(100))
