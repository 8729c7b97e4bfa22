"""Each call of a writer, in both packages: what it becomes."""

# ruff: noqa: ANN401 -- the packages decide what they hand over, and of what type

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tracer import events
from tracer.capture.origins import feeding


def of(heard: list[Any], kind: type) -> list[Any]:
    """Return the events of one kind."""
    return [event for event in heard if type(event) is kind]


def scalars(heard: list[Any]) -> list[tuple[dict[str, float], int]]:
    """Return values and steps of what was heard."""
    return [(dict(event.values), event.step) for event in of(heard, events.Scalars)]


def the_media(heard: list[Any]) -> events.Media:
    """Return the only piece of media."""
    (found,) = of(heard, events.Media)
    assert isinstance(found, events.Media)
    assert found.origin == "tensorboard"
    return found


def array_of(data: bytes | None) -> Any:
    """Return the array in the bytes of a file."""
    assert data is not None
    return np.load(io.BytesIO(data))


@pytest.mark.parametrize("value", [0.5, 2, np.float32(0.5), torch.tensor(0.5), torch.tensor([0.5]), np.array(0.5)])
def test_a_scalar_is_heard_whatever_it_is_made_of(heard: list[Any], writer: Any, value: object) -> None:
    writer.add_scalar("loss", value, 3)

    assert scalars(heard) == [({"loss": 0.5 if value != 2 else 2.0}, 3)]
    assert of(heard, events.Scalars)[0].origin == "tensorboard"


def test_what_is_no_number_is_a_value(heard: list[Any], writer: Any) -> None:
    for step, value in enumerate([math.nan, math.inf, -math.inf]):
        writer.add_scalar("loss", value, step)

    values = [value["loss"] for value, _ in scalars(heard)]
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]


def test_a_scalar_has_the_precision_that_its_event_has(heard: list[Any], writer: Any) -> None:
    writer.add_scalar("loss", 0.1, 0)

    assert scalars(heard) == [({"loss": float(np.float32(0.1))}, 0)]


@pytest.mark.parametrize(("precise", "kept"), [(False, float(np.float32(0.1))), (True, 0.1)])
def test_the_newer_way_of_writing_scalars_is_heard(
    heard: list[Any], tmp_path: Path, *, precise: bool, kept: float
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path / "new")) as writer:
        writer.add_scalar("loss", 0.1, 4, new_style=True, double_precision=precise)

    assert scalars(heard) == [({"loss": kept}, 4)]


def test_values_of_one_chart_are_heard_by_their_keys(heard: list[Any], writer: Any) -> None:
    for step in range(2):
        writer.add_scalars("loss/all", {"train": 1.0 + step, "val/a": 2.0 + step}, step)

    assert scalars(heard) == [
        ({"loss/all/train": 1.0}, 0),
        ({"loss/all/val/a": 2.0}, 0),
        ({"loss/all/train": 2.0}, 1),
        ({"loss/all/val/a": 3.0}, 1),
    ]


def test_the_time_that_a_program_gives_is_kept(heard: list[Any], writer: Any) -> None:
    writer.add_scalar("loss", 1.0, 0, walltime=1_700_000_000.25)
    writer.add_scalars("all", {"a": 1.0}, 0, walltime=1_700_000_001.5)

    assert [event.time for event in of(heard, events.Scalars)] == [1_700_000_000.25, 1_700_000_001.5]


def test_a_histogram_is_kept_with_its_buckets(heard: list[Any], writer: Any) -> None:
    writer.add_histogram_raw("weights", -1.0, 3.0, 6, 4.0, 12.0, [0.0, 1.0, 4.0], [1, 2, 3], 7)

    found = the_media(heard)
    folder = found.fields["folder"]
    assert (found.kind, found.name, found.step) == ("histogram", "weights", 7)
    assert found.fields == {
        "limits": [0.0, 1.0, 4.0], "counts": [1.0, 2.0, 3.0], "min": -1.0, "max": 3.0, "num": 6.0, "sum": 4.0,
        "sum_squares": 12.0, "folder": folder,
    }  # fmt: skip


