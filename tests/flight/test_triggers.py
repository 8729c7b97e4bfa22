"""What asks for a capsule besides a bad number."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tracer.flight import triggers
from tracer.flight.recorder import FlightRecorder
from tracer.flight.settings import FlightConfig
from tracer.flight.triggers import Requests, SignalTrigger, Stall, Watchdog
from tracer.sink import Guard
from tracer.testing import FakeClock, capture_events

pytestmark = pytest.mark.torch


class Fails(nn.Module):
    """Fails where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 1)
        self.where = ""

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch."""
        if self.where == "forward":
            message = "a fault of the model"
            raise LookupError(message)
        out: Tensor = self.inner(x)
        if self.where == "backward":
            out.register_hook(_fail)
        return out


def _fail(_gradient: Tensor) -> Tensor:
    message = "a fault in backward"
    raise LookupError(message)


class Failing(torch.optim.SGD):
    """Fails at its step."""

    def step(self, closure: Any = None) -> None:  # noqa: ANN401, ARG002
        """Fail."""
        message = "a fault of the optimizer"
        raise LookupError(message)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "capsules"


@pytest.fixture
def events() -> Iterator[list[Any]]:
    with capture_events() as found:
        yield found


def recorder_of(model: nn.Module, folder: Path, **settings: Any) -> FlightRecorder:  # noqa: ANN401
    config = FlightConfig(**{"signal": "off", "stall_s": "off", "include_model": False, **settings})
    return FlightRecorder(model, config=config, folder=str(folder), guard=Guard(strict=True, quiet=True))


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(3, 2)).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("where", ["forward", "backward", "optimizer"])
def test_an_exception_that_leaves_the_block_gets_its_capsule(where: str, folder: Path, events: list[Any]) -> None:
    model = Fails()
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(LookupError), recorder_of(model, folder):  # noqa: PT012 -- the block is the subject
        step(model, optimizer)
        model.where = where
        if where == "optimizer":
            optimizer = Failing(model.parameters(), lr=0.1)
        step(model, optimizer)

    [finding] = events
    assert (finding.kind, finding.step) == ("exception", 1)
    assert "The training ended with LookupError: a fault" in finding.details["explanation"]
    assert [path.name for path in folder.iterdir()] == ["step-1-exception.trc"]


def test_an_exception_is_reported_once_and_our_own_never(folder: Path, events: list[Any]) -> None:
    from tracer.errors import TrainingAnomaly

    model = nn.Linear(2, 1)
    recorder = recorder_of(model, folder)
    error = KeyError("lost")

    assert recorder.on_exception(error) is not None
    assert recorder.on_exception(error) is None
    assert recorder.on_exception(TrainingAnomaly("stop")) is None
    recorder.stop()
    assert len(events) == 1


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_no_memory_has_its_own_kind(error: BaseException, folder: Path, events: list[Any]) -> None:
    model = nn.Linear(2, 1)
    recorder = recorder_of(model, folder)
    recorder.on_exception(error)
    recorder.stop()

    assert [event.kind for event in events] == ["out_of_memory"]


def test_a_stall_is_told_once_and_again_after_the_training_moved() -> None:
    stall = Stall("auto")
    stall.moved(0.0)

    assert [stall.stands(now, step_s=1.0) for now in (30.0, 59.0, 61.0, 90.0)] == [False, False, True, False]
    stall.moved(100.0)
    assert [stall.stands(now, step_s=10.0) for now in (170.0, 201.0)] == [False, True]
    assert not Stall("off").stands(1e9, 1.0)


def test_a_training_that_waits_for_its_data_is_reported_with_all_stacks(folder: Path, events: list[Any]) -> None:
    model = nn.Linear(2, 1)
    with FakeClock() as clock:
        config = FlightConfig(signal="off", stall_s=5, include_model=False)
        recorder = FlightRecorder(model, config=config, guard=Guard(strict=True, quiet=True))
        recorder._responses.folder = str(folder)  # without a folder at the beginning no thread looks by itself
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        step(model, optimizer)
        recorder._asking.look(clock.monotonic())
        clock.advance(6.0)
        waiting, over = threading.Event(), threading.Event()

        def loader() -> None:
            waiting.set()
            over.wait(60)

        thread = threading.Thread(target=loader, name="loader")
        thread.start()
        waiting.wait(60)
        recorder._asking.look(clock.monotonic())
        recorder._asking.look(clock.monotonic())
        over.set()
        thread.join()
        recorder.stop()

    [finding] = events
    assert (finding.kind, finding.details["explanation"]) == ("stall", "No step came for 5 s.")
    data = next(folder.iterdir()).read_bytes()
    assert b"stacks.txt" in data


def test_the_stacks_name_threads_and_functions() -> None:
    text = triggers.stacks().decode()

    assert "MainThread" in text
    assert "test_the_stacks_name_threads_and_functions" in text


def test_a_request_in_the_runs_folder_is_served_at_the_next_step(folder: Path, events: list[Any]) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = recorder_of(model, folder)
    folder.parent.mkdir(parents=True)
    (folder.parent / "capsule.request").touch()
    recorder._asking.look(0.0)
    assert not (folder.parent / "capsule.request").exists()
    assert events == []
    step(model, optimizer)
    step(model, optimizer)
    recorder.stop()

    assert [(event.kind, event.step) for event in events] == [("manual", 0)]
    assert [path.name for path in folder.iterdir()] == ["step-0-manual.trc"]


def test_a_request_that_no_step_serves_is_served_where_it_was_noticed(clock: FakeClock) -> None:
    requests = Requests(None)
    requests.ask("signal")

    assert not requests.overdue(clock.monotonic())
    clock.advance(11.0)
    assert requests.overdue(clock.monotonic())
    assert requests.take() == "signal"
    assert requests.take() is None


def test_a_signal_asks_for_a_capsule_and_the_handler_before_is_put_back(folder: Path, events: list[Any]) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = recorder_of(model, folder, signal="SIGUSR1")
    os.kill(os.getpid(), signal.SIGUSR1)
    step(model, optimizer)
    recorder.stop()

    assert [event.kind for event in events] == ["signal"]
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_an_earlier_handler_keeps_the_signal_unless_the_user_named_it() -> None:
    seen: list[str] = []
    before = signal.signal(signal.SIGUSR2, lambda *_: seen.append("theirs"))
    try:
        assert not SignalTrigger("SIGUSR2", lambda: seen.append("ours")).installed
        trigger = SignalTrigger("SIGUSR2", lambda: seen.append("ours"), wanted=True)
        os.kill(os.getpid(), signal.SIGUSR2)
        trigger.restore()
        os.kill(os.getpid(), signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)

    assert seen == ["ours", "theirs", "theirs"]


def test_under_slurm_no_signal_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")

    assert not SignalTrigger("SIGUSR2", lambda: None).installed


def test_a_capsule_can_be_asked_for_at_any_moment(folder: Path, events: list[Any]) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = recorder_of(model, folder)
    step(model, optimizer)
    between = recorder.capsule_now()
    model(torch.ones(3, 2)).sum().backward()
    within = recorder.capsule_now()
    recorder.stop()

    assert [path.name for path in (between, within) if path] == ["step-0-manual.trc", "step-1-manual.trc"]
    assert all(path.exists() for path in (between, within) if path)
    assert [event.kind for event in events] == ["manual", "manual"]


def test_the_watchdog_ends_with_the_last_it_looks_after() -> None:
    looked, rounds = [], threading.Semaphore(0)

    class Watched:
        def look(self, now: float) -> None:
            looked.append(now)
            rounds.release()

    dog, watched = Watchdog(wait=lambda event, _: event.wait(0.001)), Watched()
    dog.add(watched)
    assert rounds.acquire(timeout=60)
    thread = dog._thread
    dog.remove(watched)
    assert thread is not None
    thread.join(60)

    assert not thread.is_alive()
    assert looked
