"""Under which name a tag is recorded, and at which step."""

# ruff: noqa: ANN401 -- the packages decide what they hand over, and of what type

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tracer import events
from tracer.capture.tensorboard_names import Names


def named(heard: list[Any]) -> list[str]:
    """Return the names of the scalars that were heard, in order."""
    return [name for event in heard if isinstance(event, events.Scalars) for name in event.values]


def steps(heard: list[Any], name: str = "loss") -> list[int]:
    """Return the steps of a scalar."""
    return [event.step for event in heard if isinstance(event, events.Scalars) and name in event.values]


def said(heard: list[Any], what: str) -> dict[str, Any]:
    """Return what was said of the writers under one heading."""
    found: dict[str, Any] = {}
    for event in heard:
        if isinstance(event, events.Metadata) and what in event.changes.get("tensorboard", {}):
            value = event.changes["tensorboard"][what]
            found.update(value if isinstance(value, dict) else {"": value})
    return found


@pytest.mark.parametrize(
    "step", [3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3), torch.tensor(3, dtype=torch.int8), 3.0]
)
def test_a_whole_step_of_any_kind_is_that_step(heard: list[Any], writer: Any, step: object) -> None:
    writer.add_scalar("loss", 1.0, step)

    assert steps(heard) == [3]
    assert said(heard, "fractional_steps") == {}


def test_a_fractional_step_is_cut_and_counted(heard: list[Any], writer: Any) -> None:
    for step in (0.5, 1.5, np.float32(2.25), torch.tensor(3.75), 4.0):
        writer.add_scalar("loss", 1.0, step)

    assert steps(heard) == [0, 1, 2, 3, 4]
    assert said(heard, "fractional_steps") == {"": 4}


def test_steps_come_in_any_order_and_below_zero(heard: list[Any], writer: Any) -> None:
    given = [5, 0, -3, 5, 2**40]
    for step in given:
        writer.add_scalar("loss", 1.0, step)

    assert steps(heard) == given


def test_without_steps_each_tag_counts_its_own_calls(heard: list[Any], writer: Any) -> None:
    for _ in range(3):
        writer.add_scalar("loss", 1.0)
    writer.add_scalar("accuracy", 1.0)
    writer.add_histogram("loss", np.zeros(3))

    assert steps(heard) == [0, 1, 2]
    assert steps(heard, "accuracy") == [0]
    assert said(heard, "automatic_steps") == {"loss": True, "accuracy": True}
    (histogram,) = [event for event in heard if isinstance(event, events.Media)]
    assert (histogram.step, histogram.fields["automatic_step"]) == (0, True)


def test_a_writer_that_was_closed_goes_on_counting(heard: list[Any], writer: Any) -> None:
    writer.add_scalar("loss", 1.0)
    writer.close()
    writer.add_scalar("loss", 1.0)

    assert steps(heard) == [0, 1]


def test_a_step_that_tensorboardx_was_told_before_counts(heard: list[Any], tmp_path: Path) -> None:
    import tensorboardX

    with tensorboardX.SummaryWriter(str(tmp_path / "log")) as writer:
        for step in (0, 7):
            with writer.use_metadata(global_step=step, walltime=1_700_000_000.0):
                writer.add_scalar("loss", 1.0)
                writer.add_scalar("loss", 2.0)

    assert steps(heard) == [0, 0, 7, 7]
    assert {event.time for event in heard if isinstance(event, events.Scalars)} == {1_700_000_000.0}


def test_each_series_knows_its_folder(heard: list[Any], writer: Any, tmp_path: Path) -> None:
    writer.add_scalar("loss", 1.0, 0)
    writer.add_scalars("all", {"a": 1.0}, 0)
    writer.add_text("said", "something", 0)

    folder = str(tmp_path / "log")
    assert said(heard, "folders") == {"loss": folder, "all/a": folder}
    assert [event.fields["folder"] for event in heard if isinstance(event, events.Media)] == [folder]


def test_two_folders_with_tags_of_their_own_need_no_prefix(heard: list[Any], package: Any, tmp_path: Path) -> None:
    with package.SummaryWriter(str(tmp_path / "a")) as one, package.SummaryWriter(str(tmp_path / "b")) as other:
        one.add_scalar("loss", 1.0, 0)
        other.add_scalar("accuracy", 1.0, 0)

    assert named(heard) == ["loss", "accuracy"]


def test_a_tag_that_is_taken_stands_behind_its_folder(heard: list[Any], package: Any, tmp_path: Path) -> None:
    train, val = (package.SummaryWriter(str(tmp_path / "runs" / name)) for name in ("train", "val"))
    for step in range(2):
        train.add_scalar("loss", 1.0, step)
        val.add_scalar("loss", 2.0, step)
        val.add_scalars("all", {"a": 3.0}, step)
    train.add_scalars("all", {"a": 4.0}, 0)
    train.close()
    val.close()

    assert named(heard) == ["loss", "val/loss", "all/a"] * 2 + ["train/all/a"]
    assert said(heard, "folders")["val/loss"] == str(tmp_path / "runs" / "val")


def test_two_writers_of_one_folder_are_one(heard: list[Any], package: Any, tmp_path: Path) -> None:
    for step in range(2):
        with package.SummaryWriter(str(tmp_path / "log"), filename_suffix=str(step)) as writer:
            writer.add_scalar("loss", 1.0, step)

    assert named(heard) == ["loss", "loss"]


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["/r/train", "/r/val", "/r/test"], ["x", "val/x", "test/x"]),
        (["/r", "/r/val"], ["x", "val/x"]),
        (["/r/val", "/r"], ["x", "r/x"]),
        (["/r/a/log", "/r/b/log"], ["x", "b/log/x"]),
        (["/r/a", "/q/a"], ["x", "q/a/x"]),
        (["s3://bucket/a", "s3://bucket/b"], ["x", "b/x"]),
        (["/r/a", "/r/a"], ["x", "x"]),
    ],
)
def test_the_part_that_tells_folders_apart_is_the_prefix(folders: list[str], names: list[str]) -> None:
    known = Names()

    assert [(known.known.get((folder, "x")) or known.new(folder, "x")).name for folder in folders] == names


def test_a_prefix_that_is_a_tag_already_is_made_longer() -> None:
    known = Names()

    found = [known.new(folder, tag).name for folder, tag in (("/r/a", "b/x"), ("/r/a", "x"), ("/r/b", "x"))]

    assert found == ["b/x", "x", "r/b/x"]


def test_odd_tags_get_names_that_can_be_stored(heard: list[Any], writer: Any) -> None:
    for tag in ("", "a\0b", "ä" * 1200, "ä" * 1201, "loss: 100 %"):
        writer.file_writer.add_summary(_summary(writer, tag), 0)

    names = named(heard)
    assert names[:2] == ["untitled", "a�b"]
    assert [len(name) for name in names[2:4]] == [1000, 1000]
    assert len(set(names)) == 5


def _summary(writer: Any, tag: str) -> Any:
    """Return a scalar with a tag that the package's own functions would clean."""
    import tensorboard.compat.proto.summary_pb2 as of_tensorboard
    import tensorboardX.proto.summary_pb2 as of_x

    messages = of_x if type(writer).__module__.startswith("tensorboardX") else of_tensorboard
    return messages.Summary(value=[messages.Summary.Value(tag=tag, simple_value=1.0)])
