"""What the store holds, as files for other programs: CSV, JSON, JSON lines, Parquet, or the run folders themselves.

An export appears complete or not at all, and a file that is already there is only replaced when that was asked for.
Text that a spreadsheet would run as a formula is disarmed in CSV; NaN and ±Inf are texts in JSON, so that every
reader opens it.
"""

from __future__ import annotations

import csv
import difflib
import json
import math
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from tracer.errors import StoreError
from tracer.storage.values import ExportReport

if TYPE_CHECKING:
    import duckdb

    from tracer.storage.values import CheckpointRow, FindingRow, RunRow, Series, SeriesRow


class Readable(Protocol):
    """What an export asks of a store."""

    path: Path

    def run(self, name: str) -> RunRow:
        """Return a run."""

    def metrics(self, uid: str) -> list[SeriesRow]:
        """Return the summaries of a run's series."""

    def series(self, uid: str, metric: str, *, rank: int = 0) -> Series:
        """Return all points of a series."""

    def texts(self, uid: str, metric: str) -> list[tuple[int, int, object]]:
        """Return the texts of a metric."""

    def checkpoints(self, uid: str) -> list[CheckpointRow]:
        """Return a run's checkpoints."""

    def findings(self, uid: str) -> list[FindingRow]:
        """Return what was found wrong with a run."""

    def fold(self, uid: str) -> int:
        """Make everything Parquet that is journal."""


#: Called with how many series (or files) are done and how many there are.
Progress = Callable[[int, int], None]
FORMATS = ("csv", "json", "jsonl", "parquet", "folder", "tar")
CSV_COLUMNS = ("run_id", "run", "project", "metric", "rank", "step", "timestamp", "value")

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_SUFFIXES = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".tar": "tar",
}
_PACKED = {".gz": "gz", ".tgz": "gz", ".xz": "xz", ".bz2": "bz2"}
_MICROSECONDS = 1_000_000
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class _Point:
    """One value of one series, ready for a file."""

    metric: str
    rank: int
    step: int
    time: float
    value: object


def format_of(path: str | os.PathLike[str]) -> str:
    """Return the format that a path's ending names.

    Args:
        path: The path of an export.

    Returns:
        One of `FORMATS`; `folder` for a path without an ending.

    Raises:
        ValueError: The ending is not known.

    Example:
        >>> format_of("run.csv")
        'csv'
    """
    name = os.path.basename(os.fspath(path)).lower()
    ending = os.path.splitext(name)[1]
    if ending in _PACKED:
        return "tar"
    if ending and ending not in _SUFFIXES:
        message = f"The ending of {name!r} names no format. Choose one with `format`: {', '.join(FORMATS)}."
        raise ValueError(message)
    return _SUFFIXES.get(ending, "folder")


