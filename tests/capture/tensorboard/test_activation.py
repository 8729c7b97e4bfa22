"""When listening begins and ends: late, twice, a hundred times, and what a program notices of it: nothing."""

# ruff: noqa: ANN401 -- the packages decide what they hand over, and of what type

from __future__ import annotations

import gc
import inspect
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import CALMLY
from programs import run as run_program

import tracer
from tracer import events
from tracer.capture.patching import patches
from tracer.storage import Store
from tracer.testing import capture_events

METHODS = ("add_scalars", "add_hparams", "add_embedding")


def places(package: Any) -> dict[str, Any]:
    """Return what stands at each place that is listened at."""
    module = inspect.getmodule(package.SummaryWriter)
    assert module is not None
    found = {f"SummaryWriter.{name}": vars(module.SummaryWriter)[name] for name in METHODS}
    found["FileWriter.add_event"] = vars(module.FileWriter)["add_event"]
    if hasattr(module, "DummyFileWriter"):
        found |= {f"Dummy.{name}": vars(module.DummyFileWriter)[name] for name in ("add_event", "add_summary")}
    return found


def points(folder: Path, name: str) -> dict[str, int]:
    """Return how many points each series of a run has."""
    store = Store.open(folder)
    return {row.metric: row.n for row in store.metrics(store.run(name).uid) if not row.metric.startswith("system/")}


def test_a_writer_that_was_made_before_is_heard(package: Any, writer: Any) -> None:
    writer.add_scalar("loss", 1.0, 0)
    patches.start(["tensorboard"])
    try:
        with capture_events() as heard:
            writer.add_scalar("loss", 1.0, 1)
            writer.add_scalars("all", {"a": 1.0}, 1)
    finally:
        patches.stop()

    assert [event.step for event in heard if isinstance(event, events.Scalars)] == [1, 1]
    assert package is not None


def test_off_costs_nothing_since_everything_is_the_original(package: Any) -> None:
    before = places(package)

    for _ in range(100):
        patches.start(["tensorboard"])
        assert all(place is not before[name] for name, place in places(package).items())
        assert {name: place.__wrapped__ for name, place in places(package).items()} == before
        patches.stop()

    assert all(place is before[name] for name, place in places(package).items())


def test_the_signatures_are_those_of_the_originals(package: Any) -> None:
    before = {name: inspect.signature(place) for name, place in places(package).items()}

    patches.start(["tensorboard"])
    try:
        assert {name: inspect.signature(place) for name, place in places(package).items()} == before
    finally:
        patches.stop()


def test_started_twice_it_is_heard_once_and_one_stop_ends_it(package: Any, writer: Any) -> None:
    before = places(package)
    patches.start(["tensorboard"])
    patches.start(["tensorboard"])
    with capture_events() as heard:
        writer.add_scalar("loss", 1.0, 0)
    patches.stop()

    assert len([event for event in heard if isinstance(event, events.Scalars)]) == 1
    assert all(place is before[name] for name, place in places(package).items())


def test_values_go_into_the_run_that_is_active_and_into_no_finished_one(
    package: Any, writer: Any, tmp_path: Path
) -> None:
    assert package is not None
    for name in ("first", "second"):
        with tracer.init(project="p", run_name=name, capture=["tensorboard"], **CALMLY):
            for step in range(5):
                writer.add_scalar("loss", 1.0, step)
            writer.add_scalar(name, 1.0)
            writer.add_scalar(name, 2.0)
        writer.add_scalar("loss", 9.0, 100)

    assert points(tmp_path / ".tracer", "first") == {"loss": 5, "first": 2}
    assert points(tmp_path / ".tracer", "second") == {"loss": 5, "second": 2}


def test_each_run_names_its_folders_anew(package: Any, tmp_path: Path) -> None:
    for name in ("first", "second"):
        with (
            tracer.init(project="p", run_name=name, capture=["tensorboard"], **CALMLY) as run,
            package.SummaryWriter(str(tmp_path / "log" / name)) as writer,
        ):
            writer.add_scalar("loss", 1.0)
            writer.add_scalar("loss", 1.0)

        assert points(tmp_path / ".tracer", name) == {"loss": 2}
        assert run.facts["tensorboard"]["folders"] == {"loss": str(tmp_path / "log" / name)}


@pytest.mark.usefixtures("heard")
def test_what_the_writer_raises_passes_through(writer: Any, heard: list[Any]) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        writer.file_writer.add_event(_event(writer), "three")
    with pytest.raises(AssertionError):
        writer.add_scalar("loss", np.ones(2), 0)
    with pytest.raises((AttributeError, TypeError)):
        writer.add_hparams(["no", "dictionary"], {})
    with pytest.raises(AttributeError):
        writer.add_scalars("all", ["no", "dictionary"], 0)
    writer.add_scalar("loss", 1.0, 0)

    values = [event.values for event in heard if isinstance(event, events.Scalars)]
    assert values == [{"loss": 1.0}]


