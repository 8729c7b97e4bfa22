"""P2: about a second later it survives a crash of the machine; a torn tail is cut, never misread."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from journals import only_run, points, rows, segments
from programs import CALMLY, await_line, await_that, run, start

import tracer
from tracer import journal

#: Another boot than this one: what is unsealed may have been lost or torn, so it does not count.
AFTER_A_CRASH = "another boot"


def test_p02_what_was_logged_is_sealed_a_second_later(tmp_path: Path) -> None:
    process = start(
        """
        import time
        import tracer

        tracer.init(project="crash")
        for step in range(1000):
            tracer.log({"loss": float(step)}, step=step)
        print("logged", flush=True)
        time.sleep(600)
        """
    )
    await_line(process)
    folder = only_run(tmp_path / ".tracer")
    try:
        await_that(lambda: len(rows(folder, AFTER_A_CRASH)) == 1000, "everything is sealed")
    finally:
        process.kill()
        process.communicate()

    assert points(folder) == [("loss", step, float(step)) for step in range(1000)]


def test_p02_each_step_survives_when_asked_for(tmp_path: Path) -> None:
    with tracer.init(project="crash", durability="step", **CALMLY) as run:
        folder = only_run(tmp_path / ".tracer")
        for step in range(20):
            run.log({"loss": float(step)}, step=step)
            run.step()
            assert len(rows(folder, AFTER_A_CRASH)) == step + 1


def test_p02_flush_waits_until_everything_survives(tmp_path: Path) -> None:
    with tracer.init(project="crash", **CALMLY) as run:
        run.log({"loss": 1.0, "word": "x"})
        run.flush()

        assert len(rows(only_run(tmp_path / ".tracer"), AFTER_A_CRASH)) == 1


def test_p02_without_syncs_nothing_is_promised_but_the_checksums_are_there(tmp_path: Path) -> None:
    with tracer.init(project="crash", durability="none", **CALMLY) as run:
        run.log({"loss": 1.0})

    assert len(rows(only_run(tmp_path / ".tracer"), AFTER_A_CRASH)) == 1


def test_p02_a_torn_tail_is_cut_and_never_misread(tmp_path: Path, storm_seed: int) -> None:
    """Pages behind the last seal reach the disk in any order, or not at all."""
    chance = random.Random(storm_seed)  # noqa: S311 (no secrets)
    with tracer.init(project="crash", **CALMLY) as run:
        for step in range(5000):
            run.log({"a": float(step), "b": -float(step)}, step=step)
        run.flush()
        with run._recorder.upkeep._lock:  # the machine goes down before the next seal
            for step in range(5000, 10_000):
                run.log({"a": float(step), "b": -float(step)}, step=step)
            image = tmp_path / "image"
            shutil.copytree(run.folder, image)

    (path,) = segments(image)
    whole = path.read_bytes()
    header = journal.Header.unpack(whole)
    sealed = max(block.start + block.length for block in journal.read_blocks(next(image.rglob("*.seal")).read_bytes()))
    for _ in range(30):
        torn = bytearray(whole)
        for page in range(sealed // 4096 + 1, header.size // 4096):
            if chance.random() < 0.4:
                torn[page * 4096 : page * 4096 + 4096] = bytes(4096)
        path.write_bytes(torn)

        found = rows(image, AFTER_A_CRASH)

        assert [row.step for row in found] == list(range(5000))
        assert all(row.values == {"a": float(row.step), "b": -float(row.step)} for row in found)


def test_p02_a_disk_that_refuses_to_sync_once_costs_nothing(tmp_path: Path) -> None:
    """A refused sync is never repeated on the same file: what was not safe is written again elsewhere."""
    done = run(
        """
        import errno, os
        import tracer

        calls, sync = [], os.fdatasync

        def refuse_first(fd):
            calls.append(fd)
            if len(calls) == 2:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            sync(fd)

        os.fdatasync = refuse_first
        with tracer.init(project="crash") as run:
            for step in range(3000):
                tracer.log({"loss": float(step), "word": "x"}, step=step)
                if step % 1000 == 999:
                    run.flush()
            print(run._recorder.counters.nonzero())
        """,
        env={"TRACER_QUIET": "0"},
    )

    folder = only_run(tmp_path / ".tracer")
    assert sorted(points(folder)) == [("loss", step, float(step)) for step in range(3000)]
    assert len(rows(folder, AFTER_A_CRASH)) == 3000
    assert done.stdout == "{'sync_failures': 1}\n"
    assert done.stderr.count("refused to sync") == 1
    assert "Input/output error" in done.stderr


def test_p02_a_disk_that_never_syncs_costs_the_sync_only(tmp_path: Path) -> None:
    done = run(
        """
        import errno, os
        import tracer

        def refuse(fd):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        os.fdatasync = refuse
        with tracer.init(project="crash") as run:
            for step in range(3000):
                tracer.log({"loss": float(step)}, step=step)
                if step % 100 == 99:
                    run.flush()
            print(run._recorder.counters.nonzero())
        """,
        env={"TRACER_QUIET": "0"},
    )

    folder = only_run(tmp_path / ".tracer")
    assert sorted(points(folder)) == [("loss", step, float(step)) for step in range(3000)]
    assert done.stdout == "{'sync_failures': 3}\n"
    assert done.stderr.count("refused to sync") == 1
    assert "records that could not be kept" not in done.stderr
    assert len(segments(folder)) < 12
