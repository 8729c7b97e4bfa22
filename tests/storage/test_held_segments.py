"""Segments that are folded stay while a lane of a back end has not read them, and are read by nobody twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from journal_builder import JournalBuilder, make_run, make_store
from programs import CALMLY

from tracer import cursors, runfile
from tracer.cursors import Cursor
from tracer.storage import Store
from tracer.storage.feed import Feed

POINTS = frozenset({"points"})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


def lane(folder: Path, builder: JournalBuilder, segment: int, offset: int = 0, **said: object) -> Cursor:
    """A lane that has read up to a place."""
    cursor = Cursor(str(folder), "mlflow")
    cursor.change({"state": cursors.ACTIVE, "places": {builder.writer.hex(): (segment, offset)}, **said})
    return cursor


def recorded(folder: Path, segments: int = 3, steps: int = 10) -> JournalBuilder:
    """A finished journal of some segments."""
    builder = JournalBuilder(folder)
    for segment in range(segments):
        for step in range(segment * steps, segment * steps + steps):
            builder.row({"loss": step / 7}, step)
        builder.seal()
        if segment + 1 < segments:
            builder.next_segment()
    builder.write(closed=True)
    return builder


def kept(folder: Path) -> list[int]:
    """The numbers of the segments that are there."""
    return sorted(int(path.name.split(".")[1]) for path in (folder / "journal").glob("*.trj"))


def fed(folder: Path, places: dict[str, tuple[int, int]]) -> tuple[list[int], bool]:
    """The steps that a lane still gets, and whether something is gone."""
    feed = Feed(str(folder), places, kinds=POINTS)
    found = [step for event in feed.read(10**6).events for step in event.steps.tolist()]  # type: ignore[union-attr]
    feed.close()
    return found, feed.gap


def test_a_segment_stays_until_the_lane_has_passed_it(base: Path) -> None:
    folder = make_run(base)
    builder = recorded(folder)
    cursor = lane(folder, builder, 1, 4200)
    with Store.open(base) as store:
        assert store.fold() == 30
        assert kept(folder) == [1, 2]
        assert builder.seal_path.exists()

        cursor.change({"places": {builder.writer.hex(): (2, 0)}})
        assert store.fold() == 0
        assert kept(folder) == [2]

        cursor.change({"state": cursors.COMPLETE})
        assert store.release("run-1") == 1
        assert list((folder / "journal").iterdir()) == []
        assert store.release("run-1") == 0


def test_a_lane_that_said_nothing_yet_needs_everything(base: Path) -> None:
    folder = make_run(base)
    builder = recorded(folder)
    Cursor(str(folder), "aim").change({})
    with Store.open(base) as store:
        store.fold()

    assert kept(folder) == [0, 1, 2]
    assert fed(folder, {}) == (list(range(30)), False)
    assert fed(folder, {builder.writer.hex(): (3, 0)}) == ([], False)


@pytest.mark.parametrize("state", [cursors.COMPLETE, cursors.BEHIND])
def test_a_lane_that_reads_no_journal_keeps_nothing(base: Path, state: str) -> None:
    folder = make_run(base)
    lane(folder, recorded(folder), 0, state=state)
    with Store.open(base) as store:
        store.fold()

    assert kept(folder) == []


def test_what_is_kept_is_read_by_nobody_twice(base: Path) -> None:
    folder = make_run(base)
    builder = recorded(folder)
    lane(folder, builder, 0)
    with Store.open(base) as store:
        store.fold()

        def seen() -> tuple[object, ...]:
            row = store.metrics("run-1")[0]
            series = store.series("run-1", "loss")
            counted = store.sql("SELECT count(*) FROM points").rows
            return row.n, len(series), store.overview("run-1", "loss").n.sum(), counted, store.check().problems

        before = seen()
        assert before == (30, 30, 30, ((30,),), ())
        assert store.fold() == 0
        assert store.maintain() == 0
        assert seen() == before
        assert store.compact(grace_s=0) == 0
        assert list(store.follow("run-1", poll_s=0.01)) == []
        assert store.rebuild().points == 30
        assert store.fold() == 0
        assert seen() == before
        assert store.check(repair=True).is_clean
        assert seen() == before
        assert kept(folder) == [0, 1, 2]


def test_a_run_whose_journal_is_only_kept_is_settled_for_readers(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(base)
    lane(folder, recorded(folder), 0)
    with Store.open(base) as store:
        store.fold()
        store.fold()

        def never(*_: object) -> None:
            raise AssertionError

        monkeypatch.setattr("tracer.storage.snapshot.read_recent", never)
        monkeypatch.setattr("tracer.storage.tails.read_tails", never)

        assert store.metrics("run-1")[0].n == 30
        assert store.last_values(["run-1"])["run-1"]["loss"] == 29 / 7


def test_a_long_journal_that_is_kept_does_not_make_readers_fold(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(base, status="running")
    builder = recorded(folder)
    lane(folder, builder, 0)
    live = JournalBuilder(folder)
    live.row({"loss": 1.0}, 100)
    live.write(room=1 << 16)
    with Store.open(base) as store:
        store.fold()
        monkeypatch.setattr("tracer.storage.summaries._LONG_TAIL", 5 << 16)
        folds: list[str] = []
        monkeypatch.setattr("tracer.storage.fold.try_fold", lambda _, uid: folds.append(uid))
        for path in (folder / "journal").glob(f"{builder.writer.hex()}.*"):
            with path.open("ab") as file:
                file.truncate(1 << 22)

        assert store.metrics("run-1")[0].last_step == 100
        assert folds == []


def test_beyond_the_spool_the_oldest_go_and_the_lane_is_told(base: Path) -> None:
    folder = make_run(base, settings={"spool_max_bytes": 0})
    builder = recorded(folder)
    size = max(path.stat().st_blocks * 512 for path in (folder / "journal").glob("*.trj"))
    runfile.replace(str(folder), {**runfile.read(str(folder)), "settings": {"spool_max_bytes": 2 * size}})
    cursor = lane(folder, builder, 0)
    with Store.open(base) as store:
        store.fold()

        assert kept(folder) == [1, 2]
        assert fed(folder, cursor.places) == (list(range(10, 30)), True)
        assert fed(folder, {builder.writer.hex(): (1, 0)}) == (list(range(10, 30)), False)

        runfile.replace(str(folder), {**runfile.read(str(folder)), "settings": {"spool_max_bytes": 0}})
        store.fold()

        assert kept(folder) == []
        assert fed(folder, cursor.places) == ([], True)
        cursor.change({"state": cursors.BEHIND})
        assert store.fold() == 0
        assert store.series("run-1", "loss").step.tolist() == list(range(30))


def test_a_lane_that_has_a_segment_open_reads_it_to_its_end_though_it_went(base: Path) -> None:
    folder = make_run(base, settings={"spool_max_bytes": 0})
    builder = recorded(folder, segments=1)
    lane(folder, builder, 0)
    feed = Feed(str(folder), {}, kinds=POINTS)
    first = feed.read(1)
    with Store.open(base) as store:
        store.fold()
    assert kept(folder) == []

    rest = feed.read(1000)
    feed.close()

    assert (first.points, rest.points, feed.gap) == (1, 9, False)


def test_a_lane_whose_file_makes_no_sense_does_not_keep_the_run_from_being_folded(base: Path) -> None:
    folder = make_run(base)
    lane(folder, recorded(folder), 0, places=["?"])
    with Store.open(base) as store:
        assert store.fold() == 30

    assert kept(folder) == [0, 1, 2]


def test_a_full_disk_keeps_what_a_lane_could_not_be_told_of(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(base, settings={"spool_max_bytes": 0})
    lane(folder, recorded(folder), 0)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tracer.storage.held.write_json", full)
    with Store.open(base) as store:
        assert store.fold() == 30

    assert kept(folder) == [0, 1, 2]


def test_a_lane_that_begins_when_all_is_folded_and_gone_is_late(base: Path) -> None:
    folder = make_run(base)
    recorded(folder)
    with Store.open(base) as store:
        store.fold()

    assert fed(folder, {}) == ([], True)


PROGRAM = """
import tracer
run = tracer.init(project="p", run_name="r", **{settings!r})
print(run.folder, flush=True)
for step in range(40_000):
    tracer.log({{"loss": step / 7, "acc": float(step), "lr": 0.5}})
    tracer.step()
tracer.finish()
"""


def test_a_lane_beside_a_live_run_that_is_folded_all_the_time_gets_everything_once(tmp_path: Path) -> None:
    text = PROGRAM.format(settings=CALMLY)
    with subprocess.Popen([sys.executable, "-c", text], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = tmp_path / process.stdout.readline().strip()
        cursor = Cursor(str(folder), "mlflow")
        cursor.change({"state": cursors.ACTIVE})
        steps: list[int] = []
        with Store.open(tmp_path / ".tracer") as store:
            (row,) = store.runs()
            while True:
                is_last = process.poll() is not None
                feed = Feed(str(folder), Cursor(str(folder), "mlflow").places, kinds=POINTS)  # as one that began anew
                batch = feed.read(3000)
                assert not feed.gap
                feed.close()
                steps += [step for event in batch.events if event.name == "loss" for step in event.steps.tolist()]  # type: ignore[union-attr]
                store.fold()
                cursor.change({"places": batch.places})
                if is_last and not batch.events:
                    break
            assert len(kept(folder)) <= 2
            cursor.change({"state": cursors.COMPLETE})
            store.fold()
            assert kept(folder) == []
            assert len(store.series(row.uid, "loss")) == 40_000

    assert steps == list(range(40_000))
