"""What the tap sees of the writers, against what was logged."""

from __future__ import annotations

import doctest
import math
import threading
from array import array
from collections.abc import Iterator

import pytest
from programs import run as run_program

import tracer
from tracer import events
from tracer.record import tap
from tracer.record.tap import MAX_BYTES, MAX_RECORDS, Glance, Seen, Tap
from tracer.run import Run

QUIET = {"track_git": False, "track_environment": False, "track_system_metrics": False, "quiet": True}


@pytest.fixture
def run() -> Iterator[Run]:
    with tracer.init(project="tap", **QUIET) as begun:
        yield begun


def series(seen: Seen) -> dict[str, list[tuple[int, float]]]:
    """Return the values that a look found, by metric."""
    found: dict[str, list[tuple[int, float]]] = {}
    for rows in seen.rows:
        for column, name in enumerate(rows.names):
            found.setdefault(name, []).extend(zip(rows.steps.tolist(), rows.values[:, column].tolist(), strict=True))
    return found


def test_a_look_finds_what_was_logged_and_the_next_one_what_came_since(run: Run) -> None:
    tap = Tap(run.recorder)
    for step in range(5):
        tracer.log({"loss": step / 2}, step=step)
        tracer.log({"lr": 0.1, "epoch": 3}, step=step)
    first = tap.look()
    nothing = tap.look()
    tracer.log({"loss": 7.0}, step=9)

    assert series(first) == {
        "loss": [(step, step / 2) for step in range(5)],
        "lr": [(step, 0.1) for step in range(5)],
        "epoch": [(step, 3.0) for step in range(5)],
    }
    assert nothing.rows == []
    assert series(tap.look()) == {"loss": [(9, 7.0)]}


def test_steps_beyond_what_a_double_holds_are_exact(run: Run) -> None:
    tap, steps = Tap(run.recorder), [2**62 + 1, -(2**62) - 1]
    for step in steps:
        tracer.log({"loss": 1.0}, step=step)

    assert series(tap.look()) == {"loss": [(step, 1.0) for step in steps]}


def test_rows_of_one_kind_are_read_all_at_once_and_none_is_missed(run: Run) -> None:
    tap = Tap(run.recorder)
    for step in range(3 * MAX_RECORDS):
        tracer.log({"loss": float(step)}, step=step)
    seen = tap.look()

    assert series(seen)["loss"] == [(step, float(step)) for step in range(3 * MAX_RECORDS)]
    assert seen.skipped_bytes == 0


@pytest.mark.parametrize("journal", ["mapped", "append"])
def test_segments_that_are_left_and_closed_are_read_to_their_end(journal: str) -> None:
    found: list[tuple[int, float]] = []
    with tracer.init(project="tap", journal=journal, **QUIET) as run:
        tap, writer = Tap(run.recorder), run.recorder.writer()
        for step in range(60_000):
            tracer.log({"loss": 0.5}, step=step)
            if step % 20_000 == 11_000:
                found += series(tap.look())["loss"]
            if step % 20_000 == 13_000:
                run.recorder.upkeep.seal_all()  # closes what was left
        last = tap.look()

    assert writer.segment.number >= 1
    assert [step for step, _ in found + series(last)["loss"]] == list(range(60_000))
    assert tap.skipped_bytes == 0


def test_what_is_too_much_for_a_look_is_passed_over_and_said(run: Run) -> None:
    tap = Tap(run.recorder)
    rows = MAX_RECORDS
    for step in range(rows):
        tracer.log({"loss": 1.0}, step=step)
        tracer.log({"lr": 1.0}, step=step)
    first = tap.look()
    tracer.log({"loss": 2.0}, step=rows)
    tracer.log({"lr": 3.0}, step=rows)

    assert len(series(first)["loss"]) == MAX_RECORDS // 2 - 1  # two declarations count too
    assert first.skipped_bytes > 0
    assert series(tap.look()) == {"loss": [(rows, 2.0)], "lr": [(rows, 3.0)]}


