"""P13: delete deletes: disk space returns, and nothing of a deleted run is readable."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import CALMLY

import tracer
from tracer.errors import RunNotFound
from tracer.storage import Store

WORD = "a-word-that-stands-nowhere-else"


def size(folder: Path) -> int:
    """Return the bytes that a folder takes."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def test_p13_deleted_is_gone_from_the_disk(tmp_path: Path) -> None:
    store = tmp_path / ".tracer"
    with tracer.init(project="keep", run_name="kept", **CALMLY) as kept:
        kept.log({"loss": 1.0})
    with Store.open(store) as opened:
        opened.fold()
    before = size(store)
    with tracer.init(project="secret", run_name=WORD, notes=WORD, tags=[WORD], **CALMLY) as run:
        for step in range(50_000):
            run.log({WORD: float(step) ** 0.5}, step=step)
        run.log({"text": WORD})
    with Store.open(store) as opened:
        opened.fold()
        assert size(store) > before + 100_000

        opened.delete(run.run_id, now=True)

        with pytest.raises(RunNotFound):
            opened.run(WORD)
        assert [row.name for row in opened.runs()] == ["kept"]
        assert opened.trash() == []
    with Store.open(store) as opened:
        assert [row.name for row in opened.runs()] == ["kept"]
        assert opened.series(kept.run_id, "loss").value.tolist() == [1.0]
    assert [path for path in store.rglob("*") if path.is_file() and WORD.encode() in path.read_bytes()] == []
    assert [path for path in store.rglob("*") if run.run_id in path.name] == []
    assert size(store) <= before + 100_000


def test_p13_a_run_in_the_trash_comes_back_whole(tmp_path: Path) -> None:
    with tracer.init(project="trash", run_name="mistake", **CALMLY) as run:
        for step in range(1000):
            run.log({"loss": float(step)}, step=step)
    with Store.open(tmp_path / ".tracer") as store:
        store.delete(run.run_id)
        assert store.runs() == []
        assert [row.uid for row in store.trash()] == [run.run_id]

        store.restore(run.run_id)

        assert [row.uid for row in store.runs()] == [run.run_id]
        assert store.series(run.run_id, "loss").value.tolist() == [float(step) for step in range(1000)]
