"""What happened in a run as TensorBoard's events: its own messages, encoded, one after the other."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.hparams import metadata as sessions
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from tracer import events
from tracer.backends.tensorboard_values import FACTS_TAG, METRIC_TEXT, NOTES_TAG, TAGS_TAG, WRITER
from tracer.transfer import Histogram, Media, Points, RunInfo, Text

_SECOND = 1_000_000
_DOUBLE, _STRING = 2, 7
_SCALAR, _TENSOR, _BLOB = 1, 2, 3
_SOUND_TYPES = {".wav": "audio/wav", ".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".flac": "audio/flac"}
_CURVES = ("true_positives", "false_positives", "true_negatives", "false_negatives", "precision", "recall")
_ENDS = {events.COMPLETED: 1, events.FAILED: 2, events.CRASHED: 2}

Message = Any


def framed(messages: Iterable[bytes]) -> list[bytes]:
    """Return events as records of a file, lengths and checksums around them."""
    found = []
    for message in messages:
        held = io.BytesIO()
        RecordWriter(held).write(message)
        found.append(held.getvalue())
    return found


def beginning(started: int) -> bytes:
    """Return the event that an event file begins with."""
    event = event_pb2.Event(wall_time=started / _SECOND, file_version="brain.Event:2")
    event.source_metadata.writer = WRITER
    return bytes(event.SerializeToString())


def of_points(tag: str, points: Points) -> Iterator[bytes]:
    """Yield scalars: as a 32-bit value where that is the same number, else as a double tensor."""
    with np.errstate(over="ignore"):
        is_short = (points.values.astype(np.float32) == points.values) | np.isnan(points.values)
    marked = summary_pb2.Summary.Value(tag=tag, metadata=_metadata("scalars", _SCALAR))
    marked.tensor.dtype = _DOUBLE
    marked.tensor.tensor_shape.SetInParent()
    columns = (points.steps.tolist(), points.times.tolist(), points.values.tolist(), is_short.tolist())
    for step, time, number, short in zip(*columns, strict=True):
        if short:
            value = summary_pb2.Summary.Value(tag=tag, simple_value=number)
        else:
            value = summary_pb2.Summary.Value()
            value.CopyFrom(marked)
            value.tensor.double_val.append(number)
        yield _event(value, step, time)


def of_text(tag: str, text: Text) -> bytes:
    """Return a metric's value that is text."""
    return _event(_text(tag, text.body, METRIC_TEXT), text.step, text.time)


def of_histogram(tag: str, histogram: Histogram) -> bytes:
    """Return a histogram: each edge as the right end of a bucket, the first one's empty."""
    edges, counts = np.asarray(histogram.edges, np.float64), np.asarray(histogram.counts, np.float64)
    middles = (edges[1:] + edges[:-1]) / 2
    held = summary_pb2.HistogramProto(
        min=edges[0], max=edges[-1], num=counts.sum(), sum=(middles * counts).sum(),
        sum_squares=(middles * middles * counts).sum(), bucket_limit=edges.tolist(), bucket=[0.0, *counts.tolist()],
    )  # fmt: skip
    return _event(summary_pb2.Summary.Value(tag=tag, histo=held), histogram.step, histogram.time)


def of_media(tag: str, media: Media) -> bytes | None:
    """Return something to look at or listen to, or None where TensorBoard shows nothing of its kind.

    Raises:
        OSError: Its file cannot be read.
    """
    data = media.data
    if data is None and media.path is not None:
        with open(media.path, "rb") as file:
            data = file.read()
    value = _shown(tag, media, data)
    if isinstance(value, bytes):
        event = event_pb2.Event(wall_time=media.time / _SECOND, step=media.step, graph_def=value)
        return bytes(event.SerializeToString())
    if value is None:
        return None
    if media.caption:
        value.metadata.summary_description = media.caption
    return _event(value, media.step, media.time)


def of_facts(info: RunInfo, time: int) -> list[bytes]:
    """Return what is known of a run: for people as notes and tags, for an import as JSON."""
    said: dict[str, object] = {
        "name": info.name, "project": info.project, "run": info.uid, "origin": info.origin, "started": info.started,
        "ended": info.ended, "status": info.status, "steps": info.steps, "group": info.group,
        "job_type": info.job_type, "notes": info.notes, "tags": list(info.tags), "labels": dict(info.labels),
        "params": dict(info.params), "summary": dict(info.summary), "environment": dict(info.environment),
        "git": dict(info.git),
    }  # fmt: skip
    body = json.dumps(said, indent=1, default=str, ensure_ascii=True)
    values = [_text(FACTS_TAG, f"```json\n{body}\n```")]
    if info.notes:
        values.append(_text(NOTES_TAG, info.notes))
    if info.tags or info.labels:
        listed = [*info.tags, *(f"{name}: {value}" for name, value in info.labels.items())]
        values.append(_text(TAGS_TAG, "\n".join(f"* {one}" for one in listed)))
    return [_event(value, 0, time) for value in values]


