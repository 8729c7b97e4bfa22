"""The parts of a run's page that `show` draws once and `--follow` draws again and again."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tracer.analysis.goals import goal
from tracer.cli.output import Show
from tracer.errors import CommandError
from tracer.events import BESIDE
from tracer.render.formats import clean, duration, full, number, when
from tracer.render.tables import Block, Cell, Heading, Lines, Pairs, Styled, Table, status, table_width

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.storage.values import Buckets, RunRow, SeriesRow

_SPARK, _SHORTEST_SPARK = 24, 8
_MOST_NAMED, _LONGEST_TEXT = 10, 40


def chosen_metrics(store: Store, run: RunRow, wanted: Sequence[str], *, everything: bool = False) -> list[SeriesRow]:
    """Return the series to show: those asked for, else all but what the system did and what recording cost.

    Args:
        store: Where they are.
        run: The run.
        wanted: Names or patterns.
        everything: Whether system metrics are wanted too.

    Returns:
        The summaries.

    Raises:
        CommandError: A name that was asked for is not there.
    """
    rows = store.metrics(run.uid)
    if not wanted:
        return [row for row in rows if everything or not row.metric.startswith(BESIDE)]
    for name in wanted:
        if not any(_is_meant(row.metric, name) for row in rows):
            raise CommandError(unknown_metric(name, run, [row.metric for row in rows]))
    return matching_metrics(rows, wanted)


def matching_metrics(rows: Sequence[SeriesRow], wanted: Sequence[str]) -> list[SeriesRow]:
    """Return the series that names or patterns mean, in their order; without any, all but the system's."""
    if not wanted:
        return [row for row in rows if not row.metric.startswith(BESIDE)]
    chosen: list[SeriesRow] = []
    for name in wanted:
        chosen += [row for row in rows if _is_meant(row.metric, name) and row not in chosen]
    return chosen


def unknown_metric(name: str, run: RunRow, known: Sequence[str]) -> str:
    """Return what to tell someone who asked for a metric that a run has not."""
    import difflib

    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        hint = f"Near: {', '.join(near)}."
    elif names:
        hint = f"It has: {', '.join(names[:_MOST_NAMED])}{' …' if len(names) > _MOST_NAMED else ''}."
    else:
        hint = "It has none yet."
    return f"Run {run.name!r} has no metric {name!r}. {hint}"


def header(run: RunRow) -> list[Block]:
    """Return who the run is and how it stands."""
    state: list[tuple[str, Cell]] = [("status", status(run.status))]
    if run.reason:
        state.append(("reason", Styled(clean(run.reason), "red")))
    if run.exit_code not in (None, 0):
        state.append(("exit code", str(run.exit_code)))
    optional = {
        "group": run.group,
        "job type": run.job_type,
        "tags": ", ".join(run.tags),
        "labels": ", ".join(f"{name}={value}" for name, value in run.labels.items()),
        "notes": run.notes,
    }
    ranks = f", {run.world_size} ranks" if run.world_size > 1 else ""
    attempt = f", attempt {run.attempt}" if run.attempt > 1 else ""
    return [
        Heading(clean(run.name)),
        Pairs(
            (
                ("project", clean(run.project)),
                ("id", run.uid),
                *state,
                ("steps", f"{run.steps:,}{ranks}{attempt}"),
                ("checkpoints", f"{run.checkpoints:,}"),
                ("started", when(run.started)),
                ("ended", when(run.ended) if run.ended else "-"),
                ("duration", duration(run.duration_s) + (" so far" if run.is_live else "")),
                *((name, clean(value)) for name, value in optional.items() if value),
            )
        ),
    ]


def metric_table(store: Store, run: RunRow, rows: Sequence[SeriesRow], show: Show) -> list[Block]:
    """Return the metrics with last, least, greatest value, and their course where someone looks."""
    if not rows:
        return [Heading("Metrics"), Lines(("none recorded yet",))]
    several = len({row.rank for row in rows}) > 1
    head = ("metric", *(["rank"] if several else []), "last", "best", "min", "max", "points", "last step")
    body: list[tuple[Cell, ...]] = []
    for row in rows:
        odd = "".join(f" {count} {name}" for name, count in (("NaN", row.nan), ("Inf", row.inf)) if count)
        best = {"min": row.min, "max": row.max}.get(goal(row.metric, run.goals) or "")
        name = clean(row.metric) + (f" [{clean(row.unit)}]" if row.unit else "")
        body.append(
            (
                Styled(name, "cyan"),
                *([str(row.rank)] if several else []),
                _last(store, run, row),
                *map(_figure, (best, row.min, row.max)),
                f"{row.n}{odd}",
                "-" if row.last_step is None else str(row.last_step),
            )
        )
    table = Table(head, tuple(body), frozenset(range(1, len(head))), frozenset({0}))
    room = min(show.terminal.width - table_width(table) - 2, _SPARK)
    if show.terminal.draws and room >= _SHORTEST_SPARK:
        courses = (_course(store, run, row, show, room) for row in rows)
        drawn = tuple((*cells, course) for cells, course in zip(body, courses, strict=True))
        table = Table((*head, ""), drawn, table.right, table.may_wrap)
    return [Heading("Metrics"), table]


def _last(store: Store, run: RunRow, row: SeriesRow) -> str:
    """Return the last value of a series, shortened if it is text."""
    if not row.is_text:
        return number(row.last) if row.last is not None else "-"
    texts = store.texts(run.uid, row.metric)
    text = full(texts[-1][2]) if texts else "-"
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def _figure(value: float | None) -> str:
    """Return a figure that may be missing."""
    return "" if value is None else number(value)


def _course(store: Store, run: RunRow, row: SeriesRow, show: Show, room: int) -> str:
    """Return the course of a series on one line."""
    if row.is_text or row.n <= 1:
        return ""
    from tracer.render.charts import sparkline

    overview = store.overview(run.uid, row.metric, rank=row.rank)
    return sparkline(extremes(overview), room, ascii_only=not show.terminal.unicode)


def _is_meant(metric: str, name: str) -> bool:
    """Tell whether a name or pattern means a metric."""
    return metric == name or fnmatch.fnmatchcase(metric, name)


def extremes(overview: Buckets) -> list[float]:
    """Return least and greatest value of each bucket in turn, so that a spark shows both."""
    return [float(value) for pair in zip(overview.min, overview.max, strict=True) for value in pair]


__all__ = ["chosen_metrics", "extremes", "header", "matching_metrics", "metric_table", "unknown_metric"]
