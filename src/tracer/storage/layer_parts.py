"""The parts of a run's files of layer values as the catalog has them: which layers and steps lie where.

A part is one statistic of one axis and rank in one file. Its row says which numbers its series have in the file, so
that a question opens only files that hold a layer it asks for, and reads only that layer's rows.
"""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tracer.errors import StoreError
from tracer.storage import duck, layer_overview
from tracer.storage.layer_points import TIMES, Key, LayerPart

if TYPE_CHECKING:
    from tracer.storage.catalog import Catalog, Row
    from tracer.storage.snapshot import File

#: Fewer values of a statistic than this are quickly read themselves; more have an overview.
EXACT_VALUES = 2_000_000

_COLUMNS = "p.segment, p.axis, p.stat, p.rank, p.series, p.n, p.step0, p.step1, p.layers"
_PARTS = """
SELECT {columns} FROM segment_run r JOIN layer_part p ON p.segment = r.segment
WHERE r.run = ? AND p.axis = ? AND p.stat = ? AND p.rank = ? AND p.low <= ? AND p.high >= ?
"""
_INSERT = """
INSERT INTO layer_part(segment, axis, stat, rank, series, n, step0, step1, low, high, layers, grid)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_KNOWN = """
SELECT p.axis, p.stat, p.rank, sum(p.n), min(p.step0), max(p.step1)
FROM segment_run r JOIN layer_part p ON p.segment = r.segment WHERE r.run = ? GROUP BY p.axis, p.stat, p.rank
"""
_REBUILD = "`tracer doctor --repair` builds the catalog anew."
_LOWEST, _HIGHEST = "", "\U0010ffff"

#: For each key: how many values there are, the first and the last step.
Extents = dict[Key, tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class StoredPart:
    """One part of a file; the series of its layers are numbered on from `series`."""

    segment: int
    key: Key
    series: int
    n: int
    first_step: int
    last_step: int
    layers: tuple[str, ...]
    grid: bytes | None = None

    @property
    def is_dense(self) -> bool:
        """Tell whether each layer has a value at every step from the first to the last."""
        return self.n == len(self.layers) * (self.last_step - self.first_step + 1)


#: A part in its file, and which of its layers are asked for, by their places; all of them when None.
Asked = tuple["File", StoredPart, Sequence[int] | None]


def extents(catalog: Catalog, run: int) -> Extents:
    """Return what a run has of each statistic."""
    return {(row[0], row[1], row[2]): (row[3], row[4], row[5]) for row in catalog.rows(_KNOWN, (run,))}


def insert(catalog: Catalog, segment: int, parts: Sequence[LayerPart], known: Extents) -> None:
    """Register the parts of a file; `known` is what the run had of each statistic before."""
    together = dict(known)
    for part in parts:
        if len(part):
            first, last = int(part.step.min()), int(part.step.max())
            n, begin, end = together.get(part.key, (0, first, last))
            together[part.key] = (n + len(part), min(begin, first), max(end, last))
    insert_rows(catalog, segment, rows(parts, together))


def rows(parts: Sequence[LayerPart], known: Extents) -> list[Row]:
    """Return what the catalog keeps of the parts of a file.

    Args:
        parts: All of the file, in its order.
        known: What the run has of each statistic, with these parts; where reading it would take long, the parts get
            their share of the overview.
    """
    found: list[Row] = []
    series = 0
    for part in parts:
        if len(part):
            n, begin, end = known[part.key]
            grid = None
            if part.stat != TIMES and n > EXACT_VALUES:
                shift = layer_overview.stored_shift(part, begin, end)
                grid = layer_overview.encode(layer_overview.grid_of(part, shift))
            steps = (int(part.step.min()), int(part.step.max()))
            names = zlib.compress(json.dumps(part.layers).encode())
            found.append((*part.key, series, len(part), *steps, part.layers[0], part.layers[-1], names, grid))
        series += len(part.layers)
    return found


def insert_rows(catalog: Catalog, segment: int, found: Sequence[Row]) -> None:
    """Keep the rows of a file's parts."""
    catalog.executemany(_INSERT, [(segment, *row) for row in found])


def stored(
    catalog: Catalog, run: int, key: Key, layers: Sequence[str] | None = None, *, with_grid: bool = False
) -> list[StoredPart]:
    """Return the parts of one key; with names of layers only those that may have one of them."""
    low, high = (min(layers), max(layers)) if layers else (_LOWEST, _HIGHEST)
    columns = f"{_COLUMNS}, p.grid" if with_grid else _COLUMNS
    return [_part(row) for row in catalog.rows(_PARTS.format(columns=columns), (run, *key, high, low))]


def parts_of_file(catalog: Catalog, segment: int) -> list[StoredPart]:
    """Return the parts of one file."""
    asked = f"SELECT {_COLUMNS} FROM layer_part p WHERE p.segment = ? ORDER BY p.series"  # noqa: S608 -- our own names
    return [_part(row) for row in catalog.rows(asked, (segment,))]


def fetch(asked: Sequence[Asked], start: int | None = None, stop: int | None = None) -> list[LayerPart]:
    """Read parts of files, each as it was asked for.

    Args:
        asked: What to read.
        start: From this step on.
        stop: Before this step.

    Raises:
        FileGone: A file is not there any more.
        StoreError: A file is damaged.
    """
    found: list[LayerPart | None] = [None] * len(asked)
    is_whole = start is None and stop is None
    # Values and times are of different types. Where every layer has every step, the steps need not be read.
    for is_time, is_dense in itertools.product((True, False), repeat=2):
        at = [
            place
            for place, (_, part, _) in enumerate(asked)
            if (part.key[1] == TIMES) is is_time and (is_whole and part.is_dense) is is_dense
        ]
        if at:
            chosen = [asked[place] for place in at]
            parts = _dense(chosen) if is_dense else _any(chosen, start, stop)
            for place, part in zip(at, parts, strict=True):
                found[place] = part
    return [part for part in found if part is not None]