def session_start(params: Mapping[str, object], started: int) -> bytes:
    """Return the hyper-parameters of a run, as the HParams tab reads them."""
    info = plugin_data_pb2.SessionStartInfo(start_time_secs=started / _SECOND)
    for name, value in _flat(params):
        if isinstance(value, bool):
            info.hparams[name].bool_value = value
        elif isinstance(value, (int, float)) and math.isfinite(value):
            info.hparams[name].number_value = value
        else:
            info.hparams[name].string_value = value if isinstance(value, str) else json.dumps(value, default=str)
    data = plugin_data_pb2.HParamsPluginData(session_start_info=info)
    return _session(sessions.SESSION_START_INFO_TAG, data, started)


def session_end(status: str, ended: int) -> bytes:
    """Return how a session ended."""
    info = plugin_data_pb2.SessionEndInfo(status=_ENDS.get(status, 0), end_time_secs=ended / _SECOND)
    return _session(sessions.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=info), ended)


def _session(tag: str, data: Message, time: int) -> bytes:
    """Return an event of the plugin for hyper-parameters."""
    value = summary_pb2.Summary.Value(tag=tag, metadata=sessions.create_summary_metadata(data))
    value.tensor.CopyFrom(sessions.NULL_TENSOR)
    return _event(value, 0, time)


def _event(value: Message, step: int, time: int) -> bytes:
    """Return an event with one value; the same content makes the same bytes."""
    event = event_pb2.Event(wall_time=time / _SECOND, step=step, summary=summary_pb2.Summary(value=[value]))
    return bytes(event.SerializeToString(deterministic=True))


def _metadata(plugin: str, data_class: int) -> Message:
    """Return what says which plugin shows a value."""
    held = summary_pb2.SummaryMetadata.PluginData(plugin_name=plugin)
    return summary_pb2.SummaryMetadata(plugin_data=held, data_class=data_class)


def _text(tag: str, body: str, description: str = "") -> Message:
    """Return a text."""
    value = summary_pb2.Summary.Value(tag=tag, metadata=_metadata("text", _TENSOR))
    value.metadata.summary_description = description
    value.tensor.dtype = _STRING
    value.tensor.tensor_shape.SetInParent()
    value.tensor.string_val.append(body.encode("utf-8", "replace"))
    return value


def _shown(tag: str, media: Media, data: bytes | None) -> Message | bytes | None:
    """Return the value for a piece of media; bytes for the graph of a model."""
    kind, fields = media.kind, media.fields
    value = summary_pb2.Summary.Value(tag=tag)
    if kind in {"image", "video"} and data is not None and (kind == "image" or media.suffix == ".gif"):
        width, height = _size(data, fields)
        value.image.CopyFrom(
            summary_pb2.Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=data)
        )
    elif kind == "audio" and data is not None:
        value.audio.CopyFrom(summary_pb2.Summary.Audio(
            sample_rate=_number(fields, "sample_rate"), num_channels=int(_number(fields, "channels")),
            length_frames=int(_number(fields, "frames")), encoded_audio_string=data,
            content_type=_SOUND_TYPES.get(media.suffix, "audio/wav"),
        ))  # fmt: skip
    elif kind in {"text", "html", "table"}:
        body = data.decode("utf-8", "replace") if data is not None else _fenced(fields)
        return _text(tag, body if kind != "table" or data is None else f"```\n{body}\n```")
    elif kind == "tensor" and media.suffix == ".npy" and data is not None:
        held = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        value.tensor.CopyFrom(tensor_util.make_tensor_proto(held))
    elif kind == "histogram" and fields.get("limits") and fields.get("counts"):
        numbers = {name: _number(fields, name) for name in ("min", "max", "num", "sum", "sum_squares")}
        buckets = {"bucket_limit": fields["limits"], "bucket": fields["counts"]}
        value.histo.CopyFrom(summary_pb2.HistogramProto(**numbers, **buckets))
    elif kind == "pr_curve" and all(name in fields for name in _CURVES):
        value.tensor.CopyFrom(tensor_util.make_tensor_proto(np.array([fields[name] for name in _CURVES], np.float32)))
        value.metadata.CopyFrom(_metadata("pr_curves", _TENSOR))
    elif kind == "graph" and data is not None and fields.get("content", "GraphDef") == "GraphDef":
        return data
    else:
        return None
    return value


def _size(data: bytes, fields: Mapping[str, object]) -> tuple[int, int]:
    """Return width and height of a picture: as they were given, else as a PNG or GIF says them, else 0."""
    if "width" in fields and "height" in fields:
        return int(_number(fields, "width")), int(_number(fields, "height"))
    if data.startswith(b"\x89PNG") and len(data) >= 24:  # noqa: PLR2004 -- where the header ends
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data.startswith(b"GIF8"):
        return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    return 0, 0


def _number(fields: Mapping[str, object], name: str) -> float:
    """Return a number among what was said of a piece of media."""
    value = fields.get(name)
    return float(value) if isinstance(value, (int, float)) else 0.0


def _fenced(fields: Mapping[str, object]) -> str:
    """Return small data as text."""
    return f"```json\n{json.dumps(dict(fields), indent=1, default=str)}\n```"


def _flat(params: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    """Yield parameters by their full names."""
    for name, value in params.items():
        full = f"{above}{name}"
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{full}/")
        else:
            yield full, value


__all__ = [
    "beginning", "framed", "of_facts", "of_histogram", "of_media", "of_points", "of_text", "session_end",
    "session_start",
]  # fmt: skip
