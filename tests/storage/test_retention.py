"""Deleting frees space at a moment that can be named; keeping follows what somebody asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tracer
from tracer import clock
from tracer.errors import RunNotFound, StoreError
from tracer.storage import StorageBackend, Store, retention
from tracer.storage.catalog import FILE, Catalog

DAY = 86_400
LAYER = dict.fromkeys(("norm", "mean", "std", "max", "min", "num_zeros", "num_nans", "num_infs"), 1.0)
Record = Callable[..., str]


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[StorageBackend]:
    with StorageBackend(SimpleNamespace(storage_path=tmp_path / "store")) as backend:
        yield backend


@pytest.fixture
def store(storage: StorageBackend) -> Store:
    return storage.store


@pytest.fixture
def record(storage: StorageBackend) -> Record:
    """Store a finished run of some size."""

    def make(name: str, *, ended: float = 2000.0, steps: int = 20, samples: bool = True) -> str:
        storage.create_run(name, "test", f"run {name}", 1000.0, {})
        for step in range(steps):
            kept = {"inputs": [list(range(4000))], "targets": [0]} if samples else None
            storage.write_checkpoint(name, step, 1000.0 + step, {"loss": 1.0}, {"fc": LAYER}, {}, kept)
        storage.finalize_run(name, ended, "completed", steps)
        return name

    return make


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let days pass."""

    def move(days: float) -> None:
        ahead = round(days * DAY * 1e9)
        monkeypatch.setattr(clock, "now_ns", lambda: time.time_ns() + ahead)
        monkeypatch.setattr(clock, "now", lambda: time.time() + days * DAY)

    return move


def allocated(path: Path) -> int:
    """Return what `du` says: each file once."""
    seen = {}
    for folder, _, names in os.walk(path):
        for name in names:
            state = os.lstat(os.path.join(folder, name))
            seen[state.st_ino] = state.st_blocks * 512
    return sum(seen.values())


def names(rows: list[Any]) -> set[str]:
    return {row.uid for row in rows}


def test_delete_now_gives_the_space_back(storage: StorageBackend, store: Store, record: Record) -> None:
    record("small", steps=1, samples=False)
    store.runs()
    before = allocated(storage.base_path)
    record("big", steps=100)
    store.fold()
    full, folder = allocated(storage.base_path), allocated(storage.base_path / "runs" / "big")

    freed = store.delete("big", now=True)

    taken = full - before
    assert taken > 500_000
    assert allocated(storage.base_path) - before <= 0.01 * taken + 8_192
    assert freed >= folder
    assert names(store.runs()) == {"small"}
    assert store.trash() == []


def test_a_deleted_run_is_trash_and_comes_back_whole(storage: StorageBackend, store: Store, record: Record) -> None:
    record("a")
    before = (storage.get_run("a"), storage.get_metric_timeseries("a", "loss"), storage.get_gradient_stats("a"))
    links = sorted(path.name for path in storage.samples_dir.iterdir())

    store.delete("a")

    assert names(store.runs()) == set()
    assert names(store.trash()) == {"a"}
    assert storage.get_run("a") is None
    assert not (storage.base_path / "runs" / "a").exists()
    assert (storage.base_path / "trash" / "a").is_dir()
    assert list(storage.samples_dir.iterdir()) == []

    store.restore("a")

    after = (storage.get_run("a"), storage.get_metric_timeseries("a", "loss"), storage.get_gradient_stats("a"))
    assert before[0] is not None
    assert after[0] is not None
    assert {**after[0], "updated_at": None} == {**before[0], "updated_at": None}
    assert after[1:] == before[1:]
    assert sorted(path.name for path in storage.samples_dir.iterdir()) == links
    assert not (storage.base_path / "runs" / "a" / "trashed.json").exists()


def test_the_trash_is_emptied_after_its_days(
    storage: StorageBackend, store: Store, record: Record, later: Callable[[float], None]
) -> None:
    record("a")
    store.delete("a")

    later(6)
    assert store.empty_trash() == 0
    assert names(store.trash()) == {"a"}
    later(8)
    assert store.empty_trash() > 0

    assert store.trash() == []
    assert not (storage.base_path / "trash" / "a").exists()
    with pytest.raises(RunNotFound):
        store.restore("a")


def test_the_id_of_a_trashed_run_is_taken_until_it_is_gone(
    storage: StorageBackend, store: Store, record: Record
) -> None:
    record("a")
    store.delete("a")

    with pytest.raises(ValueError, match="exists already"):
        storage.create_run("a", "test", "again", 1.0, {})
    store.delete("a", now=True)
    storage.create_run("a", "test", "again", 1.0, {})

    assert names(store.runs()) == {"a"}


def test_a_live_run_is_refused_without_force(storage: StorageBackend, store: Store) -> None:
    with tracer.init(project="test", storage_path=str(storage.base_path)) as run:
        tracer.log({"loss": 1.0})

        with pytest.raises(StoreError, match="is still recording"):
            store.delete(run.run_id)

    assert names(store.runs()) == {run.run_id}


def test_an_unknown_run_cannot_be_deleted(store: Store) -> None:
    with pytest.raises(RunNotFound):
        store.delete("none")


def test_by_default_old_runs_are_listed_and_nothing_is_deleted(
    store: Store, record: Record, later: Callable[[float], None]
) -> None:
    record("old", ended=time.time())
    later(31)
    record("young", ended=clock.now())

    (found,) = store.expire()

    assert (found.run.uid, found.applied) == ("old", False)
    assert found.bytes > 0
    assert "31 days old" in found.because
    assert names(store.runs()) == {"old", "young"}


