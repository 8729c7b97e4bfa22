"""What `analysis.differences` finds."""

from __future__ import annotations

from tracer.analysis.differences import (
    ABSENT,
    CodeDifference,
    Difference,
    code_difference,
    differing,
    environment_differences,
    git_differences,
)

NAN = float("nan")


def test_nested_values_are_compared_leaf_by_leaf() -> None:
    first = {"lr": 0.1, "model": {"layers": 2, "dim": 64}, "seed": 1, "only": "here"}
    second = {"lr": 0.1, "model": {"layers": 3, "dim": 64}, "seed": 1}

    assert differing([first, second]) == [Difference("model.layers", (2, 3)), Difference("only", ("here", ABSENT))]


def test_a_key_that_one_of_three_runs_sets_differently_is_shown_for_all() -> None:
    assert differing([{"lr": 1}, {"lr": 1}, {"lr": 2}]) == [Difference("lr", (1, 1, 2))]


def test_nan_equals_nan_and_true_is_not_one() -> None:
    assert differing([{"a": NAN, "b": 1}, {"a": NAN, "b": True}]) == [Difference("b", (1, True))]


def test_packages_are_compared_by_name_whether_mapping_or_lines() -> None:
    first = {"packages": {"numpy": "2.4", "torch": "2.13"}, "python": {"version": "3.11.7"}, "redacted": ["x"]}
    second = {"packages": ["numpy==2.3", "torch==2.13", "extra==1"], "python": {"version": "3.11.7"}, "redacted": []}

    assert environment_differences([first, second]) == [
        Difference("packages.extra", (ABSENT, "1")),
        Difference("packages.numpy", ("2.4", "2.3")),
    ]


def test_code_differs_by_commit_and_by_uncommitted_lines() -> None:
    first = {"commit_hash": "a" * 40, "diff": "one\ntwo\n", "branch": "main"}
    second = {"commit_hash": "b" * 40, "diff": "one\nthree\n", "branch": "main"}

    assert code_difference(first, second) == CodeDifference(
        ("a" * 12, "b" * 12), ("--- first", "+++ other", "@@ -1,2 +1,2 @@", " one", "-two", "+three")
    )
    assert git_differences([first, second]) == [Difference("commit_hash", ("a" * 40, "b" * 40))]


def test_the_same_code_and_no_code_at_all_do_not_differ() -> None:
    facts = {"commit_hash": "a" * 40, "diff": "one\n"}

    assert (code_difference(facts, dict(facts)), code_difference({}, {})) == (None, None)
