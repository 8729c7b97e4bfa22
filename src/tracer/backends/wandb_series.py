"""W&B's rows as series: one after the other, with as much memory as a few of them need."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

import numpy as np

from tracer.backends import wandb_records as records
from tracer.backends.wandb_facts import Known
from tracer.transfer import Points

#: So many points are held at a time; the file is read again for the next ones.
_AT_ONCE = 4_000_000
_CHUNK = 100_000
_MOST_NAMES = 100_000
_HELPERS = frozenset({"_step", "_timestamp", "_runtime", "tracer_step", "tracer_rank"})

Rows = Iterable[tuple[str, records.Row]]


def numbers(rows: Callable[[], Rows], known: Known) -> Iterator[Points]:
    """Yield every series of numbers."""
    helpers = _HELPERS if known.is_ours else _HELPERS - {"tracer_step", "tracer_rank"}
    counts = {
        name: count for name, count in known.counts.items() if name not in helpers and not name.startswith("_wandb")
    }
    for names in _portions(counts):
        found = {name: (array("q"), array("q"), array("d"), array("i")) for name in names}
        for _, row in rows():
            wanted = row.values.keys() & found.keys()
            if not wanted:
                continue
            at = known.place(row)
            for name in wanted:
                value = records.number(row.values[name])
                if value is not None:
                    steps, times, values, ranks = found[name]
                    steps.append(at.step)
                    times.append(at.time)
                    values.append(value)
                    ranks.append(at.rank)
        for name in names:
            yield from _series(name, known, *found.pop(name))


def _portions(counts: dict[str, int]) -> Iterator[list[str]]:
    """Yield names that are read together."""
    portion: list[str] = []
    size = 0
    for name, count in counts.items():
        if portion and size + count > _AT_ONCE:
            yield portion
            portion, size = [], 0
        portion.append(name)
        size += count
    if portion:
        yield portion


def _series(
    name: str, known: Known, steps: array[int], times: array[int], values: array[float], ranks: array[int]
) -> Iterator[Points]:
    """Yield a series in chunks; the rows of one rank follow each other in its name already."""
    at = 0
    for rank, group in groupby(ranks):
        end = at + sum(1 for _ in group)
        shown = known.original(name, rank)
        for first in range(at, end, _CHUNK):
            part = slice(first, min(first + _CHUNK, end))
            columns = np.array(steps[part], np.int64), np.array(times[part], np.int64), np.array(values[part])
            yield Points(shown, *columns, rank=rank)
        at = end


def system(paths: Iterable[str], read: Callable[[str], Iterator[tuple[int, bytes]]]) -> Iterator[Points]:
    """Yield what W&B noted of the machine, as `system/…`, at the counts of its samples."""
    found: dict[str, tuple[array[int], array[int], array[float]]] = {}
    size = sample = 0
    for path in paths:
        for number, data in read(path):
            if number != records.STATS:
                continue
            time, values = _sample(data)
            for name, value in values:
                if size >= _AT_ONCE or (name not in found and len(found) >= _MOST_NAMES):
                    break
                columns = found.setdefault(name, (array("q"), array("q"), array("d")))
                columns[0].append(sample)
                columns[1].append(time)
                columns[2].append(value)
                size += 1
            sample += 1
    for name, (steps, times, numbers_) in found.items():
        shown = name if name.startswith("system/") else f"system/{name.removeprefix('system.')}"
        yield Points(shown, np.array(steps, np.int64), np.array(times, np.int64), np.array(numbers_))


def _sample(data: bytes) -> tuple[int, list[tuple[str, float]]]:
    """Return time and figures of one sample."""
    time, values = 0, []
    try:
        for number, _, value in records.fields(data):
            if number == 2:  # noqa: PLR2004 -- as the schema counts, here and below
                time = records.timestamp(value)
            elif number == 3:  # noqa: PLR2004
                path, told = records.item(records.message(value))
                one = records.number(told)
                if one is not None:
                    values.append((".".join(path), one))
    except records.Malformed:
        return 0, []
    return time, values
