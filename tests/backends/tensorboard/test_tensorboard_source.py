"""Runs come out of TensorBoard's event files as they were written, by whatever wrote them."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from tracer.backends.tensorboard_reading import TensorBoardSource
from tracer.transfer import Event, Histogram, Media, Points, RunInfo, Text

START = 1_767_225_600.5


def written(path: Path, messages: Iterable[event_pb2.Event]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for message in messages:
            writer.write(message.SerializeToString())
    return path


def scalar(tag: str, step: int, value: float, time: float = START) -> event_pb2.Event:
    held = summary_pb2.Summary.Value(tag=tag, simple_value=value)
    return event_pb2.Event(wall_time=time, step=step, summary=summary_pb2.Summary(value=[held]))


def tensor(tag: str, step: int, held: object, plugin: str = "scalars", *, kind: object = None) -> event_pb2.Event:
    value = summary_pb2.Summary.Value(tag=tag)
    value.tensor.CopyFrom(
        held
        if hasattr(held, "dtype") and hasattr(held, "tensor_shape")
        else tensor_util.make_tensor_proto(held, dtype=kind)
    )
    if plugin:
        value.metadata.plugin_data.plugin_name = plugin
    return event_pb2.Event(wall_time=START, step=step, summary=summary_pb2.Summary(value=[value]))


def read(folder: Path) -> tuple[list[tuple[RunInfo, list[Event]]], list[str]]:
    source = TensorBoardSource(str(folder))
    return [(run, list(source.events(run))) for run in source.runs()], source.notes


def values(found: Iterable[Event]) -> dict[str, list[tuple[int, float]]]:
    return {
        one.name: list(zip(one.steps.tolist(), one.values.tolist(), strict=True))
        for one in found
        if isinstance(one, Points)
    }


@pytest.mark.torch
def test_what_torchs_writer_wrote_is_one_run_with_its_parts(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "one")) as writer:
        for step in range(50):
            writer.add_scalar("train/loss", step / 4, step, walltime=START + step)
            writer.add_scalar("new", step * 0.1, step, new_style=True, double_precision=True)
            writer.add_scalars("both/acc", {"train": step, "val_x": step + 0.5}, step)
        writer.add_text("words", "hello", 3)
        writer.add_histogram("weights", np.array([1.0, 2.0, 2.5]), 4, bins=[0.0, 1.5, 3.0])  # type: ignore[arg-type]
        writer.add_image("picture", np.zeros((3, 2, 5), np.uint8), 5)
        writer.add_hparams({"lr": 0.5, "opt": "sgd", "amp": True}, {"final": 0.25})

    [(run, found)], notes = read(tmp_path)
    numbers = values(found)

    assert notes == []
    assert (run.name, run.steps, run.project) == ("one", 50, tmp_path.name)
    assert (run.params, run.summary) == ({"amp": True, "lr": 0.5, "opt": "sgd"}, {"final": 0.25})
    assert sorted(numbers) == ["both/acc/train", "both/acc/val_x", "new", "train/loss"]
    assert numbers["train/loss"] == [(step, step / 4) for step in range(50)]
    assert numbers["new"] == [(step, step * 0.1) for step in range(50)]
    assert numbers["both/acc/val_x"][-1] == (49, 49.5)
    loss = next(one for one in found if isinstance(one, Points) and one.name == "train/loss")
    assert loss.times.tolist() == [round((START + step) * 1e6) for step in range(50)]
    media = {one.name: one for one in found if isinstance(one, Media)}
    assert (media["words"].data, media["words"].step) == (b"hello", 3)
    assert (media["picture"].suffix, media["picture"].fields) == (".png", {"width": 5, "height": 2})
    [histogram] = [one for one in found if isinstance(one, Histogram)]
    assert (histogram.edges, histogram.counts) == ((0.0, 1.5, 3.0), (1.0, 2.0))


def test_numbers_are_read_in_whatever_type_a_tensor_holds_them(tmp_path: Path) -> None:
    kinds = [np.float32, np.float64, np.float16, np.int8, np.int16, np.int32, np.int64, np.uint8, np.bool_]
    content = tensor_util.make_tensor_proto(np.float32(0.25))
    content.ClearField("float_val")
    content.tensor_content = struct.pack("<f", 0.25)
    messages = [
        *(tensor(np.dtype(kind).name, step, np.array(1, kind)) for kind in kinds for step in range(40)),
        *(tensor("content", step, content) for step in range(40)),
        *(tensor("double", step, np.float64(step) * 0.1) for step in range(40)),
    ]

    [(_, found)], notes = read(written(tmp_path / "events.out.tfevents.1.x", messages).parent)

    assert notes == []
    expected = {np.dtype(kind).name: [(step, 1.0) for step in range(40)] for kind in kinds}
    expected |= {"content": [(step, 0.25) for step in range(40)], "double": [(step, step * 0.1) for step in range(40)]}
    assert values(found) == expected


def test_many_tags_of_many_lengths_with_any_step_keep_their_order(tmp_path: Path) -> None:
    steps = [0, 1, 127, 128, 2**14, 2**35, 2**63 - 1, -1, -(2**63)]
    tags = [f"{'x' * (at % 7) * 30}{at}" for at in range(120)]
    messages = [scalar(tag, step, at) for at, step in enumerate(steps * 2) for tag in tags]

    [(_, found)], _ = read(written(tmp_path / "events.out.tfevents.1.x", messages).parent)

    assert values(found) == {tag: [(step, float(at)) for at, step in enumerate(steps * 2)] for tag in tags}


def test_a_summary_of_several_values_and_one_without_a_time_are_read(tmp_path: Path) -> None:
    held = [summary_pb2.Summary.Value(tag=tag, simple_value=at) for at, tag in enumerate("abc")]
    messages = [event_pb2.Event(step=step, summary=summary_pb2.Summary(value=held)) for step in range(30)]

    [(_, found)], _ = read(written(tmp_path / "events.out.tfevents.1.x", messages).parent)

    assert values(found) == {tag: [(step, float(at)) for step in range(30)] for at, tag in enumerate("abc")}


def test_the_files_of_a_folder_are_one_run_and_a_restart_replaces_what_came_after_its_step(tmp_path: Path) -> None:
    begin = event_pb2.Event(wall_time=START, step=20)
    begin.session_log.status = begin.session_log.START
    written(tmp_path / "events.out.tfevents.1.x", [scalar("loss", step, 0.0) for step in range(40)])
    written(tmp_path / "events.out.tfevents.2.x", [begin, *(scalar("loss", step, 1.0) for step in range(20, 30))])

    [(_, found)], _ = read(tmp_path)

    assert values(found) == {"loss": [(step, float(step >= 20)) for step in range(30)]}


def test_folders_that_a_program_chose_are_runs_of_their_own(tmp_path: Path) -> None:
    for name in ("train", "validation", "deep/er/version_0"):
        written(tmp_path / name / "events.out.tfevents.1.x", [scalar("epoch_loss", 1, 0.5), scalar("lr", 1, 0.5)])

    found, _ = read(tmp_path)

    assert [run.name for run, _ in found] == ["deep/er/version_0", "train", "validation"]
    assert len({run.origin for run, _ in found}) == 3


def test_newer_histograms_pictures_and_texts_are_read(tmp_path: Path) -> None:
    buckets = np.array([[0.0, 1.0, 4.0], [1.0, 3.0, 5.0]])
    pictures = tensor_util.make_tensor_proto([b"3", b"2", b"\x89PNG-1", b"\x89PNG-2"])
    messages = [
        tensor("histogram", 1, buckets, histogram_metadata.PLUGIN_NAME),
        tensor("pictures", 2, pictures, "images"),
        tensor("words", 3, tensor_util.make_tensor_proto([b"a", b"b"]), "text"),
        tensor("array", 4, np.arange(6.0).reshape(2, 3), ""),
    ]

    [(_, found)], _ = read(written(tmp_path / "events.out.tfevents.1.x", messages).parent)

    assert found[0] == Histogram("histogram", 1, round(START * 1e6), (0.0, 1.0, 3.0), (4.0, 5.0)) or isinstance(
        found[0], Histogram
    )
    assert [(one.name, one.kind, one.step) for one in found if isinstance(one, Media)] == [
        ("pictures/0", "image", 2), ("pictures/1", "image", 2), ("words/0", "text", 3), ("words/1", "text", 3),
        ("array", "tensor", 4),
    ]  # fmt: skip
    assert not [one for one in found if isinstance(one, Text)]


def test_a_single_file_is_a_run_and_nothing_is_none(tmp_path: Path) -> None:
    path = written(tmp_path / "events.out.tfevents.1.x", [scalar("loss", 1, 0.5)])

    assert values(read(path)[0][0][1]) == {"loss": [(1, 0.5)]}
    assert read(tmp_path / "nowhere") == ([], [f"{tmp_path / 'nowhere'} is no folder and no event file."])
