"""One series: exact from files and journal, a whole one from its overview, a range from the coarsest that will do."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.storage import duck, overview, snapshot, stored, summaries
from tracer.storage.folder import is_settled
from tracer.storage.live import Rewind, live_columns, live_series
from tracer.storage.names import clean_text
from tracer.storage.rollup import WIDTH
from tracer.storage.values import Buckets, Series

if TYPE_CHECKING:
    from tracer.storage.catalog import Catalog, Row
    from tracer.storage.ground import Ground
    from tracer.storage.overview import Overview
    from tracer.storage.snapshot import File, Snapshot

_POINTS = "SELECT step, time, value FROM read_parquet($files) WHERE metric = $metric AND rank = $rank"
_ROLLUP = "SELECT * FROM read_parquet($files) WHERE metric = $metric AND rank = $rank ORDER BY first_step"
_OVERVIEW = """
SELECT r.folder, r.settled, r.stale, s.first_step, s.last_step, s.n, s.last, s.last_kind,
  o.form, o.base, o.shift, o.n, o.data
FROM run r LEFT JOIN metric m ON m.name = ? LEFT JOIN series s ON s.run = r.id AND s.metric = m.id AND s.rank = ?
LEFT JOIN overview o ON o.series = s.id WHERE r.uid = ? AND r.trashed IS NULL
"""

Arrays = tuple[Any, Any, Any]


def read_series(store: Ground, uid: str, metric: str, rank: int, start: int | None, stop: int | None) -> Series:
    """Return every value of a metric; see `Store.series`."""
    summaries.ready(store, uid)
    name = clean_text(metric)

    def read(found: Snapshot, _: int) -> Series:
        return Series(metric, rank, *_points(found, found.of("points"), name, rank, start, stop))

    return snapshot.consistently(store.catalog, store.base, uid, snapshot.nothing, read)


def read_overview(store: Ground, uid: str, metric: str, rank: int) -> Buckets:
    """Return a whole series in buckets; see `Store.overview`."""
    name = clean_text(metric)
    row = store.catalog.row(_OVERVIEW, (name, rank, uid))
    if row is not None and not row[2] and is_settled(row[1], f"{store.base}/runs/{row[0]}"):
        return overview.as_buckets(_kept(row), row[3], row[4])
    summaries.ready(store, uid)

    def ask(catalog: Catalog, _: int) -> Row | None:
        return catalog.row(_OVERVIEW, (name, rank, uid))

    def read(found: Snapshot, row: Row | None) -> Buckets:
        columns, rewinds = live_columns(found)
        if _is_rewound(name, rewinds, found):
            arrays = _points(found, found.of("points"), name, rank, None, None)
            return overview.as_buckets(overview.of_points(arrays[0], arrays[2]), *_ends(arrays[0]))
        kept = _kept(row) if row is not None else None
        steps = [step for step in (row[3], row[4]) if step is not None] if row is not None else []
        fresh = live_series(columns, name, rank)
        if fresh is not None:
            kept = overview.merged(kept, fresh.step, fresh.value)
            steps += [int(fresh.step[0]), int(fresh.step[-1])]
        return overview.as_buckets(kept, min(steps, default=None), max(steps, default=None))

    return snapshot.consistently(store.catalog, store.base, uid, ask, read)


def read_buckets(
    store: Ground, uid: str, metric: str, rank: int, start: int | None, stop: int | None, count: int
) -> Buckets:
    """Return a range of a series in buckets; see `Store.buckets`."""
    if count < 1:
        message = f"count={count!r} is too small: a chart has at least one bucket."
        raise ValueError(message)
    if start is None and stop is None:
        return fewer(read_overview(store, uid, metric, rank), count)
    summaries.ready(store, uid)
    name = clean_text(metric)

    def read(found: Snapshot, _: int) -> Buckets:
        rolled = found.of("rollup")
        parts: list[Buckets] = []
        files = found.of("points")
        if rolled and not found.tombstones:
            columns = duck.select(_ROLLUP, rolled, {"metric": name, "rank": rank})
            inside = _inside(columns, start, stop)
            if sum(inside["n"]) >= count * WIDTH:
                parts.append(_as_buckets(inside))
                covered = max(file.last_order for file in rolled)
                files = [file for file in files if file.last_order > covered]
        step, _, value = _points(found, files, name, rank, start, stop)
        parts.append(_single(step, value))
        return fewer(_joined(parts), count)

    return snapshot.consistently(store.catalog, store.base, uid, snapshot.nothing, read)


def fewer(buckets: Buckets, count: int) -> Buckets:
    """Return at most so many buckets of equal width in steps; what is there already few stays as it is."""
    if len(buckets) <= count:
        return buckets
    first = int(buckets.first_step.min())
    width = -(-(int(buckets.last_step.max()) - first + 1) // count)
    # Python's numbers where the range of steps is wider than 63 bits.
    steps: Any = buckets.first_step.astype(object) if width >= 2**52 else buckets.first_step
    place = np.asarray((steps - first) // width, np.int64)
    edges = np.flatnonzero(np.append(True, place[1:] != place[:-1]))
    n, nan = np.add.reduceat(buckets.n, edges), np.add.reduceat(buckets.nan, edges)
    good = np.where(np.isnan(buckets.mean), 0, buckets.n - buckets.nan)
    weight = np.add.reduceat(good, edges)
    total = np.add.reduceat(np.where(good > 0, buckets.mean, 0.0) * good, edges)
    mean = np.where(weight > 0, total / np.maximum(weight, 1), np.nan)
    return Buckets(
        np.minimum.reduceat(buckets.first_step, edges), np.maximum.reduceat(buckets.last_step, edges), n, nan,
        np.fmin.reduceat(buckets.min, edges), np.fmax.reduceat(buckets.max, edges), mean,
    )  # fmt: skip


def last_of_each(step: Any) -> Any:  # noqa: ANN401 -- an array
    """Return the order that sorts steps and keeps the last of equal ones, or None where they increase already."""
    if len(step) < 2 or (step[1:] > step[:-1]).all():  # noqa: PLR2004 -- one step is sorted
        return None
    order = np.argsort(step, kind="stable")
    ordered = step[order]
    return order[np.append(ordered[1:] != ordered[:-1], True)]


def _points(found: Snapshot, files: list[File], name: str, rank: int, start: int | None, stop: int | None) -> Arrays:
    """Return steps, times and values of files and journal together."""
    columns, rewinds = live_columns(found)
    chosen = [file for file in files if _overlaps(file, start, stop)]
    parts: list[Arrays] = []
    if found.tombstones or rewinds:
        for file in chosen:
            stones = [(at, pattern) for order, at, pattern in found.tombstones if file.last_order <= order]
            part = _select([file], name, rank, start, stop)
            for rewound, pattern in [*stones, *rewinds]:
                if fnmatch.fnmatchcase(name, pattern):
                    keep = part[0] < rewound
                    part = (part[0][keep], part[1][keep], part[2][keep])
            parts.append(part)
    elif chosen:
        parts.append(_select(chosen, name, rank, start, stop))
    fresh = live_series(columns, name, rank)
    if fresh is not None:
        inside = slice(
            0 if start is None else int(np.searchsorted(fresh.step, start)),
            len(fresh) if stop is None else int(np.searchsorted(fresh.step, stop)),
        )
        parts.append((fresh.step[inside], fresh.time[inside], fresh.value[inside]))
    if not parts:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    step, time, value = (np.concatenate(column) if len(parts) > 1 else column[0] for column in zip(*parts, strict=True))
    order = last_of_each(step)
    return (step, time, value) if order is None else (step[order], time[order], value[order])


def _select(files: list[File], name: str, rank: int, start: int | None, stop: int | None) -> Arrays:
    """Return one series of files, in the order of the files and of the rows in them."""
    sql, given = _POINTS, {"metric": name, "rank": rank}
    if start is not None:
        sql, given = f"{sql} AND step >= $start", {**given, "start": start}
    if stop is not None:
        sql, given = f"{sql} AND step < $stop", {**given, "stop": stop}
    columns = duck.select(sql, files, given)
    step, time, value = (np.ma.getdata(columns[part]) for part in ("step", "time", "value"))
    return step, time, value


def _overlaps(file: File, start: int | None, stop: int | None) -> bool:
    """Tell whether a file has steps in a range."""
    if file.rows == 0:
        return False
    return (start is None or file.last_step is None or file.last_step >= start) and (
        stop is None or file.first_step is None or file.first_step < stop
    )


def _kept(row: Row) -> Overview | None:
    """Return the overview in a row of the catalog; a single point has none but its summary."""
    n, last, last_kind, form, base, shift, count, data = row[5:]
    if data is not None:
        return overview.decode(form, base, shift, count, data)
    if n == 1:
        return overview.of_points(np.array([row[4]], np.int64), np.array([stored.number(last, last_kind)]))
    return None


def _is_rewound(name: str, rewinds: list[Rewind], found: Snapshot) -> bool:
    """Tell whether a rewind reaches a series that was not compacted since."""
    patterns = [pattern for _, pattern in rewinds] + [pattern for _, _, pattern in found.tombstones]
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _ends(step: Any) -> tuple[int | None, int | None]:  # noqa: ANN401 -- an array
    """Return the first and the last step."""
    return (int(step[0]), int(step[-1])) if len(step) else (None, None)


def _inside(columns: dict[str, Any], start: int | None, stop: int | None) -> dict[str, Any]:
    """Return the rows of a rollup that lie in a range."""
    first, last = np.ma.getdata(columns["first_step"]), np.ma.getdata(columns["last_step"])
    keep = np.ones(len(first), bool)
    if start is not None:
        keep &= last >= start
    if stop is not None:
        keep &= first < stop
    return {name: np.ma.getdata(column)[keep] for name, column in columns.items()}


def _as_buckets(rows: dict[str, Any]) -> Buckets:
    """Return rows of a rollup as buckets."""
    bad = rows["nan"] + rows["inf"]
    good = rows["n"] - bad
    mean = np.where(good > 0, rows["sum"] / np.maximum(good, 1), np.nan)
    return Buckets(rows["first_step"], rows["last_step"], rows["n"], bad, rows["min"], rows["max"], mean)


def _single(step: Any, value: Any) -> Buckets:  # noqa: ANN401 -- arrays
    """Return points as buckets of one each."""
    finite = np.isfinite(value)
    shown = np.where(finite, value, np.nan)
    return Buckets(step, step, np.ones(len(step), np.int64), (~finite).astype(np.int64), shown, shown, shown)


def _joined(parts: list[Buckets]) -> Buckets:
    """Return buckets end to end, sorted by their first step."""
    names = ("first_step", "last_step", "n", "nan", "min", "max", "mean")
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    order = np.argsort(columns["first_step"], kind="stable")
    return Buckets(**{name: column[order] for name, column in columns.items()})


__all__ = ["fewer", "last_of_each", "read_buckets", "read_overview", "read_series"]
