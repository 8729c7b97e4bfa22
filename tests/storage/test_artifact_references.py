"""Artifacts are found again: by name, number, alias, digest; and who used them is known."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from keepers import STORE, begin

from tracer.storage import Store
from tracer.storage.artifacts import Artifact, ArtifactNotFound


@pytest.fixture(autouse=True)
def _three_runs() -> None:
    for number, (name, project) in enumerate((("a", "gpt"), ("b", "gpt"), ("c", "other"))):
        with begin(name, project) as run:
            run.log_artifact(f"{number}".encode(), name="model/base", aliases=["best"] if number == 0 else [])


@pytest.mark.parametrize(
    ("text", "version", "data"),
    [
        ("gpt/model/base", 1, b"1"),
        ("gpt/model/base:latest", 1, b"1"),
        ("gpt/model/base:v0", 0, b"0"),
        ("gpt/model/base:0", 0, b"0"),
        ("gpt/model/base:best", 0, b"0"),
        ("other/model/base", 0, b"2"),
        ("b/model/base:v1", 1, b"1"),
        ("5feceb66ffc86f38", 0, b"0"),
        ("sha256:5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9", 0, b"0"),
    ],
)
def test_a_reference_finds_one_version(text: str, version: int, data: bytes) -> None:
    with Store.open(STORE) as store:
        found = store.artifact(text)

    assert (found.version, found.path.read_bytes()) == (version, data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model/base", "Several projects have an artifact 'model/base'. Say which: gpt/model/base:latest, other/"),
        (
            "gpt/model/base:v9",
            "There is no 'gpt/model/base:v9'. Of 'gpt/model/base' there are: v0, v1, best, latest",
        ),
        ("model/bse", "There is no artifact 'model/bse'. Near: model/base."),
        ("5fe", "There is no artifact '5fe'"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(text: str, message: str) -> None:
    with Store.open(STORE) as store, pytest.raises(ArtifactNotFound) as caught:
        store.artifact(text)

    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", ":v1", "x:", "x:a b"])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with Store.open(STORE) as store, pytest.raises(ValueError, match="Write `name"):
        store.artifact(text)


def test_a_run_looks_in_its_own_project_first_and_its_use_is_recorded() -> None:
    with begin("user", "other") as run:
        used = run.use_artifact("model/base")
        run.use_artifact("model/base")
        foreign = run.use_artifact("gpt/model/base:best")

    with Store.open(STORE) as store:
        assert (used.project, foreign.project) == ("other", "gpt")
        assert [one.run_name for one in store.users_of(foreign)] == ["user"]
        assert [(one.project, one.reference) for one in store.artifacts(run.id, used=True)] == [
            ("gpt", "model/base:v0"),
            ("other", "model/base:v0"),
        ]
        assert store.artifacts(run.id) == []


def test_an_alias_moves_to_the_version_it_was_given_to_last() -> None:
    with begin("d") as run:
        run.log_artifact(b"3", name="model/base", aliases=["best"])

    with Store.open(STORE) as store:
        assert store.artifact("gpt/model/base:best").version == 2
        store.delete(run.id)
        assert store.artifact("gpt/model/base:best").version == 0
        assert store.artifact("gpt/model/base:latest").version == 1


def test_a_deleted_number_is_not_given_again() -> None:
    with Store.open(STORE) as store:
        store.delete(store.run("b").uid, now=True)
    with begin("d") as run:
        assert run.log_artifact(b"3", name="model/base").version == 2


def test_numbers_are_known_without_the_folder_that_takes_them() -> None:
    shutil.rmtree(STORE / "versions")

    with begin("d") as run:
        assert run.log_artifact(b"3", name="model/base").version == 2


def test_the_catalog_can_be_built_anew_from_the_folders() -> None:
    with begin("user") as run:
        run.use_artifact("model/base:best")

    def answers() -> list[Artifact]:
        with Store.open(STORE) as store:
            return [*store.artifacts(), *store.artifacts(used=True)]

    before = answers()
    for path in STORE.glob("tracer.db*"):
        path.unlink()
    assert answers() == before
    with Store.open(STORE) as store:
        store.rebuild()
    assert answers() == before
    assert len(before) == 4


def test_sql_knows_them() -> None:
    with Store.open(STORE) as store:
        rows = store.sql("SELECT project, name, version FROM artifacts ORDER BY ALL").rows

    assert rows == (("gpt", "model/base", 0), ("gpt", "model/base", 1), ("other", "model/base", 0))


def test_two_versions_of_equal_number_that_were_copied_together_are_told_apart_by_their_run() -> None:
    other = Path("elsewhere")
    with begin("x", storage_path=str(other)) as run:
        run.log_artifact(b"x", name="model/base")
    shutil.copytree(run.folder, STORE / "runs" / Path(run.folder).name)

    with Store.open(STORE) as store:
        with pytest.raises(ArtifactNotFound, match="Several runs made"):
            store.artifact("gpt/model/base:v0")
        assert store.artifact("x/model/base:v0").path.read_bytes() == b"x"