def test_a_picture_is_kept_as_it_was_encoded(heard: list[Any], writer: Any) -> None:
    from PIL import Image

    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    writer.add_image("sample", pixels, 5, dataformats="HWC")

    found = the_media(heard)
    assert (found.kind, found.name, found.suffix, found.step) == ("image", "sample", ".png", 5)
    assert (found.fields["width"], found.fields["height"]) == (3, 2)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(found.data or b""))), pixels)


def test_pictures_and_figures_are_pictures(heard: list[Any], writer: Any) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="needs matplotlib")
    pyplot.switch_backend("agg")
    writer.add_images("batch", np.zeros((2, 3, 4, 4)), 1)
    figure = pyplot.figure(figsize=(1, 1))
    writer.add_figure("plot", figure, 2)

    assert [(one.kind, one.name, one.suffix, one.step) for one in of(heard, events.Media)] == [
        ("image", "batch", ".png", 1),
        ("image", "plot", ".png", 2),
    ]


def test_what_moves_is_a_video(heard: list[Any], writer: Any) -> None:
    """The encoder of `add_video` is a package of its own; its event is a picture in a format that can move."""
    kind = messages_of(writer)
    data = b"GIF89a" + bytes(20)
    image = kind.Summary.Image(height=2, width=3, encoded_image_string=data)

    writer.file_writer.add_summary(kind.Summary(value=[kind.Summary.Value(tag="clip", image=image)]), 1)

    found = the_media(heard)
    assert (found.kind, found.name, found.suffix, found.data) == ("video", "clip", ".gif", data)


def messages_of(writer: Any) -> Any:
    """Return the messages of the package that a writer belongs to."""
    import tensorboard.compat.proto.summary_pb2 as of_tensorboard
    import tensorboardX.proto.summary_pb2 as of_x

    return of_x if type(writer).__module__.startswith("tensorboardX") else of_tensorboard


def test_a_sound_is_kept_as_it_was_encoded(heard: list[Any], writer: Any) -> None:
    messages = messages_of(writer)
    audio = messages.Summary.Audio(
        sample_rate=8000, num_channels=1, length_frames=4, encoded_audio_string=b"RIFFxxxx", content_type="audio/wav"
    )

    writer.file_writer.add_summary(messages.Summary(value=[messages.Summary.Value(tag="word", audio=audio)]), 1)

    found = the_media(heard)
    assert (found.kind, found.suffix, found.data) == ("audio", ".wav", b"RIFFxxxx")
    assert (found.fields["sample_rate"], found.fields["channels"], found.fields["frames"]) == (8000.0, 1, 4)


def test_a_text_is_kept_under_its_own_tag(heard: list[Any], writer: Any) -> None:
    writer.add_text("answer", "**forty-two** — ≈", 2)

    found = the_media(heard)
    assert (found.kind, found.name, found.suffix, found.step) == ("text", "answer", ".md", 2)
    assert found.data == "**forty-two** — ≈".encode()


def test_a_mesh_is_kept_part_by_part(heard: list[Any], writer: Any) -> None:
    vertices = torch.arange(12.0).reshape(1, 4, 3)
    faces = torch.tensor([[[0, 1, 2], [1, 2, 3]]])
    writer.add_mesh("body", vertices, faces=faces, config_dict={"camera": "near"}, global_step=1)

    first, second = of(heard, events.Media)
    assert [(one.kind, one.fields["part"], one.fields["config"]) for one in (first, second)] == [
        ("mesh", "vertices", {"camera": "near"}),
        ("mesh", "faces", {"camera": "near"}),
    ]
    assert array_of(first.data).tolist() == vertices.tolist()
    assert array_of(second.data).tolist() == faces.tolist()


def test_a_precision_recall_curve_is_kept_as_its_rows(heard: list[Any], writer: Any) -> None:
    writer.add_pr_curve_raw("curve", [3, 2], [1, 0], [0, 1], [0, 1], [0.75, 1.0], [1.0, 0.5], 4, num_thresholds=2)

    found = the_media(heard)
    assert (found.kind, found.name, found.step) == ("pr_curve", "curve", 4)
    assert {name: found.fields[name] for name in ("true_positives", "precision", "recall")} == {
        "true_positives": [3.0, 2.0],
        "precision": [0.75, 1.0],
        "recall": [1.0, 0.5],
    }


