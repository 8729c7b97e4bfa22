"""Two trackers that write one value in two ways say the same; what is missing or other is found."""

from __future__ import annotations

import pytest

from tracer.backends.base import Limits
from tracer.migration import facts
from tracer.migration.losses import reason, subjects_of
from tracer.transfer import RunInfo


def run(**more: object) -> RunInfo:
    """Return what is known of a run."""
    return RunInfo(**{"uid": "", "project": "p", "name": "n", "started": 5_000_000, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        (1e-3, "0.001", True), (1, 1.0, True), (True, "True", True), (None, "None", True), ([1, 2], "[1, 2]", True),
        ("sgd", "sgd", True), (float("nan"), float("nan"), True), ("1", 1, True),
        (1, 2, False), ("a", "b", False), (0.1, "0.10001", False), (None, "", False),
    ],
)  # fmt: skip
def test_values_are_compared_as_what_they_mean(ours: object, theirs: object, same: bool) -> None:  # noqa: FBT001
    assert facts.same(ours, theirs) is same


def test_nested_parameters_are_found_by_their_path() -> None:
    here = run(params={"model": {"depth": 2, "layers": [1, 2]}, "lr": 0.1})

    assert list(facts.differences(here, run(params={"model/depth": "2", "model/layers": "[1, 2]", "lr": "0.1"}))) == []
    assert list(facts.differences(here, run(params={"model.depth": 2, "model.layers": [1, 2], "lr": 0.1}))) == []
    found = [one for _, one in facts.differences(here, run(params={"model": {"depth": 3}, "lr": 0.1}))]
    assert [(one.name, one.here, one.there) for one in found] == [
        ("model/depth", "2", "3"), ("model/layers", "[1, 2]", "absent"),
    ]  # fmt: skip


def test_times_may_be_rounded_and_more_may_stand_there() -> None:
    here = run(tags=("a",), started=5_000_123, ended=9_000_999)

    assert list(facts.differences(here, run(tags=("a", "b"), started=5_000_000, ended=9_000_000))) == []
    later = [one.name for _, one in facts.differences(here, run(started=8_000_000, ended=9_000_000))]
    assert later == ["tags", "started"]


def test_a_crash_is_a_failure_where_there_is_one_word() -> None:
    assert list(facts.differences(run(status="crashed"), run(status="failed"))) == []
    assert [one.name for _, one in facts.differences(run(status="failed"), run())] == ["status"]


@pytest.mark.parametrize(
    ("what", "subjects"),
    [
        ("NaN and ±Inf", {"NaN", "±Inf"}),
        ("−0.0, ±Inf, NaN", {"NaN", "±Inf", "-0.0"}),  # noqa: RUF001 -- as a page of limits writes it
        ("several values of one step", {"never"}),
        ("numbers that need 64 bits", {"precision"}),
        ("earlier versions of an artifact", {"versions"}),
        ("log lines, artifacts, spans", {"log", "file", "span"}),
    ],
)
def test_a_line_of_the_limits_speaks_of_something(what: str, subjects: set[str]) -> None:
    assert subjects_of(what) == subjects


def test_a_reason_is_found_by_what_it_is_about() -> None:
    limits = Limits(losses={"±Inf": "becomes large", "times": "whole milliseconds"})

    assert reason(limits, {"±Inf"}) == "±Inf: becomes large"
    assert reason(limits, {"NaN"}) is None
