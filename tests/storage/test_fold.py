"""The fold: what was recorded is stored exactly once, whatever happens on the way."""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dying import Died, mortal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journal_builder import JournalBuilder, make_run, make_store

from tracer import journal
from tracer.storage import Store, fold
from tracer.storage.compact import compact_run

Key = tuple[str, int, int]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


def stored(store: Store, uid: str) -> dict[Key, bytes]:
    """Every stored value, bit by bit."""
    found: dict[Key, bytes] = {}
    for row in store.metrics(uid):
        series = store.series(uid, row.metric, rank=row.rank)
        for step, value in zip(series.step.tolist(), series.value.tolist(), strict=True):
            found[row.metric, row.rank, step] = struct.pack("<d", math.nan if math.isnan(value) else value)
    return found


def bits(values: dict[Key, float]) -> dict[Key, bytes]:
    """An oracle's values, bit by bit; which of the many NaNs one was is not kept."""
    return {key: struct.pack("<d", math.nan if math.isnan(value) else value) for key, value in values.items()}


def record(builder: JournalBuilder, oracle: dict[Key, float], steps: range, rank: int = 0, scale: float = 1.0) -> None:
    """Append rows and remember them."""
    for step in steps:
        values = {"loss": scale * step / 7, "acc": scale * step / 3}
        builder.row(values, step, 1.7e9 + step)
        oracle |= {(name, rank, step): value for name, value in values.items()}


def test_a_fold_stores_every_point_and_releases_the_journal(base: Path) -> None:
    folder, oracle = make_run(base), {}
    builder = JournalBuilder(folder)
    record(builder, oracle, range(100))
    builder.next_segment()
    record(builder, oracle, range(100, 150))
    builder.seal()
    builder.write(closed=True)

    with Store.open(base) as store:
        folded = store.fold()

        assert folded == 300
        assert stored(store, "run-1") == bits(oracle)
        assert list((folder / "journal").iterdir()) == []
        assert [row.n for row in store.metrics("run-1")] == [150, 150]
        assert store.fold() == 0
        assert len(list((folder / "points").glob("*.parquet"))) == 1


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, -0.0, 5e-324, 2.2250738585072014e-308, 1e308, 0.1, 1 / 3, -1.7976931348623157e308],
)
@pytest.mark.parametrize("step", [-(2**63), -1, 0, 2**53 + 1, 2**63 - 1])
def test_values_and_steps_are_kept_bit_by_bit(base: Path, value: float, step: int) -> None:
    builder = JournalBuilder(make_run(base))
    builder.row({"x": value}, step)
    builder.write(closed=True)

    with Store.open(base) as store:
        before = store.series("run-1", "x")
        store.fold()
        after = store.series("run-1", "x")

        for series in (before, after):
            assert series.step.tolist() == [step]
            assert series.value.tobytes() == struct.pack("<d", value)
        row = store.metrics("run-1")[0]
        assert (row.n, row.first_step, row.last_step, row.nan, row.inf) == (
            1, step, step, int(math.isnan(value)), int(math.isinf(value)),
        )  # fmt: skip
        assert row.last is not None
        assert struct.pack("<d", row.last) == struct.pack("<d", value)


def test_of_equal_steps_the_last_one_wins_before_and_after_the_fold(base: Path) -> None:
    builder = JournalBuilder(make_run(base))
    for step, value in ((3, 1.0), (1, 2.0), (3, 3.0), (2, 4.0), (1, 5.0)):
        builder.row({"x": value}, step)
    builder.write(closed=True)

    with Store.open(base) as store:
        for _ in range(2):
            series = store.series("run-1", "x")
            assert series.step.tolist() == [1, 2, 3]
            assert series.value.tolist() == [5.0, 4.0, 3.0]
            store.fold()


def test_a_later_fold_wins_over_an_earlier_one_and_compaction_makes_the_summary_exact(base: Path) -> None:
    folder = make_run(base)
    with Store.open(base) as store:
        for value in (1.0, 2.0):
            builder = JournalBuilder(folder)
            builder.row({"x": value}, 7)
            builder.row({"x": value * 10}, int(value))
            builder.write(closed=True)
            store.fold()

        assert store.series("run-1", "x").value.tolist() == [10.0, 20.0, 2.0]
        store.compact(grace_s=0)
        assert store.series("run-1", "x").value.tolist() == [10.0, 20.0, 2.0]
        row = store.metrics("run-1")[0]
        assert (row.n, row.min, row.max, row.mean) == (3, 2.0, 20.0, 32 / 3)
        assert store.overview("run-1", "x").n.sum() == 3
        assert len(list((folder / "points").glob("*.parquet"))) == 1


