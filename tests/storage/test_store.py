"""The store's answers about runs: found by any name, live ones shown as they are, and without heavy imports."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from journal_builder import JournalBuilder, make_run, make_store

from tracer import clock, events, journal
from tracer.errors import RunNotFound, SchemaTooNew, StoreError
from tracer.storage import Store, duck
from tracer.storage.catalog import Catalog
from tracer.storage.maintainer import Busy, maintaining


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


def three_runs(base: Path) -> None:
    """Runs that differ in everything one can ask for."""
    make_run(base, "aaa-1", name="first", started=10, ended=5_000_010, config={"lr": 0.1, "opt": "adam"}, tags=["x"])
    make_run(
        base, "aab-2", name="second", started=20, project="other", config={"lr": 0.01, "opt": "sgd"}, status="failed"
    )
    make_run(base, "b-3", name="first", started=30, config={"lr": 0.001, "model": {"depth": 4, "on": True}}, group="g")
    for uid, loss in (("aaa-1", 3.0), ("aab-2", 1.0), ("b-3", 2.0)):
        builder = JournalBuilder(base / "runs" / uid)
        builder.row({"loss": loss}, 1)
        builder.write(closed=True)


def test_a_store_that_is_not_there_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"There is no store in .*tracer\.init"):
        Store.open(tmp_path / "nothing")


def test_a_newer_store_is_refused_untouched(base: Path) -> None:
    (base / "store.json").write_text('{"format": 99}')

    with pytest.raises(SchemaTooNew, match="pip install -U ml-tracer"):
        Store.open(base)


def test_a_newer_catalog_is_refused_untouched(base: Path) -> None:
    with Store.open(base) as store:
        store.runs()
        with store.writing() as catalog:
            catalog.connection.execute("PRAGMA user_version=99")
    before = (base / "tracer.db").read_bytes()

    with Store.open(base) as store, pytest.raises(SchemaTooNew, match="schema 99"):
        store.runs()

    assert (base / "tracer.db").read_bytes() == before


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ([("config.lr", "<", 0.05)], ["b-3", "aab-2"]),
        ([("config.opt", "=", "adam")], ["aaa-1"]),
        ([("config.opt", "~", "A")], ["aaa-1"]),
        ([("config.model.on", "=", True)], ["b-3"]),
        ([("metric.loss", ">=", 2)], ["b-3", "aaa-1"]),
        ([("tags", "=", "x")], ["aaa-1"]),
        ([("tags", "!=", "x")], ["b-3", "aab-2"]),
        ([("group", "=", "g")], ["b-3"]),
        ([("name", "!=", "first")], ["aab-2"]),
        ([("duration_s", "=", 5.0)], ["aaa-1"]),
        ([("config.lr", "<", 0.05), ("project", "=", "demo")], ["b-3"]),
    ],
)
@pytest.mark.parametrize("place", ["catalog", "folders"])
def test_runs_are_chosen_by_conditions(
    base: Path, where: list[tuple[str, str, object]], names: list[str], place: str
) -> None:
    three_runs(base)
    with Store.open(base) as store:
        if place == "catalog":
            store.fold()
            assert [row.uid for row in store.runs(where=where)] == names
            return
        store.catalog.rows("SELECT 1")
        with _somebody_maintains(base):  # what cannot be written into the catalog is laid over it
            assert [row.uid for row in store.runs(where=where)] == names


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("-started", ["b-3", "aab-2", "aaa-1"]),
        ("started", ["aaa-1", "aab-2", "b-3"]),
        ("metric:loss", ["aab-2", "b-3", "aaa-1"]),
        ("-metric:loss", ["aaa-1", "b-3", "aab-2"]),
        ("metric:nothing", ["b-3", "aab-2", "aaa-1"]),
        ("config:lr", ["b-3", "aab-2", "aaa-1"]),
        ("-name", ["aab-2", "b-3", "aaa-1"]),
        ("group", ["b-3", "aab-2", "aaa-1"]),
    ],
)
def test_runs_are_sorted(base: Path, sort: str, names: list[str]) -> None:
    three_runs(base)
    with Store.open(base) as store:
        store.catalog.rows("SELECT 1")
        with _somebody_maintains(base):
            assert [row.uid for row in store.runs(sort=sort)] == names
        store.fold()
        assert [row.uid for row in store.runs(sort=sort)] == names
        assert [row.uid for row in store.runs(sort=sort, limit=2)] == names[:2]


def test_unknown_columns_operators_and_statuses_are_refused_by_name(base: Path) -> None:
    with Store.open(base) as store:
        with pytest.raises(ValueError, match="'colour' is no column of a run"):
            store.runs(sort="colour")
        with pytest.raises(ValueError, match="'=<' is no comparison"):
            store.runs(where=[("steps", "=<", 1)])
        with pytest.raises(ValueError, match="'done' is no status"):
            store.runs(status="done")
        with pytest.raises(ValueError, match="is no column of a run"):
            store.runs(where=[('name" OR 1=1 --', "=", "x")])


def test_filters_and_limits_go_together(base: Path) -> None:
    three_runs(base)
    with Store.open(base) as store:
        assert [row.uid for row in store.runs(project="demo", limit=1)] == ["b-3"]
        assert [row.uid for row in store.runs(status="failed")] == ["aab-2"]
        assert [row.uid for row in store.runs(name="first")] == ["b-3", "aaa-1"]
        assert [row.uid for row in store.runs(name="f*st", limit=1)] == ["b-3"]


def test_a_run_answers_to_its_id_name_project_beginning_and_age(base: Path) -> None:
    three_runs(base)
    with Store.open(base) as store:
        asked = ["aaa-1", "first", "demo/first", "other/second", "aab", "@last", "@last:3"]
        assert [store.run(name).uid for name in asked] == ["aaa-1", "b-3", "b-3", "aab-2", "aab-2", "b-3", "aaa-1"]
        assert [row.uid for row in store.matches("first")] == ["b-3", "aaa-1"]
        assert store.matches("nobody") == []


def test_a_name_that_fits_no_run_or_several_is_refused_with_what_there_is(base: Path) -> None:
    three_runs(base)
    with Store.open(base) as store:
        with pytest.raises(RunNotFound, match="Did you mean 'second'"):
            store.run("secnd")
        with pytest.raises(RunNotFound, match=r"'aa' fits 2 runs: aab-2 \(second\), aaa-1 \(first\)"):
            store.run("aa")
        with pytest.raises(RunNotFound, match="There is no run '@last:9'"):
            store.run("@last:9")
    with Store.open(make_store(base.parent / "empty")) as store, pytest.raises(RunNotFound, match="holds none"):
        store.run("anything")


def test_folders_that_come_change_and_go_are_noticed(base: Path) -> None:
    folder = make_run(base, "one")
    with Store.open(base) as store:
        assert [row.uid for row in store.runs()] == ["one"]
        make_run(base, "two", started=1_800_000_000_000_000)
        facts = json.loads((folder / "run.json").read_text())
        from tracer import runfile

        runfile.replace(str(folder), {**facts, "name": "renamed", "tags": ["new"]})
        assert [(row.uid, row.name, row.tags) for row in store.runs()] == [
            ("two", "two", ()),
            ("one", "renamed", ("new",)),
        ]
        shutil.rmtree(base / "runs" / "two")
        (folder).rename(base / "runs" / "elsewhere")
        assert [(row.uid, row.folder) for row in store.runs()] == [("one", "elsewhere")]


def test_a_damaged_run_json_hides_its_run_only(base: Path) -> None:
    make_run(base, "good")
    (make_run(base, "bad") / "run.json").write_text("{")
    (base / "runs" / "begun" / "journal").mkdir(parents=True)
    (base / "runs" / "begun" / ".run.1.2.json").write_text("{")

    with Store.open(base) as store:
        assert [row.uid for row in store.runs()] == ["good"]
        assert [problem.path for problem in store.check().problems] == [str(base / "runs" / "bad" / "run.json")]


def test_odd_facts_do_not_break_the_list(base: Path) -> None:
    make_run(
        base, "odd", name="\ud800x", started=1.5, steps="many",
        config={"a": {"b": [1, 2]}, "n": float("nan"), "big": 10**400}, tags="none", environment=None, git=3,
        expires=2**80, status="strange",
    )  # fmt: skip

    with Store.open(base) as store:
        row = store.run("odd")

    assert (row.name, row.started, row.steps, row.tags, row.git, row.expires) == ("?x", 2, 0, (), {}, 2**63 - 1)


def test_a_copied_run_is_indexed_with_everything_in_it(base: Path, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other")
    builder = JournalBuilder(make_run(other, "copied"))
    for step in range(50):
        builder.row({"loss": float(step)}, step)
    builder.record(journal.Kind.CHECKPOINT, {"values": {"loss": 9.0}}, 9)
    builder.write(closed=True)
    with Store.open(other) as store:
        store.fold()
    shutil.copytree(other / "runs" / "copied", base / "runs" / "copied")

    with Store.open(base) as store:
        assert [row.uid for row in store.runs()] == ["copied"]
        assert [(row.n, row.last) for row in store.metrics("copied")] == [(50, 49.0)]
        assert [row.metrics for row in store.checkpoints("copied")] == [{"loss": 9.0}]
        assert store.series("copied", "loss").value.tolist() == [float(step) for step in range(50)]
        assert store.check().problems == ()


def test_two_folders_of_one_id_are_not_mixed(base: Path) -> None:
    make_run(base, "one")
    with Store.open(base) as store:
        store.runs()
        shutil.copytree(base / "runs" / "one", base / "runs" / "copy")
        assert [row.folder for row in store.runs()] == ["one"]
        assert [problem.fact for problem in store.check().problems] == ["the catalog does not know the run"]


def test_listing_and_showing_load_the_standard_library_only(base: Path) -> None:
    three_runs(base)
    builder = JournalBuilder(make_run(base, "live", status="running", started=40))
    builder.row({"loss": 0.5}, 3)
    builder.record(journal.Kind.CHECKPOINT, {"values": {}}, 3)
    builder.layers("gradients", ["a"], ["norm"], _Matrix(), 3)
    builder.record(journal.Kind.FINDING, {"kind": "spike", "severity": "low", "details": {}}, 3)
    builder.write()
    program = """
