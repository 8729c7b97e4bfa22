"""`tracer export`, `tracer query` and `tracer fsck`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: Runs a command or records a run; see conftest.py.
Ask = Callable[..., Any]


@pytest.fixture
def two(record: Ask) -> tuple[str, str]:
    """Two runs."""
    return record("first", [{"loss": 1.0, "acc": 0.5}] * 10), record("second", [{"loss": float("nan")}] * 5)


@pytest.mark.usefixtures("two")
def test_runs_are_exported_by_the_ending_of_the_path(ask: Ask, tmp_path: Path) -> None:
    answer = ask("export", "first", "second", "-o", "out.csv", "-m", "loss")

    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert answer.code == 0
    assert {(row["run"], row["metric"]) for row in rows} == {("first", "loss"), ("second", "loss")}
    assert len(rows) == 15
    assert answer.lines[0].startswith(f"{tmp_path / 'out.csv'}: 2 runs, 15 points, ")


@pytest.mark.usefixtures("two")
def test_all_runs_are_exported_when_asked_for(ask: Ask) -> None:
    document = ask("export", "--all", "-o", "out.jsonl", "--json").json

    assert (document["runs"], document["format"]) == (2, "jsonl")


@pytest.mark.usefixtures("two")
def test_what_is_there_is_replaced_only_when_said(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text("mine")

    refused = ask("export", "first", "-o", "out.json")
    kept = (tmp_path / "out.json").read_text()
    replaced = ask("export", "first", "-o", "out.json", "--overwrite")

    assert (refused.code, kept, replaced.code) == (3, "mine", 0)
    assert json.loads((tmp_path / "out.json").read_text())


@pytest.mark.parametrize(
    "arguments",
    [
        ["-o", "out.csv"],
        ["first", "--all", "-o", "out.csv"],
        ["first"],
        ["first", "-o", "a.bmp"],
        ["first", "-o", "out.csv", "--to", "tensorboard:tb"],
        ["first", "--to", "tensorboard:tb", "-m", "loss"],
        ["first", "--to", "tensorbord:tb"],
        ["fi?st-none", "--to", "tensorboard:tb"],
    ],
)
@pytest.mark.usefixtures("two")
def test_what_cannot_be_meant_is_refused(ask: Ask, arguments: list[str]) -> None:
    assert ask("export", *arguments).code == 2


@pytest.mark.usefixtures("two")
def test_runs_go_to_another_tracker_once(ask: Ask) -> None:
    first = ask("export", "demo/*", "--to", "tensorboard:tb", "--verify", "--json")
    again = ask("export", "first", "second", "--to", "tensorboard:tb", "--json")

    assert first.code == 0, first.err
    assert [(run["outcome"], run["points"], run["compared"]) for run in first.json["runs"]] == [
        ("created", 5, 1), ("created", 20, 2),
    ]  # fmt: skip
    assert [(run["outcome"], run["sent"]) for run in again.json["runs"]] == [("unchanged", 0)] * 2


@pytest.mark.usefixtures("two")
def test_what_a_tracker_cannot_hold_is_said_before_and_after(ask: Ask, tmp_path: Path) -> None:
    planned = ask("export", "second", "--to", "trackio:tk", "--dry-run")
    before = not (tmp_path / "tk").exists()
    sent = ask("export", "second", "--to", "trackio:tk", "--verify")

    line = next(line for line in planned.lines if line.startswith("NaN"))
    assert line.split("  ")[0] == "NaN and ±Inf"
    assert before
    assert sent.code == 0, sent.err
    assert line in sent.lines
    assert line in sent.err.splitlines()


@pytest.mark.usefixtures("two")
def test_a_question_in_sql_is_answered(ask: Ask) -> None:
    sql = "SELECT metric, count(*) AS points, max(value) AS top FROM points GROUP BY metric ORDER BY metric"

    assert ask("query", sql).lines == ["metric  points  top", "acc         10  0.5", "loss        15  NaN"]
    assert ask("query", sql, "--json").json["rows"] == [["acc", 10, 0.5], ["loss", 15, "NaN"]]
    assert ask("query", "-", stdin=sql, env={}).lines[1].split() == ["acc", "10", "0.5"]
    assert ask("query", sql, "--csv").lines == ["metric,points,top", "acc,10,0.5", "loss,15,NaN"]


@pytest.mark.usefixtures("two")
def test_the_limit_of_an_answer_is_said(ask: Ask) -> None:
    answer = ask("query", "SELECT * FROM points", "--limit", "3")

    assert len(answer.lines) == 4
    assert answer.err == "These are the first 3 rows; --limit 0 shows all.\n"


@pytest.mark.parametrize("sql", ["DROP TABLE runs", "DELETE FROM points", "COPY points TO 'out.csv'", "SELEC 1", ""])
@pytest.mark.usefixtures("two")
def test_nothing_can_be_changed_by_a_question(ask: Ask, tmp_path: Path, sql: str) -> None:
    answer = ask("query", sql)

    assert answer.code in {2, 3}
    assert answer.out == ""
    assert not (tmp_path / "out.csv").exists()
    assert len(ask("list", "--json").json["runs"]) == 2


@pytest.mark.usefixtures("two")
def test_a_sound_store_is_in_order(ask: Ask) -> None:
    answer = ask("fsck")

    assert answer.code == 0
    assert answer.lines[-1].startswith("Checked 2 runs, ")
    assert answer.lines[-1].endswith(": everything is in order.")


@pytest.mark.usefixtures("two")
def test_a_damaged_byte_is_found(ask: Ask, tmp_path: Path) -> None:
    ask("query", "SELECT count(*) FROM points")
    damaged = next(
        path for path in sorted((tmp_path / ".tracer" / "runs").rglob("*")) if path.suffix in {".trj", ".parquet"}
    )
    data = bytearray(damaged.read_bytes())
    middle = len(data) // 2 if damaged.suffix == ".parquet" else 4200
    data[middle] ^= 0xFF
    damaged.write_bytes(data)

    answer = ask("fsck", "--json")

    assert answer.code == 1
    assert answer.json["clean"] is False
    assert any(damaged.name in problem["path"] for problem in answer.json["problems"])
