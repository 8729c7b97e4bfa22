"""What can be given to `wandb.log`, told apart: numbers and texts, and media with their bytes.

Their classes are known by name, so the same serves `tracer.compat.wandb`, and nothing of theirs is imported.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

#: Rows of a table that are kept; a longer one says how many it had.
_MAX_ROWS = 10_000
_PLAIN = frozenset({float, int})
#: Their class → what it is to us.
_KINDS = {
    "Image": "image", "Video": "video", "Audio": "audio", "Html": "html", "Plotly": "html", "Molecule": "mesh",
    "Object3D": "mesh",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Medium:
    """One thing to look at: its kind, its bytes, what is small beside them."""

    kind: str
    data: bytes | None = None
    suffix: str = ""
    caption: str | None = None
    fields: Mapping[str, object] = field(default_factory=dict)


def split(data: Mapping[str, Any], prefix: str) -> tuple[dict[str, object], list[tuple[str, Medium]]]:
    """Return the numbers and texts of one call by name, and its media.

    Args:
        data: What `log` was given; nested dictionaries are parted by `/`.
        prefix: What stands before each name.

    Example:
        >>> split({"loss": 0.5, "eval": {"accuracy": 0.9}}, "")
        ({'loss': 0.5, 'eval/accuracy': 0.9}, [])
    """
    if not prefix and _PLAIN.issuperset(map(type, data.values())):
        return dict(data), []  # nearly every call
    values: dict[str, object] = {}
    media: list[tuple[str, Medium]] = []
    for name, value in _flat(data, prefix):
        found = list(_media(value))
        media += [(name if len(found) == 1 else f"{name}/{number}", one) for number, one in enumerate(found)]
        if not found:
            values[name] = value if _is_plain(value) else str(value)
    return values, media


def _flat(data: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield name and value of everything, however deep it lies."""
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _is_plain(value: object) -> bool:
    """Tell whether a run records such a value as it is: numbers of all kinds, text, nothing."""
    return value is None or isinstance(value, (bool, int, float, str)) or hasattr(value, "__float__")


def _media(value: Any) -> Iterator[Medium]:  # noqa: ANN401 -- whatever was given
    """Yield the media that a value is or holds; none when it is a plain one."""
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from _media(one)
        return
    name = type(value).__name__
    if isinstance(found := getattr(value, "medium", None), MethodType):  # ours: see `tracer.compat.media`
        yield found()
    elif name == "Histogram" and hasattr(value, "bins"):
        counts, limits = [float(count) for count in value.histogram], [float(limit) for limit in value.bins]
        yield Medium("histogram", fields={"limits": limits, "counts": counts})
    elif name == "Table" and hasattr(value, "columns"):
        rows = [list(map(_cell, row)) for row in value.data[:_MAX_ROWS]]
        table = {"columns": [str(column) for column in value.columns], "rows": rows}
        yield Medium("table", json.dumps(table).encode(), ".json", fields={"rows": len(value.data)})
    elif name in _KINDS:
        path = getattr(value, "_path", None)
        if path and os.path.isfile(path):
            with open(path, "rb") as file:
                data = file.read()
            caption = getattr(value, "_caption", None)
            yield Medium(_KINDS[name], data, os.path.splitext(path)[1], str(caption) if caption else None)


def _cell(value: object) -> object:
    """Return a cell of a table as JSON holds it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return float(value) if hasattr(value, "__float__") else str(value)


__all__ = ["Medium", "split"]
