"""How our own cost is kept under its limit."""

from __future__ import annotations

import pytest

from tracer.capture.governor import LONGEST_INTERVAL, Governor

STEP_S = 0.1


def train(governor: Governor, costs: dict[str, float], steps: int, step_s: float = STEP_S) -> dict[str, int]:
    """Let steps pass in which each due instrument costs so much; return how often each looked."""
    looks = dict.fromkeys(costs, 0)
    for _ in range(steps):
        spent = 0.0
        for name, cost in costs.items():
            instrument = governor.instrument(name, share=1.0)
            if governor.due(instrument):
                looks[name] += 1
                spent += cost
                instrument.looked(cost, governor.step_seconds)
        governor.step_ended(step_s + spent)
    return looks


def test_a_cheap_look_happens_at_every_step() -> None:
    assert train(Governor(0.01), {"gradients": 0.0005}, 300) == {"gradients": 300}


@pytest.mark.parametrize(("cost_s", "interval"), [(0.0011, 2), (0.004, 4), (0.1, 128), (100.0, LONGEST_INTERVAL)])
def test_a_dear_look_happens_as_seldom_as_its_cost_asks(cost_s: float, interval: int) -> None:
    governor = Governor(0.01)
    train(governor, {"gradients": cost_s}, 3000)

    assert governor.instrument("gradients", share=1.0).interval == interval


def test_the_whole_cost_stays_under_the_limit() -> None:
    governor = Governor(0.01)
    train(governor, {"gradients": 0.0035}, 5000)

    assert 0.004 < governor.overhead < 0.0115  # the first steps, in which the cost is learned, are within


def test_a_look_that_gets_dearer_is_thinned_out_and_recovers_when_it_gets_cheap_again() -> None:
    governor = Governor(0.01)
    looks = governor.instrument("hooks", share=1.0)
    train(governor, {"hooks": 0.0005}, 100)
    assert looks.interval == 1

    train(governor, {"hooks": 0.008}, 50)
    assert looks.interval == 8

    train(governor, {"hooks": 0.0005}, 199)
    assert looks.interval > 1
    train(governor, {"hooks": 0.0005}, 2000)
    assert looks.interval == 1


def test_the_first_dear_look_of_a_cold_start_does_not_blind_for_long() -> None:
    governor = Governor(0.01)
    train(governor, {"gradients": 1.0}, 1)

    train(governor, {"gradients": 0.0005}, 60)

    assert governor.instrument("gradients", share=1.0).interval == 1


def test_one_disturbed_look_changes_nothing() -> None:
    governor = Governor(0.01)
    train(governor, {"gradients": 0.0005}, 100)

    train(governor, {"gradients": 0.5}, 1)

    assert governor.instrument("gradients", share=1.0).interval == 1


def test_what_cannot_be_thinned_out_leaves_less_for_the_rest() -> None:
    governor = Governor(0.01)
    looks = governor.instrument("gradients", share=1.0)
    for _ in range(500):
        governor.spend(0.0005)
        if governor.due(looks):
            looks.looked(0.0008, governor.step_seconds)
        governor.step_ended(STEP_S)

    assert looks.interval == 2


def test_after_an_alarm_everything_is_looked_at_for_a_while() -> None:
    governor = Governor(0.01)
    train(governor, {"gradients": 0.05}, 500)
    before = train(governor, {"gradients": 0.05}, 16)

    governor.alarm()

    assert train(governor, {"gradients": 0.05}, 16) == {"gradients": 16}
    assert before["gradients"] <= 1


def test_a_long_evaluation_between_two_steps_is_no_reason_to_look_more_often() -> None:
    governor = Governor(0.01)
    train(governor, {"gradients": 0.004}, 500)
    train(governor, {"gradients": 0.004}, 1, step_s=600.0)

    train(governor, {"gradients": 0.004}, 100)

    assert governor.instrument("gradients", share=1.0).interval >= 2


def test_each_change_is_told_once() -> None:
    told: list[tuple[str, int]] = []
    governor = Governor(0.01, lambda name, interval, share: told.append((name, interval)))  # noqa: ARG005

    train(governor, {"gradients": 0.004}, 400)

    assert told == [("gradients", 4)]


def test_ranks_that_agree_on_the_figures_look_at_the_same_steps() -> None:
    ranks = [Governor(0.01), Governor(0.01)]
    own, agreed = (0.001, 0.009), None
    for step in range(300):
        due = {governor.due(governor.instrument("gradients", share=1.0)) for governor in ranks}
        assert len(due) == 1
        ranks[step % 2].alarm()  # what one rank sees alone must not part them
        for governor, cost in zip(ranks, own, strict=True):
            governor.spend(cost)
            if due == {True}:
                governor.instrument("gradients", share=1.0).looked_together(cost, agreed, 0.01)
            governor.step_ended(STEP_S + cost)
        agreed = (max(own), STEP_S)

    assert [governor.instrument("gradients", share=1.0).interval for governor in ranks] == [16, 16]
