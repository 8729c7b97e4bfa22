"""`tracer list`: the runs of a store as a table."""

# ruff: noqa: PLR0913, PLR0917 -- click hands over one argument for each option, by name

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from tracer import events
from tracer.cli import completion
from tracer.cli.options import reading
from tracer.cli.output import Rows, Show
from tracer.cli.records import run_record
from tracer.render.formats import clean, duration, full, number, size, when
from tracer.render.tables import Block, Cell, Lines, Styled, Table, status

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.storage.values import RunRow

Condition = tuple[str, str, object]
_CONDITION = re.compile(r"\s*([^\s<>=!~]+)\s*(<=|>=|!=|==|=|<|>|~)\s*(.*?)\s*$")
_MAINTAIN_S = 5.0
_DEFAULT = ("name", "project", "status", "steps", "duration", "started")
#: Column → what a person reads in it; the header is the column's name.
_CELLS: dict[str, Callable[[RunRow], Cell]] = {
    "name": lambda run: Styled(clean(run.name), "cyan"),
    "id": lambda run: run.uid,
    "project": lambda run: clean(run.project),
    "status": lambda run: status(run.status),
    "reason": lambda run: clean(run.reason or ""),
    "steps": lambda run: str(run.steps),
    "checkpoints": lambda run: str(run.checkpoints),
    "points": lambda run: str(run.points),
    "duration": lambda run: duration(run.duration_s),
    "started": lambda run: when(run.started),
    "ended": lambda run: when(run.ended),
    "tags": lambda run: clean(", ".join(run.tags)),
    "notes": lambda run: clean(run.notes or ""),
    "group": lambda run: clean(run.group or ""),
    "job_type": lambda run: clean(run.job_type or ""),
    "host": lambda run: clean(run.host or ""),
    "user": lambda run: clean(run.user or ""),
    "world_size": lambda run: str(run.world_size),
    "attempt": lambda run: str(run.attempt),
    "size": lambda run: size(run.bytes),
}
_RIGHT = frozenset({"steps", "checkpoints", "points", "duration", "world_size", "attempt", "size"})
_WRAPS = frozenset({"name", "reason", "notes", "tags"})


@click.command("list")
@click.option("--project", metavar="NAME", help="Only runs of this project.", shell_complete=completion.projects)
@click.option("--status", "wanted", type=click.Choice(events.STATUSES), help="Only runs in this state.")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="Only runs with this tag; may be repeated.")
@click.option("--name", "pattern", metavar="REGEX", help="Only runs whose name matches.")
@click.option(
    "--where",
    "conditions",
    metavar="CONDITION",
    multiple=True,
    help="Only runs for which it holds, such as 'metric.loss < 2' or 'config.lr >= 1e-4'; may be repeated.",
)
@click.option(
    "--sort",
    default="-started",
    show_default=True,
    metavar="COLUMN",
    help="Sort by steps, duration_s, metric:loss, config:lr …; with - before it the largest first.",
)
@click.option(
    "--limit", type=click.IntRange(min=0), default=20, show_default=True, help="At most so many runs; 0 for all."
)
@click.option(
    "--columns",
    metavar="NAMES",
    help=f"Show these columns, such as name,metric.loss,config.lr; known: {', '.join(_CELLS)}.",
)
@reading(rows=True)
def list_runs(
    project: str | None,
    wanted: str | None,
    tags: tuple[str, ...],
    pattern: str | None,
    conditions: tuple[str, ...],
    sort: str,
    limit: int,
    columns: str | None,
    store: Store,
    show: Show,
) -> None:
    r"""Show the runs of a store, the newest first.

    A condition compares a column, config.KEY or metric.NAME (its last value) by < <= > >= = != or ~ (contains).

    \b
      tracer list --where 'metric.loss < 2' --where 'config.optimizer = adamw' --columns name,metric.loss
    """
    shown = _columns(columns)
    where = [_condition(text) for text in conditions] + [("tags", "=", tag) for tag in tags]
    if sort.lstrip("-").startswith("metric:") or any(column.startswith("metric.") for column, _, _ in where):
        store.maintain(_MAINTAIN_S)  # the catalog is asked for values, so it has to know those of a moment ago
    # A pattern is matched here, so the store cannot count for us.
    asked = None if pattern or not limit else limit + 1
    runs = store.runs(project=project, status=wanted, limit=asked, sort=sort, where=where)
    if pattern:
        matches = _regex(pattern).search
        runs = [run for run in runs if matches(run.name)]
    more = bool(limit) and len(runs) > limit
    runs = runs[:limit] if limit else runs
    table = _Cells(store, runs)
    show(
        {"runs": [_record(run, shown, table) for run in runs], "complete": not more},
        blocks=lambda: _blocks(runs, shown, table),
        rows=lambda: Rows(shown, [[table.value(run, column) for column in shown] for run in runs]),
    )
    if more:
        show.note(f"These are the first {limit}; --limit 0 shows all.")


