"""What Aim keeps beside numbers: text, log lines, distributions, images and sound as its objects, and back.

An object may carry more than its class knows; what Aim has no field for stands there under `tracer`, as JSON.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from tracer.transfer import Histogram, LogLine, Media, Text

#: What Aim plays; anything else is a file.
_SOUND = ("mp3", "wav", "flac")
_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
LINES, RECORDS = "logs", "__log_records"
#: Stands for an empty name, as `NameMap` writes it.
EMPTY = "_x00_"


def text(body: str) -> Any:  # noqa: ANN401 -- an object of Aim's
    """Return a text as Aim's."""
    return import_module("aim").Text(clean(body))


def line(event: LogLine) -> tuple[str, Any]:
    """Return the sequence a line belongs to, and the line: output under `Logs`, records and events under `Messages`."""
    more = {
        name: value
        for name, value in (
            ("kind", event.kind), ("name", event.name), ("level", event.level), ("step", event.step),
            ("fields", dict(event.fields)), ("time", event.time), ("null", event.body is None),
        )
        if value
        or name == "step"
    }  # fmt: skip
    body = clean(event.body or "")
    if event.kind == "line":
        made = import_module("aim.ext.resource.log").LogLine(body)
        sequence = LINES
    else:
        level = _LEVELS.get((event.level or "INFO").upper(), 20)
        record = import_module("aim.sdk.logging").LogRecord
        # Without a place in a file Aim looks for one on our stack.
        made = record(body or clean(event.name or ""), level, event.time / 1e6, (clean(event.name or ""), 0))
        sequence = RECORDS
    made.storage["tracer"] = json.dumps(more, default=str)
    return sequence, made


def read_line(found: Any, time: int, rank: int) -> LogLine:  # noqa: ANN401
    """Return a line that stands in Aim."""
    storage = found.storage
    more = _more(storage)
    if "message" in storage.keys():  # noqa: SIM118 -- a tree of Aim's is no mapping
        names = {value: name for name, value in _LEVELS.items()}
        body, level = str(storage["message"]), names.get(int(storage["log_level"]), "INFO")
        kind, time = "log", round(float(storage["timestamp"]) * 1e6)
    else:
        body, level, kind = str(found.data), None, "line"
    fields, step = more.get("fields"), more.get("step")
    kind = str(more.get("kind", kind))
    named = more.get("name")
    return LogLine(
        kind=kind,
        time=int(more.get("time", time)),
        body=None if more.get("null") else body,
        name=None if named is None else str(named),
        level=more.get("level") if more else level,
        step=None if step is None else int(step),
        fields=fields if isinstance(fields, dict) else {},
        rank=rank,
    )


def distribution(event: Histogram) -> Any:  # noqa: ANN401
    """Return a histogram as Aim's, which knows only bins of one width: the real edges travel with it."""
    counts, edges = np.asarray(event.counts, np.float64), tuple(float(edge) for edge in event.edges)
    made = import_module("aim").Distribution(hist=counts, bin_range=(edges[0], edges[-1]))
    if tuple(made.ranges.tolist()) != edges:
        made.storage["tracer"] = json.dumps({"edges": edges})
    return made


def read_distribution(found: Any, name: str, step: int, time: int, rank: int) -> Histogram:  # noqa: ANN401
    """Return a histogram that stands in Aim."""
    edges = _more(found.storage).get("edges", found.ranges.tolist())
    return Histogram(
        name=name,
        step=step,
        time=time,
        edges=tuple(float(edge) for edge in edges),
        counts=tuple(float(count) for count in found.weights.tolist()),
        rank=rank,
    )


def picture(event: Media, data: bytes) -> Any | None:  # noqa: ANN401
    """Return an image or a sound as Aim's object with our bytes in it, or None where Aim has none for it."""
    aim = import_module("aim")
    if event.kind == "audio" and event.suffix.lstrip(".").lower() in _SOUND:
        made = aim.Audio(data, format=event.suffix.lstrip(".").lower(), caption=clean(event.caption or ""))
    elif event.kind == "image":
        pillow = import_module("PIL.Image")
        try:
            with pillow.open(io.BytesIO(data)) as opened:
                made = aim.Image(opened, caption=clean(event.caption or ""))
        except (OSError, ValueError, TypeError, SyntaxError, pillow.DecompressionBombError):
            return None
        # It was encoded anew; what was logged is what is kept.
        made.storage["data"] = import_module("aim.storage.types").BLOB(data=data)
    else:
        return None
    made.storage["tracer"] = json.dumps({"suffix": event.suffix, "fields": dict(event.fields)}, default=str)
    return made


def read_picture(found: Any, kind: str, where: Text) -> Media:  # noqa: ANN401
    """Return an image or a sound that stands in Aim; `where` says its name, step, time and rank."""
    more = _more(found.storage)
    shape = str(found.storage["format"]).lower()
    fields = more.get("fields")
    return Media(
        name=where.name,
        kind=kind,
        step=where.step,
        time=where.time,
        data=bytes(found.storage["data"]),
        suffix=str(more.get("suffix") or f".{shape}"),
        caption=str(found.storage["caption"]) or None,
        fields=fields if isinstance(fields, dict) else {},
        rank=where.rank,
    )


def clean(body: str) -> str:
    """Return a text that UTF-8 can hold: half of a surrogate pair is written out."""
    return body.encode("utf-8", "backslashreplace").decode()


def plain(value: object) -> object:
    """Return a value as Aim takes it: JSON, whole numbers of 64 bits, floats of any kind."""
    if isinstance(value, Mapping):
        # An empty name comes back as a number.
        return {clean(str(name)) or EMPTY: plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, bool) or value is None or isinstance(value, float):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    return clean(str(value))


def _more(storage: Any) -> Mapping[str, Any]:  # noqa: ANN401
    """Return what we wrote beside an object of Aim's."""
    try:
        told = json.loads(storage["tracer"])
    except (KeyError, TypeError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
