"""Parquet files: written aside, synced, renamed, and from then on never changed.

What a rebuild of the catalog needs stands in the footer, as JSON under `tracer.…`:

    format run family level     what the file is
    order                       first and last fold it holds: between files the later one wins
    consumed                    writer → [[segment, from], [segment, to]]: which part of the journal it holds
    siblings                    the files of the same fold; it counts only when all of them are there
    replaces                    ids of the files that a compaction merged into it
    series                      [metric, rank, count] of each series, in the order of the rows (up to 10,000 series)
    axes                        digest → what, layers, statistics, shapes of the layer values and histograms
    parts                       [axis, statistic, rank, layers or digest of their axis, counts]: the series of a file of
                                layer values, numbered from 0 in this order as its column `series` has them
    check                       CRC-32 of the values, before they were encoded
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from tracer import clock
from tracer.errors import SchemaTooNew, StoreError
from tracer.storage import duck
from tracer.storage.folder import sync_folder
from tracer.storage.layer_points import TIMES, LayerPart
from tracer.storage.log_rows import LogRow
from tracer.storage.names import new_id

if TYPE_CHECKING:
    from tracer.storage.histogram_rows import HistogramRows
    from tracer.storage.layer_points import Key
    from tracer.storage.points import Points
    from tracer.storage.values import Integers

#: 2: layer values lie layer by layer; those of format 1 cannot be read.
FORMAT = 2
_FORMAT_OF_LAYERS = 2
#: Series of one `log` call share their times, and zstd finds that within a row group only: with 122,880 rows the
#: same data took 5.8 bytes a point instead of 5.5. Larger groups save less and slow down reading one series.
ROW_GROUP = 204_800
_OPTIONS = f"FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2, ROW_GROUP_SIZE {ROW_GROUP}"
#: Single floats end in noise: the fastest level makes them as small as any, and one layer is read in half the time
#: when a group is half as large.
_OPTIONS_OF_LAYERS = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, PARQUET_VERSION v2, ROW_GROUP_SIZE 122880"
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
    parts: list[list[Any]] | None = None
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
        if self.parts is not None:
            said["parts"] = self.parts
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


def write_layers(hidden: str, parts: Sequence[LayerPart], footer: Footer) -> None:
    """Write layer values under a hidden name: a row per value, layer by layer.

    A row says which series it is of by a number only: names of layers would double the time it takes to write them.
    """
    footer.rows, footer.check = sum(map(len, parts)), check_layers(parts)
    sorted_names = {digest: sorted(set(axis["layers"])) for digest, axis in footer.axes.items()}
    footer.parts = [[*part.key, _reference(part.layers, sorted_names), _short(part.counts)] for part in parts]
    times = [part for part in parts if part.stat == TIMES]
    values = [part for part in parts if part.stat != TIMES]
    tables = {
        "times": {**_series_and_step(times, 0), "time": _end_to_end([part.value for part in times], np.int64)},
        "fresh": {
            **_series_and_step(values, len(times)), "value": _end_to_end([part.value for part in values], np.float32)
        },
    }  # fmt: skip
    chosen = (
        "SELECT series, step::BIGINT AS step, time, NULL::FLOAT AS value FROM times UNION ALL "
        "SELECT series, step::BIGINT AS step, NULL::BIGINT AS time, coalesce(value, 'nan'::FLOAT) AS value FROM fresh"
    )
    _copy_tables(hidden, tables, chosen, footer, options=_OPTIONS_OF_LAYERS)


def parts_of(footer: Footer) -> list[tuple[Key, tuple[str, ...], Integers]]:
    """Return key, layers and counts of the parts of a file of layer values, in their order."""
    sorted_names = {digest: tuple(sorted(set(axis["layers"]))) for digest, axis in footer.axes.items()}
    found: list[tuple[Key, tuple[str, ...], Integers]] = []
    for what, stat, rank, said, counts in footer.parts or ():
        layers = sorted_names[said] if isinstance(said, str) else tuple(said)
        whole = np.full(len(layers), counts) if isinstance(counts, int) else np.array(counts)
        found.append(((what, stat, rank), layers, whole.astype(np.int64)))
    return found


def write_histograms(hidden: str, rows: HistogramRows, footer: Footer) -> None:
    """Write histograms under a hidden name: a row per power of two that holds something."""
    footer.rows, footer.check = len(rows), check_histograms(rows)
    columns = {"axis": _objects(rows.axis), "layer": _objects(rows.layer), **rows.numbers()}
    chosen = "axis::VARCHAR AS axis, rank, layer::VARCHAR AS layer, step, time, exponent, negative, positive"
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


def place(folder: str, footer: Footer, write: Callable[[str], None]) -> str:
    """Let a file of a run be written under a hidden name, then give it its own; return where it is."""
    where = os.path.join(folder, footer.family)
    if not os.path.isdir(where):
        os.makedirs(where, exist_ok=True)
        sync_folder(folder)
    name = new_name()
    hidden = hidden_path(where, name)
    write(hidden)
    path = os.path.join(where, name)
    publish(hidden, path)
    return path


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
        if said.get("family") == "layers" and said.get("format", FORMAT) < _FORMAT_OF_LAYERS:
            problems[path] = f"its layer values have format {said['format']}, which this Tracer does not read any more"
            continue
        try:
            footers[path] = Footer(
                said["run"], said["family"], said["level"], (said["order"][0], said["order"][1]), said["consumed"],
                said["siblings"], said["replaces"], said.get("series"), said.get("axes", {}), said.get("parts"),
                said["check"], said["rows"],
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


def check_layers(parts: Iterable[LayerPart]) -> int:
    """Return the checksum of layer values."""
    crc = 0
    for part in parts:
        if part.stat != TIMES:
            part.value = _plain_nan(part.value)
        crc = _crc(part.value, _crc(part.step, crc))
    return crc


def check_histograms(rows: HistogramRows) -> int:
    """Return the checksum of histograms."""
    crc = zlib.crc32(repr((list(rows.axis), list(rows.layer))).encode("utf-8", "backslashreplace"))
    for column in rows.numbers().values():
        crc = _crc(column, crc)
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


def _reference(layers: tuple[str, ...], names: Mapping[str, list[str]]) -> str | list[str]:
    """Return the digest of the axis that has exactly these layers, or else the layers."""
    ours = list(layers)
    return next((digest for digest, of_axis in names.items() if of_axis == ours), ours)


def _short(counts: Integers) -> int | list[int]:
    """Return counts as one number where all are the same."""
    return int(counts[0]) if len(counts) and (counts == counts[0]).all() else counts.tolist()


def _series_and_step(parts: Sequence[LayerPart], first: int) -> dict[str, Any]:
    """Return the numbers of the series and the steps of parts, end to end; small steps in half the memory."""
    counts = _end_to_end([part.counts for part in parts], np.int64)
    numbers = np.arange(first, first + len(counts), dtype=np.int32)
    steps = [part.step for part in parts]
    limits = np.iinfo(np.int32)
    is_small = all(limits.min <= one.min(initial=0) and one.max(initial=0) <= limits.max for one in steps)
    return {"series": np.repeat(numbers, counts), "step": _end_to_end(steps, np.int32 if is_small else np.int64)}


def _end_to_end(arrays: Sequence[Any], kind: Any) -> Any:  # noqa: ANN401 -- arrays and their type
    """Return arrays as one."""
    whole = np.empty(sum(map(len, arrays)), kind)
    at = 0
    for array in arrays:
        whole[at : at + len(array)] = array
        at += len(array)
    return whole


def _copy(
    hidden: str, columns: dict[str, Any], chosen: str, footer: Footer, parameters: Mapping[str, object] | None = None
) -> None:
    """Let DuckDB write columns to a file."""
    _copy_tables(hidden, {"fresh": columns}, f"SELECT {chosen} FROM fresh", footer, parameters)  # noqa: S608


def _copy_tables(
    hidden: str,
    tables: Mapping[str, dict[str, Any]],
    question: str,
    footer: Footer,
    parameters: Mapping[str, object] | None = None,
    *,
    options: str = _OPTIONS,
) -> None:
    """Let DuckDB write what a question to some columns gives to a file."""
    with duck.cursor() as cursor:
        for name, columns in tables.items():
            cursor.register(name, columns)
        try:
            sql = f"COPY ({question}) TO {duck.literal(hidden)} ({options}, {footer.sql()})"
            if parameters:
                cursor.execute(sql, parameters)
            else:
                cursor.execute(sql)
        except duckdb.Error as error:
            remove(hidden)
            message = f"{hidden} cannot be written: {str(error).splitlines()[0]}. The journal keeps everything."
            raise StoreError(message) from error
        finally:
            for name in tables:
                cursor.unregister(name)


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
    "FORMAT", "ROW_GROUP", "Consumed", "Footer", "Written", "check_histograms", "check_layers", "check_logs",
    "check_points", "hidden_path", "new_name", "parts_of", "place", "publish", "read_footers", "remove",
    "write_histograms", "write_layers", "write_logs", "write_points", "write_rollup", "written",
]  # fmt: skip
