"""What happened in a run as ClearML's API calls it, and back: one dictionary per event, as `events.add_batch` takes it.

A name `a/b` is the series `b` under the title `a`. What the API has no event for goes into the task's console as a line
that begins with `tracer.` and goes on as JSON; nothing there is shown as something it is not.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tracer.backends.names import NameMap, ranked
from tracer.transfer import Histogram, LogLine, Media, Points, Text

SCALAR, PLOT, SAMPLE, LOG = "training_stats_scalar", "plot", "training_debug_image", "log"
#: Stands before a series that is called like its title, which otherwise is how a name without a slash looks.
_DOUBLED = "_x2f_"
#: How a name of another rank begins.
RANK = re.compile(r"rank(\d{1,9})/")
#: Notes of ours in the console.
VALUES, TEXT, RECORD, SAMPLES = "tracer.values", "tracer.text", "tracer.log", "tracer.media"
_MARK = "\n" + RECORD + " "


def parted(name: str) -> tuple[str, str]:
    """Return title and series of a name.

    Example:
        >>> parted("train/loss/a"), parted("loss"), parted("loss/loss")
        (('train', 'loss/a'), ('loss', 'loss'), ('loss', '_x2f_loss'))
    """
    title, slash, series = name.partition("/")
    if not (slash and title and series):
        return name, name
    return title, _DOUBLED + series if series == title or series.startswith(_DOUBLED) else series


def joined(title: str, series: str) -> str:
    """Return the name that a title and a series mean.

    Example:
        >>> joined("train", "loss/a"), joined("loss", "loss"), joined("loss", "_x2f_loss")
        ('train/loss/a', 'loss', 'loss/loss')
    """
    return title if title == series else f"{title}/{series.removeprefix(_DOUBLED)}"


def names() -> NameMap:
    """Return what makes our names ones that ClearML shows."""
    return NameMap(r"[^\x00-\x1f\x7f\ud800-\udfff]", 500)


class Writer:
    """Makes the API's events of ours, for one task."""

    def __init__(self, task: str, known: NameMap) -> None:
        self._task, self._names = task, known

    def points(self, points: Points) -> Iterator[dict[str, Any]]:
        """Yield a series; what is not finite is noted in the console, because ClearML would show it as 0."""
        title, series = self._place(points.name, points.rank)
        finite = np.isfinite(points.values)
        rows = zip(points.steps.tolist(), points.times.tolist(), points.values.tolist(), finite.tolist(), strict=True)
        left = []
        for step, time, value, good in rows:
            if not good:
                left.append((step, time, value))
                continue
            yield {
                "timestamp": time // 1000, "type": SCALAR, "task": self._task, "iter": step, "metric": title,
                "variant": series, "value": value,
            }  # fmt: skip
        if left:
            steps, times, values = zip(*left, strict=True)
            told = {"name": points.name, "rank": points.rank, "steps": steps, "times": times,
                    "values": [repr(value) for value in values]}  # fmt: skip
            yield self._noted(VALUES, told, times[-1], "warning")

    def text(self, event: Text) -> dict[str, Any]:
        """Return a text."""
        told = {"name": event.name, "step": event.step, "time": event.time, "rank": event.rank, "body": event.body}
        return self._noted(TEXT, told, event.time)

    def line(self, event: LogLine) -> dict[str, Any]:
        """Return a line of the console; what a record or an event has besides stands under it."""
        body = event.body or ""
        more: dict[str, object] = {"kind": event.kind, "name": event.name, "level": event.level, "step": event.step,
                                   "fields": dict(event.fields), "rank": event.rank, "time": event.time,
                                   "null": event.body is None}  # fmt: skip
        if event.kind != "line" or event.rank or event.fields or event.body is None or _MARK in body:
            body += _MARK + _json(more)
        return self._said(body, event.time, (event.level or "info").lower())

    def histogram(self, event: Histogram) -> dict[str, Any]:
        """Return a histogram as a bar chart whose bars are as wide as the bins."""
        edges = np.asarray(event.edges, np.float64)
        chart = {
            "data": [{
                "type": "bar", "x": ((edges[1:] + edges[:-1]) / 2).tolist(), "y": list(event.counts),
                "width": np.diff(edges).tolist(),
            }],
            "layout": {"title": event.name, "bargap": 0, "meta": {"tracer": {
                "edges": list(event.edges), "counts": list(event.counts), "time": event.time,
            }}},
        }  # fmt: skip
        title, series = self._place(event.name, event.rank)
        return {
            "timestamp": event.time // 1000, "type": PLOT, "task": self._task, "iter": event.step, "metric": title,
            "variant": series, "plot_str": _json(chart),
        }  # fmt: skip

    def sample(self, event: Media, key: str, url: str) -> Iterator[dict[str, Any]]:
        """Yield a debug sample, and a note of what it does not carry."""
        title, series = self._place(event.name, event.rank)
        yield {
            "timestamp": event.time // 1000, "type": SAMPLE, "task": self._task, "iter": event.step, "metric": title,
            "variant": series, "key": key, "url": url,
        }  # fmt: skip
        told = {"key": key, "name": event.name, "kind": event.kind, "step": event.step, "time": event.time,
                "rank": event.rank, "suffix": event.suffix, "caption": event.caption, "fields": dict(event.fields),
                "plain": event.data is None and event.path is None}  # fmt: skip
        yield self._noted(SAMPLES, told, event.time)

    def _place(self, name: str, rank: int) -> tuple[str, str]:
        """Return title and series."""
        if not rank and RANK.match(name):  # it only looks like one of another rank: the table says that it is none
            self._names.changed.setdefault(name, self._names.sent(name))
        return parted(self._names.sent(ranked(name, rank)))

    def _noted(self, what: str, told: Mapping[str, object], time: int, level: str = "info") -> dict[str, Any]:
        """Return a note of ours."""
        return self._said(f"{what} {_json(told)}", time, level)

    def _said(self, body: str, time: int, level: str) -> dict[str, Any]:
        """Return a line of the console."""
        told = body.encode("utf-8", "backslashreplace").decode()
        return {"timestamp": time // 1000, "type": LOG, "task": self._task, "level": level, "worker": "tracer",
                "msg": told}  # fmt: skip


