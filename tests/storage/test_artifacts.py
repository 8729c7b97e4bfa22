"""Artifacts: kept once per content, numbered per project and name."""

from __future__ import annotations

import os
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keepers import STORE, begin, contents, references

from tracer import events
from tracer.errors import StoreError, UsageError
from tracer.storage import Store


def test_a_file_is_named_by_its_sha256_and_read_back_under_its_own_name() -> None:
    Path("model.pt").write_bytes(b"weights")

    with begin() as run:
        artifact = run.log_artifact("model.pt", metadata={"acc": 0.9}, aliases=["best"], description="good")

    assert [path.name for path in contents(run)] == [artifact.digest]
    assert (artifact.reference, artifact.type, artifact.aliases) == ("model.pt:v0", "model", ("latest", "best"))
    assert (artifact.metadata, artifact.record.description, artifact.bytes) == ({"acc": 0.9}, "good", 7)
    assert artifact.path.name == "model.pt"
    assert artifact.path.read_bytes() == b"weights"


def test_a_folder_comes_back_as_it_was(tmp_path: Path) -> None:
    tree = {"a.txt": b"a", "deep/er/b.bin": b"bb", "con.txt": b"c", "ünïcødé 名.txt": b"", "-rf": b"x"}
    for name, data in tree.items():
        path = Path("data", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    with begin() as run:
        kept = run.log_artifact("data", type="dataset")
    to = kept.download(tmp_path / "back")

    assert {str(path.relative_to(to)): path.read_bytes() for path in to.rglob("*") if path.is_file()} == tree
    assert {name: path.read_bytes() for name, path in kept.files().items()} == tree
    assert (kept.path / "deep/er/b.bin").read_bytes() == b"bb"


def test_tensors_and_arrays_become_a_file_that_safetensors_reads() -> None:
    from safetensors.torch import load_file

    state = {"w": torch.randn(3, 4), "half": torch.randn(5).bfloat16(), "opt": {"step": torch.tensor(3)}}

    with begin() as run:
        kept = run.log_artifact({**state, "table": np.arange(6).reshape(2, 3), "lr": 0.1}, name="state")
        again = load_file(kept.path)

    assert kept.path.name == "state.safetensors"
    assert torch.equal(again["w"], state["w"])
    assert torch.equal(again["half"], state["half"])
    assert (int(again["opt.step"]), again["table"].tolist(), float(again["lr"])) == (3, [[0, 1, 2], [3, 4, 5]], 0.1)
    assert np.array_equal(kept.arrays()["half"], state["half"].float().numpy())


@pytest.mark.parametrize("value", [object(), [1, 2], "text", np.array([object()], dtype=object), np.array("x")])
def test_what_would_need_a_pickle_is_refused_by_name(value: object) -> None:
    with begin() as run, pytest.raises(TypeError, match="odd"):
        run.log_artifact({"good": np.zeros(2), "odd": value}, name="state")


def test_what_is_logged_again_unchanged_is_the_same_version_with_the_new_alias() -> None:
    with begin() as run:
        found = [
            run.log_artifact(data, name="x", aliases=aliases).reference
            for data, aliases in ((b"1", []), (b"1", ["same"]), (b"2", []), (b"1", []))
        ]

    assert found == ["x:v0", "x:v0", "x:v1", "x:v2"]
    assert len(contents(run)) == 2
    with Store.open(STORE) as store:
        assert store.artifact("x:same").version == 0


def test_versions_count_per_project_and_name_across_runs() -> None:
    for name, project in (("a", "one"), ("b", "one"), ("c", "two")):
        with begin(name, project) as run:
            run.log_artifact(name.encode(), name="m")

    assert references(project="one") == ["m:v0", "m:v1"]
    assert references(project="two") == ["m:v0"]


def test_an_equal_content_of_another_run_is_linked_and_takes_no_space() -> None:
    data = os.urandom(300_000)
    with begin("a") as one:
        one.log_artifact(data, name="x")
    with begin("b") as other:
        other.log_artifact(data, name="y")

    assert contents(one)[0].stat().st_ino == contents(other)[0].stat().st_ino
    assert contents(other)[0].stat().st_mode & 0o222 == 0


def test_damage_is_not_linked_on() -> None:
    with begin("a") as one:
        one.log_artifact(b"precious", name="x")
    os.chmod(contents(one)[0], 0o644)
    contents(one)[0].write_bytes(b"damaged!")

    with begin("b") as other:
        kept = other.log_artifact(b"precious", name="y")

    assert kept.path.read_bytes() == b"precious"


def test_a_reference_notes_path_and_digest_and_copies_nothing() -> None:
    Path("big.ckpt").write_bytes(b"12345")
    with begin() as run:
        kept = run.log_artifact("big.ckpt", copy=False)

        assert (kept.path, kept.is_reference, kept.type) == (Path("big.ckpt").resolve(), True, "checkpoint")
        assert contents(run) == []
        Path("big.ckpt").write_bytes(b"54321")
        with pytest.raises(StoreError, match=r"big\.ckpt:v0 .* is not as it was kept: .*SHA-256"):
            kept.path  # noqa: B018 -- asking is what fails


def test_a_large_file_is_told_of_while_it_is_copied_off_the_callers_thread() -> None:
    import threading

    Path("big").write_bytes(bytes(9_000_000))
    told: list[tuple[int, int, str]] = []

    with begin() as run:
        run.log_artifact("big", progress=lambda *one: told.append((*one, threading.current_thread().name)))

    assert told[-1][:2] == (9_000_000, 9_000_000)
    assert len(told) == 3
    assert {name for _, _, name in told} == {"tracer-contents"}


def test_who_does_not_wait_gets_a_future_and_finish_waits() -> None:
    with begin() as run:
        promised = run.log_artifact(b"later", name="x", wait=False)
        assert isinstance(promised, Future)

    assert promised.result(timeout=0).reference == "x:v0"
    assert references() == ["x:v0"]


def test_the_events_of_frameworks_never_copy_and_never_wait() -> None:
    Path("ckpt").mkdir()
    Path("ckpt/model.bin").write_bytes(b"m")
    with begin() as run:
        run.take(events.Artifact("ckpt", name="epoch:3", type="checkpoint", step=3, aliases=["best"], origin="keras"))
        run.take(events.Artifact("gone", name="gone", origin="keras"))

    with Store.open(STORE) as store:
        kept, gone = store.artifacts()
    assert (kept.name, kept.type, kept.record.step, kept.record.origin) == ("epoch_3", "checkpoint", 3, "keras")
    assert (kept.aliases, kept.is_reference, kept.problems()) == (("latest", "best"), True, [])
    assert (gone.bytes, gone.digest, len(gone.problems())) == (None, None, 1)


def test_checkpoints_of_frameworks_are_not_noted_where_nobody_wants_them() -> None:
    Path("x").write_bytes(b"x")
    with begin(track_checkpoints=False) as run:
        run.take(events.Artifact("x", name="x", origin="keras"))
        run.log_artifact("x", name="mine")

    assert references() == ["mine:v0"]


def test_secrets_in_metadata_are_cut_out() -> None:
    with begin() as run:
        run.log_artifact(b"x", name="x", metadata={"api_key": "abcdefgh12345678"})

    assert b"abcdefgh12345678" not in b"".join(path.read_bytes() for path in STORE.rglob("*") if path.is_file())


def test_a_finished_run_keeps_nothing_more() -> None:
    with begin() as run:
        pass

    with pytest.raises(UsageError, match="finished"):
        run.log_artifact(b"x", name="x")


@pytest.mark.parametrize(
    ("what", "given", "message"),
    [
        ("nowhere", {}, "no file or folder 'nowhere'"),
        (b"x", {}, "need name="),
        (b"x", {"name": "a:b"}, "holds a colon"),
        (b"x", {"name": "a\nb"}, "control character"),
        (b"x", {"name": "n" * 251}, "has 251 characters"),
        (b"x", {"name": " "}, "needs between 1 and 250"),
        (b"x", {"name": "x", "aliases": ["v3"]}, "'v3' cannot be an alias"),
        (b"x", {"name": "x", "aliases": ["a/b"]}, "'a/b' cannot be an alias"),
        ({}, {"name": "x"}, "no tensor"),
    ],
)
def test_what_cannot_be_meant_raises_at_once(what: Any, given: Any, message: str) -> None:  # noqa: ANN401
    with begin() as run, pytest.raises(ValueError, match=message):
        run.log_artifact(what, **given)

    assert references() == []


def test_a_full_disk_is_told_to_the_caller() -> None:
    Path("locked").mkdir()
    with begin() as run:
        Path(run.folder, "artifacts").write_bytes(b"in the way")
        with pytest.raises(StoreError, match="cannot be kept"):
            run.log_artifact(b"x", name="x")


def test_a_store_that_nobody_may_write_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with begin() as run:
        kept = run.log_artifact(b"x", name="x")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "symlink", refuse)  # the tests may run as a user who may write everything
    assert kept.path.read_bytes() == b"x"
