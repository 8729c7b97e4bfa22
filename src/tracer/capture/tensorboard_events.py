"""What TensorBoard's events other than scalars hold, as our events: encoded bytes stay as they came.

Works on the messages of TensorBoard's own package and of tensorboardX alike: the same fields, other classes. Reading
one copies its bytes or its lists and encodes nothing: making the event has cost the program far more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from tracer.capture import tensorboard_tensors as tensors
from tracer.events import Media

#: What a plugin keeps beside the values: the message in TensorBoard's package, and where tensorboardX has its own.
_MESSAGES = {
    "mesh": ("plugins.mesh.plugin_data_pb2", "plugin_mesh_pb2", "MeshPluginData"),
    "hparams": ("plugins.hparams.plugin_data_pb2", "plugin_hparams_pb2", "HParamsPluginData"),
    "custom_scalars": ("plugins.custom_scalar.layout_pb2", "layout_pb2", "Layout"),
}
_SUFFIXES = {"audio/wav": ".wav", "audio/x-wav": ".wav", "audio/mpeg": ".mp3", "audio/ogg": ".ogg"}
_PICTURES = ((b"\x89PNG", ".png"), (b"GIF8", ".gif"), (b"\xff\xd8", ".jpg"), (b"RIFF", ".webp"), (b"BM", ".bmp"))
#: The rows of a precision-recall curve, as the plugin orders them.
_CURVES = ("true_positives", "false_positives", "true_negatives", "false_negatives", "precision", "recall")
_MESH_PARTS = {1: "vertices", 2: "faces", 3: "colors"}


def media(value: Any) -> Iterator[Media]:  # noqa: ANN401 -- a `Summary.Value` of either package
    """Give what a value of a summary holds; scalars and hyper-parameters are others' to read.

    Args:
        value: A `Summary.Value`; its tag becomes the name.
    """
    kind = value.WhichOneof("value")
    if kind == "tensor":
        read = _PLUGINS.get(value.metadata.plugin_data.plugin_name, _tensor)
        yield from read(value)
    elif kind in _FIELDS:
        yield _FIELDS[kind](value.tag, getattr(value, kind))


def graphs(event: Any) -> Iterator[Media]:  # noqa: ANN401 -- an `Event` of either package
    """Give the graph of a model, or what its run was measured to cost; both as the bytes they are."""
    what = event.WhichOneof("what")
    if what == "graph_def":
        yield Media("graph", "graph", data=event.graph_def, suffix=".pb", fields={"content": "GraphDef"})
    elif what == "tagged_run_metadata":
        held = event.tagged_run_metadata
        fields = {"content": "RunMetadata"}
        yield Media(f"graph/{held.tag}", "graph", data=held.run_metadata, suffix=".pb", fields=fields)


def is_scalar(value: Any) -> bool:  # noqa: ANN401 -- as above
    """Tell whether a tensor is a single number in the newer way of writing scalars."""
    return bool(value.metadata.plugin_data.plugin_name == "scalars")


def scalar(value: Any) -> float:  # noqa: ANN401 -- as above
    """Return the number of such a tensor, in double precision where it is held so."""
    held = tensors.array(value.tensor)
    if held is None or held.size != 1:
        message = f"{value.tag!r} is marked as a scalar, but is a tensor of type {value.tensor.dtype}."
        raise ValueError(message)
    return float(held.reshape(-1)[0])


def hyperparameters(value: Any) -> Mapping[str, object]:  # noqa: ANN401 -- as above
    """Return the hyper-parameters in the value that begins a session; nothing for the other values of the plugin."""
    said = _message(value, "hparams").FromString(value.metadata.plugin_data.content)
    if said.WhichOneof("data") != "session_start_info":
        return {}
    held = said.session_start_info.hparams
    return {name: _plain(held[name]) for name in sorted(held)}


def _plain(value: Any) -> object:  # noqa: ANN401 -- a `google.protobuf.Value`
    """Return a number, a text or a truth; lists and the like as text."""
    kind = value.WhichOneof("kind")
    return getattr(value, kind) if kind in {"number_value", "string_value", "bool_value"} else None


def _message(value: Any, plugin: str) -> Any:  # noqa: ANN401 -- as above
    """Return the class of a plugin's own message, in the package that wrote the value; it is loaded by then."""
    theirs, of_x, name = _MESSAGES[plugin]
    is_x = type(value).__module__.startswith("tensorboardX.")
    return getattr(import_module(f"tensorboardX.proto.{of_x}" if is_x else f"tensorboard.{theirs}"), name)


def _histogram(tag: str, histogram: Any) -> Media:  # noqa: ANN401 -- as above
    """Return a histogram with its buckets as given."""
    fields = {
        "limits": list(histogram.bucket_limit),
        "counts": list(histogram.bucket),
        "min": histogram.min,
        "max": histogram.max,
        "num": histogram.num,
        "sum": histogram.sum,
        "sum_squares": histogram.sum_squares,
    }
    return Media(tag, "histogram", fields=fields)


