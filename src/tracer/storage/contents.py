"""Parquet files read back as they were written, and compared with the checksum in their footers.

A rebuild, an adoption, a compaction and a check read whole files. Many small ones are read by one query: it costs
DuckDB a millisecond or more to begin with a file, and a fifth of that when it has a list of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from tracer.errors import StoreError
from tracer.storage import duck, layer_points, segments
from tracer.storage.histogram_rows import HistogramRows
from tracer.storage.layer_points import TIMES, LayerPart
from tracer.storage.log_rows import LogRow
from tracer.storage.points import Points
from tracer.storage.segments import Footer
from tracer.storage.snapshot import File

if TYPE_CHECKING:
    from tracer.storage.values import Integers

#: Rows of a file that is read together with others, and of all files of one query.
_SMALL, _TOGETHER = 50_000, 1_000_000

_POINTS = "SELECT step, time, value FROM read_parquet($files)"
_SERIES = "SELECT metric, rank, count(*) FROM read_parquet($files) GROUP BY ALL ORDER BY metric, rank"
_LOGS = "SELECT time, step, rank, kind, level, name, body, fields FROM read_parquet($files)"
_LAYER_TIMES = "SELECT step, time FROM read_parquet($files) WHERE time IS NOT NULL"
_LAYERS = "SELECT step, value FROM read_parquet($files) WHERE value IS NOT NULL"
_HISTOGRAMS = "SELECT axis, layer, rank, step, time, exponent, negative, positive FROM read_parquet($files)"
_ROLLUP = "SELECT first_step AS step, first_time AS time FROM read_parquet($files)"


@dataclass(slots=True)
class Content:
    """What one file holds; `damage` says what is wrong with it, or nothing."""

    steps: Integers
    times: Integers
    damage: str = ""
    points: Points | None = None
    logs: list[LogRow] = field(default_factory=list)
    layers: list[LayerPart] = field(default_factory=list)
    histograms: HistogramRows | None = None


class Contents:
    """The footers of some files at once, and their contents one by one."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.footers, self.problems = segments.read_footers(paths)
        self._small = [
            path for path, footer in self.footers.items() if footer.family == "points" and footer.rows <= _SMALL
        ]
        self._read: dict[str, tuple[Any, Any, Any]] = {}

    def read(self, path: str) -> Content:
        """Return what a file holds; damage is told, not raised."""
        try:
            return self._content(path, self.footers[path])
        except (StoreError, ValueError) as error:
            nothing = np.zeros(0, np.int64)
            return Content(nothing, nothing, str(error))

    def sound(self, path: str) -> Content:
        """Return what a file holds.

        Raises:
            StoreError: It cannot be read, or is not what was written.
        """
        content = self._content(path, self.footers[path])
        if content.damage:
            message = f"{path} is damaged: {content.damage}. `tracer doctor --repair` sets it aside."
            raise StoreError(message)
        return content

    def points(self, path: str) -> Points:
        """Return a file of points; raises as `sound` does."""
        points = self.sound(path).points
        if points is None:
            message = f"{path} holds no points, but {self.footers[path].family}."
            raise StoreError(message)
        return points

    def _content(self, path: str, footer: Footer) -> Content:
        """Read a file and compare it with its footer."""
        file = File(0, footer.family, path, footer.level, *footer.order, footer.rows, 0, 0, None, None)
        if footer.family == "points":
            points = self._points(path, file, footer)
            content = Content(points.step, points.time, points=points)
            found = (len(points), segments.check_points(points.step, points.time, points.value))
        elif footer.family == "logs":
            logs = [LogRow(*row) for row in _rows(_LOGS, file)]
            content = Content(*_columns([(row.step, row.time) for row in logs]), logs=logs)
            found = (len(logs), segments.check_logs(logs))
        elif footer.family == "layers":
            layers = _layers(file, footer)
            content = Content(*layer_points.extent(layers), layers=layers)
            found = (sum(map(len, layers)), segments.check_layers(layers))
        elif footer.family == "histograms":
            columns = _arrays(_HISTOGRAMS, file)
            rows = HistogramRows(**columns)
            content = Content(rows.step, rows.time, histograms=rows)
            found = (len(rows), segments.check_histograms(rows))
        else:  # a rollup can be made again from the points beside it
            columns = _arrays(_ROLLUP, file)
            return Content(columns["step"], columns["time"])
        if found != (footer.rows, footer.check):
            content.damage = "its values fail their check"
        return content

    def _points(self, path: str, file: File, footer: Footer) -> Points:
        """Return a file of points, read with its small neighbours where there are any."""
        if path in self._small and path not in self._read:
            self._read_together(path)
        columns = self._read.pop(path, None)
        if columns is None:
            found = _arrays(_POINTS, file)
            columns = (found["step"], found["time"], found["value"])
        groups = footer.series if footer.series is not None else [list(row) for row in _rows(_SERIES, file)]
        names = sorted({group[0] for group in groups})
        place = {name: at for at, name in enumerate(names)}
        starts = np.concatenate([[0], np.cumsum([group[2] for group in groups], dtype=np.int64)]).astype(np.int64)
        metric = np.array([place[group[0]] for group in groups], np.int32)
        return Points(names, metric, np.array([group[1] for group in groups], np.int16), starts, *columns)

    def _read_together(self, path: str) -> None:
        """Read a file and small ones after it by one query; where one is damaged, each is read by itself."""
        chosen: list[str] = []
        rows = 0
        for one in self._small[self._small.index(path) :]:
            rows += self.footers[one].rows
            if rows > _TOGETHER:
                break
            chosen.append(one)
        self._small = [one for one in self._small if one not in set(chosen)]
        if len(chosen) < 2:  # noqa: PLR2004 -- one file alone is read by itself
            return
        try:
            with duck.cursor() as cursor:
                found = cursor.execute(_POINTS, {"files": chosen}).fetchnumpy()
        except duckdb.Error:
            return
        step, time, value = (np.ma.getdata(found[name]) for name in ("step", "time", "value"))
        if len(step) != sum(self.footers[one].rows for one in chosen):
            return
        at = 0
        for one in chosen:
            end = at + self.footers[one].rows
            self._read[one] = (step[at:end], time[at:end], value[at:end])
            at = end