def export_runs(
    store: Readable,
    uids: Sequence[str],
    path: str | os.PathLike[str],
    format: str | None = None,  # noqa: A002 -- the word that the command line and the documents use
    *,
    metrics: Sequence[str] | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write runs to a file or folder that other programs read.

    Args:
        store: Where the runs are.
        uids: The runs, by id.
        path: The file, or for `folder` the folder that receives one folder per run.
        format: One of `FORMATS`; without it the path's ending decides.
        metrics: Only these; all when absent.
        progress: Called as the work goes on.
        overwrite: Replace what is at `path`.

    Returns:
        What was written.

    Raises:
        StoreError: Something is at `path` already, or it cannot be written.
        ValueError: The format is not known, or nobody logged a metric that was asked for.

    Example:
        >>> export_runs(store, [run.uid], "loss.csv", metrics=["loss"]).points  # doctest: +SKIP
        1000
    """
    path = os.path.abspath(path)
    chosen = format or format_of(path)
    if chosen not in FORMATS:
        message = f"{chosen!r} is not an export format. Choose one of: {', '.join(FORMATS)}."
        raise ValueError(message)
    if chosen not in ("csv", "json", "jsonl", "parquet") and metrics is not None:
        message = f"A {chosen} export holds whole runs; `metrics` picks from csv, json, jsonl or parquet."
        raise ValueError(message)
    rows = [store.run(uid) for uid in uids]
    source = _Source(store, rows, metrics, progress or _ignore)
    with _destination(path, overwrite=overwrite) as part:
        _WRITERS[chosen](source, part)
    sizes = _sizes(path)
    return ExportReport(path, chosen, len(rows), source.points, len(sizes), sum(sizes))


class _Source:
    """The runs of an export, read one series at a time so that memory does not grow with the export."""

    def __init__(
        self, store: Readable, rows: Sequence[RunRow], metrics: Sequence[str] | None, progress: Progress
    ) -> None:
        self.store, self.rows, self.progress = store, rows, progress
        self.points = 0
        self._series = _chosen({row.uid: store.metrics(row.uid) for row in rows}, metrics)
        self._total = sum(len(found) for found in self._series.values())
        self._done = 0

    def series(self, row: RunRow) -> Iterator[tuple[str, int, Series | None, Sequence[tuple[int, int, object]]]]:
        """Yield name, rank, numbers and texts of each series of a run."""
        for found in self._series[row.uid]:
            numbers = (
                None if found.is_text and not found.n else self.store.series(row.uid, found.metric, rank=found.rank)
            )
            texts = self.store.texts(row.uid, found.metric) if found.rank == 0 else []
            self.points += len(texts) + (0 if numbers is None else len(numbers.step))
            yield found.metric, found.rank, numbers, texts
            self._done += 1
            self.progress(self._done, self._total)

    def values(self, row: RunRow) -> Iterator[_Point]:
        """Yield every value of a run, series by series."""
        for metric, rank, numbers, texts in self.series(row):
            if numbers is not None:
                columns = (numbers.step.tolist(), numbers.time.tolist(), numbers.value.tolist())
                for step, time, value in zip(*columns, strict=True):
                    yield _Point(metric, rank, step, time / _MICROSECONDS, value)
            for step, time, text in texts:
                yield _Point(metric, rank, step, time / _MICROSECONDS, text)


def _write_csv(source: _Source, part: str) -> None:
    """Write one line per value."""
    with open(part, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for row in source.rows:
            run = (_cell(row.uid), _cell(row.name), _cell(row.project))
            for point in source.values(row):
                writer.writerow((*run, _cell(point.metric), point.rank, point.step, point.time, _cell(point.value)))
        _synced(file)


def _write_json(source: _Source, part: str) -> None:
    """Write one document: the runs, each with its facts, series, checkpoints and findings."""
    with open(part, "w", encoding="utf-8") as file:
        file.write(f'{{"format": {_FORMAT}, "runs": [')
        for position, row in enumerate(source.rows):
            file.write(",\n" if position else "\n")
            file.write(_json(_facts(row))[:-1] + ', "metrics": [')
            for number, (metric, rank, numbers, texts) in enumerate(source.series(row)):
                file.write(",\n" if number else "\n")
                file.write(_json({"metric": metric, "rank": rank, **_lists(numbers, texts)}))
            file.write(f'],\n"checkpoints": {_json(_checkpoints(source.store, row))}')
            file.write(f',\n"findings": {_json(_findings(source.store, row))}}}')
        file.write("\n]}\n")
        _synced(file)


def _write_jsonl(source: _Source, part: str) -> None:
    """Write one object per line: `run` first, then its `point`, `checkpoint` and `finding` lines."""
    with open(part, "w", encoding="utf-8") as file:
        for row in source.rows:
            file.write(_json({"kind": "run", **_facts(row)}) + "\n")
            for point in source.values(row):
                line = {"metric": point.metric, "rank": point.rank, "step": point.step, "timestamp": point.time}
                file.write(_json({"kind": "point", "run_id": row.uid, **line, "value": point.value}) + "\n")
            for kind, found in (("checkpoint", _checkpoints), ("finding", _findings)):
                file.writelines(
                    _json({"kind": kind, "run_id": row.uid, **one}) + "\n" for one in found(source.store, row)
                )
        _synced(file)


def _write_parquet(source: _Source, part: str) -> None:
    """Write one table of all values: numbers in `value`, texts in `text`."""
    import duckdb
    import numpy as np

    spill = f"{part}.spill"
    try:
        with duckdb.connect(config={"threads": 1, "temp_directory": spill}) as connection:
            connection.execute(
                "CREATE TABLE points(run_id TEXT, run TEXT, project TEXT, metric TEXT, rank INTEGER, step BIGINT,"
                ' "time" TIMESTAMP, value DOUBLE, "text" TEXT)'
            )
            for row in source.rows:
                for metric, rank, numbers, texts in source.series(row):
                    same = [row.uid, row.name, row.project, metric, rank]
                    if numbers is not None:
                        columns = {"step": numbers.step, "time": numbers.time, "value": numbers.value}
                        # DuckDB reads NaN in an array as NULL; a number that is there is never NULL.
                        _insert(connection, columns, same, "coalesce(value, 'nan'), NULL")
                    if texts:
                        steps, times = (np.array([text[i] for text in texts], dtype=np.int64) for i in (0, 1))
                        bodies = np.array([_text(text[2]) for text in texts] + [None], dtype=object)[:-1]
                        _insert(connection, {"step": steps, "time": times, "body": bodies}, same, "NULL, body")
            connection.execute(
                f"COPY points TO '{part.replace(chr(39), chr(39) * 2)}' "
                "(FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2)"
            )
    finally:
        shutil.rmtree(spill, ignore_errors=True)


def _write_folder(source: _Source, part: str) -> None:
    """Copy the run folders, folded, so that the copy needs no journal to be read."""
    os.mkdir(part)
    for done, row in enumerate(source.rows):
        shutil.copytree(_folded(source, row), os.path.join(part, row.folder))
        source.progress(done + 1, len(source.rows))


def _write_tar(source: _Source, part: str) -> None:
    """Pack the run folders into one file."""
    packing = _PACKED.get(os.path.splitext(part.removesuffix(".part"))[1].lower(), "")
    # Contents that two runs share by a hard link are packed with each: a run can be unpacked alone.
    with tarfile.open(part, f"w:{packing}", dereference=True) as archive:  # type: ignore[call-overload]  # built
        for done, row in enumerate(source.rows):
            archive.add(_folded(source, row), arcname=row.folder)
            source.progress(done + 1, len(source.rows))


_WRITERS: dict[str, Callable[[_Source, str], None]] = {
    "csv": _write_csv,
    "json": _write_json,
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
    "folder": _write_folder,
    "tar": _write_tar,
}


def _folded(source: _Source, row: RunRow) -> str:
    """Fold a run and return its folder."""
    source.store.fold(row.uid)
    source.points += row.points
    return os.path.join(source.store.path, "runs", row.folder)


def _insert(connection: duckdb.DuckDBPyConnection, columns: dict[str, Any], same: list[object], values: str) -> None:
    """Add the values of one series to the table of an export."""
    connection.register("series", columns)
    connection.execute(
        f'INSERT INTO points SELECT ?, ?, ?, ?, ?, step, make_timestamp("time"), {values} FROM series',  # noqa: S608 -- our own words
        same,
    )
    connection.unregister("series")


@contextmanager
def _destination(path: str, *, overwrite: bool) -> Iterator[str]:
    """Give a name to write under, and put the result in its place only when it is complete."""
    if os.path.lexists(path) and not overwrite:
        message = f"{path} exists already. Choose another path, or ask for it to be overwritten."
        raise StoreError(message)
    part = f"{path}.part"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _remove(part)
        yield part
        if overwrite and os.path.isdir(part) and os.path.lexists(path):
            _remove(path)
        if overwrite:
            os.replace(part, path)
        elif os.path.isdir(part):
            os.rename(part, path)
        else:
            _publish(part, path)
    except OSError as error:
        message = f"The export to {path} failed ({error.strerror or error}). Free space or choose another path."
        raise StoreError(message) from error
    finally:
        _remove(part)


def _publish(part: str, path: str) -> None:
    """Give a finished file its name, unless somebody else took it meanwhile."""
    try:
        os.link(part, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        os.rename(part, path)


def _remove(path: str) -> None:
    """Remove a file or folder, if there is one."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _chosen(found: dict[str, list[SeriesRow]], metrics: Sequence[str] | None) -> dict[str, list[SeriesRow]]:
    """Return the series that were asked for, or say which names nobody logged."""
    if metrics is None:
        return found
    known = {series.metric for rows in found.values() for series in rows}
    unknown = [name for name in metrics if name not in known]
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=3)
        hint = f"Did you mean {near[0]!r}?" if near else "`tracer show` lists a run's metrics."
        message = f"No run of this export has a metric {unknown[0]!r}. {hint}"
        raise ValueError(message)
    return {uid: [series for series in rows if series.metric in metrics] for uid, rows in found.items()}


