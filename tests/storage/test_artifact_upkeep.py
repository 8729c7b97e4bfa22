"""Artifacts are deleted, restored, exported, checked and mended with their runs."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from keepers import STORE, begin, contents, disk_bytes, references

from tracer.errors import StoreError
from tracer.storage import Store


def test_deleting_a_run_frees_what_it_alone_held_and_breaks_no_other() -> None:
    shared, own = os.urandom(400_000), os.urandom(600_000)
    with begin("a") as one:
        one.log_artifact(shared, name="shared")
        one.log_artifact(own, name="own")
    with begin("b") as other:
        kept = other.log_artifact(shared, name="shared")
    with Store.open(STORE) as store:
        store.fold()
        before = disk_bytes(STORE / "runs")
        freed = store.delete(one.id, now=True)

        assert store.artifact("shared").path.read_bytes() == shared
        assert references() == ["shared:v1"]
        assert store.check().problems == ()
    assert kept.problems() == []
    fell = before - disk_bytes(STORE / "runs")
    assert 600_000 <= freed < 700_000
    assert abs(fell - freed) < 100_000


def test_what_is_restored_is_there_again() -> None:
    with begin() as run:
        run.log_artifact(b"x", name="x")
    with Store.open(STORE) as store:
        store.delete(run.id)
        assert store.artifacts() == []
        store.restore(run.id)
        assert store.artifact("x").path.read_bytes() == b"x"


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_an_export_holds_everything(form: str, tmp_path: Path) -> None:
    with begin("a") as one:
        one.log_artifact(b"equal", name="x")
    with begin("b") as other:
        other.log_artifact(b"equal", name="y")
    with Store.open(STORE) as store:
        store.export([one.id, other.id], tmp_path / "out.tar" if form == "tar" else tmp_path / "out", form)

    new = tmp_path / "new" / "runs"
    if form == "tar":
        with tarfile.open(tmp_path / "out.tar") as archive:
            only = [member for member in archive.getmembers() if member.name.startswith(other.id)]
            archive.extractall(new, only, filter="data")
    else:
        shutil.copytree(tmp_path / "out" / other.id, new / other.id)
    with Store.open(tmp_path / "new") as store:
        assert store.artifact("y").path.read_bytes() == b"equal"


def test_fsck_names_damage_and_repair_takes_it_from_a_run_that_has_it() -> None:
    with begin("a") as one:
        one.log_artifact(b"one", name="x")
        one.log_artifact(b"only here", name="y")
    spare = contents(one)[0].parent / "spare"
    with begin("b") as other:
        other.log_artifact(b"one", name="x")
    paths = {path.read_bytes(): path for path in contents(one)}
    spare.write_bytes(b"not")
    spare.replace(paths[b"one"])
    paths[b"only here"].unlink()
    leftover = Path(one.folder, "artifacts", ".part-1-abc")
    leftover.write_bytes(b"ha")
    pool = STORE / "contents" / paths[b"one"].name[:2] / paths[b"one"].name
    pool.unlink()
    pool.symlink_to(Path("../../runs", other.id, "artifacts", paths[b"one"].name))

    with Store.open(STORE) as store:
        found = {Path(problem.path).name: problem.fact for problem in store.check().problems}
        assert found == {
            paths[b"one"].name: "its bytes do not have the SHA-256 that is its name (x:v0)",
            paths[b"only here"].name: "it is not there (y:v0)",
            ".part-1-abc": "it was never finished",
        }
        repaired = {Path(problem.path).name: problem.repaired for problem in store.check(repair=True).problems}
        assert repaired == {paths[b"one"].name: True, paths[b"only here"].name: False, ".part-1-abc": True}
        assert len(store.check().problems) == 1


def test_a_damaged_record_hides_itself_alone() -> None:
    with begin() as run:
        run.log_artifact(b"x", name="x")
        run.log_artifact(b"y", name="y")
    records = sorted(Path(run.folder, "artifacts", "index").iterdir())
    bad = next(path for path in records if json.loads(path.read_text())["name"] == "x")
    bad.write_text("{")

    with Store.open(STORE) as store:
        assert [artifact.name for artifact in store.artifacts()] == ["y"]
        assert [Path(problem.path).name for problem in store.check().problems] == [bad.name]


def test_what_is_read_back_was_verified() -> None:
    with begin() as run:
        kept = run.log_artifact(b"right", name="x")
        os.chmod(contents(run)[0], 0o644)
        contents(run)[0].write_bytes(b"wrong")

        for read in (lambda: kept.path, kept.files, kept.arrays, lambda: kept.download("out"), kept.verify):
            with pytest.raises(StoreError, match="SHA-256"):
                read()
    assert not Path("out", "x").exists()
