"""`torch.save` into a file is noted, where it lies; nothing else about it changes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from programs import run

from tracer.capture.patching import patches
from tracer.storage import Store
from tracer.testing import capture_events

ORIGINAL = torch.save


@pytest.fixture(autouse=True)
def _listening() -> Iterator[None]:
    patches.start(["checkpoints"])
    yield
    patches.stop()
    assert torch.save is ORIGINAL
    assert torch.serialization.save is ORIGINAL


def test_a_file_is_told_of_after_it_was_written() -> None:
    with capture_events() as events:
        torch.save({"w": torch.ones(2)}, "model.pt")
        torch.serialization.save(obj=1, f=Path("other.pt"))

    assert [(event.name, event.type, event.path) for event in events] == [
        (name, "checkpoint", str(Path(name).resolve())) for name in ("model.pt", "other.pt")
    ]
    assert torch.equal(torch.load("model.pt")["w"], torch.ones(2))


def test_buffers_and_what_fails_are_not() -> None:
    with capture_events() as events:
        torch.save(1, io.BytesIO())
        with pytest.raises(RuntimeError, match="does not exist"):
            torch.save(1, "no/such/folder.pt")

    assert events == []


def test_what_a_framework_saves_in_its_own_name_is_left_to_it() -> None:
    framework = {"__name__": "transformers.trainer", "torch": torch}

    with capture_events() as events:
        exec("torch.save(1, 'optimizer.pt')", framework)  # noqa: S102 -- whose name it is saved in is the test

    assert events == []


PROGRAM = """
import torch, tracer
run = tracer.init(project="gpt", run_name="r", capture=["checkpoints"], track_code=False)
torch.save({"w": torch.ones(2)}, "epoch1.pt")
run.finish()
torch.save({"w": torch.ones(2)}, "after.pt")
"""


def test_a_program_that_saves_has_checkpoints_that_are_verified() -> None:
    run(PROGRAM)

    with Store.open(".tracer") as store:
        (kept,) = store.artifacts()
        assert (kept.name, kept.type, kept.is_reference, kept.problems()) == ("epoch1.pt", "checkpoint", True, [])
