"""`tracer list` as a person and as a program meets it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest

#: Runs a command or records a run; see conftest.py.
Ask = Callable[..., Any]


@pytest.fixture
def three(record: Ask) -> dict[str, str]:
    """Three runs of two projects."""
    return {
        "alpha": record("alpha", [{"loss": 3.0}], config={"lr": 0.1, "model": {"dim": 8}}, tags=["keep", "best"]),
        "beta": record("beta", [{"loss": 1.0}, {"loss": 0.5}], config={"lr": 0.01}, project="other"),
        "gamma": record("gamma", [{"loss": float("nan"), "acc": 0.9}], config={"lr": 1}, tags=["keep"]),
    }


def names(lines: list[str]) -> list[str]:
    return [line.split()[0] for line in lines[1:]]


@pytest.mark.usefixtures("three")
def test_runs_are_listed_newest_first(ask: Ask) -> None:
    answer = ask("list")

    assert answer.lines[0].split() == ["name", "project", "status", "steps", "duration", "started"]
    assert [line.split()[:4] for line in answer.lines[1:]] == [
        ["gamma", "demo", "completed", "1"],
        ["beta", "other", "completed", "2"],
        ["alpha", "demo", "completed", "1"],
    ]


@pytest.mark.usefixtures("three")
def test_an_empty_list_is_no_error(ask: Ask) -> None:
    answer = ask("list", "--project", "nobody")

    assert (answer.code, answer.lines) == (0, ["No runs found."])
    assert ask("list", "--project", "nobody", "--json").json == {"version": 1, "runs": [], "complete": True}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--project", "demo"], ["gamma", "alpha"]),
        (["--status", "running"], ["found."]),
        (["--tag", "keep"], ["gamma", "alpha"]),
        (["--tag", "keep", "--tag", "best"], ["alpha"]),
        (["--name", "^(a|b)"], ["beta", "alpha"]),
        (["--where", "metric.loss < 2"], ["beta"]),
        (["--where", "config.lr >= 1e-1"], ["gamma", "alpha"]),
        (["--where", "config.lr>=0.1", "--where", "name != gamma"], ["alpha"]),
        (["--where", "name ~ ET"], ["beta"]),
        (["--where", "steps = 2"], ["beta"]),
        (["--sort", "name"], ["alpha", "beta", "gamma"]),
        (["--sort", "-config:lr"], ["gamma", "alpha", "beta"]),
        (["--sort", "metric:acc"], ["gamma", "beta", "alpha"]),
        (["--limit", "1"], ["gamma"]),
        (["--limit", "0"], ["gamma", "beta", "alpha"]),
    ],
)
@pytest.mark.usefixtures("three")
def test_runs_are_filtered_and_sorted(ask: Ask, options: list[str], expected: list[str]) -> None:
    answer = ask("list", *options)

    assert answer.code == 0
    found = names(answer.lines) or [answer.lines[0].split()[-1]]
    assert found == expected


@pytest.mark.usefixtures("three")
def test_what_the_limit_cut_is_said(ask: Ask) -> None:
    answer = ask("list", "--limit", "2")

    assert answer.err == "These are the first 2; --limit 0 shows all.\n"
    assert ask("list", "--limit", "2", "--json").json["complete"] is False
    assert ask("list", "--limit", "3").err == ""


@pytest.mark.usefixtures("three")
def test_columns_of_choice(ask: Ask) -> None:
    answer = ask("list", "--columns", "name,metric.loss,config.lr,config.model.dim,tags", "--sort", "name")

    assert [line.split() for line in answer.lines] == [
        ["name", "metric.loss", "config.lr", "config.model.dim", "tags"],
        ["alpha", "3", "0.1", "8", "best,", "keep"],
        ["beta", "0.5", "0.01"],
        ["gamma", "NaN", "1", "keep"],
    ]


def test_json_holds_everything_and_times_in_utc(ask: Ask, three: dict[str, str]) -> None:
    document = ask("list", "--json", "--columns", "name,metric.loss").json

    assert document["version"] == 1
    assert [run["id"] for run in document["runs"]] == [three["gamma"], three["beta"], three["alpha"]]
    assert [run["metrics"] for run in document["runs"]] == [{"loss": "NaN"}, {"loss": 0.5}, {"loss": 3.0}]
    alpha = document["runs"][2]
    assert alpha["config"] == {"lr": 0.1, "model": {"dim": 8}}
    assert alpha["tags"] == ["best", "keep"]
    assert alpha["started"].endswith("Z")
    assert alpha["duration_s"] >= 0


def test_csv_has_a_row_for_each_run(ask: Ask, three: dict[str, str]) -> None:
    rows = list(csv.DictReader(io.StringIO(ask("list", "--csv", "--columns", "id,name,metric.loss").out)))

    assert rows[1] == {"id": three["beta"], "name": "beta", "metric.loss": "0.5"}
    assert rows[0]["metric.loss"] == "NaN"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--columns", "nonsense"], "There is no column 'nonsense'."),
        (["--where", "loss"], "'loss' is no condition."),
        (["--where", "nonsense < 1"], "'nonsense' is no column of a run."),
        (["--sort", "nonsense"], "'nonsense' is no column of a run."),
        (["--name", "("], "is no regular expression"),
        (["--status", "nonsense"], "Invalid value for '--status'"),
        (["--limit", "-1"], "Invalid value for '--limit'"),
    ],
)
@pytest.mark.usefixtures("three")
def test_what_cannot_be_meant_is_refused(ask: Ask, options: list[str], said: str) -> None:
    answer = ask("list", *options)

    assert (answer.code, answer.out) == (2, "")
    assert said in " ".join(answer.err.split())


@pytest.mark.usefixtures("three")
def test_a_list_loads_neither_numpy_nor_duckdb_nor_torch_nor_rich(loaded: Callable[..., list[str]]) -> None:
    modules = set(loaded("list", "--where", "config.lr < 1"))

    assert not {"numpy", "duckdb", "torch", "rich", "pyarrow"} & modules


@pytest.mark.usefixtures("three")
def test_a_terminal_gets_a_table(on_terminal: Ask) -> None:
    lines = on_terminal("list", "--columns", "name,status", "--sort", "name").text

    assert set(lines[1]) == {"─"}
    assert [line.split() for line in lines] == [
        ["name", "status"],
        [lines[1]],
        ["alpha", "completed"],
        ["beta", "completed"],
        ["gamma", "completed"],
    ]
