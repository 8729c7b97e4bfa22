"""What TensorBoard's events other than plain scalars hold, as it travels: encoded bytes stay as they came."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tracer.plugins import missing
from tracer.transfer import Event, Histogram, Media, Text

try:
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.plugins.hparams import plugin_data_pb2
    from tensorboard.util import tensor_util
except ModuleNotFoundError as error:
    package = "tensorboard"
    raise missing(package, extra=package, purpose="Reading TensorBoard's event files") from error

#: Who wrote a file, and the tag under which a run's facts stand, where it was Tracer.
WRITER, FACTS_TAG, METRIC_TEXT = "tracer", "tracer/run", "The value of a metric that is text."
#: The same facts for people, under tags of their own.
NOTES_TAG, TAGS_TAG = "tracer/notes", "tracer/tags"
_SCALARS, _SESSION = "scalars", "_hparams_/"
_FLOAT, _DOUBLE, _STRINGS = 1, 2, 7
_LARGEST = np.finfo(np.float64).max
_PICTURES = ((b"\x89PNG", ".png"), (b"GIF8", ".gif"), (b"\xff\xd8", ".jpg"), (b"BM", ".bmp"))
_SOUNDS = ((b"RIFF", ".wav"), (b"OggS", ".ogg"), (b"fLaC", ".flac"), (b"ID3", ".mp3"))
_CURVES = ("true_positives", "false_positives", "true_negatives", "false_negatives", "precision", "recall")
_MICROSECONDS = 1_000_000
#: The last second of the year 9999.
_LAST = 253_402_300_799.0
_PAIR, _BUCKET = 2, 3
_BROKEN = (ValueError, TypeError, KeyError, IndexError, DecodeError, OverflowError, NotImplementedError)

Message = Any


def parsed(data: bytes) -> Message | None:
    """Return an event, or None where the bytes are none."""
    try:
        return event_pb2.Event.FromString(data)
    except (DecodeError, UnicodeDecodeError):
        return None


def is_restart(event: Message) -> bool:
    """Tell whether a program began anew at a step: what it wrote of later steps before does not count."""
    return bool(event.WhichOneof("what") == "session_log" and event.session_log.status == event.session_log.START)


class Said:
    """What events say of the run as a whole, and which plugin a tag belongs to, which only its first one tells."""

    def __init__(self) -> None:
        self.params: dict[str, object] = {}
        self.facts: dict[str, object] = {}
        self.status: str | None = None
        self.is_session = self.is_ours = False
        self._plugins: dict[str, str] = {}

    def hear(self, event: Message) -> bool:
        """Take in what an event says of the run; tell whether it holds something else that travels."""
        if event.source_metadata.writer == WRITER:
            self.is_ours = True
        return event.WhichOneof("what") in {"graph_def", "tagged_run_metadata"}

    def plugin(self, value: Message) -> str:
        """Return which plugin a value belongs to."""
        name = str(value.metadata.plugin_data.plugin_name)
        return self._plugins.setdefault(value.tag, name) if name else self._plugins.get(value.tag, "")

    def number(self, value: Message) -> float | None:
        """Return a scalar, however it is held, or None for anything else."""
        kind = value.WhichOneof("value")
        if kind == "simple_value":
            return float(value.simple_value)
        if kind != "tensor" or (self.plugin(value) != _SCALARS and value.metadata.data_class != 1):
            return None
        held = _array(value.tensor)
        return float(held.reshape(-1)[0]) if held is not None and held.size == 1 and held.dtype.kind in "fiub" else None

    def scalar(self, data: bytes) -> tuple[float, str] | None:
        """Return the number in the bytes of a marked scalar of 32 or 64 bits, and how it is packed."""
        try:
            value = summary_pb2.Summary.Value.FromString(data)
        except (DecodeError, UnicodeDecodeError):
            return None
        packed = {_FLOAT: "<f", _DOUBLE: "<d"}.get(value.tensor.dtype)
        if packed is None or value.metadata.plugin_data.plugin_name != _SCALARS:
            return None
        number = self.number(value)
        return None if number is None else (number, packed)

    def is_known(self, value: Message) -> bool:
        """Take in what a value says of the run; tell whether that is all it holds."""
        if value.tag.startswith(_SESSION) and self.plugin(value) == "hparams":
            self._session(value.metadata.plugin_data.content)
            return True
        if value.tag == FACTS_TAG and self.is_ours:
            try:
                found = json.loads(value.tensor.string_val[0].decode().strip().removeprefix("```json").rstrip("`"))
            except (ValueError, IndexError, RecursionError):
                return False
            self.facts |= found if isinstance(found, dict) else {}
            return True
        self.plugin(value)
        return self.is_fact(value.tag)

    def is_fact(self, tag: str) -> bool:
        """Tell whether a tag holds facts of the run, not something that happened in it."""
        return tag.startswith(_SESSION) or (self.is_ours and tag in {FACTS_TAG, NOTES_TAG, TAGS_TAG})

    def _session(self, content: bytes) -> None:
        """Take in hyper-parameters, or how a session ended."""
        try:
            data = plugin_data_pb2.HParamsPluginData.FromString(content)
        except (DecodeError, UnicodeDecodeError):
            return
        if data.WhichOneof("data") == "session_start_info":
            self.is_session = True
            held = data.session_start_info.hparams
            self.params |= {name: _plain(held[name]) for name in sorted(held)}
        elif data.WhichOneof("data") == "session_end_info":
            self.status = {1: "completed", 2: "failed", 3: "running"}.get(data.session_end_info.status)


def events(data: bytes, said: Said, notes: list[str]) -> Iterator[Event]:
    """Yield what an event holds besides scalars and facts of the run; what cannot be read is noted."""
    event = parsed(data)
    if event is None:
        return
    time = _time(event.wall_time)
    what = event.WhichOneof("what")
    if what == "graph_def":
        yield Media(
            "graph", "graph", event.step, time, data=event.graph_def, suffix=".pb", fields={"content": "GraphDef"}
        )
    elif what == "tagged_run_metadata":
        held = event.tagged_run_metadata
        fields = {"content": "RunMetadata"}
        yield Media(f"graph/{held.tag}", "graph", event.step, time, data=held.run_metadata, suffix=".pb", fields=fields)
    for value in event.summary.value if what == "summary" else ():
        if said.number(value) is not None or said.is_fact(value.tag):
            continue
        try:
            yield from _value(value, said.plugin(value), event.step, time)
        except _BROKEN as error:
            notes.append(f"{value.tag!r} of step {event.step} cannot be read ({error}); it is left out.")


def _value(value: Message, plugin: str, step: int, time: int) -> Iterator[Event]:
    """Yield what one value holds."""
    kind, tag = value.WhichOneof("value"), value.tag
    caption = value.metadata.summary_description or None
    if kind == "histo":
        yield _histogram(tag, value.histo, step, time)
    elif kind == "image":
        fields = {"width": value.image.width, "height": value.image.height}
        yield replace(_picture(tag, value.image.encoded_image_string, step, time, fields), caption=caption)
    elif kind == "audio":
        sound = value.audio
        fields = {"sample_rate": sound.sample_rate, "channels": sound.num_channels, "frames": sound.length_frames}
        yield replace(_sound(tag, sound.encoded_audio_string, step, time, fields), caption=caption)
    elif kind == "tensor":
        yield from _PLUGINS.get(plugin, _tensor)(value, step, time)


def _texts(value: Message, step: int, time: int) -> Iterator[Event]:
    """Yield texts; several of one tag are numbered."""
    held = list(value.tensor.string_val)
    name = value.tag.removesuffix("/text_summary")
    for at, text in enumerate(held):
        full = name if len(held) == 1 else f"{name}/{at}"
        if value.metadata.summary_description == METRIC_TEXT:
            yield Text(full, step, time, text.decode("utf-8", "replace"))
        else:
            yield Media(full, "text", step, time, data=text, suffix=".md")


def _pictures(value: Message, step: int, time: int) -> Iterator[Event]:
    """Yield pictures of the newer way: width, height, then each one encoded."""
    width, height, *held = value.tensor.string_val
    for at, data in enumerate(held):
        name = value.tag if len(held) == 1 else f"{value.tag}/{at}"
        yield _picture(name, data, step, time, {"width": int(width), "height": int(height)})


def _sounds(value: Message, step: int, time: int) -> Iterator[Event]:
    """Yield sounds of the newer way: each one encoded, with its label."""
    held = value.tensor.string_val[:: _PAIR if len(value.tensor.tensor_shape.dim) == _PAIR else 1]
    for at, data in enumerate(held):
        yield _sound(value.tag if len(held) == 1 else f"{value.tag}/{at}", data, step, time, {})


def _buckets(value: Message, step: int, time: int) -> Iterator[Event]:
    """Yield a histogram of the newer way: rows of left edge, right edge, count."""
    rows = _array(value.tensor)
    if (
        rows is None or rows.ndim != _PAIR or rows.shape[1] != _BUCKET or not len(rows)
    ):  # no histogram, or one of nothing
        return
    edges = [*rows[:, 0].tolist(), float(rows[-1, 1])]
    yield Histogram(value.tag, step, time, tuple(edges), tuple(rows[:, 2].tolist()))


def _curve(value: Message, step: int, time: int) -> Iterator[Event]:
    """Yield a precision-recall curve as its six rows."""
    rows = _array(value.tensor)
    fields = {} if rows is None else dict(zip(_CURVES, rows.tolist(), strict=False))
    yield Media(value.tag, "pr_curve", step, time, fields=fields)


def _layout(value: Message, step: int, time: int) -> Iterator[Event]:
    """Yield the layout of custom charts."""
    yield Media("custom_scalars", "layout", step, time, data=value.tensor.string_val[0], suffix=".pb")


def _tensor(value: Message, step: int, time: int) -> Iterator[Event]:
    """Yield a tensor as an array file; one of texts as texts."""
    if value.tensor.dtype == _STRINGS:
        yield from _texts(value, step, time)
        return
    held = _array(value.tensor)
    if held is None:
        data, fields = value.tensor.SerializeToString(), {"content": "TensorProto"}
        yield Media(value.tag, "tensor", step, time, data=data, suffix=".pb", fields=fields)
        return
    file = io.BytesIO()
    np.lib.format.write_array(file, held, allow_pickle=False)
    said = {"shape": list(held.shape), "dtype": held.dtype.name}
    yield Media(value.tag, "tensor", step, time, data=file.getvalue(), suffix=".npy", fields=said)


_PLUGINS: Mapping[str, Callable[[Message, int, int], Iterator[Event]]] = {
    "text": _texts, "images": _pictures, "audio": _sounds, "histograms": _buckets, "pr_curves": _curve,
    "custom_scalars": _layout,
}  # fmt: skip


def _histogram(tag: str, held: Message, step: int, time: int) -> Histogram:
    """Return a histogram of the older way: a bucket's right edge each; the first has no left one."""
    limits, counts = list(held.bucket_limit), list(held.bucket)
    if len(limits) != len(counts) or not limits:
        message = f"{len(limits)} edges for {len(counts)} buckets"
        raise ValueError(message)
    if limits[-1] >= _LARGEST:
        limits[-1] = max(held.max, limits[-2]) if len(limits) > 1 else held.max
    if counts[0] or len(limits) == 1:
        return Histogram(tag, step, time, (min(held.min, limits[0]), *limits), tuple(counts))
    return Histogram(tag, step, time, tuple(limits), tuple(counts[1:]))


