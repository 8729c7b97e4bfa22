"""`tracer show`: one run at a glance, and live with `--follow`."""

# ruff: noqa: FBT001 -- click hands over one argument for each option, by name

from __future__ import annotations

import contextlib
import fnmatch
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from tracer import events
from tracer.analysis.differences import flatten
from tracer.analysis.goals import goal
from tracer.analysis.severities import gravest, rank
from tracer.cli import completion
from tracer.cli.options import one_run, reading
from tracer.cli.output import Rows, Show
from tracer.cli.records import checkpoint_record, finding_record, metric_record, run_record
from tracer.errors import CommandError
from tracer.render.formats import clean, duration, full, number, percent, size, when
from tracer.render.tables import Block, Cell, Heading, Lines, Pairs, Styled, Table, severity, status, table_width

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.storage.values import Buckets, FindingRow, RunRow, SeriesRow

_SPARK, _SHORTEST_SPARK = 24, 8
_MOST_PARAMETERS, _MOST_NAMED, _LONGEST_TEXT = 40, 10, 40
_SHORT_COMMIT = 12
#: What `st_blocks` counts in, whatever the file system.
_BLOCK = 512


@click.command("show")
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@click.option(
    "--metrics",
    "-m",
    "metrics",
    metavar="NAME",
    multiple=True,
    shell_complete=completion.metrics,
    help="Only these metrics, as a name or a pattern such as 'val/*'; may be repeated.",
)
@click.option("--all", "everything", is_flag=True, help="Show system metrics and every parameter too.")
@click.option("--follow", "-f", is_flag=True, help="Go on showing the run while it lives; ends with it.")
@reading(rows=True)
def show_run(
    run: str,
    metrics: tuple[str, ...],
    everything: bool,
    follow: bool,
    store: Store,
    show: Show,
) -> None:
    """Show one run: status and why, parameters, metrics, findings, environment, what Tracer cost.

    --csv prints the summary of its metrics.
    """
    found = one_run(store, run, show)
    if follow:
        from tracer.cli.following import follow_run

        follow_run(store, found, metrics, show)
        return
    rows = chosen_metrics(store, found, metrics, everything=everything)
    findings = sorted(store.findings(found.uid), key=lambda row: (row.step, row.kind))
    checkpoints = store.checkpoints(found.uid) if show.as_json else []
    document = {
        **run_record(found),
        "metrics": [metric_record(row) for row in rows],
        "findings": [finding_record(row) for row in findings],
        "checkpoint_list": [checkpoint_record(row) for row in checkpoints],
        "settings": dict(found.settings),
        "environment": dict(found.environment),
        "git": dict(found.git),
        "cost": dict(found.cost),
        "counters": dict(found.counters),
        "lost": found.lost,
        "exit_code": found.exit_code,
        "expires": found.expires,
    }
    show(
        {"run": document},
        blocks=lambda: [
            *header(found),
            *_parameters(found, everything=everything),
            *metric_table(store, found, rows, show),
            *_findings(findings),
            *_surroundings(found),
            *_cost(found, store),
        ],
        rows=lambda: _rows(rows),
    )


def chosen_metrics(store: Store, run: RunRow, wanted: Sequence[str], *, everything: bool = False) -> list[SeriesRow]:
    """Return the series to show: those asked for, else all but what the system did.

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
        return [row for row in rows if everything or not row.metric.startswith("system/")]
    for name in wanted:
        if not any(_is_meant(row.metric, name) for row in rows):
            raise CommandError(unknown_metric(name, run, [row.metric for row in rows]))
    return matching_metrics(rows, wanted)


def matching_metrics(rows: Sequence[SeriesRow], wanted: Sequence[str]) -> list[SeriesRow]:
    """Return the series that names or patterns mean, in their order; without any, all but the system's."""
    if not wanted:
        return [row for row in rows if not row.metric.startswith("system/")]
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


