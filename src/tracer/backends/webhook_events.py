"""What a webhook is told of each kind of event: our own values in plain JSON, times in microseconds since 1970."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import fields

from tracer.backends.otlp_values import double
from tracer.transfer import Event, File, LayerPoints, Media, Points, RunInfo

_DEEPEST = 16


def told(event: Event, media_bytes: int) -> dict[str, object]:
    """Return an event with its kind first.

    Args:
        event: What happened.
        media_bytes: Media up to this size bring their bytes.
    """
    if isinstance(event, RunInfo):
        return facts(event)
    if isinstance(event, Points):
        return _points(event)
    if isinstance(event, Media):
        return _media(event, media_bytes)
    known: dict[str, object] = {"kind": event.KIND}
    for one in fields(event):
        name = f"{event.KIND}_kind" if one.name == "kind" else one.name
        known[name] = plain(getattr(event, one.name))
    if isinstance(event, File):
        # Where the files lie on this machine is no one else's affair.
        known["parts"] = [{"path": part.path, "size": part.size, "sha256": part.digest} for part in event.parts]
    return known


def facts(run: RunInfo) -> dict[str, object]:
    """Return what is known of a run."""
    return {"kind": run.KIND} | {one.name: plain(getattr(run, one.name)) for one in fields(run)}


def _points(series: Points) -> dict[str, object]:
    return {
        "kind": "layer" if isinstance(series, LayerPoints) else "points",
        "name": series.name,
        "rank": series.rank,
        "steps": series.steps.tolist(),
        "times": series.times.tolist(),
        "values": [plain(value) for value in series.values.tolist()],
    }


def _media(event: Media, media_bytes: int) -> dict[str, object]:
    data = event.data
    size = len(data) if data is not None else _size(event.path)
    if data is None and event.path is not None and size <= media_bytes:
        try:
            with open(event.path, "rb") as file:
                data = file.read(media_bytes)
        except OSError:  # it was removed meanwhile: what is known of it is still told
            data = None
    known: dict[str, object] = {
        "kind": "media", "media_kind": event.kind, "name": event.name, "step": event.step, "time": event.time,
        "rank": event.rank, "suffix": event.suffix, "caption": plain(event.caption), "size": size,
        "fields": plain(event.fields),
    }  # fmt: skip
    if data is not None and len(data) <= media_bytes:
        known["base64"] = base64.b64encode(data).decode("ascii")
    return known


def _size(path: str | None) -> int:
    try:
        return os.stat(path).st_size if path else 0
    except OSError:
        return 0


def plain(value: object, depth: int = 0) -> object:
    """Return a value as JSON can say it exactly; what it cannot becomes text."""
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        return double(value)
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {str(name): plain(one, depth + 1) for name, one in value.items()}
    if depth < _DEEPEST and isinstance(value, (list, tuple)):
        return [plain(one, depth + 1) for one in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value)