import sys
from tracer.storage import Store
with Store.open(sys.argv[1]) as store:
    store.runs(sort="metric:loss", where=[("config.lr", "<", 1)])
    uid = store.run("live").uid
    assert [row.last for row in store.metrics(uid)] == [0.5]
    assert len(store.checkpoints(uid)) == len(store.findings(uid)) == len(store.layer_names(uid)) == 1
    assert store.last_values()[uid] == {"loss": 0.5}
heavy = {"numpy", "duckdb", "torch", "pandas", "pyarrow"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run(
        [sys.executable, "-c", program, str(base)],
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_tables_and_overviews_open_no_parquet_file(base: Path) -> None:
    three_runs(base)
    with Store.open(base) as store:
        store.fold()
        before = duck.opened
        store.runs(sort="metric:loss")
        for uid in ("aaa-1", "aab-2", "b-3"):
            store.metrics(uid), store.checkpoints(uid), store.findings(uid), store.overview(uid, "loss")
        store.last_values()
        assert duck.opened == before
        store.series("b-3", "loss")
        assert duck.opened == before + 1


def test_a_page_of_runs_takes_as_many_statements_for_many_runs_as_for_few(base: Path) -> None:
    def statements(store: Store) -> int:
        store.runs(limit=20)
        seen: list[str] = []
        store.catalog.connection.set_trace_callback(seen.append)
        store.runs(limit=20)
        store.catalog.connection.set_trace_callback(None)
        return len(seen)

    with Store.open(base) as store:
        for number in range(3):
            make_run(base, f"few-{number}")
        few = statements(store)
        for number in range(60):
            make_run(base, f"many-{number}")
        assert statements(store) == few


def test_a_running_run_is_shown_from_its_journal(base: Path) -> None:
    folder = make_run(base, "live", status="running", ended=None, steps=0)
    builder = JournalBuilder(folder)
    builder.row({"loss": 1.0, "note": 2.0}, 7)
    builder.record(journal.Kind.TYPED, {"values": {"phase": "warm"}}, 7)
    builder.write(room=4096, steps=8)

    with Store.open(base) as store:
        row = store.runs()[0]
        assert (row.status, row.is_live, row.steps) == ("running", True, 8)
        assert row.heartbeat is not None
        assert row.duration_s > 0
        assert [(one.metric, one.last, one.is_text) for one in store.metrics("live")] == [
            ("loss", 1.0, False), ("note", 2.0, False), ("phase", None, True),
        ]  # fmt: skip
        assert store.overview("live", "loss").mean.tolist() == [1.0]
        assert store.texts("live", "phase") == [(7, 1_700_000_000_000_000, "warm")]


def test_another_hosts_run_lives_as_long_as_its_heart_beats(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(base, "far", status="running", host="elsewhere", boot="theirs")
    builder = JournalBuilder(folder, boot="theirs")
    builder.row({"x": 1.0}, 1)
    builder.write()

    with Store.open(base) as store:
        assert store.runs()[0].status == "running"
        now = clock.now_us()
        monkeypatch.setattr(clock, "now_us", lambda: now + 31_000_000)
        assert store.runs()[0].status == "crashed"


def test_a_dead_process_that_nobody_waited_for_is_dead(base: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    make_run(base, "live", status="running", pid=process.pid, process_started=clock.process_started(process.pid))
    with Store.open(base) as store:
        assert store.runs()[0].status == "running"
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
        assert store.runs()[0].status == "crashed"
    process.wait()


def test_findings_are_kept_once_and_lie_in_the_run_folder(base: Path) -> None:
    make_run(base, "run")
    found = events.Finding("spike", "high", 5, {"metric": "loss", "value": float("nan")}, last_step=6)
    other = events.Finding("spike", "high", 5, {"metric": "acc"})
    with Store.open(base) as store:
        assert store.add_findings("run", [found, other, found]) == 2
        assert store.add_findings("run", [found]) == 0
        rows = store.findings("run")
        assert [(row.step, row.last_step, row.kind, row.severity, row.source) for row in rows] == [
            (5, 6, "spike", "high", "offline"), (5, None, "spike", "high", "offline"),
        ] or [row.details["metric"] for row in rows] == ["acc", "loss"]  # fmt: skip
        assert store.findings("run", kinds=["plateau"]) == []
        store.rebuild()
        assert store.findings("run") == rows or len(store.findings("run")) == 2


def test_a_follower_sees_every_record_and_goes_on_where_another_stopped(base: Path) -> None:
    folder = make_run(base, "live", status="running")
    builder = JournalBuilder(folder)
    builder.row({"loss": 0.0}, 0)
    path = builder.write(room=1 << 16)
    with Store.open(base) as store, path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        updates = store.follow("live", poll_s=0.01)
        first = next(updates)
        builder.row({"loss": 1.0}, 1)
        builder.record(journal.Kind.TYPED, {"values": {"phase": "b"}}, 1)
        builder.write(room=1 << 16)
        second = next(updates)
        updates.close()
        from tracer import runfile

        runfile.replace(str(folder), {**runfile.read(str(folder)), "status": "completed"})
        again = list(store.follow("live", first.position, poll_s=0.01))

    assert first.values == (("loss", 0, 0, 1_700_000_000_000_000, 0.0),)
    assert [(name, step, value) for name, _, step, _, value in second.values] == [("loss", 1, 1.0), ("phase", 1, "b")]
    assert [update.values for update in again] == [second.values]


def test_a_follower_reads_a_segment_to_its_end_though_it_was_folded(base: Path) -> None:
    folder = make_run(base, "live", status="running")
    builder = JournalBuilder(folder)
    builder.row({"loss": 0.0}, 0)
    builder.write(room=1 << 16)
    with Store.open(base) as store:
        updates = store.follow("live", poll_s=0.01)
        next(updates)
        builder.row({"loss": 1.0}, 1)
        builder.write(closed=True)
        store.fold()
        assert not builder.path.exists()
        builder.number += 1
        builder._begin()
        builder.row({"loss": 2.0}, 2)
        builder.write(room=1 << 16)
        seen = [value for _, _, _, _, value in next(updates).values]
        updates.close()

    assert seen == [1.0, 2.0]


def test_a_lock_is_shared_by_the_calls_of_a_thread_and_refused_to_others(base: Path) -> None:
    with maintaining(str(base)), maintaining(str(base)), Store.open(base) as store, store.writing(wait_s=0):
        errors: list[Exception] = []

        def other() -> None:
            try:
                with maintaining(str(base), wait_s=0.0):
                    pass
            except Busy as error:
                errors.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert len(errors) == 1


def test_while_somebody_else_maintains_reading_goes_on(base: Path) -> None:
    three_runs(base)
    with Store.open(base) as store:
        store.fold()
        builder = JournalBuilder(base / "runs" / "b-3")
        builder.row({"loss": 0.5}, 9)
        builder.write(closed=True)
        make_run(base, "new", started=99)
        with _somebody_maintains(base):
            assert [row.uid for row in store.runs()] == ["new", "b-3", "aab-2", "aaa-1"]
            assert store.run("new").name == "new"
            assert store.series("b-3", "loss").value.tolist() == [2.0, 0.5]
            assert store.maintain(0.1) == 0


def test_a_store_nobody_may_write_is_read_from_memory(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three_runs(base)

    def refuse(path: str) -> Catalog:
        message = f"{path} cannot be opened"
        raise OSError(message)

    monkeypatch.setattr(Catalog, "write", refuse)
    with Store.open(base) as store:
        assert [row.uid for row in store.runs()] == ["b-3", "aab-2", "aaa-1"]
        assert [row.last for row in store.metrics("b-3")] == [2.0]
        assert store.series("b-3", "loss").value.tolist() == [2.0]
    assert not (base / "tracer.db").exists()


def test_a_connection_is_not_carried_across_a_fork(base: Path) -> None:
    three_runs(base)
    with Store.open(base) as store:
        store.fold()
        mine = store.catalog
        child = os.fork()
        if child == 0:
            theirs = store.catalog
            os._exit(0 if theirs is not mine and len(store.runs()) == 3 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class _Matrix:
    """A matrix of one by one, without numpy."""

    def astype(self, _: str) -> _Matrix:
        return self

    def tobytes(self) -> bytes:
        return bytes(4)


class _somebody_maintains:  # noqa: N801 -- reads as what it is
    """Hold the lock as another process does: by another open file."""

    def __init__(self, base: Path) -> None:
        self._file = (base / "maintainer.lock").open("a")

    def __enter__(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def __exit__(self, *_: object) -> None:
        self._file.close()