def _facts(row: RunRow) -> dict[str, object]:
    """Return what is known of a run beside its values."""
    return {
        "run_id": row.uid,
        "run": row.name,
        "project": row.project,
        "status": row.status,
        "reason": row.reason,
        "start_time": row.started / _MICROSECONDS,
        "end_time": None if row.ended is None else row.ended / _MICROSECONDS,
        "steps": row.steps,
        "tags": list(row.tags),
        "notes": row.notes,
        "group": row.group,
        "job_type": row.job_type,
        "config": row.config,
        "settings": row.settings,
        "environment": row.environment,
        "git": row.git,
        "host": row.host,
        "world_size": row.world_size,
    }


def _lists(numbers: Series | None, texts: Sequence[tuple[int, int, object]]) -> dict[str, list[object]]:
    """Return a series as three lists, texts after numbers."""
    steps, times, values = (
        ([], [], []) if numbers is None else (c.tolist() for c in (numbers.step, numbers.time, numbers.value))
    )
    return {
        "steps": [*steps, *(text[0] for text in texts)],
        "timestamps": [time / _MICROSECONDS for time in (*times, *(text[1] for text in texts))],
        "values": [*values, *(text[2] for text in texts)],
    }


def _checkpoints(store: Readable, row: RunRow) -> list[dict[str, object]]:
    """Return the checkpoints of a run."""
    return [
        {
            "step": c.step,
            "timestamp": c.time / _MICROSECONDS,
            "metrics": c.metrics,
            "system": c.system,
            "samples": c.samples,
        }
        for c in store.checkpoints(row.uid)
    ]


