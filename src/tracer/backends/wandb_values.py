"""What travels, as W&B's rows and data types."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tracer import transfer
from tracer.backends.base import Rejected
from tracer.backends.names import NameMap, ranked

if TYPE_CHECKING:
    from tracer.backends.wandb_kept import Kept

STEP = "tracer_step"
_MOST_BUCKETS = 512
_VIDEO = ("gif", "mp4", "webm", "ogg")
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp")

Key = tuple[object, ...]


def number_rows(
    points: Iterable[transfer.Points], names: NameMap, kept: Kept
) -> Iterator[tuple[list[Key], dict[str, object]]]:
    """Yield what W&B does not have yet: the keys of a row's values, and the row."""
    for step, time, rank, values in transfer.rows(points):
        row: dict[str, object] = {}
        keys: list[Key] = []
        for name, value in values.items():
            sent = ranked(names.sent(name), rank)
            key = (sent, step, time, value.hex())
            if kept.is_new(key):
                keys.append(key)
                row[sent] = value
        if row:
            row |= {STEP: step, "_timestamp": time / 1e6}
            if rank:
                row["tracer_rank"] = rank
            yield keys, row


def chart_value(event: transfer.Text | transfer.Media | transfer.Histogram, name: str, run: Any) -> object:  # noqa: ANN401 -- their class
    """Return what W&B logs for a text, a histogram or a medium; what it cannot show becomes a file of the run."""
    if isinstance(event, transfer.Text):
        return event.body
    if isinstance(event, transfer.Histogram):
        return histogram(event.edges, event.counts)
    if event.kind == "histogram":
        limits, counts = event.fields.get("limits"), event.fields.get("counts")
        if isinstance(limits, (list, tuple)) and isinstance(counts, (list, tuple)) and len(limits) == len(counts) + 1:
            return histogram(limits, counts)
    return _medium(event, name, run)


def histogram(edges: Iterable[Any], counts: Iterable[Any]) -> object:
    """Return W&B's histogram; it takes 512 buckets, so neighbours are added up until they fit."""
    import numpy as np
    import wandb

    limits, amounts = np.asarray(list(edges), np.float64), np.asarray(list(counts), np.float64)
    while len(amounts) > _MOST_BUCKETS:
        if len(amounts) % 2:
            limits, amounts = np.append(limits, limits[-1]), np.append(amounts, 0.0)
        limits, amounts = limits[::2], amounts.reshape(-1, 2).sum(axis=1)
    return wandb.Histogram(np_histogram=(amounts, limits))


def _medium(event: transfer.Media, name: str, run: Any) -> object:  # noqa: ANN401 -- their class
    """Return one of W&B's media, its file copied into the run's folder."""
    if event.kind == "text":
        return _bytes(event).decode("utf-8", "replace")
    if event.kind == "table":
        return _table(event)
    suffix = re.sub(r"[^A-Za-z0-9.]", "", event.suffix or os.path.splitext(event.path or "")[1])
    path = _as_file(event, suffix, os.path.join(str(run.settings.sync_dir), "tmp"))
    return _shown(event, path, suffix.casefold()) or _kept_file(path, f"media/{name}/{event.step}{suffix}", run)


def _shown(event: transfer.Media, path: str, suffix: str) -> object:
    """Return what W&B shows of a file; None for what it has no view of."""
    import wandb

    if event.kind == "image" and suffix in _PICTURES:
        # W&B decodes a picture to learn its size; one that it cannot decode is kept as a file.
        with contextlib.suppress(OSError, SyntaxError, ValueError):
            return wandb.Image(path, caption=event.caption)
    if event.kind == "audio":
        return wandb.Audio(path, caption=event.caption)
    if event.kind == "video" and suffix.lstrip(".") in _VIDEO:
        return wandb.Video(path, caption=event.caption, format=suffix.lstrip("."))  # type: ignore[arg-type]
    if event.kind == "html" and suffix == ".html":
        return wandb.Html(path, inject=False)
    return None


def _kept_file(path: str, wanted: str, run: Any) -> str:  # noqa: ANN401 -- their class
    """Copy a file into the run, and return its place there."""
    import shutil

    base = str(run.dir)
    target = os.path.join(base, *wanted.split("/"))
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(path, target)
    run.save(target, base_path=base, policy="now", glob=False)
    return wanted


def _bytes(event: transfer.Media) -> bytes:
    """Return a medium's bytes."""
    if event.data is not None:
        return event.data
    if event.path is None:
        return json.dumps(dict(event.fields)).encode()
    with open(event.path, "rb") as file:
        return file.read()


def _as_file(event: transfer.Media, suffix: str, folder: str) -> str:
    """Return a file with a medium's bytes and the ending that tells what it is."""
    if event.path is not None and event.path.endswith(suffix):
        return event.path
    os.makedirs(folder, exist_ok=True)
    descriptor, path = tempfile.mkstemp(suffix or ".bin", dir=folder)
    with open(descriptor, "wb") as file:
        file.write(_bytes(event))
    return path


def _table(event: transfer.Media) -> object:
    """Return W&B's table: columns and rows, or one column per key of the objects in a list."""
    import wandb

    try:
        given = json.loads(_bytes(event))
    except ValueError as error:
        message = f"The table {event.name!r} at step {event.step} is no JSON; it was not sent."
        raise Rejected(message) from error
    rows = given.get("rows", given.get("data", ())) if isinstance(given, dict) else given
    if isinstance(given, dict) and not isinstance(rows, list):
        given, rows = {}, [list(given.values())]
    columns = list(given.get("columns", ())) if isinstance(given, dict) else []
    rows = list(rows or ())
    if rows and isinstance(rows[0], dict):
        columns = columns or list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))
        rows = [[row.get(column) for column in columns] if isinstance(row, dict) else row for row in rows]
    rows = [list(row) if isinstance(row, (list, tuple)) else [row] for row in rows]
    width = max([len(columns), *map(len, rows)])
    columns += [str(number) for number in range(len(columns), width)]
    return wandb.Table(
        columns=columns, data=[row + [None] * (width - len(row)) for row in rows], allow_mixed_types=True
    )
