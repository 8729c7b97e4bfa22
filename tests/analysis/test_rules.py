"""The rules on windows of arrays: each trouble is found at its step, and noise is none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tracer.analysis import kinds, rules
from tracer.analysis.windows import Window
from tracer.events import Finding

Curve = NDArray[np.float64]
STEPS = np.arange(400)


def noise(seed: int = 0, count: int = 400, columns: int | None = None) -> Curve:
    shape = count if columns is None else (count, columns)
    return np.random.default_rng(seed).standard_normal(shape)


def layered(subject: str, partners: dict[str, Window] | None = None, **tables: Curve) -> Window:
    rows, columns = next(iter(tables.values())).shape
    layers = tuple(f"layer{at}.weight" for at in range(columns))
    return Window(subject, subject, np.arange(rows), layers=layers, tables=tables, partners=partners or {})


def told(findings: list[Finding]) -> list[tuple[str, int, object]]:
    return [(one.kind, one.step, one.details.get("layer") or one.details.get("metric")) for one in findings]


def test_every_rule_finds_kinds_that_are_known() -> None:
    assert {kind for rule in rules.RULES for kind in rule.kinds} <= set(kinds.KINDS)
    assert set(kinds.KINDS) - {kind for rule in rules.RULES for kind in rule.kinds} == {
        "bad_rows",
        "similar_across_runs",
    }


def test_a_window_that_lacks_what_a_rule_needs_is_not_its() -> None:
    window = layered("gradients", nans=np.zeros((50, 1)), infs=np.zeros((50, 1)))

    assert [rule.kinds for rule in rules.rules_for(window)] == [("nan_or_inf",)]


def test_only_the_kinds_that_are_wanted_are_looked_for() -> None:
    values = 1 + 0.01 * noise()
    values[200], values[300] = 9.0, 0.1

    found = rules.findings_in(Window("loss", "loss", STEPS, values), ["loss_drop"])

    assert told(found) == [("loss_drop", 300, "loss")]


@pytest.mark.parametrize("seed", range(5))
def test_gradients_with_a_trend_and_much_noise_raise_no_alarm(seed: int) -> None:
    fall = np.linspace(0, -6, 5000)[:, None]
    norms = np.exp(fall + noise(seed, 5000, 20))

    assert told(rules.findings_in(layered("gradients", norm=norms))) == []


@pytest.mark.parametrize("seed", range(3))
def test_updates_that_follow_a_warm_up_and_a_cosine_raise_no_alarm(seed: int) -> None:
    at = np.arange(2000)
    rate = np.minimum(at + 1, 200) / 200 * (0.51 + 0.5 * np.cos(np.pi * at / 2000))
    ratios = 1e-3 * rate[:, None] * np.exp(0.3 * noise(seed, 2000, 10))

    assert told(rules.findings_in(layered("updates", ratio=ratios))) == []


def test_a_gradient_that_leaps_is_found_in_its_layer() -> None:
    norms = np.exp(0.3 * noise(1, 400, 3))
    norms[250, 1] = 60.0

    assert told(rules.findings_in(layered("gradients", norm=norms))) == [("gradient_explosion", 250, "layer1.weight")]


def test_a_gradient_that_grows_slowly_without_end_is_found() -> None:
    norms = np.exp(np.linspace(0, 12, 2000))[:, None] * np.exp(0.2 * noise(2, 2000, 1))

    found = rules.findings_in(layered("gradients", norm=norms))

    assert {one.kind for one in found} == {"gradient_explosion"}
    assert 1000 < found[0].step < 1300


def test_a_gradient_that_explodes_within_the_first_steps_is_found() -> None:
    norms = np.concatenate([np.ones(6), 10.0 ** np.arange(2, 12), np.full(40, np.nan)])[:, None]

    found = rules.findings_in(layered("gradients", norm=norms))

    assert told(found)[:1] == [("gradient_explosion", 6, "layer0.weight")]
    assert found[0].severity == "critical"


def test_a_layer_far_below_all_others_has_vanished() -> None:
    norms = np.exp(0.3 * noise(3, 64, 6))
    norms[:, 0] *= 1e-9

    assert told(rules.findings_in(layered("gradients", norm=norms))) == [("vanishing_gradient", 0, "layer0.weight")]


def test_training_that_converges_takes_all_gradients_down_without_an_alarm() -> None:
    norms = np.exp(np.linspace(0, -25, 3000))[:, None] * np.exp(0.3 * noise(4, 3000, 5))

    assert told(rules.findings_in(layered("gradients", norm=norms))) == []


def test_a_gradient_of_nothing_from_the_first_step_on_is_all_zero() -> None:
    norms = np.exp(0.3 * noise(5, 64, 2))
    norms[:, 1] = 0.0

    assert told(rules.findings_in(layered("gradients", norm=norms))) == [("all_zero", 0, "layer1.weight")]


def test_a_layer_that_was_not_measured_says_nothing() -> None:
    norms = np.full((64, 2), np.nan)

    assert rules.findings_in(layered("gradients", norm=norms)) == []
    assert rules.findings_in(layered("weights", norm=norms, std=norms, mean=norms)) == []


def test_an_update_that_stays_far_too_large_is_found() -> None:
    ratios = np.where(np.arange(400) < 200, 1e-3, 0.9)[:, None] * np.exp(0.1 * noise(6, 400, 1))

    found = rules.findings_in(layered("updates", ratio=ratios))

    assert told(found)[0] == ("update_ratio", 200, "layer0.weight")
    assert any(one.details.get("threshold") == 0.3 for one in found)


def test_weights_that_stand_still_under_a_gradient_are_found_by_their_norms_too() -> None:
    gradients = layered("gradients", norm=np.ones((100, 1)))
    tables = {"norm": np.full((100, 1), 3.0), "mean": np.full((100, 1), 0.1), "std": np.full((100, 1), 1.0)}

    found = rules.findings_in(layered("weights", {"gradients": gradients}, **tables))

    assert told(found) == [("unchanged_tensor", 1, "layer0.weight")]


def test_weights_that_collapse_have_lost_their_variance() -> None:
    std = np.where(np.arange(128) < 64, 0.1, 1e-5)[:, None]

    [found] = rules.findings_in(layered("weights", std=std))

    assert (found.kind, found.step, found.severity) == ("tensor_variance", 64, "medium")


def test_signals_that_fade_from_layer_to_layer_are_poorly_initialised() -> None:
    std = np.array([[10.0 ** -(at * 0.7) for at in range(10)]])

    [found] = rules.findings_in(layered("activations", std=std))

    assert (found.kind, found.details["layer"]) == ("poor_weight_initialization", "layer9.weight")


def test_a_loss_that_climbs_is_divergence_from_where_it_left_its_level() -> None:
    values = 1 + np.exp(-STEPS / 30) + 0.02 * noise(7)
    values[250:] += np.linspace(0, 5, 150)

    [found] = rules.findings_in(Window("loss", "loss", STEPS, values), ["loss_divergence"])

    assert 245 <= found.step <= 270


@pytest.mark.parametrize("name", ["loss_g", "policy_loss", "discriminator/loss"])
def test_the_losses_of_games_may_rise(name: str) -> None:
    values = np.linspace(0.7, 4.0, 400) + 0.05 * noise(8)

    assert rules.findings_in(Window("loss", name, STEPS, values)) == []


def test_overfitting_needs_a_training_loss_that_falls() -> None:
    at = np.arange(0, 400, 10)
    values = np.where(at < 200, 2 - at / 200, 1 + (at - 200) / 300) + 0.01 * noise(9, 40)
    falling = Window("loss", "loss", STEPS, 2 - STEPS / 210 + 0.02 * noise(10))
    rising = Window("loss", "loss", STEPS, 1 + STEPS / 210 + 0.02 * noise(11))

    with_fall, with_rise = (
        rules.findings_in(Window("pair", "val/loss", at, values, partners={"training": one}), ["overfitting"])
        for one in (falling, rising)
    )

    assert [(one.kind, 180 <= one.step <= 220) for one in with_fall] == [("overfitting", True)]
    assert with_rise == []


def test_validation_without_progress_for_most_of_a_training_is_overtraining() -> None:
    at = np.arange(0, 400, 10)
    values = np.maximum(2 - at / 50, 0.5) + 0.001 * noise(12, 40)
    training = Window("loss", "loss", STEPS, 2 - STEPS / 210)

    found = rules.findings_in(Window("pair", "val/loss", at, values, partners={"training": training}))

    assert [(one.kind, one.severity) for one in found] == [("overtraining", "low")]


def test_memory_that_grows_is_a_leak_and_memory_that_levels_off_is_none() -> None:
    leak = 2 + STEPS / 100 + 0.02 * noise(13)
    level = 2 + 3 * (1 - np.exp(-STEPS / 40)) + 0.02 * noise(14)

    [found] = rules.findings_in(
        Window("memory_use", "system/gpu/1/memory_allocated_gb", STEPS, leak, times=STEPS * 2.0)
    )

    assert (found.kind, found.details["gpu"]) == ("memory_growth", "1")
    assert found.details["per_hour"] == pytest.approx(18, rel=0.05)
    assert rules.findings_in(Window("memory_use", "system/memory/process_rss_gb", STEPS, level)) == []


def test_steps_that_become_slow_are_found_and_short_hiccups_are_not() -> None:
    seconds = 0.1 * np.exp(0.1 * noise(15))
    hiccup = seconds.copy()
    hiccup[100:103] = 2.0
    seconds[250:] *= 4

    [found] = rules.findings_in(Window("step_time", "time/step", STEPS, seconds))

    assert (found.kind, 248 <= found.step <= 260, found.last_step) == ("throughput_drop", True, 399)
    assert found.details["ratio"] == pytest.approx(4, rel=0.1)
    assert rules.findings_in(Window("step_time", "time/step", STEPS, hiccup)) == []


def test_waiting_for_data_is_found_when_it_lasts_and_when_it_is_long() -> None:
    whole = np.full(400, 0.2)
    waits = np.full(400, 0.01)
    waits[200:260] = 0.15
    once = np.full(400, 0.01)
    once[300] = 30.0
    step_time = Window("step_time", "time/step", STEPS, whole)

    lasting, single = (
        rules.findings_in(Window("data_time", "time/data", STEPS, one, partners={"step_time": step_time}))
        for one in (waits, once)
    )

    assert [(one.step, one.last_step, one.details["share"]) for one in lasting] == [(200, 259, pytest.approx(0.75))]
    assert told(single) == [("data_loader_stall", 300, "time/data")] or told(single)[0][1] == 300


def test_a_long_pause_is_found_after_the_step_before_it_and_an_evaluation_is_none() -> None:
    times = np.cumsum(np.full(400, 0.5))
    evaluated = times + 30.0 * (STEPS // 100)
    times[250:] += 900.0

    [found] = rules.findings_in(Window("times", "loss", STEPS, np.zeros(400), times=times))

    assert (found.kind, found.step, found.severity) == ("stalled_training", 249, "high")
    assert rules.findings_in(Window("times", "loss", STEPS, np.zeros(400), times=evaluated)) == []


def test_a_run_under_way_that_says_nothing_is_stalled_now() -> None:
    from tracer.analysis.pace import pauses

    times = np.cumsum(np.full(400, 0.5))

    [found] = pauses(Window("times", "loss", STEPS, np.zeros(400), times=times), now=float(times[-1]) + 3600)

    assert (found.step, found.details["seconds"]) == (399, 3600)


def test_a_rank_that_leaves_the_others_is_named() -> None:
    values = 2 + 0.2 * noise(16, 400, 4)
    values[200:, 2] += 3.0
    ranks = tuple(f"rank {rank}" for rank in range(4))

    found = rules.findings_in(Window("ranks", "loss", STEPS, layers=ranks, tables={"value": values}))

    assert [(one.kind, one.step, one.details["rank"]) for one in found] == [("rank_divergence", 200, 2)]


def test_ranks_that_see_other_rows_do_not_part() -> None:
    values = 2 + 0.5 * noise(17, 2000, 8)
    ranks = tuple(f"rank {rank}" for rank in range(8))

    assert rules.findings_in(Window("ranks", "loss", np.arange(2000), layers=ranks, tables={"value": values})) == []


def test_a_rank_that_alone_is_not_finite_is_named() -> None:
    values = 2 + 0.2 * noise(18, 100, 3)
    values[60:, 1] = np.nan
    ranks = ("rank 0", "rank 1", "rank 2")

    found = rules.findings_in(Window("ranks", "loss", np.arange(100), layers=ranks, tables={"value": values}))

    assert [(one.step, one.severity, one.details["rank"]) for one in found] == [(60, "high", 1)]


def test_a_straggler_is_named() -> None:
    values = 0.1 * np.exp(0.1 * noise(19, 400, 4))
    values[100:, 3] *= 1.8
    ranks = tuple(f"rank {rank}" for rank in range(4))

    found = rules.findings_in(Window("rank_times", "time/step", STEPS, layers=ranks, tables={"value": values}))

    assert [(one.kind, one.step, one.details["rank"], one.severity) for one in found] == [
        ("straggler", 100, 3, "medium")
    ]


def test_nan_that_holds_the_place_of_not_measured_is_no_grave_matter() -> None:
    values = np.full(100, np.nan)
    values[::10] = 0.5

    found = rules.findings_in(Window("metric", "val/f1", np.arange(100), values))

    assert [(one.severity, one.details["num_nans"]) for one in found] == [("low", 90)]


@pytest.mark.parametrize("size", [0, 1, 2, 5, 15, 16, 17])
@pytest.mark.parametrize("subject", sorted({rule.subject for rule in rules.RULES}))
def test_short_windows_break_nothing(subject: str, size: int) -> None:
    names = ("norm", "nans", "infs", "std", "mean", "ratio", "dead", "saturated", "value")
    tables = {name: np.zeros((size, 2)) for name in names}
    steps = np.arange(size)
    partner = Window("gradients", "gradients", steps, np.ones(size), ("rank 0", "rank 1"), tables)
    partners = dict.fromkeys(("gradients", "training", "step_time"), partner)

    for rule in rules.RULES:
        if rule.subject == subject:
            window = Window(subject, "x", steps, np.ones(size), ("rank 0", "rank 1"), tables, steps * 1.0, 0, partners)
            assert isinstance(rule.detect(window), list)
