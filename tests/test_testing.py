"""The public tools for tests: events are collected, clocks stand still."""

from __future__ import annotations

import threading

from tracer import clock as clocks
from tracer import sink
from tracer.events import Scalars
from tracer.testing import FakeClock, capture_events


def test_events_are_collected_and_nobody_else_hears_them() -> None:
    heard: list[object] = []
    before = sink.listen(heard.append)
    try:
        with capture_events() as events:
            sink.emit(Scalars({"load": 0.5}, step=3))
        sink.emit("after")
    finally:
        sink.listen(before)

    assert events == [Scalars({"load": 0.5}, step=3)]
    assert heard == ["after"]


def test_time_passes_when_it_is_told_to(clock: FakeClock) -> None:
    start, born = clocks.now(), clocks.monotonic()

    clock.advance(10.0, cpu_s=2.5)

    assert (clocks.now() - start, clocks.monotonic() - born) == (10.0, 10.0)
    assert (clocks.process_time(), clocks.thread_time()) == (2.5, 2.5)
    assert clocks.now_ns() == clocks.now_us() * 1000
    assert clocks.monotonic_ns() == 10_000_000_000


def test_a_wall_clock_that_is_set_changes_no_duration(clock: FakeClock) -> None:
    born = clocks.monotonic()

    clock.set_wall(-86_400.0)

    assert clocks.now() == -86_400.0
    assert clocks.monotonic() == born


def test_waiting_passes_at_once(clock: FakeClock) -> None:
    event = threading.Event()

    assert not clocks.wait(event, 3600)
    assert clocks.monotonic() == 3600
    event.set()
    assert clocks.wait(event, 3600)
    assert clock.monotonic() == 3600


def test_the_real_clocks_come_back() -> None:
    real = clocks.now

    with FakeClock(0.0):
        assert clocks.now() == 0.0

    assert clocks.now is real