def test_death_at_any_operation_of_a_fold_loses_and_doubles_nothing(base: Path) -> None:
    def build(uid: str) -> tuple[Path, dict[Key, float]]:
        folder, oracle = make_run(base, uid), {}
        builder = JournalBuilder(folder)
        record(builder, oracle, range(20))
        builder.record(journal.Kind.CHECKPOINT, {"values": {"loss": 1.0}}, 10, 1.7e9)
        builder.layers("gradients", ["a", "b"], ["norm", "max"], np.ones((2, 2)), 5)
        builder.next_segment()
        record(builder, oracle, range(20, 30))
        builder.seal()
        builder.write(closed=True)
        return folder, oracle

    build("count")
    with Store.open(base) as store:
        store.runs()
        with mortal(0) as life:
            store.fold("count")
    operations = life.count
    assert operations > 30

    for at in range(1, operations + 1):
        uid = f"run-{at}"
        _, oracle = build(uid)
        with Store.open(base) as store:
            store.runs()
            with mortal(at) as life, pytest.raises(Died):
                store.fold(uid)
        with Store.open(base) as store:
            assert stored(store, uid) == bits(oracle), life.names[-1]
            store.fold(uid)
            assert stored(store, uid) == bits(oracle), life.names[-1]
            assert [row.n for row in store.metrics(uid)] == [30, 30], life.names[-1]
            assert [row.step for row in store.checkpoints(uid)] == [10]
            assert store.layers(uid, "max").values.tolist() == [[1.0, 1.0]]
            assert store.run(uid).points == 60
    with Store.open(base) as store:
        report = store.check()
        assert report.problems == ()
        leftovers = [str(path) for path in base.rglob("*.part")] + [str(path) for path in base.rglob("lost/*")]
        assert leftovers == []


