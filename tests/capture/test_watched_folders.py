"""Files that appear in watched folders are artifacts of the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import CALMLY

import tracer
from tracer.capture.watched_folders import WatchedFolders
from tracer.sink import Guard
from tracer.storage import Store


@pytest.fixture
def found() -> list[str]:
    return []


@pytest.fixture
def watched(found: list[str]) -> WatchedFolders:
    Path("out/old").mkdir(parents=True)
    Path("out/old/before.txt").write_text("there before")
    return WatchedFolders(["out"], lambda _, name: found.append(name), Guard(strict=True))


def test_a_file_counts_when_it_is_at_rest(watched: WatchedFolders, found: list[str]) -> None:
    path = Path("out/new.txt")
    path.write_text("half")
    watched.look()
    path.write_text("half and half")
    watched.look()
    assert found == []

    watched.look()
    watched.look()
    assert found == ["out/new.txt"]


def test_what_was_there_before_counts_only_when_it_changes(watched: WatchedFolders, found: list[str]) -> None:
    watched.look(last=True)
    assert found == []

    Path("out/old/before.txt").write_text("changed since")
    watched.look(last=True)
    assert found == ["out/old/before.txt"]


def test_hidden_and_temporary_files_links_and_the_store_are_left_out(found: list[str]) -> None:
    Path("out/.tracer/runs").mkdir(parents=True)
    watched = WatchedFolders(["out"], lambda _, name: found.append(name), Guard(strict=True), without="out/store")
    Path("out/store").mkdir()
    for name in (".hidden", "x.tmp", "~lock", "y.part", ".tracer/runs/z", "store/run", "good.txt"):
        Path("out", name).write_text("x")
    Path("out/link").symlink_to("good.txt")

    watched.look(last=True)
    assert found == ["out/good.txt"]


def test_a_folder_that_appears_later_is_watched(found: list[str]) -> None:
    watched = WatchedFolders(["later"], lambda _, name: found.append(name), Guard(strict=True))
    Path("later").mkdir()
    Path("later/x").write_text("x")

    watched.look(last=True)
    assert found == ["later/x"]


def test_a_run_keeps_what_a_program_wrote_there_until_its_end() -> None:
    with tracer.init(project="gpt", artifact_folders=["results"], **CALMLY) as run:  # type: ignore[arg-type]
        Path("results").mkdir()
        Path("results/table.csv").write_text("a,b\n")

    with Store.open(".tracer") as store:
        (kept,) = store.artifacts(run.id)
        assert (kept.name, kept.type, kept.is_reference) == ("results/table.csv", "dataset", False)
        Path("results/table.csv").unlink()
        assert kept.path.read_text() == "a,b\n"