class _Cells:
    """Finds what stands in a cell; the metrics of all runs are asked for once, and only for metric columns."""

    def __init__(self, store: Store, runs: Sequence[RunRow]) -> None:
        self._store, self._runs = store, runs
        self._last: dict[str, dict[str, float]] | None = None

    def value(self, run: RunRow, column: str) -> object:
        """Return what machines read in a column."""
        kind, _, key = column.partition(".")
        if kind == "metric" and key:
            return self._metrics(run).get(key)
        if kind == "config" and key:
            return _looked_up(run.config, key)
        record = run_record(run)
        return {"duration": run.duration_s, "size": run.bytes, "tags": " ".join(run.tags)}.get(
            column, record.get(column)
        )

    def cell(self, run: RunRow, column: str) -> Cell:
        """Return what people read in a column."""
        if column in _CELLS:
            return _CELLS[column](run)
        value = self.value(run, column)
        return "" if value is None else number(value) if isinstance(value, float) else full(value)

    def _metrics(self, run: RunRow) -> dict[str, float]:
        """Return the last value of each metric of a run, of its first rank."""
        if self._last is None:
            self._last = self._store.last_values([one.uid for one in self._runs])
        return self._last.get(run.uid, {})


def _blocks(runs: Sequence[RunRow], columns: Sequence[str], cells: _Cells) -> list[Block]:
    """Return the table, or what to do when it is empty."""
    if not runs:
        return [Lines(("No runs found.",))]
    right = frozenset(i for i, name in enumerate(columns) if name in _RIGHT or name.startswith("metric."))
    wraps = frozenset(i for i, name in enumerate(columns) if name in _WRAPS)
    rows = tuple(tuple(cells.cell(run, column) for column in columns) for run in runs)
    return [Table(tuple(clean(name) for name in columns), rows, right, wraps)]


def _record(run: RunRow, columns: Sequence[str], cells: _Cells) -> dict[str, object]:
    """Return a run for JSON, with the metrics that were asked for."""
    chosen = {name.removeprefix("metric."): cells.value(run, name) for name in columns if name.startswith("metric.")}
    return {**run_record(run), **({"metrics": chosen} if chosen else {})}


def _columns(text: str | None) -> tuple[str, ...]:
    """Return the columns to show, or say which one is not known."""
    if text is None:
        return _DEFAULT
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        kind, _, key = name.partition(".")
        if name not in _CELLS and not (kind in ("metric", "config") and key):
            known = ", ".join(_CELLS)
            message = f"There is no column {name!r}. Known: {known}, metric.NAME and config.KEY."
            raise click.UsageError(message)
    return names or _DEFAULT


def _condition(text: str) -> Condition:
    """Return a condition's column, operator and value."""
    found = _CONDITION.match(text)
    if found is None:
        message = f"{text!r} is no condition. Write a column, an operator and a value: 'metric.loss < 2'."
        raise click.UsageError(message)
    column, sign, value = found.groups()
    return column, sign, _read(value)


def _read(text: str) -> object:
    """Return a value as a number or a truth value if it is one, else as text; quotes keep it text."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _looked_up(config: object, key: str) -> object:
    """Return a value of the run's parameters; dots and slashes lead into nested ones."""
    found = config
    for part in re.split(r"[./]", key):
        if isinstance(config, dict) and key in config:
            return config[key]
        if not isinstance(found, dict) or part not in found:
            return None
        found = found[part]
    return found


def _regex(pattern: str) -> re.Pattern[str]:
    """Return a compiled pattern, or say what is wrong with it."""
    try:
        return re.compile(pattern)
    except re.error as error:
        message = f"--name {pattern!r} is no regular expression: {error}."
        raise click.UsageError(message) from None


__all__ = ["list_runs"]