def _parameters(run: RunRow, *, everything: bool) -> list[Block]:
    """Return what the user set."""
    leaves = list(flatten(run.config).items())
    if not leaves:
        return []
    shown = leaves if everything else leaves[:_MOST_PARAMETERS]
    blocks: list[Block] = [
        Heading("Parameters"),
        Pairs(tuple((clean(key), number(value) if isinstance(value, float) else full(value)) for key, value in shown)),
    ]
    if len(shown) < len(leaves):
        blocks.append(Lines((f"… and {len(leaves) - len(shown)} more: --all shows them",)))
    return blocks


def _findings(findings: Sequence[FindingRow]) -> list[Block]:
    """Return what was found, the gravest kinds first."""
    if not findings:
        return []
    by_kind: dict[str, list[FindingRow]] = {}
    for row in findings:
        by_kind.setdefault(row.kind, []).append(row)
    worst = {kind: gravest(row.severity for row in found) for kind, found in by_kind.items()}
    kinds = sorted(by_kind, key=lambda kind: (-rank(worst[kind]), by_kind[kind][0].step, kind))
    rows = tuple(
        (clean(kind), str(len(by_kind[kind])), severity(worst[kind]), str(by_kind[kind][0].step)) for kind in kinds
    )
    return [Heading("Findings"), Table(("type", "count", "severity", "first step"), rows, frozenset({1, 3}))]


def _surroundings(run: RunRow) -> list[Block]:
    """Return where and from which code it ran."""
    facts: list[tuple[str, Cell]] = []
    for name, keys in (
        ("python", ("python", "version")),
        ("platform", ("platform", "name")),
        ("torch", ("torch", "version")),
        ("cpu", ("cpu", "model")),
        ("script", ("script",)),
        ("command", ("command", "argv")),
    ):
        value = _dig(run.environment, keys)
        if value not in (None, "", []):
            facts.append((name, clean(" ".join(map(str, value))) if isinstance(value, list) else full(value)))
    if run.host:
        facts.insert(0, ("host", clean(run.host)))
    git = run.git
    if git.get("commit_hash"):
        changed = ", with uncommitted changes" if git.get("is_dirty") else ""
        branch = f" on {git['branch']}" if git.get("branch") else ""
        facts.append(("git", clean(f"{str(git['commit_hash'])[:_SHORT_COMMIT]}{branch}{changed}")))
    return [Heading("Environment"), Pairs(tuple(facts))] if facts else []


def _cost(run: RunRow, store: Store) -> list[Block]:
    """Return what the recording took, and what it lost."""
    points = sum(row.n for row in store.metrics(run.uid))
    facts: list[tuple[str, Cell]] = [("disk", size(_bytes(store.run_folder(run)))), ("points", f"{points:,}")]
    seconds, of = run.cost.get("seconds"), run.cost.get("of_seconds")
    if isinstance(seconds, (int, float)):
        share = f" ({percent(seconds / of).lstrip('+')} of the run)" if isinstance(of, (int, float)) and of > 0 else ""
        facts.append(("upkeep", f"{seconds:.3g}s of CPU on a thread of its own{share}"))
    for name, count in run.counters.items():
        facts.append(("trouble", Styled(f"{count:,} {events.COUNTERS.get(name, clean(name))}", "yellow")))
    if run.lost:
        facts.append(("lost", Styled(f"{run.lost:,} points", "bold red")))
    if run.expires:
        facts.append(("expires", when(run.expires)))
    return [Heading("Recording"), Pairs(tuple(facts))]


def _bytes(folder: str) -> int:
    """Return what a folder takes on the disk, its preallocated and empty parts left out."""
    paths = (os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)
    total = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # folded and removed a moment ago
            total += os.lstat(path).st_blocks * _BLOCK
    return total


def _dig(values: Mapping[str, object], keys: Sequence[str]) -> object:
    """Return a nested value."""
    found: object = values
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _rows(rows: Sequence[SeriesRow]) -> Rows:
    """Return the metrics for CSV."""
    records = [metric_record(row) for row in rows]
    names = list(records[0]) if records else ["metric"]
    return Rows(names, [[record[name] for name in names] for record in records])


__all__ = ["chosen_metrics", "extremes", "header", "matching_metrics", "metric_table", "show_run", "unknown_metric"]
