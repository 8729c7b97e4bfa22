"""On a network file system each machine has a catalog of its own, and one machine folds a run."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from journal_builder import JournalBuilder, make_run, make_store

from tracer import places
from tracer.storage import Store, liveness

On = Callable[[str], Store]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store on what is taken for a network file system."""
    monkeypatch.setattr(places, "is_network", lambda _: True)
    liveness._locks_count.cache_clear()
    return make_store(tmp_path / "store")


@pytest.fixture
def on(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> On:
    """Open the store on a machine of that name."""

    def machine(name: str) -> Store:
        monkeypatch.setattr(socket, "gethostname", lambda: name)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        return Store.open(base)

    return machine


def test_no_database_lies_on_the_network(base: Path, on: On, tmp_path: Path) -> None:
    make_run(base, "run", host="one")
    with on("one") as store:
        assert [row.uid for row in store.runs()] == ["run"]

    assert not list(base.rglob("tracer.db*"))
    assert len(list((tmp_path / "one").rglob("tracer.db"))) == 1


def test_the_machine_that_records_folds_and_the_other_reads_its_files(base: Path, on: On) -> None:
    folder = make_run(base, "run", host="one", status="running")
    builder = JournalBuilder(folder)
    builder.identity["host"] = "one"
    for step in range(50):
        builder.row({"loss": float(step)}, step)
    builder.write(closed=True)

    with on("two") as store:
        assert store.fold() == 0
        assert len(store.series("run", "loss")) == 50
    with on("one") as store:
        assert store.fold() == 50
    assert not list((folder / "journal").glob("*.trj"))
    with on("two") as store:
        assert store.fold() == 0
        assert [row.n for row in store.metrics("run")] == [50]
        assert len(store.series("run", "loss")) == 50
        assert store.overview("run", "loss").n.sum() == 50
    assert len(list((folder / "points").iterdir())) == 1


def test_after_a_minute_of_silence_another_machine_takes_over(base: Path, on: On) -> None:
    folder = make_run(base, "run", host="one", status="running")
    builder = JournalBuilder(folder)
    builder.row({"loss": 1.0}, 1)
    builder.write(closed=True)
    with on("one") as store:
        store.fold()
    late = JournalBuilder(folder)
    late.row({"loss": 2.0}, 2)
    late.write(closed=True)
    (folder / "owner.json").write_text('{"host": "one"}')

    with on("two") as store:
        store.metrics("run")
        assert store.fold() == 0
        os.utime(folder / "owner.json", (1, 1))
        assert store.fold() == 1
        assert store.series("run", "loss").value.tolist() == [1.0, 2.0]
        assert [row.n for row in store.metrics("run")] == [2]
    with on("one") as store:
        assert store.fold() == 0
        assert store.series("run", "loss").value.tolist() == [1.0, 2.0]
        assert [row.n for row in store.metrics("run")] == [2]