def test_gc_apply_moves_what_it_listed_to_the_trash(
    store: Store, record: Record, later: Callable[[float], None]
) -> None:
    record("old", ended=time.time())
    later(31)
    done = []

    (found,) = store.expire(apply=True, progress=lambda *at: done.append(at))

    assert (found.run.uid, found.applied) == ("old", True)
    assert names(store.trash()) == {"old"}
    assert done == [(1, 1)]


def test_the_age_can_be_given(store: Store, record: Record, later: Callable[[float], None]) -> None:
    record("a", ended=time.time())
    later(5)

    assert store.expire(older_than_days=6) == []
    assert [found.run.uid for found in store.expire(older_than_days=4)] == ["a"]


@pytest.mark.parametrize(
    ("settings", "age_days", "expires"),
    [
        ({"retention_days": 3}, 2, False),
        ({"retention_days": 3}, 4, True),
        ({"retention_days": 0}, 400, False),
        ({}, 29, False),
        ({}, 31, True),
        ({"tags": ["keep"]}, 400, False),
        ({"retention_days": 3, "tags": ["pinned"]}, 400, False),
        ({"retention_days": 60}, 50, False),
    ],
)
def test_a_run_expires_by_what_it_was_given(
    storage: StorageBackend,
    store: Store,
    later: Callable[[float], None],
    settings: dict[str, Any],
    age_days: float,
    *,
    expires: bool,
) -> None:
    with tracer.init(project="test", storage_path=str(storage.base_path), **settings):
        pass
    store.runs()
    later(age_days)

    assert bool(store.expire()) == expires


def test_a_running_run_never_expires(storage: StorageBackend, store: Store, later: Callable[[float], None]) -> None:
    with tracer.init(project="test", storage_path=str(storage.base_path), retention_days=1):
        later(400)

        assert store.expire(apply=True) == []


def test_only_a_retention_that_was_given_is_acted_on_unasked(
    storage: StorageBackend, store: Store, record: Record, later: Callable[[float], None]
) -> None:
    record("old", ended=time.time())
    with tracer.init(project="test", storage_path=str(storage.base_path), retention_days=3) as given:
        pass
    store.runs()

    assert retention.keep_promises(store) == 0
    later(100)
    assert retention.keep_promises(store) == 1
    assert names(store.trash()) == {given.run_id}
    assert names(store.runs()) == {"old"}
    later(108)
    assert retention.keep_promises(store) == 0
    assert store.trash() == []


def test_what_the_store_takes_is_told_by_kind(storage: StorageBackend, store: Store, record: Record) -> None:
    record("a")
    store.fold()
    record("gone")
    store.delete("gone")

    sizes = store.sizes()

    assert all(sizes[kind] > 0 for kind in ("points", "layers", "samples", "catalog", "trash"))
    assert sum(sizes.values()) == allocated(storage.base_path)


def catalog_of(store: Store) -> Catalog:
    return Catalog.write(os.path.join(store.path, FILE))


@pytest.mark.parametrize("after", ["marker", "catalog", "rename"])
def test_an_interrupted_deletion_is_finished(
    storage: StorageBackend, store: Store, record: Record, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    record("a")
    store.runs()
    catalog = catalog_of(store)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if after == "marker":
            patch.setattr(catalog, "transaction", die)
        elif after == "catalog":
            patch.setattr(retention, "_into_trash", die)
        else:
            patch.setattr(retention, "sync_folder", die)
        with pytest.raises((KeyboardInterrupt, TypeError)):
            retention.to_trash(catalog, str(store.path), "a")
    retention.settle(catalog, str(store.path))
    catalog.close()

    assert names(store.trash()) == {"a"}
    assert names(store.runs()) == set()
    assert not (storage.base_path / "runs" / "a").exists()
    store.restore("a")
    assert storage.get_metric_timeseries("a", "loss")["values"] == [1.0] * 20


def test_an_interrupted_restoration_is_finished(
    storage: StorageBackend, store: Store, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    record("a")
    store.delete("a")
    catalog = catalog_of(store)

    with monkeypatch.context() as patch:
        patch.setattr(catalog, "transaction", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            retention.from_trash(catalog, str(store.path), "a")
    retention.settle(catalog, str(store.path))
    catalog.close()

    assert names(store.runs()) == {"a"}
    assert storage.get_metric_timeseries("a", "loss")["values"] == [1.0] * 20


@pytest.mark.parametrize("after", ["rename", "rows"])
def test_an_interrupted_purge_is_finished_and_spares_a_new_run_of_that_name(
    storage: StorageBackend, store: Store, record: Record, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    import shutil

    record("a")
    store.delete("a")
    catalog = catalog_of(store)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*((retention, "_finish_purge") if after == "rename" else (shutil, "rmtree")), die)
        with pytest.raises(KeyboardInterrupt):
            retention.purge(catalog, str(store.path), "a")
    if after == "rows":
        record("a")
        store.runs()
    retention.settle(catalog, str(store.path))
    catalog.close()

    assert names(store.trash()) == set()
    assert list((storage.base_path / "trash").iterdir()) == []
    assert names(store.runs()) == ({"a"} if after == "rows" else set())


def test_a_folder_in_the_way_refuses_a_restoration(storage: StorageBackend, store: Store, record: Record) -> None:
    record("a")
    store.delete("a")
    (storage.base_path / "runs" / "a").mkdir(parents=True)

    with pytest.raises(StoreError, match="exists already"):
        store.restore("a")

    assert (storage.base_path / "trash" / "a").is_dir()
