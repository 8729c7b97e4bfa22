"""Our values as OTLP's JSON says them: 64-bit numbers are decimal text, NaN and infinities words, enums integers.

The rules are those of protobuf's JSON, but for ids of traces and spans, which OTLP writes in hexadecimal.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping

from tracer.transfer import RunInfo
from tracer.version import __version__

#: A JSON value of OTLP.
Json = dict[str, object]

_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
_DEEPEST = 16


def any_value(value: object, depth: int = 0) -> Json:
    """Return a value of an attribute or a body.

    Example:
        >>> any_value({"lr": 0.1, "layers": 3})["kvlistValue"]["values"][1]
        {'key': 'layers', 'value': {'intValue': '3'}}
        >>> any_value(float("-inf"))
        {'doubleValue': '-Infinity'}
    """
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int) and _SMALLEST <= value <= _LARGEST:  # what is larger is told as text rather than cut
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": double(value)}
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {"kvlistValue": {"values": attributes(value, depth + 1)}}
    if depth < _DEEPEST and isinstance(value, (list, tuple)):
        return {"arrayValue": {"values": [any_value(one, depth + 1) for one in value]}}
    return {"stringValue": text(base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else str(value))}


def attributes(values: Mapping[str, object], depth: int = 0) -> list[Json]:
    """Return attributes; those without a value are left out."""
    return [
        {"key": text(str(name)), "value": any_value(value, depth)}
        for name, value in values.items()
        if value is not None
    ]


def double(value: float) -> float | str:
    """Return a number, or the word that JSON has instead of one."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def nanoseconds(time: int) -> str:
    """Return one of our times in OTLP's unit, which knows none before 1970."""
    return str(max(time, 0) * 1000)


def text(told: str) -> str:
    """Return text that UTF-8 can say: half of a surrogate pair, as a broken file name has, cannot be sent."""
    return told.encode("utf-8", "replace").decode("utf-8")


def resource(run: RunInfo, more: Mapping[str, object] | None = None) -> Json:
    """Return what every signal of a run is said to come from.

    Args:
        run: The run.
        more: Further attributes; they win.
    """
    known = {
        "service.name": run.project,
        "service.instance.id": run.uid,
        "tracer.run.id": run.uid,
        "tracer.run.name": run.name,
        "tracer.project": run.project,
        "tracer.run.group": run.group,
        "tracer.run.job_type": run.job_type,
        "host.name": run.environment.get("hostname"),
        "tracer.origin": run.origin or None,
    }
    return {"attributes": attributes({**known, **(more or {})})}


def scope() -> Json:
    """Return who says it."""
    return {"name": "tracer", "version": __version__}