def _picture(tag: str, image: Any) -> Media:  # noqa: ANN401 -- as above
    """Return a picture; what moves comes as a picture too, encoded as GIF."""
    fields = {"width": image.width, "height": image.height}
    return _encoded(tag, image.encoded_image_string, fields)


def _encoded(tag: str, data: bytes, fields: Mapping[str, object]) -> Media:
    """Return encoded bytes as what their beginning says they are."""
    suffix = next((suffix for begin, suffix in _PICTURES if data.startswith(begin)), ".bin")
    return Media(tag, "video" if suffix == ".gif" else "image", data=data, suffix=suffix, fields=fields)


def _sound(tag: str, audio: Any) -> Media:  # noqa: ANN401 -- as above
    """Return a sound."""
    fields = {"sample_rate": audio.sample_rate, "channels": audio.num_channels, "frames": audio.length_frames}
    suffix = _SUFFIXES.get(audio.content_type, ".bin")
    return Media(tag, "audio", data=audio.encoded_audio_string, suffix=suffix, fields=fields)


#: Kinds of values with a field of their own.
_FIELDS: dict[str, Callable[[str, Any], Media]] = {"histo": _histogram, "image": _picture, "audio": _sound}


def _tensor(value: Any) -> Iterator[Media]:  # noqa: ANN401 -- as above
    """Give a tensor as an array file; one of texts as texts."""
    if value.tensor.dtype == tensors.STRINGS:
        yield from _texts(value)
        return
    yield _array(value.tag, "tensor", value.tensor, {})


def _array(name: str, kind: str, tensor: Any, fields: Mapping[str, object]) -> Media:  # noqa: ANN401 -- as above
    """Return numbers as an array file; of a type that NumPy does not know, as the message they came in."""
    held = tensors.array(tensor)
    if held is None:
        said = {**fields, "content": "TensorProto"}
        return Media(name, kind, data=tensor.SerializeToString(), suffix=".pb", fields=said)
    said = {**fields, "shape": list(held.shape), "dtype": held.dtype.name}
    return Media(name, kind, data=tensors.file_of(held), suffix=".npy", fields=said)


def _texts(value: Any) -> Iterator[Media]:  # noqa: ANN401 -- as above
    """Give a text; several under the same tag are numbered."""
    name = value.tag.removesuffix("/text_summary")
    held = value.tensor.string_val
    for at, text in enumerate(held):
        yield Media(name if len(held) == 1 else f"{name}/{at}", "text", data=text, suffix=".md")


def _pictures(value: Any) -> Iterator[Media]:  # noqa: ANN401 -- as above
    """Give the pictures of the newer way of writing them: width, height, then each one encoded."""
    width, height, *held = value.tensor.string_val
    for at, data in enumerate(held):
        fields = {"width": int(width), "height": int(height)}
        yield _encoded(value.tag if len(held) == 1 else f"{value.tag}/{at}", data, fields)


def _pr_curve(value: Any) -> Iterator[Media]:  # noqa: ANN401 -- as above
    """Give a precision-recall curve as its six rows."""
    rows = tensors.array(value.tensor)
    fields = {} if rows is None else dict(zip(_CURVES, rows.tolist(), strict=False))
    yield Media(value.tag, "pr_curve", fields=fields)


def _mesh(value: Any) -> Iterator[Media]:  # noqa: ANN401 -- as above
    """Give one part of a mesh or a cloud of points: its vertices, its faces or its colours."""
    said = _message(value, "mesh").FromString(value.metadata.plugin_data.content)
    part = _MESH_PARTS.get(said.content_type, str(said.content_type))
    fields = {"part": part, "config": json.loads(said.json_config or "{}")}
    yield _array(f"{said.name or value.tag}/{part}", "mesh", value.tensor, fields)


def _layout(value: Any) -> Iterator[Media]:  # noqa: ANN401 -- as above
    """Give the layout of custom charts: which tags stand in which chart."""
    data = value.tensor.string_val[0]
    categories = [
        {"title": category.title, "charts": [_chart(chart) for chart in category.chart]}
        for category in _message(value, "custom_scalars").FromString(data).category
    ]
    yield Media("custom_scalars", "layout", data=data, suffix=".pb", fields={"categories": categories})


def _chart(chart: Any) -> Mapping[str, object]:  # noqa: ANN401 -- as above
    """Return one chart of a layout."""
    margins = [{"value": one.value, "lower": one.lower, "upper": one.upper} for one in chart.margin.series]
    return {"title": chart.title, **({"margin": margins} if margins else {"tags": list(chart.multiline.tag)})}


_PLUGINS: dict[str, Callable[[Any], Iterator[Media]]] = {
    "text": _texts,
    "images": _pictures,
    "pr_curves": _pr_curve,
    "mesh": _mesh,
    "custom_scalars": _layout,
}

__all__ = ["graphs", "hyperparameters", "is_scalar", "media", "scalar"]