def _dense(asked: Sequence[Asked]) -> list[LayerPart]:
    """Read parts whose layers have a value at every step."""
    questions = [
        f"SELECT {_column(part)} AS value FROM read_parquet({duck.literal(file.path)}) WHERE {_rows(part, places)}"  # noqa: S608
        for file, part, places in asked
    ]
    value = np.ma.getdata(duck.select(" UNION ALL ".join(questions), [file for file, _, _ in asked])["value"])
    parts: list[LayerPart] = []
    begin = 0
    for _, part, places in asked:
        names = part.layers if places is None else tuple(part.layers[at] for at in places)
        steps = np.arange(part.first_step, part.last_step + 1, dtype=np.int64)
        end = begin + len(names) * len(steps)
        counts = np.full(len(names), len(steps), np.int64)
        parts.append(LayerPart(*part.key, names, counts, np.tile(steps, len(names)), value[begin:end]))
        begin = end
    if begin != len(value):
        message = f"{asked[0][0].path} or a file beside it has other rows than the catalog says. {_REBUILD}"
        raise StoreError(message)
    return parts


def _any(asked: Sequence[Asked], start: int | None, stop: int | None) -> list[LayerPart]:
    """Read parts with their steps."""
    limits = "".join(f" AND step {sign} {int(step)}" for sign, step in ((">=", start), ("<", stop)) if step is not None)
    questions: list[str] = []
    bounds = [0]
    for file, part, places in asked:
        questions.append(
            f"SELECT series + {bounds[-1] - part.series} AS series, step, {_column(part)} AS value "  # noqa: S608
            f"FROM read_parquet({duck.literal(file.path)}) WHERE {_rows(part, places)}{limits}"
        )
        bounds.append(bounds[-1] + len(part.layers))
    found = duck.select(" UNION ALL ".join(questions), [file for file, _, _ in asked])
    series, step, value = (np.ma.getdata(found[name]) for name in ("series", "step", "value"))
    ends = np.searchsorted(series, bounds)
    parts = []
    for at, (_, part, places) in enumerate(asked):
        rows = slice(ends[at], ends[at + 1])
        counts = np.bincount(series[rows] - bounds[at], minlength=len(part.layers)).astype(np.int64)
        chosen = range(len(part.layers)) if places is None else places
        names = tuple(part.layers[one] for one in chosen)
        parts.append(LayerPart(*part.key, names, counts[list(chosen)], step[rows], value[rows]))
    return parts


def _column(part: StoredPart) -> str:
    """Return the column that has the numbers of a part."""
    return "time" if part.key[1] == TIMES else "value"


def _rows(part: StoredPart, places: Sequence[int] | None) -> str:
    """Return the condition that picks some layers of a part."""
    chosen = range(len(part.layers)) if places is None else places
    text = f"series BETWEEN {part.series + chosen[0]} AND {part.series + chosen[-1]}"
    if chosen[-1] - chosen[0] >= len(chosen):
        text += f" AND series IN ({', '.join(str(part.series + at) for at in chosen)})"
    return text


def grids(asked: Sequence[Asked], first: int, shift: int) -> list[layer_overview.Grid]:
    """Sum up parts of files in buckets from the one of a first step on; raises as `fetch` does."""
    begin = first >> shift
    finite = "FILTER (isfinite(value))"
    found = []
    for file, part, _ in asked:
        # Steps are counted from a bucket's beginning: of negative numbers a shift makes no sense to DuckDB.
        bucket = f"((step - {begin << shift}) >> {shift}) + {begin}"
        question = (
            f"SELECT series - {part.series} AS layer, {bucket} AS bucket, "  # noqa: S608 -- our own numbers and paths
            f"count(*) AS n, count(*) - count(*) {finite} AS bad, min(value) {finite} AS min, "
            f"max(value) {finite} AS max, avg(value) {finite} AS mean FROM read_parquet({duck.literal(file.path)}) "
            f"WHERE {_rows(part, None)} GROUP BY ALL"
        )
        cells = {name: np.ma.filled(column, np.nan) for name, column in duck.select(question, [file]).items()}
        found.append(layer_overview.grid_from(part.layers, shift, cells))
    return found


def places_in(part: StoredPart, layers: Sequence[str] | None) -> Sequence[int] | None:
    """Return where the wanted layers stand in a part; None for all, nothing where it has none of them."""
    if layers is None:
        return None
    wanted = set(layers)
    return [at for at, name in enumerate(part.layers) if name in wanted]


def _part(row: Row) -> StoredPart:
    """Return a row of the catalog as a part."""
    segment, axis, stat, rank, series, n, first, last, names, *grid = row
    layers = tuple(json.loads(zlib.decompress(names)))
    return StoredPart(segment, (axis, stat, rank), series, n, first, last, layers, grid[0] if grid else None)


__all__ = [
    "EXACT_VALUES", "Asked", "Extents", "StoredPart", "extents", "fetch", "grids", "insert", "insert_rows",
    "parts_of_file", "places_in", "rows", "stored",
]  # fmt: skip
