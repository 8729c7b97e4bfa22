"""Findings become episodes, are told in words, and are stored once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tracer.analysis import kinds
from tracer.analysis.causes import explained
from tracer.analysis.explanations import explanation
from tracer.analysis.groups import episodes, unknown, with_spread
from tracer.events import Finding
from tracer.storage.values import FindingRow


def explosion(layer: str, step: int, last: int, ratio: float = 40.0) -> Finding:
    details = {"layer": layer, "norm": 800.0, "threshold": 100.0, "ratio": ratio, "usual": 20.0}
    return Finding("gradient_explosion", "high", step, details, last)


def stored(found: Finding, source: str = "live") -> FindingRow:
    return FindingRow("1", "run", 0, found.step, found.last_step, found.kind, found.severity, found.details, source, 0)


def test_layers_whose_trouble_begins_together_are_one_episode_named_after_the_worst() -> None:
    found = [explosion("a", 100, 104), explosion("b", 102, 110, ratio=900.0), explosion("c", 500, 500)]

    first, second = episodes(found)

    assert (first.step, first.last_step, first.details["layer"], first.details["layers"]) == (100, 110, "b", ["b", "a"])
    assert (first.details["count"], first.details["layer_count"]) == (2, 2)
    assert (second.step, second.details["layers"]) == (500, ["c"])


def test_stretches_that_follow_each_other_are_one_episode() -> None:
    found = [Finding("nan_or_inf", "critical", step, {"metric": "loss", "layer": None}, step) for step in (10, 12, 25)]

    [one] = episodes(found)

    assert (one.step, one.last_step, one.details["count"]) == (10, 25, 3)


def test_how_far_apart_is_measured_in_recorded_steps() -> None:
    found = [explosion("a", 0, 0), explosion("a", 1000, 1000)]

    assert len(episodes(found)) == 2
    assert len(episodes(found, stride=100)) == 1


def test_many_layers_are_counted_and_the_first_eight_named() -> None:
    [one] = episodes([explosion(f"layer{at}", 5, 9, ratio=100.0 - at) for at in range(30)])

    assert one.details["layers"] == [f"layer{at}" for at in range(8)]
    assert one.details["layer_count"] == 30
    assert explanation(one).endswith("29 more layers are affected: layer1, layer2, layer3, …")


def test_nan_is_told_once_with_what_it_reached() -> None:
    loss = Finding("nan_or_inf", "critical", 50, {"metric": "loss", "num_nans": 9, "num_infs": 0}, 60)
    gradient = Finding("nan_or_inf", "critical", 50, {"layer": "fc", "layer_count": 6, "num_nans": 3}, 60)
    weight = Finding("nan_or_inf", "critical", 51, {"layer": "fc", "layer_count": 6, "what": "weights"}, 60)

    [one] = with_spread([weight, gradient, loss])

    assert explanation(one) == (
        "loss is NaN from step 50 to 60 (9 NaN). It reached the gradients of 6 layers at step 50, "
        "the weights of 6 layers at step 51."
    )


def test_what_is_stored_already_is_not_new() -> None:
    known = [stored(explosion("a", 100, 104))]

    assert unknown([explosion("a", 100, 104)], known) == []
    assert unknown([explosion("a", 103, 120)], known) == []
    assert len(unknown([explosion("a", 200, 204)], known)) == 1
    assert len(unknown([explosion("b", 100, 104)], known)) == 1
    assert len(unknown([replace_kind(explosion("a", 100, 104), "update_ratio")], known)) == 1


def test_an_episode_of_several_layers_is_that_of_any_of_them() -> None:
    [one] = episodes([explosion("a", 100, 104), explosion("b", 100, 104)])

    assert unknown([one], [stored(explosion("b", 101, 101))]) == []


def test_of_equal_findings_one_is_new() -> None:
    assert len(unknown([explosion("a", 1, 2), explosion("a", 1, 2)], [])) == 1


def replace_kind(found: Finding, kind: str) -> Finding:
    return Finding(kind, found.severity, found.step, found.details, found.last_step)


def test_words_are_added_and_what_a_live_finding_brought_stays() -> None:
    live = Finding("bad_rows", "medium", 7, {"rows": [{"row": 8, "loss": 9.0, "share": 0.71}], "remedy": "Look."}, 7)

    [one] = explained([live])

    assert one.details["explanation"] == "Row 8 carries 71 % of the loss of its batch."
    assert (one.details["remedy"], one.details["cause"]) == ("Look.", [])


def test_a_spike_tells_the_rows_that_carry_it() -> None:
    rows = [{"row": 88213, "loss": 9.0, "share": 0.4}, {"row": 90122, "loss": 8.0, "share": 0.31}]
    details = {"metric": "loss", "loss": 9.0, "window_mean": 1.0, "z_score": 50.0, "recovered": True, "rows": rows}

    assert explanation(Finding("loss_spike", "high", 4210, details, 4210)) == (
        "loss jumped from 1 to 9 at step 4,210, 50 times its noise and came back. "
        "Rows 88213 and 90122 carry 71 % of the loss of their batch."
    )


@pytest.mark.parametrize("kind", sorted(kinds.KINDS))
def test_every_kind_is_told_in_a_sentence_even_without_figures(kind: str) -> None:
    text = explanation(Finding(kind, "low", 3, {}, 9))

    assert text.endswith(".")
    assert len(text) > 20


def test_a_kind_that_nobody_knows_is_told_too() -> None:
    assert explanation(Finding("sudden_rain", "low", 3, {})) == "Sudden rain at step 3."


def test_a_stored_row_and_a_finding_are_told_alike() -> None:
    row = stored(explosion("a", 100, 104))

    assert replace(row, source="offline").details == explosion("a", 100, 104).details
