"""Which column of a table is what: by the names that trackers and people use, or as one is told."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tracer.errors import ConfigError

#: What each column may be called, the likeliest name first; compared without case, blanks and underscores at the ends.
_STEP = ("step", "global_step", "iteration", "iter", "trainer/global_step", "steps", "epoch")
_TIME = ("wall_time", "timestamp", "time", "datetime", "date", "created_at", "relative_time")
_NAME = ("name", "metric", "metric_name", "tag", "key", "attribute_path")
_VALUE = ("value", "metric_value", "val")
_RUN, _RUN_NAME, _PROJECT, _RANK = ("run_id", "run_uuid", "run"), ("run", "run_name"), ("project",), ("rank",)
#: Columns that `tracer export` and the CSV back end write: their texts may begin with an apostrophe.
_OURS = (
    ("run_id", "run", "project", "metric", "rank", "step", "timestamp", "value"),
    ("name", "rank", "step", "time", "value"),
)
#: TensorBoard's download of one series, and what it is called.
_DOWNLOAD = ("wall_time", "step", "value")
_DOWNLOADED = re.compile(r"run-(?P<run>.*)-tag-(?P<tag>.*)\.csv", re.DOTALL)

_LONGEST_HEADER = 1 << 20


@dataclass(frozen=True, slots=True)
class Columns:
    """A table's columns: when, whose, and either one of names and one of values, or one for each metric."""

    step: str | None = None
    time: str | None = None
    name: str | None = None
    value: str | None = None
    text: str | None = None
    rank: str | None = None
    run: str | None = None
    run_name: str | None = None
    project: str | None = None
    metrics: tuple[str, ...] = ()
    #: What the only metric of a table without names is called.
    only: str = ""
    is_disarmed: bool = False

    @staticmethod
    def guessed(names: Sequence[str], options: Mapping[str, object], file: str) -> Columns:
        """Return what columns are.

        Args:
            names: The columns of the table.
            options: `step`, `time`, `name`, `value`, `rank`, `run`: what they are called, where that is told.
            file: The file's name.

        Raises:
            ConfigError: A column that was named is not there.
        """
        plain = {_plain(name): name for name in reversed(names)}

        def find(option: str, known: Sequence[str]) -> str | None:
            asked = options.get(option)
            if asked is None:
                return next((plain[one] for one in known if one in plain), None)
            if str(asked) not in names:
                message = f"{option}={asked!r}: {file} has no such column. It has: {', '.join(names[:20])}."
                raise ConfigError(message)
            return str(asked)

        run, run_name = find("run", _RUN), find("run_name", _RUN_NAME)
        found = Columns(
            step=find("step", _STEP), time=find("time", _TIME), rank=find("rank", _RANK), run=run,
            run_name=run_name, project=find("project", _PROJECT),
            is_disarmed=tuple(_plain(one) for one in names) in _OURS,
        )  # fmt: skip
        name, value = find("name", _NAME), find("value", _VALUE)
        if name is not None and value is not None:
            return replace(found, name=name, value=value, text="text" if "text" in names else value)
        if value is not None and tuple(_plain(one) for one in names) == _DOWNLOAD:
            said = _DOWNLOADED.fullmatch(file)
            return replace(found, value=value, text=value, only=said["tag"] if said else os.path.splitext(file)[0])
        taken = {found.step, found.time, found.rank, found.run, found.run_name, found.project}
        return replace(found, metrics=tuple(one for one in names if one not in taken))

    def values(self, types: Mapping[str, str]) -> Iterator[tuple[str, str | None, str | None]]:
        """Yield each metric's name, its column of numbers and its column of texts."""
        if self.value is not None:
            is_apart = self.text is not None and self.text != self.value
            has_text = is_apart or types[self.value] == "VARCHAR"
            yield self.only, self.value, self.text if has_text else None
            return
        for name in self.metrics:
            if types[name] == "VARCHAR":
                yield name, name, name
            elif not types[name].startswith(
                ("STRUCT", "MAP", "BLOB", "TIMESTAMP", "DATE", "TIME", "INTERVAL")
            ) and not types[name].endswith("]"):
                yield name, name, None


def first_line(path: str) -> tuple[str, list[str]]:
    """Return what parts the columns of a file, and what the first line calls them; each name is there once.

    Raises:
        ValueError: The first line is none of names.
        OSError: It cannot be read.
    """
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        line = file.readline(_LONGEST_HEADER)
        while line.count('"') % 2 and len(line) < _LONGEST_HEADER and (more := file.readline(_LONGEST_HEADER)):
            line += more
    if not line.strip() or "\0" in line:
        message = "its first line names no columns"
        raise ValueError(message)
    delimiter = max(",\t;|", key=line.count)
    names: list[str] = []
    try:
        found = next(csv.reader([line], delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(str(error)) from error
    for at, name in enumerate(found):
        told = name.strip() or f"column{at}"
        taken = {one.lower() for one in names}
        names.append(told if told.lower() not in taken else f"{told}_{at}")
    return delimiter, names


def _plain(name: str) -> str:
    """Return a column's name as it is compared."""
    return name.strip().lower().replace(" ", "_").strip("_")


__all__ = ["Columns", "first_line"]