def test_a_layout_is_kept_as_bytes_and_in_words(heard: list[Any], writer: Any) -> None:
    writer.add_custom_scalars({"Taiwan": {"both": ["Multiline", ["a", "b"]], "band": ["Margin", ["a", "b", "c"]]}})

    found = the_media(heard)
    assert (found.kind, found.suffix) == ("layout", ".pb")
    assert found.fields["categories"] == [
        {
            "title": "Taiwan",
            "charts": [
                {"title": "both", "tags": ["a", "b"]},
                {"title": "band", "margin": [{"value": "a", "lower": "b", "upper": "c"}]},
            ],
        }
    ]


def test_a_graph_is_kept_as_it_is(heard: list[Any], writer: Any) -> None:
    from tensorboard.compat.proto.graph_pb2 import GraphDef

    writer.add_graph(torch.nn.Linear(2, 3), torch.zeros(1, 2))

    graph, cost = of(heard, events.Media)
    assert (graph.kind, graph.name, cost.kind) == ("graph", "graph", "graph")
    assert any("Linear" in node.name for node in GraphDef.FromString(graph.data).node)


def test_hyper_parameters_belong_to_the_run_and_their_results_are_its_summary(heard: list[Any], writer: Any) -> None:
    given = {"lr": 0.1, "layers": 3, "flip": True, "name": "x"}

    writer.add_hparams(given, {"hparam/accuracy": 0.5})

    (parameters,) = of(heard, events.Parameters)
    assert {name: (type(value), value) for name, value in parameters.values.items()} == {
        name: (type(value), value) for name, value in given.items()
    }
    assert [event.changes for event in of(heard, events.Metadata)] == [{"summary": {"hparam/accuracy": 0.5}}]
    assert scalars(heard) == []
    (session,) = of(heard, events.Entry)
    assert (session.kind, session.name) == ("event", "hparams")
    assert session.fields["parameters"] == given
    assert session.fields["metrics"] == {"hparam/accuracy": 0.5}


def test_hyper_parameters_written_without_that_call_are_heard(heard: list[Any], tmp_path: Path) -> None:
    """Lightning's logger writes them so."""
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    with SummaryWriter(str(tmp_path / "log")) as writer:
        for summary in hparams({"lr": 0.5, "name": "x", "flip": True}, {"loss": 1.0}):
            writer.file_writer.add_summary(summary)

    assert [event.values for event in of(heard, events.Parameters)] == [{"flip": True, "lr": 0.5, "name": "x"}]


def test_the_files_of_an_embedding_are_kept(heard: list[Any], writer: Any) -> None:
    writer.add_embedding(torch.eye(3), metadata=["a", "b", "c"], global_step=2, tag="layer/1:out")

    (found,) = of(heard, events.Artifact)
    assert (found.name, found.type, found.step) == ("embedding/layer/1_out", "embedding", 2)
    assert found.metadata["tag"] == "layer/1:out"
    assert sorted(path.name for path in Path(found.path).iterdir()) == ["metadata.tsv", "tensors.tsv"]


def test_a_writer_that_writes_nothing_is_heard(heard: list[Any]) -> None:
    import tensorboardX

    with tensorboardX.SummaryWriter("nowhere", write_to_disk=False) as writer:
        writer.add_scalar("loss", 0.5, np.int64(3))
        writer.add_scalar("loss", 0.25)
        writer.add_scalars("all", {"a": 1.0}, 4, walltime=1_700_000_000.0)

    assert scalars(heard) == [({"loss": 0.5}, 3), ({"loss": 0.25}, 0), ({"all/a": 1.0}, 4)]
    assert of(heard, events.Scalars)[2].time == 1_700_000_000.0
    assert not Path("nowhere").exists()


def test_scalars_that_a_framework_tells_itself_are_dropped_and_nothing_else(heard: list[Any], writer: Any) -> None:
    with feeding("lightning"):
        writer.add_scalar("loss", 0.5, 1)
        writer.add_text("said", "something", 1)
    writer.add_scalar("mine", 0.25, 1)

    assert scalars(heard) == [({"mine": 0.25}, 1)]
    assert [one.name for one in of(heard, events.Media)] == ["said"]
