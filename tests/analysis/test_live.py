"""What a run is told of while it trains: found in time, stored once, and nothing on calm curves."""

from __future__ import annotations

import doctest
import importlib
import math
import os
from array import array
from collections.abc import Iterator

import numpy as np
import pytest
from programs import run as run_program

import tracer
from tracer import events, journal
from tracer.analysis.episodes import Episodes
from tracer.analysis.live import LiveDetection
from tracer.analysis.series import CAPACITY, Ring
from tracer.capture.rows import Rows
from tracer.events import Finding
from tracer.run import Run
from tracer.storage import Store
from tracer.testing import FakeClock

QUIET = {"track_git": False, "track_environment": False, "track_system_metrics": False, "quiet": True}


class Watched:
    """A run with live detection, and the findings in the order in which they were stored."""

    def __init__(self, run: Run) -> None:
        self.run, self.stored, self.acted = run, [], []
        self.live = LiveDetection(run.recorder, self.record, reactions=self)

    def record(self, finding: Finding) -> None:
        """Store a finding, as a run does."""
        self.stored.append(finding)
        said = {"kind": finding.kind, "severity": finding.severity, "step": finding.step}
        said |= {"last_step": finding.last_step, "details": finding.details}
        self.run.recorder.append(journal.Kind.FINDING, said, finding.step)

    def later(self, finding: Finding) -> None:
        """Act on a finding."""
        self.acted.append(finding)

    def kinds(self) -> list[tuple[str, int]]:
        """Return what was acted upon."""
        return [(one.kind, one.step) for one in self.acted]


@pytest.fixture
def watched(clock: FakeClock) -> Iterator[Watched]:  # noqa: ARG001 -- how often rules run depends on what they cost
    with tracer.init(project="live", **QUIET) as run:
        yield Watched(run)


def losses(count: int, seed: int = 0) -> list[float]:
    """Return a loss that falls, with a noise of one per cent."""
    noise = np.random.default_rng(seed).normal(size=count) * 0.02
    return (2 * np.exp(-np.arange(count) / 400) + 0.5 + noise).tolist()


def test_a_loss_that_is_no_number_is_reported_at_the_end_of_its_step(watched: Watched) -> None:
    for step in range(20):
        tracer.log({"loss": math.nan if step == 7 else 0.5}, step=step)
        watched.live.at_step(step + 1)
        assert watched.kinds() == ([("nan_or_inf", 7)] if step >= 7 else [])

    [finding] = watched.stored
    assert (finding.severity, finding.details["metric"], finding.details["num_nans"]) == ("critical", "loss", 1)
    assert watched.run.recorder.steps.due == 0


def test_a_loss_that_stays_bad_is_one_finding_that_grows(watched: Watched) -> None:
    for step in range(400):
        tracer.log({"loss": 0.5 if step < 100 else math.inf}, step=step)
        watched.live.at_step(step + 1)
        if step % 50 == 49:
            watched.live.look()
    watched.live.close()

    assert watched.kinds() == [("nan_or_inf", 100)]
    assert {one.step for one in watched.stored} == {100}
    assert watched.stored[-1].last_step == 399
    assert len(watched.stored) <= 4


def test_glances_are_rarer_the_shorter_the_steps_are(watched: Watched, clock: FakeClock) -> None:
    live, step, strides = watched.live, 0, []
    for seconds in (0.0001,) * 10 + (0.02,) * 2:
        due = live.at_step(step)
        strides.append(due - step)
        clock.advance((due - step) * seconds)
        step = due

    assert strides == [1, 2, 4, 8, 16, 32, 40, 40, 40, 40, 40, 1]


def test_a_spike_is_found_within_a_look_and_stored_once(watched: Watched) -> None:
    for step, loss in enumerate(losses(600)):
        tracer.log({"train/loss": 9.0 if step == 333 else loss, "lr": 1e-3}, step=step)
        if step % 30 == 4:
            watched.live.look()
    watched.live.close()

    assert watched.kinds() == [("loss_spike", 333)]
    assert [one.details["recovered"] for one in watched.stored] == [None, True]
    assert "jumped" in watched.stored[0].details["explanation"]


def test_a_calm_run_gives_no_finding(watched: Watched) -> None:
    rng = np.random.default_rng(1)
    for step, loss in enumerate(losses(3000, seed=1)):
        values = {"loss": loss, "grad_norm": float(np.exp(rng.normal() * 0.2)), "val/loss": loss + 0.1}
        tracer.log(values, step=step)
        if step % 50 == 49:
            watched.live.look()
    watched.live.close()

    assert watched.stored == []


