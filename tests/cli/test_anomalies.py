"""`tracer anomalies` as a person and as a program meets it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

#: Runs a command or records a run; see conftest.py.
Ask = Callable[..., Any]


@pytest.fixture
def sick(record: Ask) -> str:
    """A run with a spike and a NaN."""
    rows = [{"loss": 1 + 0.01 * math.sin(step * 7.0)} for step in range(60)]
    rows[40]["loss"], rows[50]["loss"] = 9.0, float("nan")
    return str(record("sick", rows))


@pytest.fixture
def healthy(record: Ask) -> str:
    """A run without a fault."""
    return str(record("healthy", [{"loss": 1 + 0.01 * math.sin(step * 7.0)} for step in range(60)]))


@pytest.mark.usefixtures("sick")
def test_before_the_search_nothing_is_known(ask: Ask) -> None:
    assert ask("anomalies", "sick").lines == ["No anomalies found. Search the run now with --auto."]


@pytest.mark.usefixtures("sick")
def test_the_search_finds_and_keeps(ask: Ask) -> None:
    searched = ask("anomalies", "sick", "--auto")
    kept = ask("anomalies", "sick")

    assert searched.lines == kept.lines
    assert [line.split()[:4] for line in kept.lines[1:]] == [
        ["40", "loss_spike", "high", "loss"],
        ["50", "nan_or_inf", "critical", "loss"],
    ]


@pytest.mark.usefixtures("sick")
def test_searching_twice_doubles_nothing(ask: Ask) -> None:
    first = ask("anomalies", "sick", "--auto", "--json").json
    second = ask("anomalies", "sick", "--auto", "--json").json

    assert (first["new"], second["new"]) == (2, 0)
    assert second["findings"] == first["findings"]
    assert [row["type"] for row in second["findings"]] == ["loss_spike", "nan_or_inf"]


@pytest.mark.usefixtures("sick")
def test_types_of_choice(ask: Ask) -> None:
    assert [line.split()[1] for line in ask("anomalies", "sick", "--auto", "-t", "nan_or_inf").lines[1:]] == [
        "nan_or_inf"
    ]
    assert ask("anomalies", "sick", "-t", "memory_spike").lines == [
        "No anomalies found. Search the run now with --auto."
    ]


@pytest.mark.usefixtures("sick")
def test_an_unknown_type_is_no_good_news(ask: Ask) -> None:
    answer = ask("anomalies", "sick", "-t", "loss_spikes")

    assert answer.code == 2
    assert "There is no anomaly type 'loss_spikes'. Did you mean 'loss_spike'?" in answer.err


@pytest.mark.parametrize(("severity", "code"), [("low", 1), ("high", 1), ("critical", 1)])
@pytest.mark.usefixtures("sick")
def test_a_grave_anomaly_fails_the_command(ask: Ask, severity: str, code: int) -> None:
    assert ask("anomalies", "sick", "--auto", "--fail-on", severity).code == code


@pytest.mark.usefixtures("sick")
def test_a_milder_anomaly_does_not(ask: Ask) -> None:
    assert ask("anomalies", "sick", "--auto", "-t", "loss_spike", "--fail-on", "critical").code == 0


@pytest.mark.usefixtures("healthy")
def test_a_healthy_run_passes(ask: Ask) -> None:
    answer = ask("anomalies", "healthy", "--auto", "--fail-on", "low")

    assert (answer.code, answer.lines) == (0, ["No anomalies found."])


@pytest.mark.usefixtures("sick")
def test_csv_has_a_row_for_each_finding(ask: Ask) -> None:
    lines = ask("anomalies", "sick", "--auto", "--csv").lines

    assert lines[0] == "step,last_step,type,severity,rank,where,details,source"
    assert lines[2].startswith("50,50,nan_or_inf,critical,0,loss,")


@pytest.mark.usefixtures("sick")
def test_findings_are_summed_up_where_the_run_is_shown(ask: Ask) -> None:
    ask("anomalies", "sick", "--auto")

    lines = [line.split() for line in ask("show", "sick").lines]

    assert ["nan_or_inf", "1", "critical", "50"] in lines
    assert ["loss_spike", "1", "high", "40"] in lines