def test_declarations_that_were_passed_over_are_known_all_the_same(run: Run) -> None:
    tap = Tap(run.recorder)
    for step in range(MAX_BYTES // 40 + 10):
        tracer.log({"loss": 1.0}, step=step)
    tracer.log({"accuracy": 0.5}, step=1)
    axis = events.Axis("gradients", ("fc",), ("norm",))
    run.recorder.append_layers(events.LayerValues(axis, array("f", [1.0]), 1))
    skipped = tap.look().skipped_bytes
    tracer.log({"accuracy": 0.75}, step=2)
    run.recorder.append_layers(events.LayerValues(axis, array("f", [2.0]), 2))
    seen = tap.look()

    assert skipped > 0
    assert series(seen) == {"accuracy": [(2, 0.75)]}
    assert [(one.axis.layers, one.matrix.tolist(), one.step) for one in seen.layers] == [(("fc",), [[2.0]], 2)]


def test_layers_come_with_their_axis(run: Run) -> None:
    tap = Tap(run.recorder)
    axis = events.Axis("gradients", ("a", "b"), ("norm", "mean"))
    run.recorder.append_layers(events.LayerValues(axis, array("f", [1.0, 2.0, 3.0, math.nan]), 4))
    [seen] = tap.look().layers

    assert (seen.axis.what, seen.axis.layers, seen.axis.statistics) == ("gradients", ("a", "b"), ("norm", "mean"))
    assert seen.matrix[0].tolist() == [1.0, 2.0]
    assert math.isnan(seen.matrix[1, 1])


def test_every_thread_is_read(run: Run) -> None:
    tap = Tap(run.recorder)
    for number in range(3):
        thread = threading.Thread(target=tracer.log, args=({f"loss{number}": float(number)}, 5))
        thread.start()
        thread.join()

    assert series(tap.look()) == {f"loss{number}": [(5, float(number))] for number in range(3)}


def test_what_a_finished_run_held_is_still_read() -> None:
    with tracer.init(project="tap", **QUIET) as run:
        tap = Tap(run.recorder)
        tracer.log({"loss": 1.0}, step=1)
        tap.look()
        tracer.log({"loss": 2.0}, step=2)

    assert series(tap.look()) == {"loss": [(2, 2.0)]}


def test_a_look_keeps_no_segment_from_being_closed() -> None:
    with tracer.init(project="tap", **QUIET) as run:
        tap = Tap(run.recorder)
        tracer.log({"loss": 1.0})
        seen = tap.look()
        segment = run.recorder.writer().segment

    assert segment.buffer.closed
    assert series(seen) == {"loss": [(0, 1.0)]}


def test_a_forked_child_sees_its_own_rows_only() -> None:
    run_program(
        """
        import os
        import tracer
        from tracer.record.tap import Tap

        run = tracer.init(project="tap", quiet=True)
        tap = Tap(run.recorder)
        tracer.log({"loss": 1.0}, step=1)
        pid = os.fork()
        if pid == 0:
            tracer.log({"child": 2.0}, step=2)
            names = {name for rows in tap.look().rows for name in rows.names}
            os._exit(0 if names == {"child"} else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert {name for rows in tap.look().rows for name in rows.names} == {"loss"}
        tracer.finish()
        """
    )


def test_a_loss_that_is_not_finite_is_seen_once_with_its_step(run: Run) -> None:
    glance, writer = Glance(lambda name: name == "loss"), run.recorder.writer()
    tracer.log({"lr": math.nan, "loss": 0.5}, step=1)
    before = glance.look(writer)
    tracer.log({"lr": 0.1, "loss": math.inf}, step=2)

    assert before == []
    assert glance.look(writer) == [("loss", 2, math.inf)]
    assert glance.look(writer) == []


def test_the_step_is_that_of_the_first_of_several(run: Run) -> None:
    glance, writer = Glance(lambda name: name == "loss"), run.recorder.writer()
    for step in range(100):
        tracer.log({"loss": 0.5 if step < 30 else -math.inf}, step=step)
        tracer.log({"lr": math.nan}, step=step)

    assert glance.look(writer) == [("loss", 30, -math.inf)]


def test_it_goes_on_in_the_next_segment(run: Run) -> None:
    glance, writer = Glance(lambda name: name == "loss"), run.recorder.writer()
    while writer.segment.number == 0:
        tracer.log({"loss": 0.5}, step=1)
    tracer.log({"loss": 0.5}, step=2)
    calm = glance.look(writer)
    tracer.log({"loss": math.inf}, step=3)

    assert calm == []
    assert glance.look(writer) == [("loss", 3, math.inf)]


def test_the_examples_in_the_docstrings_run() -> None:
    results = doctest.testmod(tap, extraglobs={"tracer": tracer})

    assert results.attempted > 0
    assert results.failed == 0