def test_nan_as_a_place_holder_of_a_validation_loss_is_no_alarm(watched: Watched) -> None:
    for step, loss in enumerate(losses(300)):
        tracer.log({"loss": loss, "val_loss": loss if step % 50 == 0 else math.nan}, step=step)
        watched.live.at_step(step + 1)
        if step % 30 == 29:
            watched.live.look()

    assert [one for one in watched.acted if one.severity != "low"] == []


def test_layers_that_explode_together_are_one_finding(watched: Watched) -> None:
    rng = np.random.default_rng(0)
    axis = events.Axis("gradients", [f"layer{at}.weight" for at in range(6)], ("norm", "nans", "infs"))
    for step in range(120):
        norms = np.exp(rng.normal(size=6) * 0.1) * (1 if step < 100 else 5000)
        matrix = array("f", [*norms, *[0.0] * 12])
        watched.run.recorder.append_layers(events.LayerValues(axis, matrix, step))
        if step % 20 == 19:
            watched.live.look()
    watched.live.close()

    assert watched.kinds() == [("gradient_explosion", 100)]
    assert watched.acted[0].details["layer_count"] == 6


def test_what_somebody_else_reported_is_not_reported_again(watched: Watched) -> None:
    watched.live.take(Finding("nan_or_inf", "critical", 50, {"capsule": "x"}))
    for step in range(100):
        tracer.log({"loss": math.nan if step == 50 else 0.5}, step=step)
        watched.live.at_step(step + 1)
    watched.live.look()

    assert watched.stored == []


def test_what_comes_back_by_way_of_the_sink_is_known_as_its_own(watched: Watched) -> None:
    record = watched.record

    def emit(finding: Finding) -> None:
        record(finding)
        watched.live.take(finding)

    watched.live._record = emit
    tracer.log({"loss": math.nan, "aux_loss": math.inf}, step=5)
    watched.live.at_step(6)
    watched.live.close()

    assert sorted((one.details["metric"], one.step) for one in watched.acted) == [("aux_loss", 5), ("loss", 5)]


def test_a_spike_names_the_rows_of_its_batch(watched: Watched) -> None:
    rng = np.random.default_rng(0)
    for step, loss in enumerate(losses(300)):
        ids, each = np.arange(step * 32, step * 32 + 32), rng.exponential(loss, 32)
        if step == 200:
            each[5] = 900.0
        watched.live.take(Rows(ids, each, step))
        tracer.log({"loss": float(each.mean()) if step == 200 else loss}, step=step)
        if step % 50 == 49:
            watched.live.look()
    watched.live.close()

    spike = next(one for one in watched.stored if one.kind == "loss_spike")
    assert spike.details["rows"][0]["row"] == 200 * 32 + 5
    assert spike.details["rows"][0]["share"] > 0.9
    assert ("bad_rows", 200) in watched.kinds()


def test_a_loss_that_is_no_number_names_its_row_also_when_the_flight_recorder_found_it(watched: Watched) -> None:
    found = Finding("nan_or_inf", "critical", 7, {"capsule": "x.capsule"})
    for step in range(10):
        watched.live.take(
            Rows([3 * step, 3 * step + 1, 3 * step + 2], [0.1, math.nan if step == 7 else 0.2, 0.1], step)
        )
        if step == 7:
            watched.live.take(found)
        tracer.log({"loss": math.nan if step == 7 else 0.4}, step=step)
        watched.live.at_step(step + 1)
    watched.live.look()

    [stored] = [one for one in watched.stored if one.kind == "nan_or_inf"]
    assert (stored.step, stored.details["capsule"]) == (7, "x.capsule")
    assert [row["row"] for row in stored.details["rows"]] == [22]


def test_rows_without_losses_are_named_and_those_of_several_spikes_come_first(watched: Watched) -> None:
    for step, loss in enumerate(losses(400)):
        bad = step in (150, 300)
        watched.live.take(Rows([77, *range(step * 8, step * 8 + 7)] if bad else list(range(8)), None, step))
        tracer.log({"loss": 9.0 if bad else loss}, step=step)
        if step % 50 == 49:
            watched.live.look()

    spikes = [one for one in watched.acted if one.kind == "loss_spike"]
    assert [one.step for one in spikes] == [150, 300]
    assert {row["row"] for row in spikes[0].details["rows"]} == {77, *range(1200, 1207)}
    assert spikes[1].details["recurring_rows"] == [77]
    assert spikes[1].details["rows"][0] == {"row": 77, "steps": [150, 300]}


