"""What a benchmark says: figures, bars, tables, and the part of the page that they fill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PAGE = BENCHMARKS.parent / "docs" / "performance.md"

Program = Callable[[str], ModuleType]


def test_every_script_that_reports_is_run(program: Program) -> None:
    reporting = {path.stem for path in BENCHMARKS.glob("*.py") if "with reporting(" in path.read_text(encoding="utf-8")}

    assert sorted(program("run").SCRIPTS) == sorted(reporting)


def test_the_page_has_room_for_the_results(program: Program) -> None:
    run, page = program("run"), PAGE.read_text(encoding="utf-8")

    filled = run.page_with(page, "RESULTS\n")

    before, after = page.partition(run.START)[0], page.partition(run.END)[2]
    assert filled == f"{before}{run.START}\nRESULTS\n{run.END}{after}"
    assert run.page_with(filled, "RESULTS\n") == filled


def test_a_page_without_marks_is_refused(program: Program) -> None:
    with pytest.raises(ValueError, match="put both marks"):
        program("run").page_with("# Performance\n", "RESULTS\n")


def test_a_table_is_markdown_that_is_aligned(program: Program) -> None:
    table = program("report").Table("", ("logger", "µs"))

    table.add("Tracer", 0.7861)
    table.add("W&B offline", 61.2)

    assert table.lines() == [
        "| logger      |    µs |",
        "| ----------- | ----: |",
        "| Tracer      | 0.786 |",
        "| W&B offline |  61.2 |",
    ]


@pytest.mark.parametrize(
    ("median", "minimum", "holds"), [(0.9, 0.8, "yes"), (1.1, 0.9, "at the minimum only"), (1.1, 1.05, "no")]
)
def test_the_median_decides_whether_a_cost_holds(program: Program, median: float, minimum: float, holds: str) -> None:
    bar = program("report").Bar.at_most("`log`", 1.0, "µs", median, minimum)

    assert (bar.limit, bar.holds) == ("≤ 1 µs", holds)


def test_a_gain_is_judged_the_other_way_round(program: Program) -> None:
    report, times = program("report"), program("figures").TIMES

    bars = [report.Bar.at_least("`log`, cheaper", 30, times, ratio) for ratio in (31.2, 29.0)]

    assert [(bar.limit, bar.median, bar.holds) for bar in bars] == [
        (f"≥ 30{times}", f"31.2{times}", "yes"),
        (f"≥ 30{times}", f"29{times}", "no"),
    ]


def test_a_quick_result_never_takes_the_place_of_a_full_one(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = program("report")
    monkeypatch.setattr(report, "RESULTS", tmp_path)

    quick, full = (report.Report("log_call", "Cost", "How.", quick).save() for quick in (True, False))

    assert [path.relative_to(tmp_path).as_posix() for path in (quick, full)] == ["quick/log_call.json", "log_call.json"]


def test_a_result_is_read_back_as_it_was(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = program("report")
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    report = module.Report("log_call", "Cost", "How.", quick=False, notes=["Said."], date="today", load=(0.1, 0.2))
    report.table("1 key", "logger", "µs").add("Tracer", 0.8)
    report.bars.append(module.Bar.at_most("`log`", 1.0, "µs", 0.8))

    found, facts = module.Report.load_from(report.save())

    assert found == report
    assert {"processor", "kernel", "versions", "date"} <= set(facts)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.01234, "0.0123"), (1.0, "1"), (9.876, "9.88"), (123.4, "123"), (12_345.6, "12,346")],
)
def test_a_number_shows_three_digits_that_matter(program: Program, value: float, text: str) -> None:
    assert program("figures").number(value) == text


def test_a_percentile_is_a_value_that_was_measured(program: Program) -> None:
    percentile, measured = program("figures").percentile, list(range(1, 1001))

    assert [percentile(measured, share) for share in (0.5, 0.99, 0.999, 1.0)] == [500, 990, 999, 1000]


def test_a_fresh_process_calls_the_function_it_is_given(program: Program, tmp_path: Path) -> None:
    data, fresh = program("contestants"), program("fresh").fresh

    assert fresh(data.pool, 3, 1, folder=tmp_path) == data.pool(3, 1)


def test_what_fails_in_a_fresh_process_is_told(program: Program, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="KeyError: 'nobody'"):
        program("fresh").fresh(program("contestants").counted, "nobody", str(tmp_path), folder=tmp_path)