def _picture(tag: str, data: bytes, step: int, time: int, fields: Mapping[str, object]) -> Media:
    """Return encoded bytes as what their beginning says they are; what moves is a video."""
    suffix = next((suffix for begin, suffix in _PICTURES if data.startswith(begin)), ".bin")
    return Media(tag, "video" if suffix == ".gif" else "image", step, time, data=data, suffix=suffix, fields=fields)


def _sound(tag: str, data: bytes, step: int, time: int, fields: Mapping[str, object]) -> Media:
    """Return a sound."""
    suffix = next((suffix for begin, suffix in _SOUNDS if data.startswith(begin)), ".bin")
    return Media(tag, "audio", step, time, data=data, suffix=suffix, fields=fields)


def _array(tensor: Message) -> np.ndarray[Any, Any] | None:
    """Return a tensor of numbers, or None where it is none that NumPy holds or lies about its size."""
    if tensor.dtype == _STRINGS:
        return None
    size = 1
    for dimension in tensor.tensor_shape.dim:
        size *= max(dimension.size, 0)
    if size > 16 * len(tensor.tensor_content) + 1 and size > 2 * tensor.ByteSize() + 1:
        return None  # one value may stand for all that follow: a few bytes that ask for any amount of memory
    try:
        found: np.ndarray[Any, Any] = tensor_util.make_ndarray(tensor)
    except _BROKEN:
        return None
    return found


def _plain(value: Message) -> object:
    """Return a number, a text or a truth."""
    kind = value.WhichOneof("kind")
    return getattr(value, kind) if kind in {"number_value", "string_value", "bool_value"} else None


def _time(seconds: float) -> int:
    """Return seconds as whole microseconds."""
    return round(seconds * _MICROSECONDS) if 0 <= seconds <= _LAST else 0


__all__ = ["FACTS_TAG", "METRIC_TEXT", "NOTES_TAG", "TAGS_TAG", "WRITER", "Said", "events", "is_restart", "parsed"]
