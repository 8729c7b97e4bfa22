"""Parquet files: written aside, synced, renamed, and from then on never changed.

What a rebuild of the catalog needs stands in the footer, as JSON under `tracer.…`:

    format run family level     what the file is
    order                       first and last fold it holds: between files the later one wins
    consumed                    writer → [[segment, from], [segment, to]]: which part of the journal it holds
    siblings                    the files of the same fold; it counts only when all of them are there
    replaces                    ids of the files that a compaction merged into it
    series                      [metric, rank, count] of each series, in the order of the rows (up to 10,000 series)
    check                       CRC-32 of the values, before they were encoded
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from tracer import clock
from tracer.errors import SchemaTooNew, StoreError
from tracer.storage import duck
from tracer.storage.columns import Layers
from tracer.storage.folder import sync_folder
from tracer.storage.log_rows import LogRow
from tracer.storage.names import clean_text, new_id

if TYPE_CHECKING:
    from tracer.storage.points import Points

FORMAT = 1
#: Series of one `log` call share their times, and zstd finds that within a row group only: with 122,880 rows the
#: same data took 5.8 bytes a point instead of 5.5. Larger groups save less and slow down reading one series.
ROW_GROUP = 204_800
_OPTIONS = f"FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2, ROW_GROUP_SIZE {ROW_GROUP}"
#: Up to here names are written by indexing a list, beyond it as objects: 10 against 8 million points a second.
_MANY_NAMES = 256
_MANY_SERIES = 10_000
#: Footers read by one query: a millisecond for one file, a sixteenth of that for each of many.
_FOOTERS = 256
#: DuckDB takes NaN in an array of floats for a missing value; a value of a metric is never missing.
_VALUES = "rank, step, time, coalesce(value, 'nan'::DOUBLE) AS value"

Consumed = dict[str, list[list[int]]]


@dataclass(slots=True)
class Footer:
    """What a file says of itself."""

    run: str
    family: str
    level: int
    order: tuple[int, int]
    consumed: Consumed = field(default_factory=dict)
    siblings: list[str] = field(default_factory=list)
    replaces: list[str] = field(default_factory=list)
    series: list[list[Any]] | None = None
    axes: dict[str, dict[str, Any]] = field(default_factory=dict)
    check: int = 0
    rows: int = 0

    def sql(self) -> str:
        """Return the footer as the option of `COPY`."""
        said: dict[str, object] = {
            "format": FORMAT, "run": self.run, "family": self.family, "level": self.level, "order": list(self.order),
            "consumed": self.consumed, "siblings": self.siblings, "replaces": self.replaces, "check": self.check,
            "rows": self.rows,
        }  # fmt: skip
        if self.series is not None:
            said["series"] = self.series
        if self.axes:
            said["axes"] = self.axes
        pairs = (
            f"'tracer.{key}': {duck.literal(json.dumps(value, separators=(',', ':')))}" for key, value in said.items()
        )
        return f"KV_METADATA {{{', '.join(pairs)}}}"


@dataclass(slots=True)
class Written:
    """A file that is in place."""

    path: str
    footer: Footer
    rows: int
    bytes: int
    crc: int
    steps: tuple[int, int]
    times: tuple[int, int]
    created: int = 0


def write_points(hidden: str, points: Points, footer: Footer) -> None:
    """Write sorted points under a hidden name, synced."""
    counts = points.counts
    # DuckDB keeps a NaN, not which of the many it was: the checksum must be of what will be read back.
    points.value = _plain_nan(points.value)
    footer.rows, footer.check = len(points), check_points(points.step, points.time, points.value)
    if len(counts) <= _MANY_SERIES:
        groups = zip(points.metric.tolist(), points.rank.tolist(), counts.tolist(), strict=True)
        footer.series = [[points.names[metric], rank, count] for metric, rank, count in groups]
    columns: dict[str, Any] = {
        "rank": np.repeat(points.rank, counts), "step": points.step, "time": points.time, "value": points.value
    }  # fmt: skip
    metric = np.repeat(points.metric, counts)
    if len(points.names) <= _MANY_NAMES:
        columns["m"] = metric
        _copy(hidden, columns, f"$names[m + 1] AS metric, {_VALUES}", footer, {"names": points.names})
    else:
        columns["metric"] = np.array(points.names, dtype=object)[metric]
        _copy(hidden, columns, f"metric, {_VALUES}", footer)


LayerRow = tuple[str, str, int, int, int, Any]


def layer_rows(layers: Sequence[Layers], digests: Sequence[str]) -> list[LayerRow]:
    """Return layer values as rows: axis, statistic, rank, step, time, values; the last of equal ones is kept."""
    kept = {
        (digest, statistic, one.rank, one.step): (one.time, one.matrix[index])
        for one, digest in zip(layers, digests, strict=True)
        for index, statistic in enumerate(map(str, one.axis["statistics"]))
    }
    return [(*key, *kept[key]) for key in sorted(kept)]


def write_layers(hidden: str, rows: Sequence[LayerRow], footer: Footer) -> None:
    """Write layer values under a hidden name: a row per statistic and step."""
    values = np.empty(len(rows), dtype=object)
    for index, row in enumerate(rows):
        values[index] = np.ascontiguousarray(row[5], np.float32)
    footer.rows, footer.check = len(rows), check_layers(values)
    columns = {
        "axis": _objects(row[0] for row in rows), "stat": _objects(row[1] for row in rows),
        "rank": np.array([row[2] for row in rows], np.int16), "step": np.array([row[3] for row in rows], np.int64),
        "time": np.array([row[4] for row in rows], np.int64), "v": values,
    }  # fmt: skip
    whole = "list_transform(v::FLOAT[], lambda e: coalesce(e, 'nan'::FLOAT))"  # as with `_VALUES`
    chosen = f"axis, stat, rank, step, time, {whole} AS values, NULL::DOUBLE[] AS edges"
    _copy(hidden, columns, chosen, footer)


def write_rollup(hidden: str, columns: dict[str, Any], footer: Footer) -> None:
    """Write the columns of a rollup under a hidden name."""
    footer.rows = len(columns["n"])
    footer.check = _crc(columns["n"])
    _copy(hidden, columns, ", ".join(columns), footer)


def write_logs(hidden: str, rows: Sequence[LogRow], footer: Footer) -> None:
    """Write rows of logs under a hidden name, sorted by time."""
    footer.rows, footer.check = len(rows), check_logs(rows)
    columns = {
        "time": np.array([row.time for row in rows], np.int64), "step": np.array([row.step for row in rows], np.int64),
        "rank": np.array([row.rank for row in rows], np.int16),
    }  # fmt: skip
    for name in ("kind", "level", "name", "body", "fields"):
        columns[name] = _objects(getattr(row, name) for row in rows)
    empty = "NULL::VARCHAR AS thread, NULL::VARCHAR AS trace_id, NULL::VARCHAR AS span_id"
    texts = ", ".join(f"{name}::VARCHAR AS {name}" for name in ("kind", "level", "name"))
    chosen = f"time, step, rank, {texts}, {empty}, body::VARCHAR AS body, fields::VARCHAR AS fields"
    _copy(hidden, columns, chosen, footer)


def hidden_path(folder: str, name: str) -> str:
    """Return where a file is written before it is complete."""
    return os.path.join(folder, f".{name}.part")


def new_name() -> str:
    """Return the name of a new file."""
    return f"{new_id()}.parquet"


def publish(hidden: str, path: str) -> None:
    """Give a complete file its name: synced, renamed, folder synced."""
    _fsync(hidden)
    os.rename(hidden, path)
    sync_folder(os.path.dirname(path))


def written(path: str, footer: Footer, steps: Any, times: Any) -> Written:  # noqa: ANN401 -- arrays
    """Return what the catalog needs to know of a file in place."""
    first, last = (int(steps.min()), int(steps.max())) if len(steps) else (0, 0)
    begin, end = (int(times.min()), int(times.max())) if len(times) else (0, 0)
    size = os.stat(path).st_size
    return Written(path, footer, footer.rows, size, duck.crc_of(path), (first, last), (begin, end), clock.now_us())


def read_footers(paths: Sequence[str]) -> tuple[dict[str, Footer], dict[str, str]]:
    """Return the footers of files, and what is wrong with those that have none of ours.

    Raises:
        SchemaTooNew: A newer Tracer wrote one of them.
    """
    found: dict[str, dict[str, Any]] = {}
    problems: dict[str, str] = {}
    for start in range(0, len(paths), _FOOTERS):
        chunk = list(paths[start : start + _FOOTERS])
        try:
            found |= _footer_texts(chunk)
        except (duckdb.Error, ValueError):  # one of them is damaged: each by itself
            for path in chunk:
                try:
                    found |= _footer_texts([path])
                except (duckdb.Error, ValueError) as error:
                    problems[path] = str(error).splitlines()[0]
    footers: dict[str, Footer] = {}
    for path, said in found.items():
        if said.get("format", FORMAT) > FORMAT:
            newer = f"{path} has format {said['format']}; this Tracer reads up to {FORMAT}."
            message = f"{newer} Update: pip install -U ml-tracer"
            raise SchemaTooNew(message)
        try:
            footers[path] = Footer(
                said["run"], said["family"], said["level"], (said["order"][0], said["order"][1]), said["consumed"],
                said["siblings"], said["replaces"], said.get("series"), said.get("axes", {}), said["check"],
                said["rows"],
            )  # fmt: skip
        except (KeyError, IndexError, TypeError):
            problems[path] = "it has no footer of ours"
    return footers, problems


def _footer_texts(paths: list[str]) -> dict[str, dict[str, Any]]:
    """Return what stands under `tracer.…` in the footers of files."""
    with duck.cursor() as cursor:
        asked = "SELECT file_name, key, value FROM parquet_kv_metadata($paths)"
        rows = cursor.execute(asked, {"paths": paths}).fetchall()
    found: dict[str, dict[str, Any]] = {path: {} for path in paths}
    for path, key, value in rows:
        name = bytes(key).decode()
        if name.startswith("tracer."):
            found[path][name.removeprefix("tracer.")] = json.loads(bytes(value))
    return found


def check_points(step: Any, time: Any, value: Any) -> int:  # noqa: ANN401 -- arrays
    """Return the checksum of points."""
    return _crc(value, _crc(time, _crc(step)))


def check_layers(values: Iterable[Any]) -> int:
    """Return the checksum of layer values."""
    crc = 0
    for one in values:
        crc = _crc(np.asarray(one, np.float32), crc)
    return crc


def check_logs(rows: Iterable[LogRow]) -> int:
    """Return the checksum of rows of logs."""
    crc = 0
    for row in rows:
        crc = zlib.crc32(repr(tuple(row)).encode("utf-8", "backslashreplace"), crc)
    return crc


def _plain_nan(value: Any) -> Any:  # noqa: ANN401 -- an array
    """Return values with every NaN the same."""
    is_nan = np.isnan(value)
    return np.where(is_nan, np.nan, value) if is_nan.any() else value


def _crc(array: Any, before: int = 0) -> int:  # noqa: ANN401 -- any array of numbers
    """Return the checksum of an array's bytes, going on from another's."""
    data: Any = np.ascontiguousarray(array)
    return zlib.crc32(data.data.cast("B"), before) if len(array) else before


def remove(path: str) -> None:
    """Remove a file that may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def clean_axis(axis: Mapping[str, Any]) -> dict[str, Any]:
    """Return an axis with text that every format takes, in its fixed form."""
    return {
        "what": clean_text(str(axis.get("what", ""))),
        "layers": [clean_text(str(name)) for name in axis.get("layers", ())],
        "statistics": [clean_text(str(name)) for name in axis.get("statistics", ())],
        "shapes": axis.get("shapes", []),
    }


