"""No name, link or list of files leads out of the folder it belongs to."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from keepers import STORE, begin

from tracer.errors import StoreError
from tracer.run import Run
from tracer.storage import Store

LEADING_OUT = [
    "../x",
    "a/../../x",
    "/etc/x",
    "a//b",
    "",
    ".",
    "a/./b",
    "..",
    "a/..",
    "x\0y",
    "..\\x",
    "C:\\x",
    "n" * 256,
]


def everything(root: Path) -> set[str]:
    """Return the paths below a folder, the store left out."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if STORE.name not in path.parts}


def tamper(run: Run, **changes: Any) -> None:  # noqa: ANN401 -- whatever a record may hold
    """Change the only record of a run."""
    (path,) = Path(run.folder, "artifacts", "index").iterdir()
    other = path.with_suffix(".new")
    other.write_text(json.dumps(json.loads(path.read_text()) | changes))
    other.replace(path)


def hostile(entries: list[list[object]]) -> Run:
    """Return a run whose artifact is a folder with this list of files."""
    Path("d").mkdir()
    Path("d/x").write_bytes(b"x")
    with begin() as run:
        run.log_artifact("d", name="d")
    text = json.dumps({"format": 1, "files": entries}).encode()
    digest = hashlib.sha256(text).hexdigest()
    Path(run.folder, "artifacts", digest).write_bytes(text)
    tamper(run, digest=digest)
    return run


X = hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize("name", LEADING_OUT)
def test_a_list_of_files_that_leads_out_is_refused_whole(name: str, tmp_path: Path) -> None:
    hostile([["good", X, 1], [name, X, 1]])
    before = everything(tmp_path)

    with Store.open(STORE) as store:
        found = store.artifact("d")
        for read in (lambda: found.download("out"), lambda: found.path, found.files, found.verify):
            with pytest.raises(StoreError):
                read()
    assert everything(tmp_path) == before


def test_a_digest_that_is_a_path_leads_nowhere() -> None:
    run = hostile([["stolen", "../../../../secret", 6]])
    Path("secret").write_bytes(b"secret")

    with Store.open(STORE) as store, pytest.raises(StoreError, match="which is no file"):
        store.artifact("d").download("out")
    tamper(run, digest="../../../../secret", form="file")
    with Store.open(STORE) as store:
        assert store.artifacts() == []
        assert len(store.check().problems) == 1


@pytest.mark.parametrize("file", ["../x", "/etc/x", "..", ""])
def test_the_name_of_a_single_file_leads_nowhere(file: str, tmp_path: Path) -> None:
    with begin() as run:
        run.log_artifact(b"x", name="x")
    tamper(run, file=file)
    before = everything(tmp_path)

    with Store.open(STORE) as store:
        if file:
            with pytest.raises(StoreError):
                store.artifact("x").download("out")
            assert everything(tmp_path) == before
        else:
            assert store.artifact("x").download("out") == Path("out/file")


def test_a_content_that_is_a_link_is_not_followed() -> None:
    Path("secret").write_bytes(b"x")
    with begin() as run:
        kept = run.log_artifact(b"x", name="x")
    content = Path(run.folder, "artifacts", X)
    content.unlink()
    content.symlink_to(Path("secret").resolve())

    with pytest.raises(StoreError, match="is not as it was kept"):
        kept.files()


def test_links_in_the_target_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    Path("d/sub").mkdir(parents=True)
    Path("d/sub/x").write_bytes(b"x")
    Path("d/y").write_bytes(b"y")
    with begin() as run:
        kept = run.log_artifact("d")
    Path("out").mkdir()
    Path("out/sub").symlink_to(outside)
    Path("out/y").symlink_to(outside / "y")

    with pytest.raises(StoreError, match="exists already"):
        kept.download("out")
    with pytest.raises(StoreError, match="a link or a file"):
        kept.download("out", overwrite=True)
    assert list(outside.iterdir()) == []
    Path("out/sub").unlink()
    kept.download("out", overwrite=True)
    assert list(outside.iterdir()) == []
    assert not Path("out/y").is_symlink()


def test_links_out_of_a_folder_are_refused_and_links_within_it_are_files() -> None:
    Path("secret").write_bytes(b"secret")
    Path("d").mkdir()
    Path("d/real").write_bytes(b"real")
    Path("d/alias").symlink_to("real")
    with begin() as run:
        assert {name: path.read_bytes() for name, path in run.log_artifact("d").files().items()} == {
            "alias": b"real",
            "real": b"real",
        }
        for target in ("../secret", "/etc/passwd", "nowhere", ".."):
            Path("d/out").symlink_to(target)
            with pytest.raises(ValueError, match="cannot be part of an artifact"):
                run.log_artifact("d", name="e")
            Path("d/out").unlink()
        os.mkfifo("d/pipe")
        with pytest.raises(ValueError, match="no ordinary file"):
            run.log_artifact("d", name="e")


@pytest.mark.parametrize("name", ["../../escape", "/abs/olute", "..", "con", "a b/../c", "名/前", "x" * 250, "aux.txt"])
def test_a_name_is_never_a_path(name: str, tmp_path: Path) -> None:
    before = everything(tmp_path)

    with begin() as run:
        kept = run.log_artifact(b"x", name=name)
        assert kept.name == name
        assert kept.path.read_bytes() == b"x"
        assert run.use_artifact(f"{name}:v0").name == name
        got = kept.download("out")

    assert got.parent == Path("out")
    assert everything(tmp_path) - before == {"out", str(got)}
