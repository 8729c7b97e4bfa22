"""Threads, tasks, signal handlers and finalisers: each call ends in the journal, whoever makes it and wherever."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from journals import identities, only_run, points, read, rows
from programs import CALMLY, await_that, run

import tracer
from tracer.errors import UsageError


def test_64_threads_lose_and_mix_nothing(tmp_path: Path) -> None:
    start = threading.Barrier(64)

    def work(thread: int) -> None:
        start.wait()
        for step in range(200):
            tracer.log({f"t{thread}": float(step), "shared": float(thread)}, step=step)

    with tracer.init(project="threads", **CALMLY):
        threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    found = rows(only_run(tmp_path / ".tracer"))
    assert Counter((row.values["shared"], row.step) for row in found) == {
        (float(thread), step): 1 for thread in range(64) for step in range(200)
    }
    assert all(row.values[f"t{int(row.values['shared'])}"] == row.step for row in found)
    assert {
        len({row.values["shared"] for row in found if row.writer == name}) for name in {r.writer for r in found}
    } == {1}


def test_a_thread_that_has_ended_leaves_its_journal_to_the_next(tmp_path: Path) -> None:
    with tracer.init(project="threads", **CALMLY) as run:
        for number in range(4):
            thread = threading.Thread(target=tracer.log, args=({"n": float(number)},))
            thread.start()
            thread.join()
            await_that(lambda: len(run._recorder.idle) == 1, "the upkeep thread saw the end of the thread")
        assert len(run._recorder.writers) == 2

    assert [value for _, _, value in points(only_run(tmp_path / ".tracer"))] == [float(n) for n in range(4)]


def test_the_journal_is_ended_once_whoever_comes_second(tmp_path: Path) -> None:
    """A run may be finished by one thread while the first record of another is still starting the upkeep thread."""
    with tracer.init(project="threads", **CALMLY) as run:
        tracer.log({"n": 1.0})
    upkeep = run._recorder.upkeep
    upkeep._thread = None

    upkeep.start()
    upkeep._finish()

    assert upkeep._thread is None
    assert [value for _, _, value in points(only_run(tmp_path / ".tracer"))] == [1.0]


def test_no_two_threads_get_the_same_idle_writer(tmp_path: Path) -> None:
    """Many threads come at once where many have just gone."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with tracer.init(project="threads", **CALMLY) as run:
            recorder = run._recorder  # a thread that is done early leaves its writer to one that comes late
            for generation in range(3):
                start = threading.Barrier(16)

                def work(number: int, generation: int = generation, start: threading.Barrier = start) -> None:
                    start.wait()
                    for step in range(50):
                        tracer.log({"who": float(number)}, step=generation * 50 + step)

                threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                await_that(
                    lambda: len(recorder.idle) == len(recorder.writers) - 1,
                    "the upkeep thread saw the end of the threads",
                )
            assert len(recorder.writers) <= 17
    finally:
        sys.setswitchinterval(interval)

    found = Counter((row.values["who"], row.step) for row in rows(only_run(tmp_path / ".tracer")))
    assert found == {(float(number), step): 1 for number in range(16) for step in range(150)}


def test_checkpoints_read_other_threads_values_while_these_log(tmp_path: Path) -> None:
    """Names that grow without end and segments that change: what a checkpoint says was logged, each under its name."""
    done = threading.Event()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work() -> None:
        step = 0
        while not done.is_set():
            tracer.log({f"m{step % 997}": float(step % 997), f"n{step % 499}": float(step % 499)}, step=step)
            step += 1

    try:
        with tracer.init(project="threads", checkpoint_interval=1, **CALMLY) as run:
            thread = threading.Thread(target=work)
            thread.start()
            for _ in range(100):
                run.step()
            done.set()
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    checkpoints = [
        found.content["values"] for found in read(only_run(tmp_path / ".tracer")) if getattr(found, "kind", 0) == 11
    ]
    assert len(checkpoints) >= 100
    assert any(checkpoints)
    assert {name: value for values in checkpoints for name, value in values.items() if float(name[1:]) != value} == {}


def test_tasks_share_the_journal_of_their_thread(tmp_path: Path) -> None:
    async def work(task: int) -> None:
        for step in range(20):
            tracer.log({"task": float(task)}, step=step)
            await asyncio.sleep(0)

    async def everything() -> None:
        await asyncio.gather(*(work(task) for task in range(50)))

    with tracer.init(project="tasks", **CALMLY):
        asyncio.run(everything())

    found = rows(only_run(tmp_path / ".tracer"))
    assert Counter((row.values["task"], row.step) for row in found) == {
        (float(task), step): 1 for task in range(50) for step in range(20)
    }
    assert len({row.writer for row in found}) == 1


