"""`tracer plot` as a person and as a program meets it."""

from __future__ import annotations

import csv
import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

#: Runs a command or records a run; see conftest.py.
Ask = Callable[..., Any]


@pytest.fixture
def two(record: Ask) -> tuple[str, str]:
    """Two runs with two metrics."""
    rows = [{"loss": 2 * math.exp(-step / 30), "acc": step / 100} for step in range(100)]
    return record("first", rows), record("second", [{"loss": 2 * row["loss"]} for row in rows[:50]])


def inked(line: str) -> int:
    return sum("⠀" < character <= "⣿" for character in line)


@pytest.mark.usefixtures("two")
def test_a_metric_is_drawn(ask: Ask) -> None:
    lines = ask("plot", "first", "loss", "--width", "60", "--height", "12").lines

    assert lines[0:2] == ["first", "loss"]
    assert "┤" in lines[2]
    assert lines[-3].lstrip().startswith("└───")
    assert [mark for mark in lines[-2].split() if mark.isdigit()] == ["0", "25", "50", "75"]
    assert lines[-1] == "step".rjust(60)
    assert sum(map(inked, lines)) > 50


@pytest.mark.usefixtures("two")
def test_several_metrics_of_several_runs_are_told_apart(ask: Ask) -> None:
    assert ask("plot", "first", "loss", "acc").lines[1] == "● loss   ▲ acc"
    assert ask("plot", "first", "loss", "--with", "second").lines[:2] == ["loss", "● first   ▲ second"]


@pytest.mark.usefixtures("two")
def test_a_chart_fits_the_terminal_and_has_colour(on_terminal: Ask) -> None:
    answer = on_terminal("plot", "first", "loss", columns=70, rows=20)

    assert max(map(len, answer.text)) <= 70
    assert len(answer.text) <= 20
    assert "\x1b[38;5;39m" in answer.out


@pytest.mark.usefixtures("two")
def test_seconds_can_run_to_the_right(ask: Ask) -> None:
    assert ask("plot", "first", "loss", "--x", "time").lines[-1].strip() == "seconds since the start"


@pytest.mark.usefixtures("two")
def test_a_histogram_counts_all_points(ask: Ask) -> None:
    lines = ask("plot", "first", "acc", "--histogram").lines

    assert lines[0] == "acc"
    assert sum(int(line.split()[-1]) for line in lines[1:]) == 100


@pytest.mark.usefixtures("two")
def test_csv_of_one_metric_has_the_seed_documents_columns(ask: Ask, tmp_path: Path) -> None:
    answer = ask("plot", "first", "loss", "-e", "out.csv")

    rows = list(csv.reader((tmp_path / "out.csv").read_text().splitlines()))
    assert rows[0] == ["step", "timestamp", "value"]
    assert (rows[1][0], float(rows[1][2]), len(rows)) == ("0", 2.0, 101)
    assert answer.lines[0].startswith("out.csv: 100 points, ")
    assert ask("plot", "first", "loss", "--csv").out == (tmp_path / "out.csv").read_text()


@pytest.mark.usefixtures("two")
def test_json_of_one_metric_has_the_seed_documents_keys(ask: Ask, tmp_path: Path) -> None:
    ask("plot", "first", "loss", "--export", "out.json")

    document = json.loads((tmp_path / "out.json").read_text())
    assert list(document) == ["steps", "timestamps", "values"]
    assert (document["steps"][:2], document["values"][0], len(document["values"])) == ([0, 1], 2.0, 100)


@pytest.mark.usefixtures("two")
def test_several_series_say_whose_they_are(ask: Ask, tmp_path: Path) -> None:
    ask("plot", "first", "loss", "acc", "-e", "out.json")
    ask("plot", "first", "loss", "--with", "second", "-e", "out.csv")

    document = json.loads((tmp_path / "out.json").read_text())
    assert [one["metric"] for one in document["series"]] == ["loss", "acc"]
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert {(row["run"], row["metric"]) for row in rows} == {("first", "loss"), ("second", "loss")}


@pytest.mark.usefixtures("two")
def test_parquet_is_read_by_others(ask: Ask, tmp_path: Path) -> None:
    ask("plot", "first", "loss", "-e", "out.parquet")

    table = pq.read_table(tmp_path / "out.parquet")
    assert (table.num_rows, set(table["metric"].to_pylist())) == (100, {"loss"})


@pytest.mark.usefixtures("two")
def test_pictures_are_written(ask: Ask, tmp_path: Path) -> None:
    codes = [
        ask("plot", "first", "loss", "--with", "second", "-e", name, "--log", "--smooth", "0.9").code
        for name in ("out.svg", "out.png")
    ]

    assert codes == [0, 0]
    texts = [element.text for element in ET.parse(tmp_path / "out.svg").iter() if element.tag.endswith("text")]  # noqa: S314 -- our own file
    assert {"loss - first, second", "first", "second", "step", "loss"} <= set(texts)
    assert (tmp_path / "out.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.usefixtures("two")
def test_the_size_of_a_picture_can_be_chosen(ask: Ask, tmp_path: Path) -> None:
    ask("plot", "first", "loss", "-e", "out.svg", "--width", "500", "--height", "300")

    root = ET.parse(tmp_path / "out.svg").getroot()  # noqa: S314 -- our own file
    assert (root.get("width"), root.get("height")) == ("500", "300")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["first", "los"], "Run 'first' has no metric 'los'. Near: loss."),
        (["first", "loss", "-e", "out.bmp"], "The ending of 'out.bmp' names no format."),
        (["first", "loss", "-e", "no/such/folder/out.svg"], "no/such/folder/out.svg cannot be written"),
        (["first", "loss", "--smooth", "1"], "--smooth"),
        (["first", "loss", "--with", "nobody"], "There is no run 'nobody'"),
        (["first"], "Missing argument"),
    ],
)
@pytest.mark.usefixtures("two")
def test_what_cannot_be_meant_is_refused(ask: Ask, arguments: list[str], said: str) -> None:
    answer = ask("plot", *arguments)

    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err


def test_text_has_no_chart(ask: Ask, record: Ask) -> None:
    record("words", [{"phase": "warm-up"}])

    answer = ask("plot", "words", "phase")

    assert answer.code == 2
    assert "is text, which has no chart" in answer.err


@pytest.mark.usefixtures("two")
def test_nothing_is_left_behind_when_a_file_cannot_be_written(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "taken.svg").mkdir()

    answer = ask("plot", "first", "loss", "-e", "taken.svg")

    assert answer.code == 2
    assert [path.name for path in tmp_path.iterdir() if ".part" in path.name] == []
