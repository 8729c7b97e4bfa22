"""`run.json` and `store.json`: whole or not at all, and user text never becomes a path."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest
from programs import run

from tracer import runfile
from tracer.errors import SchemaTooNew


def test_an_id_is_a_uuid_and_never_the_same() -> None:
    ids = {runfile.new_id() for _ in range(1000)}

    assert len(ids) == 1000
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", uid) for uid in ids)


def test_who_knows_the_same_arrives_at_the_same_id() -> None:
    assert runfile.shared_id("job", "project", 1) == runfile.shared_id("job", "project", 1)
    assert runfile.shared_id("job", "project", 1) != runfile.shared_id("job", "project", 2)
    assert runfile.shared_id("a", "bc") != runfile.shared_id("ab", "c")


@pytest.mark.parametrize("uid", ["a", "run-1", "A.b_c-9", "0" * 100])
def test_a_safe_id_is_its_own_folder(uid: str) -> None:
    assert runfile.folder_name(uid) == uid


@pytest.mark.parametrize(
    "uid", ["../x", ".", "..", ".hidden", "a/b", "a b", "ä", "con", "NUL.txt", "x.", "0" * 101, "-rf"]
)
def test_any_other_id_becomes_a_digest(uid: str) -> None:
    name = runfile.folder_name(uid)

    assert re.fullmatch(r"id-[0-9a-f]{32}", name)
    assert name == runfile.folder_name(uid)


@pytest.mark.parametrize("uid", ["", "x" * 501])
def test_an_id_has_a_length(uid: str) -> None:
    with pytest.raises(ValueError, match="between 1 and 500"):
        runfile.folder_name(uid)


def test_who_creates_first_wins(tmp_path: Path) -> None:
    assert runfile.create(str(tmp_path), {"id": "first"})
    assert not runfile.create(str(tmp_path), {"id": "second"})

    assert runfile.read(str(tmp_path)) == {"id": "first"}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_without_hard_links_who_creates_first_wins_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr("tracer.runfile.os.link", refuse)
    assert runfile.create(str(tmp_path), {"id": "first"})
    assert not runfile.create(str(tmp_path), {"id": "second"})

    assert runfile.read(str(tmp_path)) == {"id": "first"}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_replacing_leaves_nothing_beside(tmp_path: Path) -> None:
    runfile.create(str(tmp_path), {"id": "one"})

    runfile.replace(str(tmp_path), {"id": "one", "steps": 3})

    assert runfile.read(str(tmp_path)) == {"id": "one", "steps": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_on_a_full_disk_the_old_room_is_used_if_it_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runfile.create(str(tmp_path), {"id": "one", "long": "x" * 100})

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tracer.runfile.os.write", full)
    runfile.replace(str(tmp_path), {"id": "two"})
    with pytest.raises(OSError, match="No space left"):
        runfile.replace(str(tmp_path), {"id": "three", "longer": "x" * 100_000})

    assert runfile.read(str(tmp_path)) == {"id": "two"}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_changes_merge_into_dictionaries_and_replace_the_rest() -> None:
    facts = {"config": {"lr": 0.1, "model": {"layers": 2}}, "tags": ["a"], "notes": None}

    runfile.merge(facts, {"config": {"model": {"heads": 4}}, "tags": ["b"], "notes": "x", "new": {"y": 1}})

    assert facts == {
        "config": {"lr": 0.1, "model": {"layers": 2, "heads": 4}}, "tags": ["b"], "notes": "x", "new": {"y": 1},
    }  # fmt: skip


def test_a_new_store_says_what_it_is(tmp_path: Path) -> None:
    runfile.prepare_store(str(tmp_path / "a" / "b"))
    said = json.loads((tmp_path / "a" / "b" / "store.json").read_text(encoding="utf-8"))
    runfile.prepare_store(str(tmp_path / "a" / "b"))

    assert said["format"] == runfile.FORMAT
    assert json.loads((tmp_path / "a" / "b" / "store.json").read_text(encoding="utf-8")) == said


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    runfile.prepare_store(str(tmp_path))
    (tmp_path / "store.json").write_text('{"format": 7}', encoding="utf-8")

    with pytest.raises(SchemaTooNew, match="format 7"):
        runfile.prepare_store(str(tmp_path))


def test_processes_that_come_at_once_agree_on_one_store(tmp_path: Path) -> None:
    run(
        """
        import multiprocessing, sys
        from tracer import runfile

        def make(number):
            runfile.prepare_store(sys.argv[1])
            return runfile.read(sys.argv[1], runfile.STORE)["id"]

        if __name__ == "__main__":
            with multiprocessing.get_context("fork").Pool(8) as pool:
                assert len(set(pool.map(make, range(64), chunksize=1))) == 1
        """,
        tmp_path / "store",
    )


def test_the_owner_of_a_run_is_this_process() -> None:
    owner = runfile.owner()

    assert owner["pid"] == os.getpid()
    assert owner["process_started"]
    assert owner["boot"]
