"""`tracer anomalies` as a person and as a program meets it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from tracer.events import Finding

#: Runs a command or records a run; see conftest.py.
Ask = Callable[..., Any]


def table(lines: list[str]) -> list[str]:
    """Return the rows of the table, without its header and what is told below it."""
    return lines[1 : lines.index("")]


@pytest.fixture
def sick(record: Ask) -> str:
    """A run with a spike and a NaN."""
    rows = [{"loss": 1 + 0.01 * math.sin(step * 7.0)} for step in range(60)]
    rows[40]["loss"], rows[50]["loss"] = 9.0, float("nan")
    return str(record("sick", rows, detect_anomalies=False))


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
    assert [line.split()[:4] for line in table(kept.lines)] == [
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
    answer = ask("anomalies", "sick", "--auto", "-t", "nan_or_inf")

    assert [line.split()[1] for line in table(answer.lines)] == ["nan_or_inf"]
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


@pytest.mark.usefixtures("sick")
def test_each_anomaly_is_told_below_the_table_in_eighty_columns(ask: Ask) -> None:
    lines = ask("anomalies", "sick", "--auto").lines

    assert lines[3:6] == ["", "loss_spike at 40", lines[5]]
    assert lines[5].startswith("  loss jumped from 1 to 9 at step 40, ")
    assert "  loss is NaN at step 50." in lines
    assert sum(line.startswith("  => ") for line in lines) == 2
    assert max(map(len, lines)) <= 80


@pytest.mark.usefixtures("sick")
def test_json_has_explanation_cause_and_remedy(ask: Ask) -> None:
    [spike] = ask("anomalies", "sick", "--auto", "-t", "loss_spike", "--json").json["findings"]

    assert {"loss", "window_mean", "z_score", "metric", "explanation", "remedy", "cause", "count"} <= set(
        spike["details"]
    )


@pytest.mark.usefixtures("sick")
def test_rule_names_of_others_are_understood_or_answered(ask: Ask) -> None:
    understood = ask("anomalies", "sick", "--auto", "-t", "ExplodingTensor")
    refused = ask("anomalies", "sick", "-t", "tree_depth")

    assert [line.split()[1] for line in table(understood.lines)] == ["nan_or_inf"]
    assert refused.code == 2
    assert "boosted trees" in refused.err


@pytest.fixture
def add(sick: str) -> Callable[..., None]:
    """Keep findings as those who watch a run under way do."""
    from tracer.storage.store import Store

    def keep(*findings: Finding) -> None:
        with Store.open(".tracer") as store:
            store.add_findings(sick, findings, source="live")

    return keep


def test_what_was_found_live_is_not_found_again(ask: Ask, add: Ask) -> None:
    add(Finding("nan_or_inf", "critical", 50, {"metric": "loss", "num_nans": 1, "num_infs": 0}, 50))

    answer = ask("anomalies", "sick", "--auto", "--json").json

    assert answer["new"] == 1
    assert [(row["type"], row["source"]) for row in answer["findings"]] == [
        ("loss_spike", "offline"),
        ("nan_or_inf", "live"),
    ]


def test_what_several_saw_of_one_trouble_is_one_line(ask: Ask, add: Ask) -> None:
    add(
        Finding("nan_or_inf", "critical", 50, {"explanation": "It came from log.", "capsule": "step-50.trc"}),
        Finding("nan_or_inf", "critical", 51, {"layer": "fc", "layer_count": 6, "num_nans": 3, "num_infs": 0}, 59),
    )

    lines = ask("anomalies", "sick").lines

    assert lines[1].split() == ["50", "…", "59", "nan_or_inf", "critical", "fc", "and", "5", "more"]
    assert lines[3:] == [
        "nan_or_inf at 50 … 59",
        "  It came from log.",
        "  + The gradient of fc holds 3 NaN values at step 51, and it lasts until step",
        "    59.",
        "  capsule: step-50.trc",
        "  => Find the operation with `tracer replay`; logarithms, divisions and half",
        "     precision are the usual places.",
    ]


def test_rows_of_the_data_set_are_shown(ask: Ask, record: Ask) -> None:
    from tracer.storage.store import Store

    run = record("rows", [{"loss": 1.0}], detect_anomalies=False)
    rows = [{"row": 88213, "loss": 9.25, "share": 0.5}, {"row": 90122, "loss": 4.0, "share": 0.21}]
    with Store.open(".tracer") as store:
        store.add_findings(run, [Finding("bad_rows", "medium", 7, {"rows": rows}, 7)], source="live")

    lines = ask("anomalies", "rows").lines

    assert "  Rows 88213 and 90122 carry 71 % of the loss of their batch." in lines
    assert "     row 88213: loss 9.25, 50 % of the batch" in lines
