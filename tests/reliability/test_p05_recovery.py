"""P5: recording recovers by itself when the disk has room again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from journals import only_run, rows, segments
from programs import CALMLY, await_that

import tracer


@pytest.mark.parametrize("journal_mode", ["mapped", "append"])
def test_p05_space_that_returns_is_used_and_nothing_is_lost(
    small_disk: Callable[..., Path], fill: Callable[[Path], Path], journal_mode: str
) -> None:
    disk = small_disk(6000)
    with tracer.init(project="recovery", storage_path=disk, journal=journal_mode, **{**CALMLY, "strict": False}) as run:
        recorder, step = run._recorder, 0

        def log(count: int) -> None:
            nonlocal step
            for _ in range(count):
                run.log({"loss": float(step)}, step=step)
                step += 1

        log(1000)
        ballast = fill(disk)
        while recorder.mode != "memory":
            log(1000)
        log(20_000)
        assert recorder.counters.nonzero().get("records_lost", 0) == 0

        ballast.unlink()
        await_that(lambda: recorder.mode != "memory", "the disk is tried again")
        memory_ends = step
        await_that(lambda: log(1) or recorder.writer().segment.kind == journal_mode, "a new segment is on the disk")
        await_that(
            lambda: {row.step for row in rows(only_run(disk))} >= set(range(memory_ends)), "what lay in memory is saved"
        )
        log(1000)

    found = Counter((row.step, row.values["loss"]) for row in rows(only_run(disk)))
    assert found == {(number, float(number)): 1 for number in range(step)}
    assert run._recorder.counters.nonzero().get("records_lost", 0) == 0
    assert runfile_status(disk) == "completed"


def runfile_status(store: Path) -> str:
    """Return the status that `run.json` tells."""
    from tracer import runfile

    return str(runfile.read(str(only_run(store)))["status"])


def test_p05_a_folder_that_was_deleted_is_made_again() -> None:
    with tracer.init(project="recovery", **{**CALMLY, "strict": False}) as run:
        folder = Path(run.folder)
        run.log({"loss": 0.0}, step=0)
        run.flush()
        for path in (folder / "journal").iterdir():
            path.unlink()
        (folder / "journal").rmdir()
        for step in range(1, 100):
            run.log({"loss": float(step)}, step=step)
        await_that((folder / "journal").exists, "the folder is made again")
        run.log({"loss": 100.0}, step=100)

    assert sorted(row.step for row in rows(folder)) == list(range(1, 101))


def test_p05_segments_left_in_memory_are_never_read_twice(
    small_disk: Callable[..., Path], fill: Callable[[Path], Path]
) -> None:
    """Full and free again, over and over, with several threads' worth of journals."""
    disk = small_disk(6000)
    with tracer.init(project="recovery", storage_path=disk, **{**CALMLY, "strict": False}) as run:
        recorder, step = run._recorder, 0
        for _ in range(3):
            ballast = fill(disk)
            while recorder.mode != "memory":
                run.log({"loss": float(step), "word": "x"}, step=step)
                step += 1
            for _ in range(2000):
                run.log({"loss": float(step), "word": "x"}, step=step)
                step += 1
            ballast.unlink()
            recorder.upkeep._next_retry = 0.0
            await_that(lambda: recorder.mode == "mapped", "the disk is back")

    folder = only_run(disk)
    assert Counter(row.step for row in rows(folder)) == dict.fromkeys(range(step), 1)
    assert len({path.name for path in segments(folder)}) == len(segments(folder))
