"""What one `log` does, counted: counts are the same on every machine."""

from __future__ import annotations

import gc
import json
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from programs import CALMLY, await_that, run

import tracer
from tracer import Run

CALLS = 100_000


@pytest.fixture
def recording() -> Iterator[Run]:
    """Give a run with a warm hot path, in a segment that was prepared ahead; its upkeep rests for the while."""
    with tracer.init(project="counts", **CALMLY) as run:
        recorder = run._recorder
        writer = recorder.writer()
        while writer.segment.number == 0 or writer.segment.size < 16 * 1024 * 1024:
            if writer.limit == writer.segment.size:
                await_that(lambda: writer.prepared is not None, "the next segment is ready")
            tracer.log({"warm": 1.0}, step=1)
        assert recorder.counters.nonzero() == {}
        with recorder.upkeep._lock:  # a sync cleans the pages, and the kernel notes the next write to each
            yield run


def calls_of(metrics: dict[str, float]) -> list[str]:
    """Return what one call of `log` enters, in order; `c:` marks functions written in C."""
    entered: list[str] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            entered.append(frame.f_code.co_qualname)
        elif event == "c_call":
            entered.append("c:" + getattr(argument, "__qualname__", repr(argument)))

    tracer.log(metrics, step=1)
    sys.setprofile(note)
    try:
        tracer.log(metrics, step=1)
    finally:
        sys.setprofile(None)
    return [name for name in entered if name != "c:setprofile"]


@pytest.mark.usefixtures("recording")
@pytest.mark.parametrize("keys", [1, 2, 10, 100])
def test_a_call_is_two_frames_and_three_c_calls(keys: int) -> None:
    metrics = {f"m{key}": 1.0 for key in range(keys)}

    assert calls_of(metrics) == ["log", "Writer.log", "c:dict.values", "c:time", "c:Struct.pack_into"]


def test_a_call_through_the_run_costs_the_same(recording: Run) -> None:
    entered: list[str] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            entered.append(frame.f_code.co_qualname)

    recording.log({"loss": 1.0}, step=1)
    sys.setprofile(note)
    try:
        recording.log({"loss": 1.0}, step=1)
    finally:
        sys.setprofile(None)

    assert entered == ["Run.log", "Writer.log"]


@pytest.mark.parametrize("keys", [1, 3, 10, 100])
def test_a_call_takes_32_bytes_and_8_for_each_value(recording: Run, keys: int) -> None:
    writer, metrics = recording._recorder.writer(), {f"m{key}": 1.0 for key in range(keys)}
    tracer.log(metrics, step=1)
    before, segment = writer.at, writer.segment

    for step in range(1000):
        tracer.log(metrics, step=step)

    assert writer.segment is segment
    assert writer.at - before == 1000 * (32 + 8 * keys)


@pytest.mark.usefixtures("recording")
def test_memory_does_not_grow() -> None:
    metrics = {"loss": 1.0}
    for step in range(1000):
        tracer.log(metrics, step=step)
    gc.collect()
    gc.disable()
    try:
        grown = min(blocks_grown(metrics) for _ in range(3))  # other threads of this process count too
    finally:
        gc.enable()

    assert grown <= 16


def blocks_grown(metrics: dict[str, float]) -> int:
    """Return how many more blocks of memory are in use after many calls."""
    before = sys.getallocatedblocks()
    for step in range(CALLS):
        tracer.log(metrics, step=step)
    return sys.getallocatedblocks() - before


@pytest.mark.usefixtures("recording")
def test_no_read_no_write_no_page_fault_no_wait() -> None:
    metrics = {"loss": 1.0}
    for step in range(1000):
        tracer.log(metrics, step=step)

    best = min((counted_calls(metrics) for _ in range(5)), key=sum)  # the kernel interrupts whom it likes

    # Reading the counters is itself a few reads.
    assert best == (0, 0, 0, 0)


def counted_calls(metrics: dict[str, float]) -> tuple[int, int, int, int]:
    """Return reads, writes, minor faults and voluntary context switches of many calls, beyond those of counting."""
    steps, idle = range(20_000), counters()
    idle = tuple(after - before for before, after in zip(idle, counters(), strict=True))
    before = counters()
    for step in steps:
        tracer.log(metrics, step=step)
    after = counters()
    return tuple(max(b - a - i, 0) for a, b, i in zip(before, after, idle, strict=True))  # type: ignore[return-value]


def counters() -> tuple[int, ...]:
    """Return the reads, writes, faults and waits of this thread so far."""
    io = dict(line.split(": ") for line in Path("/proc/thread-self/io").read_text(encoding="ascii").splitlines())
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return int(io["syscr"]), int(io["syscw"]), used.ru_minflt, used.ru_nvcsw


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_ten_thousand_calls_make_no_system_call() -> None:
    """Only this thread is counted: the background thread syncs."""
    run(
        """
        import os, subprocess, sys
        import tracer

        tracer.init(project="calls")
        metrics = {"loss": 1.0, "accuracy": 0.5}
        for step in range(40_000):  # into the second segment, which was prepared ahead
            tracer.log(metrics, step=step)

        strace = subprocess.Popen(
            ["strace", "-q", "-o", "calls.txt", "-p", str(os.getpid())], stderr=subprocess.PIPE, text=True
        )
        while "TracerPid:\\t0" in open("/proc/self/status").read():
            if strace.poll() is not None:
                sys.exit("strace: " + strace.stderr.read())
        for batch in range(5):
            os.access("/begin", os.F_OK)
            for step in range(10_000):
                tracer.log(metrics, step=step)
            os.access("/end", os.F_OK)
        strace.terminate()
        strace.wait()
        tracer.finish()
        """
    )

    batches = Path("calls.txt").read_text(encoding="utf-8").split('"/begin"')[1:]
    calls = [batch.split('"/end"')[0].splitlines()[1:-1] for batch in batches]
    assert len(calls) == 5
    assert min(calls, key=len) == []  # when the other thread wakes, once a second, the interpreter hands over the GIL


def test_importing_and_logging_load_nothing_heavy() -> None:
    done = run(
        """
        import json, sys
        import tracer

        with tracer.init(project="light"):
            tracer.log({"loss": 1.0})
            tracer.step()
        print(json.dumps(sorted(sys.modules)))
        """
    )

    heavy = {"numpy", "torch", "duckdb", "sqlite3", "logging", "asyncio", "typing", "dataclasses", "psutil"}
    assert heavy & set(json.loads(done.stdout)) == set()
