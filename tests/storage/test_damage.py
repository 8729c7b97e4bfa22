"""Damage costs itself only: it is refused or set aside by name, everything else is read, and the catalog is rebuilt."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from journal_builder import JournalBuilder, make_run, make_store

from tracer import events, journal
from tracer.errors import StoreError, TracerError
from tracer.storage import Store, duck
from tracer.storage.values import Series

Answers = dict[str, object]


def build(base: Path, *, fold: bool = True) -> None:
    """Two runs with points, checkpoints, texts, layers and findings."""
    make_store(base)
    import numpy as np

    for uid in ("hit", "whole"):
        folder = make_run(base, uid, config={"lr": 0.1}, tags=["t"])
        builder = JournalBuilder(folder)
        for step in range(60):
            builder.row({"loss": step * 0.5, "acc": step / 60}, step, 1.7e9 + step)
            if step % 10 == 9:
                builder.record(journal.Kind.CHECKPOINT, {"values": {"loss": step * 0.5}}, step, 1.7e9 + step)
                builder.layers("gradients", ["a", "b"], ["norm"], np.array([[step, 1]]), step, 1.7e9 + step)
                builder.record(journal.Kind.TYPED, {"values": {"phase": f"p{step}"}}, step, 1.7e9 + step)
                builder.seal()
        builder.seal()
        builder.write(closed=True)
    if fold:
        with Store.open(base) as store:
            store.fold()
            store.add_findings("whole", [events.Finding("spike", "low", 3, {"metric": "loss"})])


def answers(store: Store, uid: str) -> Answers:
    """Everything the store says of a run."""
    row = store.run(uid)
    return {
        "row": (row.name, row.status, row.steps, row.config, row.tags, row.points, row.checkpoints),
        "series": {m.metric: store.series(uid, m.metric).value.tolist() for m in store.metrics(uid) if not m.is_text},
        "summary": store.metrics(uid),
        "overview": store.overview(uid, "loss").mean.tolist(),
        "checkpoints": store.checkpoints(uid),
        "texts": store.texts(uid, "phase"),
        "layers": store.layers(uid, "norm").values.tolist(),
        "findings": store.findings(uid),
    }


def test_a_rebuilt_catalog_gives_the_same_answers(tmp_path: Path) -> None:
    base = tmp_path / "store"
    build(base)
    with Store.open(base) as store:
        store.delete("hit")
        before = answers(store, "whole")
        trash = [(row.uid, row.trashed) for row in store.trash()]
    for path in base.glob("tracer.db*"):
        path.unlink()

    with Store.open(base) as store:
        assert answers(store, "whole") == before
        report = store.rebuild()
        assert (report.runs, report.problems) == (2, ())
        assert answers(store, "whole") == before
        assert [(row.uid, row.trashed) for row in store.trash()] == trash
        assert store.check().problems == ()


def test_a_damaged_catalog_is_set_aside_and_built_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = tmp_path / "store"
    build(base)
    with Store.open(base) as store:
        before = answers(store, "whole")
    (base / "tracer.db").write_bytes(b"no database" * 1000)

    with Store.open(base) as store:
        assert answers(store, "whole") == before
    assert "Set aside as" in caplog.text
    assert (base / "tracer.db.damaged-1").read_bytes().startswith(b"no database")


def test_another_process_s_new_catalog_is_found(tmp_path: Path) -> None:
    base = tmp_path / "store"
    build(base)
    with Store.open(base) as old, Store.open(base) as new:
        before = answers(old, "whole")
        (base / "tracer.db").unlink()
        for suffix in ("-wal", "-shm"):
            (base / f"tracer.db{suffix}").unlink(missing_ok=True)
        new.rebuild()
        make_run(base, "later", started=1)
        assert answers(old, "whole") == before
        assert {row.uid for row in old.runs()} == {"hit", "whole", "later"}


def test_a_catalog_that_names_files_elsewhere_is_not_believed(tmp_path: Path) -> None:
    base = tmp_path / "store"
    build(base)
    precious = tmp_path / "precious.parquet"
    precious.write_bytes(b"mine")
    with Store.open(base) as store:
        wanted = answers(store, "whole")
        with store.writing() as catalog, catalog.transaction():
            catalog.execute("UPDATE segment SET path = 'runs/../../precious.parquet', dead = 1 WHERE id = 1")

    with Store.open(base) as store:
        store.compact(grace_s=0)
        assert answers(store, "whole") == wanted
    assert precious.read_bytes() == b"mine"


def test_a_foreign_database_is_refused_by_name(tmp_path: Path) -> None:
    base = make_store(tmp_path / "store")
    with sqlite3.connect(base / "tracer.db") as connection:
        connection.execute("CREATE TABLE mine(x)")
        connection.execute("PRAGMA user_version=3")
    connection.close()

    with Store.open(base) as store, pytest.raises(StoreError, match="a database of another program"):
        store.runs()


def test_a_migration_runs_whole_after_a_copy_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tracer.storage import catalog, migrations

    base = tmp_path / "store"
    build(base)
    with Store.open(base) as store:
        before = answers(store, "whole")

    def add(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE run ADD COLUMN colour TEXT")

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE run ADD COLUMN shape TEXT")
        message = "no"
        raise sqlite3.OperationalError(message)

    known = migrations.MIGRATIONS
    for module in (catalog, migrations):
        monkeypatch.setattr(module, "MIGRATIONS", (*known, add, fail))
    with Store.open(base) as store, pytest.raises(sqlite3.OperationalError):
        store.runs()
    for module in (catalog, migrations):
        monkeypatch.setattr(module, "MIGRATIONS", (*known, add))
    with Store.open(base) as store:
        assert answers(store, "whole") == before
        assert store.catalog.value("SELECT count(colour) FROM run") == 0
    assert (base / f"tracer.db.before-{len(known) + 1}").exists()


DAMAGE = ["flip", "zero", "cut"]


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_never_gives_a_wrong_value_and_never_reaches_another_run(tmp_path: Path, seed: int) -> None:
    base = tmp_path / "store"
    chance = random.Random(seed)  # noqa: S311 -- no secrets
    folded = chance.random() < 0.6
    build(base, fold=folded)
    duck._verified.clear()
    with Store.open(base) as store:
        wanted = answers(store, "whole")
        right = answers(store, "hit")
    folder = base / "runs" / "hit"
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix in (".parquet", ".trj", ".seal")]
    path = chance.choice(sorted(files))
    data = bytearray(path.read_bytes())
    kind = chance.choice(DAMAGE)
    at = chance.randrange(len(data))
    if kind == "cut":
        data = data[:at]
    elif kind == "zero":
        data[at : at + 64] = bytes(len(data[at : at + 64]))
    else:
        data[at] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    duck._verified.clear()

    for repair in (False, True):
        with Store.open(base) as store:
            if repair:
                report = store.check(repair=True)
                assert report.is_clean, report.problems
                assert store.check(repair=True).problems == (), "a second repair finds nothing"
            assert answers(store, "whole") == wanted
            for name in ("loss", "acc"):
                series, refusal = _asked(store, name)
                if series is None:
                    assert not repair
                    assert str(folder) in refusal
                    continue
                true = right["series"][name]  # type: ignore[index]
                assert all(
                    true[step] == value for step, value in zip(series.step.tolist(), series.value.tolist(), strict=True)
                )
                if len(series) < len(true) and repair:
                    assert list((folder / "journal" / "lost").iterdir())


def _asked(store: Store, name: str) -> tuple[Series | None, str]:
    """A series, or what the refusal to read it says."""
    try:
        return store.series("hit", name), ""
    except TracerError as error:
        return None, str(error)


@pytest.mark.parametrize("seed", range(30))
def test_random_damage_of_the_index_is_healed_or_refused(tmp_path: Path, seed: int) -> None:
    """The catalog holds nothing that the folders do not: after a rebuild the answers are the right ones again."""
    base = tmp_path / "store"
    chance = random.Random(seed)  # noqa: S311 -- no secrets
    build(base)
    with Store.open(base) as store:
        wanted = answers(store, "whole")
    for path in (base / "tracer.db", base / "runs" / "hit" / "run.json")[seed % 5 == 0 :]:
        data = bytearray(path.read_bytes())
        for _ in range(3):
            at = chance.randrange(len(data))
            data[at : at + 32] = chance.choice([bytes(32), chance.randbytes(32)])
        path.write_bytes(data)

    with Store.open(base) as store:
        try:
            answers(store, "whole")
        except (TracerError, sqlite3.Error) as error:
            assert str(error)  # noqa: PT017 -- either is right, but nothing else may come
        store.check(repair=True)
        store.rebuild()
        assert answers(store, "whole") == wanted


def test_what_is_set_aside_is_counted_and_kept(tmp_path: Path) -> None:
    base = tmp_path / "store"
    build(base, fold=False)
    path = next((base / "runs" / "hit" / "journal").glob("*.trj"))
    data = bytearray(path.read_bytes())
    data[journal.HEADER_SIZE + 1500] ^= 1
    path.write_bytes(data)

    with Store.open(base) as store:
        report = store.check()
        assert [problem.path for problem in report.problems] == [str(path)]
        store.fold()
        lost = store.run("hit").lost
        assert lost > 0
        assert sum(file.stat().st_size for file in (base / "runs" / "hit" / "journal" / "lost").iterdir()) == lost
        assert len(store.series("hit", "loss")) == 50
        assert store.check().lost == lost
        assert store.check().problems == ()


def test_a_journal_without_a_readable_header_is_set_aside_whole(tmp_path: Path) -> None:
    base = tmp_path / "store"
    build(base, fold=False)
    path = next((base / "runs" / "hit" / "journal").glob("*.trj"))
    path.write_bytes(b"rubbish" * 1000)
    import os

    os.utime(path, (1, 1))

    with Store.open(base) as store:
        store.fold()
        assert store.metrics("hit") == []
        assert store.run("hit").lost == 7000
    assert (base / "runs" / "hit" / "journal" / "lost" / path.name).exists()


def test_any_single_segment_can_be_read_alone(tmp_path: Path) -> None:
    base = make_store(tmp_path / "store")
    builder = JournalBuilder(make_run(base, "from"))
    builder.identity |= {"run": "alone", "pid": 2**22 + 1}
    for step in range(5):
        builder.row({"loss": float(step)}, step)
    builder.next_segment()
    for step in range(5, 9):
        builder.row({"loss": float(step)}, step)
    builder.write(closed=True, steps=9)
    copy = base / "runs" / "alone" / "journal"
    copy.mkdir(parents=True)
    shutil.copy(builder.path, copy)

    with Store.open(base) as store:
        assert store.series("alone", "loss").step.tolist() == [5, 6, 7, 8]
        store.fold()
        assert store.series("alone", "loss").step.tolist() == [5, 6, 7, 8]
        assert (store.run("alone").status, store.run("alone").steps) == ("crashed", 9)
        assert store.check().problems == ()


def test_a_file_that_does_not_follow_is_set_aside_and_a_repeated_one_removed(tmp_path: Path) -> None:
    base = tmp_path / "store"
    build(base)
    points = base / "runs" / "hit" / "points"
    (file,) = points.iterdir()
    shutil.copy(file, points / "0COPY.parquet")
    shutil.copy(next((base / "runs" / "whole" / "points").iterdir()), points / "0ALIEN.parquet")
    (points / ".x.parquet.part").write_bytes(b"half")
    builder = JournalBuilder(base / "runs" / "hit")
    builder.row({"loss": 1.0}, 100)
    builder.write(closed=True)

    with Store.open(base) as store:
        store.fold()
        assert len(store.series("hit", "loss")) == 61
        assert [row.n for row in store.metrics("hit") if row.metric == "loss"] == [61]
        assert store.check().problems == ()
    assert {path.name for path in points.iterdir()} >= {file.name}
    assert not (points / ".x.parquet.part").exists()
