"""`tracer import`: runs of others, with a table, a document for machines, and an exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: Runs a command; see conftest.py.
Ask = Callable[..., Any]


@pytest.fixture
def curve(tmp_path: Path) -> Path:
    """A curve as a table: a column of steps, one of each metric."""
    rows = [f"{step},{1 / (step + 1)},{'NaN' if step == 3 else step / 10}" for step in range(10)]
    path = tmp_path / "curve.csv"
    path.write_text("step,loss,acc\n" + "\n".join(rows) + "\n")
    return path


@pytest.mark.usefixtures("curve")
def test_runs_come_in_and_are_shown(ask: Ask) -> None:
    answer = ask("import", "csv:curve.csv", "--verify")

    assert answer.code == 0, answer.err
    assert answer.lines[0].split() == ["run", "project", "outcome", "points", "series", "artifacts", "verified"]
    assert answer.lines[1].split()[2:] == ["created", "20", "2", "0", "2", "series", "equal"]
    assert "1 run from CSV: 1 created; 20 points, 20 of them moved now." in answer.lines
    assert [run["points"] for run in ask("list", "--json").json["runs"]] == [20]


@pytest.mark.usefixtures("curve")
def test_a_second_import_changes_nothing(ask: Ask) -> None:
    first = ask("import", "csv:curve.csv", "--json").json
    again = ask("import", "csv:curve.csv", "--json").json

    assert [run["outcome"] for run in (*first["runs"], *again["runs"])] == ["created", "unchanged"]
    assert again["runs"][0]["id"] == first["runs"][0]["id"]
    assert len(ask("list", "--json").json["runs"]) == 1


@pytest.mark.usefixtures("curve")
def test_a_bare_path_is_recognised_and_that_is_said(ask: Ask) -> None:
    answer = ask("import", "curve.csv", "--project", "mine")

    assert answer.err == "Recognised CSV: csv:curve.csv\n"
    assert ask("list", "--json").json["runs"][0]["project"] == "mine"


@pytest.mark.usefixtures("curve")
def test_a_rehearsal_makes_no_store(ask: Ask, tmp_path: Path) -> None:
    answer = ask("import", "csv:curve.csv", "--dry-run", "--json")

    assert [run["outcome"] for run in answer.json["runs"]] == ["planned"]
    assert answer.json["dry_run"] is True
    assert not (tmp_path / ".tracer").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nothing.csv",), 2, "neither a path that exists nor a tracker"),
        (("otlp:http://h/",), 2, "not read from it"),
        (("csv:curve.csv", "--option", "step"), 2, "Write KEY=VALUE"),
        (("csv:curve.csv", "--runs", "no-such-*"), 1, "No runs that match 'no-such-*' were found"),
    ],
)
@pytest.mark.usefixtures("curve")
def test_what_cannot_be_meant_is_said(ask: Ask, arguments: tuple[str, ...], code: int, said: str) -> None:
    answer = ask("import", *arguments)

    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err


@pytest.mark.usefixtures("curve")
def test_a_person_is_asked(on_terminal: Ask, ask: Ask) -> None:
    answer = on_terminal("import", "csv:curve.csv", typed="n\n", after="[Y/n]")

    assert answer.code == 1
    assert "Move 1 run from csv:curve.csv to .tracer?" in "\n".join(answer.text)
    assert on_terminal("import", "csv:curve.csv", "--yes").code == 0
    assert len(ask("list", "--json").json["runs"]) == 1


def test_no_password_is_shown(ask: Ask) -> None:
    answer = ask("import", "mlflow:http://me:geheim@127.0.0.1:9", "--option", "timeout_s=1")

    assert answer.code == 4
    assert "geheim" not in answer.out + answer.err


def test_json_lines_come_in_too(ask: Ask, tmp_path: Path) -> None:
    rows = [{"step": step, "loss": step / 3} for step in range(5)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    document = ask("import", "log.jsonl", "--verify", "--json").json

    assert [(run["points"], run["verified"], run["differences"]) for run in document["runs"]] == [(5, True, [])]