def noted(message: str) -> tuple[str, dict[str, Any]] | None:
    """Return what a note of ours says, or None for any other line."""
    what, _, told = message.partition(" ")
    if what not in (VALUES, TEXT, SAMPLES):
        return None
    found = _loaded(told)
    return None if found is None else (what, found)


def read_values(told: Mapping[str, Any]) -> Points:
    """Return the values that were not finite."""
    values = [float(value) for value in told["values"]]
    if any(math.isfinite(value) for value in values):
        message = "a note of values holds one that is finite"
        raise ValueError(message)
    return Points(
        str(told["name"]),
        np.array(told["steps"], np.int64),
        np.array(told["times"], np.int64),
        np.array(values, np.float64),
        int(told["rank"]),
    )


def read_text(told: Mapping[str, Any]) -> Text:
    """Return a text."""
    return Text(str(told["name"]), int(told["step"]), int(told["time"]), str(told["body"]), int(told["rank"]))


def read_line(event: Mapping[str, Any], *, ours: bool) -> Iterator[LogLine]:
    """Yield the lines of one entry of the console: the client joins many lines into one."""
    body, time, level = str(event.get("msg", "")), int(float(event.get("timestamp") or 0) * 1000), event.get("level")
    if not ours:
        for line in body.splitlines() or [""]:
            yield LogLine("line", time, line, level=None if level in (None, "info") else str(level).upper())
        return
    said, mark, told = body.rpartition(_MARK)
    more = _loaded(told) if mark else None
    if more is None:
        yield LogLine("line", time, body)
        return
    fields, step = more.get("fields"), more.get("step")
    yield LogLine(
        str(more.get("kind", "line")),
        int(more.get("time", time)),
        None if more.get("null") else said,
        more.get("name"),
        more.get("level"),
        None if step is None else int(step),
        fields if isinstance(fields, dict) else {},
        int(more.get("rank", 0)),
    )


def read_histogram(event: Mapping[str, Any], name: str, rank: int) -> Histogram | None:
    """Return a histogram of ours, or None for any other plot."""
    told = _loaded(str(event.get("plot_str", "")))
    layout = told.get("layout") if told else None
    meta = layout.get("meta") if isinstance(layout, dict) else None
    ours = meta.get("tracer") if isinstance(meta, dict) else None
    if not isinstance(ours, dict):
        return None
    return Histogram(
        name, int(event.get("iter") or 0), int(ours["time"]), _floats(ours["edges"]), _floats(ours["counts"]), rank
    )


def _floats(told: Sequence[Any]) -> tuple[float, ...]:
    """Return numbers."""
    return tuple(float(one) for one in told)


def _json(told: Mapping[str, object]) -> str:
    """Return a mapping as JSON in ASCII, so that no line break of any kind is in it."""
    return json.dumps(told, default=str)


def _loaded(told: str) -> dict[str, Any] | None:
    """Return a mapping, or None for anything else."""
    try:
        found = json.loads(told)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
