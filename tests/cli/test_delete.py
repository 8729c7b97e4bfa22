"""Deleting and bringing back: `tracer delete`, `tracer restore`, `tracer gc`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: Runs a command or records a run; see conftest.py.
Ask = Callable[..., Any]


@pytest.fixture
def two(record: Ask) -> list[str]:
    """Two runs."""
    return [record(name, [{"loss": 1.0}] * 50) for name in ("first", "second")]


def listed(ask: Ask) -> list[str]:
    return [run["name"] for run in ask("list", "--json").json["runs"]]


def bytes_of(path: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())


@pytest.mark.usefixtures("two")
def test_without_a_terminal_nothing_is_deleted_unasked(ask: Ask) -> None:
    answer = ask("delete", "first")

    assert answer.code == 2
    assert answer.err.startswith("tracer: Delete run 'first' (")
    assert answer.err.endswith("into the trash? There is no terminal to answer on. Say so with --yes.\n")
    assert listed(ask) == ["second", "first"]


@pytest.mark.parametrize(("typed", "code", "left"), [("y\n", 0, ["second"]), ("n\n", 1, ["second", "first"])])
@pytest.mark.usefixtures("two")
def test_a_person_is_asked(ask: Ask, on_terminal: Ask, typed: str, code: int, left: list[str]) -> None:
    answer = on_terminal("delete", "first", typed=typed, after="[y/N]:")

    assert answer.code == code
    assert "into the trash? [y/N]:" in answer.out
    assert listed(ask) == left


@pytest.mark.usefixtures("two")
def test_interrupting_the_question_changes_nothing(ask: Ask, on_terminal: Ask) -> None:
    answer = on_terminal("delete", "first", typed="\x03", after="[y/N]:")

    assert answer.code == 130
    assert listed(ask) == ["second", "first"]


def test_a_deleted_run_can_be_restored(ask: Ask, two: list[str]) -> None:
    deleted = ask("delete", "first", "--yes")
    trash = ask("restore", "--json").json["trash"]
    restored = ask("restore", "first")

    assert deleted.lines == ["Deleted run 'first'. `tracer restore` brings it back within seven days."]
    assert [run["id"] for run in trash] == [two[0]]
    assert restored.lines == ["Restored run 'first'."]
    assert sorted(listed(ask)) == ["first", "second"]
    assert ask("show", "first", "--json").json["run"]["metrics"][0]["points"] == 50
    assert ask("restore").lines == ["The trash is empty."]


@pytest.mark.usefixtures("two")
def test_now_frees_the_disk(ask: Ask, tmp_path: Path) -> None:
    ask("list")
    before = bytes_of(tmp_path / ".tracer" / "runs")

    answer = ask("delete", "first", "second", "--now", "--yes")

    assert answer.code == 0
    assert answer.out.startswith("Deleted runs 'first', 'second'.")
    assert bytes_of(tmp_path / ".tracer" / "runs") < before / 10
    assert bytes_of(tmp_path / ".tracer" / "trash") == 0
    assert (listed(ask), ask("restore").lines) == ([], ["The trash is empty."])


@pytest.mark.usefixtures("two")
def test_now_takes_what_is_in_the_trash_already(ask: Ask) -> None:
    ask("delete", "first", "--yes")

    assert ask("delete", "first", "--now", "--yes").code == 0
    assert ask("restore").lines == ["The trash is empty."]


@pytest.mark.usefixtures("tmp_path")
def test_a_run_that_still_records_is_refused_unless_forced(ask: Ask) -> None:
    program = (
        "import sys, tracer\n"
        "tracer.init(run_name='live', quiet=True).log({'a': 1})\n"
        "print('on', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        refused = ask("delete", "live", "--yes")
        process.kill()

    assert refused.code == 2
    assert "Run 'live' is still recording." in refused.err


@pytest.mark.usefixtures("two")
def test_what_is_not_in_the_trash_cannot_be_restored(ask: Ask) -> None:
    ask("delete", "first", "--yes")

    answer = ask("restore", "frist")

    assert (answer.code, answer.err) == (2, "tracer: No run 'frist' is in the trash. Near: first.\n")


def test_deleting_answers_in_json(ask: Ask, two: list[str]) -> None:
    document = ask("delete", "first", "--yes", "--json").json

    assert document == {"version": 1, "deleted": [two[0]], "now": False, "bytes": 0}


def test_gc_shows_what_is_old_and_changes_nothing(ask: Ask, two: list[str]) -> None:
    nothing = ask("gc")
    old = ask("gc", "--older-than", "0", "--json").json

    assert nothing.lines == ["Nothing is past its time."]
    assert old["applied"] is False
    assert sorted(run["id"] for run in old["runs"]) == sorted(two)
    assert sorted(listed(ask)) == ["first", "second"]


@pytest.mark.usefixtures("two")
def test_gc_deletes_when_told_to(ask: Ask) -> None:
    refused = ask("gc", "--older-than", "0", "--apply")
    applied = ask("gc", "--older-than", "0", "--apply", "--yes")

    assert (refused.code, applied.code) == (2, 0)
    assert listed(ask) == []
    assert len(ask("restore", "--json").json["trash"]) == 2


def test_gc_keeps_what_is_tagged_keep(ask: Ask, record: Ask) -> None:
    record("kept", [{"loss": 1.0}], tags=["keep"])

    assert ask("gc", "--older-than", "0").lines == ["Nothing is past its time."]