def _layers(file: File, footer: Footer) -> list[LayerPart]:
    """Return a file of layer values, part by part."""
    times, values = _arrays(_LAYER_TIMES, file), _arrays(_LAYERS, file)
    parts = []
    at = {True: 0, False: 0}
    for key, layers, counts in segments.parts_of(footer):
        is_time = key[1] == TIMES
        columns, begin = times if is_time else values, at[is_time]
        end = at[is_time] = begin + int(counts.sum())
        value = columns["time" if is_time else "value"][begin:end]
        parts.append(LayerPart(*key, layers, counts, columns["step"][begin:end], value))
    if at != {True: len(times["step"]), False: len(values["step"])}:
        message = f"{file.path} has other rows than its footer says."
        raise StoreError(message)
    return parts


def _arrays(sql: str, file: File) -> dict[str, Any]:
    """Return the columns of one file; ours hold no NULL, so no mask."""
    with duck.cursor() as cursor, duck.translated([file]):
        found = cursor.execute(sql, {"files": [file.path]}).fetchnumpy()
    return {name: np.ma.getdata(column) for name, column in found.items()}


def _rows(sql: str, file: File) -> list[Any]:
    """Return the rows of one file."""
    with duck.cursor() as cursor, duck.translated([file]):
        return cursor.execute(sql, {"files": [file.path]}).fetchall()


def _columns(pairs: list[tuple[int, int]]) -> tuple[Any, Any]:
    """Return steps and times as arrays."""
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


__all__ = ["Content", "Contents"]
