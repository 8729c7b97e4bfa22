"""What trackio keeps that is no number, as our events; and its words, times and names as ours."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tracer.backends.trackio_values import WORDS, parted
from tracer.transfer import Histogram, Media, Text

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Its kinds of media → ours.
_FILES = {"image": "image", "video": "video", "audio": "audio", "html": "html", "object3d": "mesh"}


def other(media: Path, key: tuple[str, int], place: tuple[int, int], value: object) -> Text | Histogram | Media | None:
    """Return the event that a value of a row is which is no number; None for a number.

    Args:
        media: The folder below which its files lie.
        key: Metric and rank.
        place: Step and time.
        value: What stands in the row.

    Raises:
        ValueError: It is of no kind that we know, or its file is missing.
    """
    (name, rank), (step, time) = key, place
    if isinstance(value, str):
        return None if value in WORDS else Text(name, step, time, value, rank)
    if value is None or isinstance(value, (bool, int, float)):
        return None
    told = value if isinstance(value, dict) else {}
    kind = str(told.get("_type", "")).removeprefix("trackio.")
    if kind == "markdown":
        return Text(name, step, time, str(told.get("_value", "")), rank)
    if kind == "histogram":
        edges, counts = _numbers(told.get("bins")), _numbers(told.get("values"))
        if len(edges) == len(counts) + 1:
            return Histogram(name, step, time, edges, counts, rank)
    if kind == "table":
        data = json.dumps(told.get("_value")).encode()
        return Media(name, "table", step, time, data=data, suffix=".json", rank=rank)
    path = _inside(media, str(told.get("file_path") or "")) if kind in _FILES else None
    if path is None:
        message = f"a value of kind {kind!r}, or its file is missing"
        raise ValueError(message)
    caption = told.get("caption")
    about = None if caption is None else str(caption)
    return Media(name, _FILES[kind], step, time, str(path), suffix=path.suffix, caption=about, rank=rank)


def when(told: str) -> int:
    """Return our time for one of trackio's; one that cannot be read is 0."""
    try:
        moment = datetime.fromisoformat(told)
    except ValueError:
        return 0
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=1)


def number(value: object) -> object:
    """Return the number behind trackio's words for it, and every other value as it is."""
    return WORDS.get(value, value) if isinstance(value, str) else value


def named(name: str, names: Mapping[str, object] | None) -> tuple[str, int]:
    """Return metric and rank of a name of a run of ours; names of others are nothing but names."""
    return (name, 0) if names is None else parted(str(names.get(name, name)))


def _numbers(told: object) -> tuple[float, ...]:
    return tuple(float(str(number(one))) for one in told) if isinstance(told, list) else ()


def _inside(folder: Path, path: str) -> Path | None:
    """Return a file below a folder; None where it is missing or would lie outside."""
    whole = Path(os.path.realpath(folder / path))
    return whole if path and whole.is_relative_to(os.path.realpath(folder)) and whole.is_file() else None