def test_death_at_any_operation_of_a_compaction_loses_and_doubles_nothing(base: Path) -> None:
    def build(uid: str) -> dict[Key, float]:
        folder, oracle = make_run(base, uid), {}
        with Store.open(base) as store:
            for part in range(2):
                builder = JournalBuilder(folder)
                record(builder, oracle, range(part * 5, part * 5 + 7), scale=part + 1.0)
                builder.record(journal.Kind.CHECKPOINT, {"values": {"loss": 1.0}}, part)
                builder.write(closed=True)
                store.fold(uid)
        return oracle

    build("count")
    with Store.open(base) as store, store.writing() as catalog, mortal(0) as life:
        compact_run(store, catalog, "count")
    operations = life.count

    for at in range(1, operations + 1):
        uid = f"run-{at}"
        oracle = build(uid)
        with Store.open(base) as store, pytest.raises(Died), store.writing() as catalog, mortal(at) as life:
            compact_run(store, catalog, uid)
        with Store.open(base) as store:
            assert stored(store, uid) == bits(oracle), life.names[-1]
            builder = JournalBuilder(base / "runs" / uid)
            record(builder, oracle, range(100, 101))
            builder.write(closed=True)
            store.fold(uid)
            store.compact(uid, grace_s=0)
            assert stored(store, uid) == bits(oracle), life.names[-1]
            assert [row.n for row in store.metrics(uid)] == [len(oracle) // 2] * 2
            assert len(store.checkpoints(uid)) == 2
    with Store.open(base) as store:
        assert store.check().problems == ()


def test_two_maintainers_at_once_store_everything_once(base: Path) -> None:
    oracles: dict[str, dict[Key, float]] = {}
    for number in range(12):
        folder = make_run(base, f"run-{number}")
        oracle: dict[Key, float] = {}
        for rank in range(2):
            builder = JournalBuilder(folder, rank=rank)
            record(builder, oracle, range(50), rank=rank)
            builder.seal()
            builder.next_segment()
            record(builder, oracle, range(50, 80), rank=rank)
            builder.write(closed=True)
        oracles[f"run-{number}"] = oracle
    program = (
        "import sys\nfrom tracer.storage import Store\n"
        "with Store.open(sys.argv[1]) as store:\n    print(store.fold(), flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(base)], stdout=subprocess.PIPE, env=environment)
        for _ in range(2)
    ]
    folded = [int(process.communicate(timeout=60)[0]) for process in processes]

    assert sum(folded) == sum(map(len, oracles.values()))
    with Store.open(base) as store:
        for uid, oracle in oracles.items():
            assert stored(store, uid) == bits(oracle)
        assert sum(row.n for uid in oracles for row in store.metrics(uid)) == sum(map(len, oracles.values()))
        assert store.check().problems == ()


def test_a_segment_whose_writer_lives_is_folded_but_kept(base: Path) -> None:
    folder, oracle = make_run(base, status="running"), {}
    builder = JournalBuilder(folder)
    record(builder, oracle, range(10))
    path = builder.write(room=1 << 20)
    with path.open("rb") as held:
        import fcntl

        fcntl.flock(held, fcntl.LOCK_SH)
        with Store.open(base) as store:
            assert store.fold() == 20
            assert path.exists()
            assert path.stat().st_size == len(builder.data) + (1 << 20)
            assert store.fold() == 0
            record(builder, oracle, range(10, 15))
            builder.write(room=1 << 20)  # the same file in place: the inode is kept
            assert stored(store, "run-1") == bits(oracle)
            assert store.fold() == 10
            assert stored(store, "run-1") == bits(oracle)
            assert store.run("run-1").is_live
    with Store.open(base) as store:
        store.fold()
        assert not path.exists()


def test_a_missing_segment_of_a_living_writer_is_waited_for(base: Path) -> None:
    folder = make_run(base, status="running")
    builder = JournalBuilder(folder)
    builder.row({"x": 0.0}, 0)
    held_back = bytes(builder.data)
    name = builder.path
    builder.next_segment()
    name.unlink()
    builder.row({"x": 1.0}, 1)
    builder.write()

    with Store.open(base) as store:
        assert store.fold() == 0
        assert store.series("run-1", "x").step.tolist() == [1]
        name.write_bytes(held_back)
        store.fold()
        assert store.series("run-1", "x").step.tolist() == [0, 1]
        assert store.metrics("run-1")[0].n == 2


def test_a_run_that_is_killed_is_crashed_and_run_json_says_so(base: Path) -> None:
    folder = make_run(base, status="running", pid=2**22 + 1, process_started=1, ended=None, exit_code=None)
    builder = JournalBuilder(folder)
    builder.row({"x": 1.0}, 41)
    builder.write(steps=42)

    with Store.open(base) as store:
        assert store.runs()[0].status == "crashed"
        store.fold()
        row = store.run("run-1")

    said = json.loads((folder / "run.json").read_text())
    assert (row.status, row.steps, said["status"], said["steps"]) == ("crashed", 42, "crashed", 42)
    assert row.reason is not None
    assert row.reason.startswith("no end record; last heartbeat 20")
    assert row.ended == said["ended"]


def test_an_end_record_counts_when_the_process_died_before_it_wrote_run_json(base: Path) -> None:
    folder = make_run(base, status="running", pid=2**22 + 1, process_started=1, ended=None)
    os.utime(folder / "run.json", (1_600_000_000, 1_600_000_000))
    builder = JournalBuilder(folder)
    builder.row({"x": 1.0}, 4)
    end = {"status": "failed", "reason": "ValueError: bad", "exit_code": 1, "ended": 1_700_000_050_000_000, "steps": 5}
    builder.record(journal.Kind.END, end, 5, 1_700_000_050.0)
    builder.write(closed=True)

    with Store.open(base) as store:
        store.fold()
        row = store.run("run-1")

    assert (row.status, row.reason, row.exit_code, row.steps) == ("failed", "ValueError: bad", 1, 5)
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"


def test_a_command_changes_what_is_known_of_a_run(base: Path) -> None:
    folder = make_run(base, config={"lr": 0.1, "model": {"depth": 2}}, tags=["a"])
    builder = JournalBuilder(folder, role="command", number=1)
    builder.record(
        journal.Kind.METADATA, {"notes": "good", "tags": ["b", "c"], "config": {"model": {"width": 3}}}, 0, 1.6e9
    )
    builder.write(closed=True)

    with Store.open(base) as store:
        store.fold()
        row = store.run("run-1")

        assert (row.notes, row.tags) == ("good", ("b", "c"))
        assert row.config == {"lr": 0.1, "model": {"depth": 2, "width": 3}}
        assert json.loads((folder / "run.json").read_text())["notes"] == "good"
        assert [found.uid for found in store.runs(where=[("tags", "=", "c"), ("config.model.width", ">=", 3)])] == [
            "run-1"
        ]


def test_a_rewind_voids_what_was_recorded_before_it(base: Path) -> None:
    folder = make_run(base)
    with Store.open(base) as store:
        first = JournalBuilder(folder)
        for step in range(10):
            first.row({"loss": float(step), "keep": float(step)}, step)
        first.write(closed=True)
        store.fold()
        second = JournalBuilder(folder)
        second.row({"loss": 50.0}, 5)
        second.record(journal.Kind.TOMBSTONE, {"step": 4, "pattern": "lo*"}, 4)
        second.row({"loss": 60.0}, 6)
        second.write(closed=True)

        for _ in range(2):
            assert store.series("run-1", "loss").step.tolist() == [0, 1, 2, 3, 6]
            assert store.series("run-1", "keep").step.tolist() == list(range(10))
            assert store.overview("run-1", "loss").n.sum() == 5
            store.fold()
        row = next(row for row in store.metrics("run-1") if row.metric == "loss")
        assert (row.n, row.last_step, row.last, row.max) == (5, 6, 60.0, 60.0)


def test_a_fold_takes_no_more_than_its_batch_at_once(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, oracle = make_run(base), {}
    builder = JournalBuilder(folder)
    for part in range(5):
        record(builder, oracle, range(part * 30, part * 30 + 30))
        builder.next_segment()
    builder.write(closed=True)
    batches = []
    gather = fold.gather
    monkeypatch.setattr(fold, "gather", lambda *given: batches.append(batch := gather(*given, limit=100)) or batch)

    with Store.open(base) as store:
        store.fold()

        assert [batch.columns.points for batch in batches] == [120, 120, 60]
        assert stored(store, "run-1") == bits(oracle)
        assert [row.n for row in store.metrics("run-1")] == [150, 150]


names = st.sampled_from(["loss", "acc", "ünïcode/ß", "../x", "a\x00b", "", " "])
numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)
calls = st.lists(
    st.tuples(
        st.dictionaries(names, numbers, min_size=1, max_size=4), st.integers(-5, 40), st.integers(0, 2), st.booleans()
    ),
    max_size=40,
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=calls)
def test_folds_of_any_calls_equal_a_dict(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[dict[str, float], int, int, bool]]
) -> None:
    base = make_store(tmp_path_factory.mktemp("store"))
    folder = make_run(base)
    oracle: dict[Key, float] = {}
    builders = [JournalBuilder(folder, rank=rank) for rank in range(3)]

    with Store.open(base) as store:
        for values, step, rank, fold_now in calls:
            builders[rank].row(values, step)
            oracle |= {(name, rank, step): value for name, value in values.items()}
            if fold_now:
                builders[rank].next_segment()
                assert stored(store, "run-1").keys() <= oracle.keys()
                store.fold()
        for builder in builders:
            builder.write(closed=True)
        live = stored(store, "run-1")
        store.fold()

        assert live == bits(oracle)
        assert stored(store, "run-1") == bits(oracle)
        store.compact(grace_s=0)
        assert stored(store, "run-1") == bits(oracle)
        assert sum(row.n for row in store.metrics("run-1")) == len(oracle)
        store.rebuild()
        assert stored(store, "run-1") == bits(oracle)
        assert sum(row.n for row in store.metrics("run-1")) == len(oracle)


@pytest.mark.slow
def test_a_hundred_thousand_names_in_one_run_fold_in_bounded_memory(base: Path) -> None:
    builder = JournalBuilder(make_run(base))
    count = 100_000
    for number in range(count):
        builder.row({f"metric/{number:07d}": float(number)}, 1)
    builder.write(closed=True)

    with Store.open(base) as store:
        assert store.fold() == count
        assert len(store.metrics("run-1")) == count
        assert store.series("run-1", "metric/0054321").value.tolist() == [54321.0]