def test_what_the_writer_returns_passes_through(package: Any, tmp_path: Path) -> None:
    module = inspect.getmodule(package.SummaryWriter)
    assert module is not None
    original = module.FileWriter.add_event

    def add_event(self: Any, event: Any, step: Any = None, walltime: Any = None) -> str:
        original(self, event, step, walltime)
        return "kept"

    module.FileWriter.add_event = add_event
    try:
        patches.start(["tensorboard"])
        with package.SummaryWriter(str(tmp_path / "log")) as writer, capture_events() as heard:
            assert writer.file_writer.add_event(_event(writer), 3) == "kept"
        patches.stop()
    finally:
        module.FileWriter.add_event = original

    assert [event.step for event in heard if isinstance(event, events.Scalars)] == [3]


def test_a_place_that_has_changed_is_left_alone(package: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = inspect.getmodule(package.SummaryWriter)
    assert module is not None

    def add_event(self: Any, record: Any) -> None:
        """Take something else than is known."""

    monkeypatch.setattr(module.FileWriter, "add_event", add_event)
    with tracer.init(project="p", capture=["tensorboard"], **CALMLY) as run:
        assert module.FileWriter.add_event is add_event
        rows = {(row["module"], row["attribute"]): row for row in run.capture_report()}

    row = rows[module.__name__, "FileWriter.add_event"]
    assert row["state"] == "refused"
    assert "record" in str(row["why"])
    assert tmp_path.exists()


def test_a_failure_of_ours_is_not_the_programs(
    package: Any, writer: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tracer.capture import tensorboard_events

    def failing(value: object) -> None:
        message = f"cannot read {type(value).__name__}"
        raise OSError(message)

    monkeypatch.setattr(tensorboard_events, "media", failing)
    settings = {**CALMLY, "quiet": False}
    with tracer.init(project="p", capture=["tensorboard"], strict=False, **settings) as run:
        writer.add_text("said", "something", 0)
        writer.add_scalar("loss", 1.0, 0)
        assert run.guard.counters.nonzero() == {"internal_errors": 1}

    assert "cannot read Value" in capsys.readouterr().err
    assert package is not None


@pytest.mark.parametrize("package", ["torch"], indirect=True)
def test_nothing_holds_a_writer_that_the_program_let_go(heard: list[Any], package: Any, tmp_path: Path) -> None:
    """Those of tensorboardX hold themselves until the program ends."""
    writer = package.SummaryWriter(str(tmp_path / "log"))
    writer.add_scalar("loss", 1.0, 0)
    writer.add_scalars("all", {"a": 1.0}, 0)
    writer.close()
    gone = weakref.ref(writer.file_writer or writer), weakref.ref(writer)
    del writer
    gc.collect()

    assert [one() for one in gone] == [None, None]
    assert heard


def test_writers_may_be_used_by_threads_at_once(heard: list[Any], writer: Any) -> None:
    def write(name: str) -> None:
        for _ in range(200):
            writer.add_scalar(name, 1.0)
            writer.add_scalar("shared", 1.0)

    threads = [threading.Thread(target=write, args=(f"thread{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    steps = sorted(event.step for event in heard if isinstance(event, events.Scalars) and "shared" in event.values)
    assert steps == list(range(800))


def _event(writer: Any) -> Any:
    """Return an event with one scalar."""
    import tensorboard.compat.proto.event_pb2 as of_tensorboard
    import tensorboard.compat.proto.summary_pb2 as summaries
    import tensorboardX.proto.event_pb2 as of_x
    import tensorboardX.proto.summary_pb2 as summaries_of_x

    is_x = type(writer).__module__.startswith("tensorboardX")
    messages, parts = (of_x, summaries_of_x) if is_x else (of_tensorboard, summaries)
    return messages.Event(summary=parts.Summary(value=[parts.Summary.Value(tag="loss", simple_value=1.0)]))


def test_packages_that_are_imported_later_are_heard(tmp_path: Path) -> None:
    program = """
        import sys, tracer
        with tracer.init(project="p", capture=["tensorboard"]):
            assert "torch.utils.tensorboard" not in sys.modules and "tensorboardX" not in sys.modules
            import tensorboardX
            import torch.utils.tensorboard
            for package in (tensorboardX, torch.utils.tensorboard):
                with package.SummaryWriter("log") as writer:
                    writer.add_scalar(package.__name__, 1.0)
    """

    run_program(program)

    assert points(tmp_path / ".tracer", "@last") == {"tensorboardX": 1, "torch.utils.tensorboard": 1}