def _findings(store: Readable, row: RunRow) -> list[dict[str, object]]:
    """Return the findings of a run."""
    return [
        {"type": f.kind, "severity": f.severity, "step": f.step, "last_step": f.last_step, "rank": f.rank,
         "details": f.details, "source": f.source, "detected": f.detected / _MICROSECONDS}
        for f in store.findings(row.uid)
    ]  # fmt: skip


def _cell(value: object) -> object:
    """Return a value for CSV; text that a spreadsheet would run as a formula begins with an apostrophe."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return _text(value) if isinstance(value, (dict, list)) else value


def _text(value: object) -> str | None:
    """Return a value that is no double as text."""
    return value if isinstance(value, str) or value is None else json.dumps(value)


def _json(value: object) -> str:
    """Return JSON that every reader opens."""
    return json.dumps(_plain(value), allow_nan=False, ensure_ascii=False, default=str)


def _plain(value: object) -> object:
    """Return a value with NaN and ±Inf as texts, at any depth."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


def _synced(file: IO[str]) -> None:
    """Make what was written survive a crash of the machine."""
    file.flush()
    os.fsync(file.fileno())


def _sizes(path: str) -> list[int]:
    """Return the size of a file, or of each file in a folder."""
    if not os.path.isdir(path):
        return [os.path.getsize(path)]
    return [os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names]


def _ignore(done: int, total: int) -> None:
    """Take progress that nobody watches."""


__all__ = ["CSV_COLUMNS", "FORMATS", "ExportReport", "export_runs", "format_of"]