def test_an_episode_is_kept_once_in_the_store(watched: Watched) -> None:
    for step in range(60):
        tracer.log({"loss": math.nan if step > 40 else 0.5}, step=step)
        watched.live.at_step(step + 1)
    watched.live.close()
    watched.run.finish()

    with Store.open(os.path.join(os.getcwd(), ".tracer")) as store:
        found = store.findings(store.run(watched.run.id).uid)
    assert [(one.kind, one.step) for one in found] == [("nan_or_inf", 41)]


def test_a_forked_child_judges_nothing() -> None:
    run_program(
        """
        import os
        import tracer
        from tracer.analysis.live import LiveDetection

        run = tracer.init(project="live", quiet=True)
        found = []
        live = LiveDetection(run.recorder, found.append)
        pid = os.fork()
        if pid == 0:
            tracer.log({"loss": float("nan")}, step=1)
            live.at_step(2)
            live.close()
            os._exit(len(found))
        assert os.waitpid(pid, 0)[1] == 0
        tracer.finish()
        """
    )


def test_a_short_program_without_numpy_does_not_load_it() -> None:
    run_program(
        """
        import sys
        import tracer
        from tracer.analysis.live import LiveDetection

        run = tracer.init(project="live", quiet=True, track_system_metrics=False)
        found = []
        live = LiveDetection(run.recorder, found.append)
        for step in range(20):
            tracer.log({"loss": float("nan") if step >= 7 else 0.5}, step=step)
            live.at_step(step + 1)
        live.look()
        live.close()
        assert [(one.step, one.last_step) for one in found] == [(7, 7), (7, 19)], found
        assert "numpy" not in sys.modules
        """
    )


def test_a_ring_slides_sorts_and_keeps_the_last_of_a_step() -> None:
    ring = Ring(1, capacity=4)
    for steps in ([0, 1, 2], [3, 4], [4, 2], [9]):
        ring.push(np.array(steps), np.array(steps, float), np.array([[10.0 * len(steps) + step] for step in steps]))

    assert ring.steps.tolist() == [2, 3, 4, 9]
    assert ring.values[:, 0].tolist() == [22.0, 23.0, 24.0, 19.0]


def test_a_ring_takes_more_rows_at_once_than_it_holds() -> None:
    ring, steps = Ring(1), np.arange(3 * CAPACITY)
    ring.push(steps, steps * 1.0, steps[:, None] * 1.0)
    ring.push(steps[-1:] + 1, np.zeros(1), np.zeros((1, 1)))

    assert ring.steps.tolist() == list(range(2 * CAPACITY + 1, 3 * CAPACITY + 1))


def test_a_training_that_begins_anew_begins_a_new_window() -> None:
    ring = Ring(1)
    for steps in (np.arange(1000, 1100), np.arange(10)):
        ring.push(steps, steps * 1.0, steps[:, None] * 1.0)

    assert ring.steps.tolist() == list(range(10))


def test_an_episode_that_becomes_graver_is_reported_again() -> None:
    episodes = Episodes()
    mild = Finding("memory_spike", "medium", 5, {"metric": "m"}, 6)
    grave = Finding("memory_spike", "high", 5, {"metric": "m"}, 9)

    first = [one.finding() for one in episodes.see([mild], 10)]
    again = [one.finding() for one in episodes.see([mild], 10)]
    worse = [one.finding() for one in episodes.see([grave], 10)]

    assert [(one.severity, one.step, one.last_step) for one in first + again + worse] == [
        ("medium", 5, 6),
        ("high", 5, 9),
    ]


def test_a_run_of_a_single_step_is_judged_without_a_fuss(watched: Watched) -> None:
    tracer.log({"loss": 0.5, "grad_norm": 1.0, "lr": 0.1, "time/step": 0.1, "system/memory/percent": 50.0}, step=0)
    watched.live.close()

    assert watched.stored == []


def test_steps_that_become_slow_are_found_by_the_times_of_the_loss(watched: Watched, clock: FakeClock) -> None:
    for step in range(300):
        clock.advance(0.1 if step < 200 else 1.0)
        tracer.log({"loss": 0.5 + 0.001 * (step % 3)}, step=step)
        if step % 10 == 9:
            watched.live.look()

    assert [(one.kind, one.severity) for one in watched.acted] == [
        ("throughput_drop", "medium"),
        ("throughput_drop", "high"),  # and once more when much time was lost
    ]
    assert len({one.step for one in watched.acted}) == 1
    assert 195 <= watched.acted[0].step <= 205


@pytest.mark.parametrize("name", ["live", "episodes", "rows"])
def test_the_examples_in_the_docstrings_run(name: str) -> None:
    results = doctest.testmod(
        importlib.import_module(f"tracer.analysis.{name}"), extraglobs={"np": np, "tracer": tracer}
    )

    assert results.attempted > 0
    assert results.failed == 0