def test_a_signal_handler_may_log_at_any_moment(tmp_path: Path) -> None:
    """A timer strikes all the time, also in the middle of `log`."""
    strikes, struck = itertools.count(), 0

    def strike(_signal: int, _frame: object) -> None:
        nonlocal struck
        number = next(strikes)
        tracer.log({"struck": float(number), "odd": "text"}, step=number)
        struck += 1
        signal.setitimer(signal.ITIMER_REAL, 0.0005)  # only now: a slow machine would never get out of the handler

    with tracer.init(project="signals", **CALMLY):
        before = signal.signal(signal.SIGALRM, strike)
        signal.setitimer(signal.ITIMER_REAL, 0.0005)
        try:
            step = 0
            while struck < 300:
                tracer.log({"loss": float(step)}, step=step)
                step += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    found = points(only_run(tmp_path / ".tracer"))
    assert [(s, value) for name, s, value in found if name == "loss"] == [(s, float(s)) for s in range(step)]
    assert sorted((s, value) for name, s, value in found if name == "struck") == [(s, float(s)) for s in range(struck)]


class Interruption(Exception):
    """What the handler of the next test raises."""


def test_an_exception_out_of_a_signal_handler_tears_nothing(tmp_path: Path) -> None:
    """Like an interrupt by the user: the call that it hits is there or not, and all others are."""
    armed = False

    def strike(_signal: int, _frame: object) -> None:
        if armed:
            raise Interruption

    with tracer.init(project="signals", **CALMLY):
        before = signal.signal(signal.SIGALRM, strike)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        returned, hit, step = [], [], 0
        try:
            while len(hit) < 200:
                step += 1
                try:
                    armed = True
                    tracer.log({"loss": float(step)}, step=step)
                    armed = False
                    returned.append(step)
                except Interruption:
                    armed = False
                    hit.append(step)
        finally:
            armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    found = [(s, value) for _, s, value in points(only_run(tmp_path / ".tracer"))]
    assert len(found) == len(set(found))
    assert all(value == s for s, value in found)
    assert set(returned) <= {s for s, _ in found} <= set(returned) | set(hit)


def test_a_finaliser_may_log(tmp_path: Path) -> None:
    class Thing:
        """Says goodbye when the collector finds it, which can be inside `log`."""

        def __init__(self) -> None:
            self.self = self

        def __del__(self) -> None:
            tracer.log({"gone": 1.0})

    class Value:
        """A number whose reading makes garbage."""

        def __float__(self) -> float:
            import gc

            Thing()
            gc.collect()
            return 1.0

    with tracer.init(project="finalisers", **CALMLY):
        for step in range(10):
            tracer.log({"loss": Value()}, step=step)  # type: ignore[dict-item]

    found = Counter(name for name, _, _ in points(only_run(tmp_path / ".tracer")))
    assert found == {"loss": 10, "gone": 10}


def test_a_call_inside_a_call_gets_a_journal_of_its_own(tmp_path: Path) -> None:
    with tracer.init(project="nested", **CALMLY) as run:
        writer = run._recorder.writer()
        writer.busy = True  # as in a signal handler
        tracer.log({"inner": 1.0})
        inner = writer._inner
        assert inner is not None
        inner.busy = True  # and in a handler that interrupts the handler
        tracer.log({"innermost": 1.0})
        inner.busy = writer.busy = False
        tracer.log({"outer": 1.0})

    assert len({row.writer for row in rows(only_run(tmp_path / ".tracer"))}) == 3
    assert {name for name, _, _ in points(only_run(tmp_path / ".tracer"))} == {"inner", "innermost", "outer"}


def test_other_threads_are_told_when_the_run_is_over(tmp_path: Path) -> None:
    logged: list[int] = []
    told: list[BaseException] = []
    going = threading.Event()

    def work() -> None:
        try:
            while True:
                tracer_run.log({"loss": 1.0}, step=len(logged))
                logged.append(1)
                going.set()
        except UsageError as error:
            told.append(error)

    tracer_run = tracer.init(project="threads", **CALMLY)
    thread = threading.Thread(target=work)
    thread.start()
    going.wait()
    tracer_run.finish()
    thread.join()
    late = threading.Thread(target=work)
    late.start()
    late.join()

    assert len(told) == 2
    assert "is finished" in str(told[0])
    assert len(rows(only_run(tmp_path / ".tracer"))) >= len(logged)


@pytest.mark.slow
def test_a_thousand_short_threads_leave_few_files(tmp_path: Path) -> None:
    done = run(
        """
        import os, threading
        import tracer

        with tracer.init(project="threads") as run:
            for number in range(1000):
                thread = threading.Thread(target=tracer.log, args=({"n": float(number)},), kwargs={"step": number})
                thread.start()
                thread.join()
                if number % 100 == 0:
                    run._recorder.upkeep._round()
            print(len(run._recorder.writers), len(os.listdir("/proc/self/fd")))
        """
    )

    folder = only_run(tmp_path / ".tracer")
    writers, descriptors = map(int, done.stdout.split())
    assert sorted(row.step for row in rows(folder)) == list(range(1000))
    assert len(identities(folder)) <= writers
    assert writers <= 202
    assert descriptors <= 3 * writers + 20  # the segment, its mapping, the seals
