"""`tracer migrate`: from one tracker to another, with a proof of what arrived."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: Runs a command; see conftest.py.
Ask = Callable[..., Any]


@pytest.fixture
def curve(tmp_path: Path) -> Path:
    """A curve as a table."""
    path = tmp_path / "curve.csv"
    path.write_text("step,loss\n" + "".join(f"{step},{1 / (step + 1)}\n" for step in range(10)))
    return path


@pytest.mark.parametrize(
    "ends", [("csv:curve.csv", "tensorboard:tb"), ("--from", "csv:curve.csv", "--to", "tensorboard:tb")]
)
@pytest.mark.usefixtures("curve")
def test_runs_go_over_and_both_sides_are_compared(ask: Ask, ends: tuple[str, ...]) -> None:
    answer = ask("migrate", *ends, "--json")

    halves = answer.json["import"], answer.json["export"]
    assert answer.code == 0, answer.err
    assert [[(run["points"], run["compared"], run["outcome"]) for run in half["runs"]] for half in halves] == [
        [(10, 1, "created")]
    ] * 2
    assert [one for half in halves for run in half["runs"] for one in run["differences"] if one["error"]] == []
    assert len(ask("list", "--json").json["runs"]) == 1


@pytest.mark.usefixtures("curve")
def test_twice_is_once(ask: Ask) -> None:
    ask("migrate", "csv:curve.csv", "tensorboard:tb")
    answer = ask("migrate", "csv:curve.csv", "tensorboard:tb")

    assert answer.code == 0
    assert [line for line in answer.lines if "unchanged;" in line] == [
        "1 run from CSV: 1 unchanged; 10 points, 0 of them moved now.",
        "1 run to TensorBoard: 1 unchanged; 10 points, 0 of them moved now.",
    ]


@pytest.mark.usefixtures("curve")
def test_a_rehearsal_writes_nothing(ask: Ask, tmp_path: Path) -> None:
    answer = ask("migrate", "csv:curve.csv", "tensorboard:tb", "--dry-run")

    assert answer.code == 0
    assert not (tmp_path / "tb").exists()
    assert not (tmp_path / ".tracer").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Name where the runs are and where they go"),
        (("csv:curve.csv",), "Name where the runs are and where they go"),
        (("csv:curve.csv", "tensorboard:a", "aim:b"), "Name where the runs are and where they go"),
        (("csv:curve.csv", "csv:curve.csv"), "the same place"),
        (("csv:curve.csv", "tensorbord:tb"), "does not say which tracker"),
        (("csv:curve.csv", "neptune:x"), "not written to it"),
    ],
)
@pytest.mark.usefixtures("curve")
def test_what_cannot_be_meant_is_said(ask: Ask, arguments: tuple[str, ...], said: str) -> None:
    answer = ask("migrate", *arguments)

    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
