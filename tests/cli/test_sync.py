"""`tracer sync`: what other trackers still miss is sent; and how `tracer show` tells of them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

#: Runs a command or records a run; see conftest.py.
Ask = Callable[..., Any]


@pytest.fixture
def recorded(record: Ask) -> str:
    """Return the id of a run that went nowhere while it lived."""
    return str(record("first", [{"loss": 1.0, "acc": 0.5}] * 10))


def test_a_run_is_sent_afterwards_whole_and_once(ask: Ask, recorded: str, tmp_path: Path) -> None:
    sent = ask("sync", recorded, "--to", "csv", "--option", f"path={tmp_path / 'out'}", "--json")
    again = ask("sync", recorded, "--json")

    (lane,) = sent.json["lanes"]
    assert (sent.code, lane["run"], lane["backend"], lane["outcome"]) == (0, recorded, "csv", "complete")
    assert [one["outcome"] for one in again.json["lanes"]] == ["nothing owed"]
    (points,) = (tmp_path / "out").rglob("points.csv")
    with points.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["name"] == "loss"]
    assert [float(row["value"]) for row in rows] == [1.0] * 10


def test_what_cannot_arrive_is_said_and_stays_owed(ask: Ask, recorded: str) -> None:
    refused = ask("sync", recorded, "--to", "webhook", "--option", "url=http://127.0.0.1:9/hook")
    dry = ask("sync", recorded, "--dry-run", "--json")
    shown = ask("show", recorded)
    document = ask("show", recorded, "--json").json["run"]

    assert refused.code == 4
    assert refused.lines[-1] == "1 still owed."
    assert (dry.code, [one["backend"] for one in dry.json["lanes"]]) == (0, ["webhook"])
    assert "Mirrors" in shown.lines
    assert any(f"`tracer sync {document['name']}` sends the rest" in line for line in shown.lines)
    (lane,) = document["mirrors"]
    assert (lane["backend"], lane["sent"]) == ("webhook", 0)
    assert lane["state"] != "complete"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "mlfow"], "Did you mean 'mlflow'?"),
        (["--option", "path=x"], "Name it with --to."),
        (["--to", "csv", "--option", "path"], "is not KEY=VALUE"),
        (["--to", "csv", "--option", "pth=x"], "Did you mean 'path'?"),
    ],
)
def test_what_cannot_be_meant_is_refused(ask: Ask, recorded: str, arguments: list[str], said: str) -> None:
    answer = ask("sync", recorded, *arguments)

    assert answer.code != 0
    assert said in answer.err


def test_nothing_to_send_is_no_error(ask: Ask, recorded: str) -> None:  # noqa: ARG001 -- a store has to be there
    answer = ask("sync")

    assert (answer.code, answer.lines) == (0, ["Nothing is owed: no run is mirrored, or each has arrived whole."])