def _copy(
    hidden: str, columns: dict[str, Any], chosen: str, footer: Footer, parameters: Mapping[str, object] | None = None
) -> None:
    """Let DuckDB write columns to a file."""
    with duck.cursor() as cursor:
        cursor.register("fresh", columns)
        try:
            sql = f"COPY (SELECT {chosen} FROM fresh) TO {duck.literal(hidden)} ({_OPTIONS}, {footer.sql()})"  # noqa: S608
            if parameters:
                cursor.execute(sql, parameters)
            else:
                cursor.execute(sql)
        except duckdb.Error as error:
            remove(hidden)
            message = f"{hidden} cannot be written: {str(error).splitlines()[0]}. The journal keeps everything."
            raise StoreError(message) from error
        finally:
            cursor.unregister("fresh")


def _objects(values: Iterable[object]) -> Any:  # noqa: ANN401 -- an array of objects
    """Return values as an array of objects, whatever they are."""
    items = list(values)
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def _fsync(path: str) -> None:
    """Sync a file that another library wrote."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__ = [
    "FORMAT", "ROW_GROUP", "Consumed", "Footer", "LayerRow", "Written", "check_layers", "check_logs", "check_points",
    "clean_axis", "hidden_path", "layer_rows", "new_name", "publish", "read_footers", "remove", "write_layers",
    "write_logs", "write_points", "write_rollup", "written",
]  # fmt: skip
