"""`tracer compare`: what differs between runs, and where they part."""

# ruff: noqa: FBT001 -- click hands over one argument for each option, by name

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from tracer.cli import completion
from tracer.cli.options import reading, several_runs
from tracer.cli.output import Rows, Show
from tracer.errors import CommandError
from tracer.render.formats import clean, full, number, percent
from tracer.render.tables import Block, Cell, Heading, Lines, Styled, Table

if TYPE_CHECKING:
    from tracer.analysis.compare import Comparison, MetricComparison, MetricOfRun
    from tracer.analysis.differences import CodeDifference, Difference
    from tracer.storage.store import Store

_LONGEST_DIFF, _FEWEST_RUNS = 40, 2
_WORDS = {"min": "lower is better", "max": "higher is better", None: "which is better is not known"}


@click.command("compare")
@click.argument("names", metavar="RUN RUN…", nargs=-1, required=True, shell_complete=completion.runs)
@click.option(
    "--metric",
    "-m",
    "metrics",
    metavar="NAME",
    multiple=True,
    shell_complete=completion.metrics,
    help="Only this metric, as a name or a pattern such as 'val/*'; may be repeated.",
)
@click.option(
    "--rank", type=int, default=0, show_default=True, help="Whose values count in a run of several processes."
)
@click.option("--diff", "whole_diff", is_flag=True, help="Show the whole difference in code.")
@click.option("--check", is_flag=True, help="Exit with 1 when the runs differ beyond noise.")
@reading(rows=True)
def compare_runs(
    names: tuple[str, ...],
    metrics: tuple[str, ...],
    rank: int,
    whole_diff: bool,
    check: bool,
    store: Store,
    show: Show,
) -> None:
    """Show what differs between runs, and where their curves part.

    The first run is what the others are measured against. Unequal steps are aligned by interpolation. Whether lower or
    higher is better is taken from what the run declared, else from the metric's name; where neither says, nothing is
    judged.
    """
    runs = several_runs(store, names, show)
    if len(runs) < _FEWEST_RUNS:
        meant = "was named" if len(names) == 1 else "is meant by all the names"
        message = f"Comparing takes two runs or more; only {runs[0].name!r} {meant}. Add one, or use `tracer show`."
        raise CommandError(message)
    from tracer.analysis.compare import compare

    comparison = compare(store, runs, metrics, rank=rank)
    if metrics and not comparison.metrics:
        message = (
            f"Not all of these runs have {', '.join(map(repr, comparison.missing))}, so there is nothing to compare."
        )
        raise CommandError(message)
    show(
        _document(comparison),
        blocks=lambda: _blocks(comparison, _labels(comparison), whole_diff=whole_diff),
        rows=lambda: _rows(comparison),
    )
    if check and comparison.differs:
        click.get_current_context().exit(1)


def _labels(comparison: Comparison) -> list[str]:
    """Return what each run is called in a header: its name, with the id where two share one."""
    names = [run.name for run in comparison.runs]
    return [
        clean(run.name if names.count(run.name) == 1 else f"{run.name} ({run.uid[-6:]})") for run in comparison.runs
    ]


def _blocks(comparison: Comparison, labels: list[str], *, whole_diff: bool) -> list[Block]:
    """Return the comparison for people."""
    blocks: list[Block] = [*_table_of("Parameters", comparison.config, labels, "the same in all runs")]
    blocks += _table_of("Environment", comparison.environment, labels, None)
    blocks += _code(comparison, labels, whole_diff=whole_diff)
    for row in comparison.metrics:
        blocks += _metric(row, labels)
    if comparison.missing:
        names = ", ".join(clean(name) for name in comparison.missing)
        blocks += [Heading("Not in all runs"), Lines((names,))]
    return blocks


def _table_of(title: str, rows: tuple[Difference, ...], labels: list[str], none: str | None) -> list[Block]:
    """Return a table of differences."""
    if not rows:
        return [Heading(title), Lines((none,))] if none else []
    body: tuple[tuple[Cell, ...], ...] = tuple(
        (Styled(clean(row.key), "cyan"), *map(_value, row.values)) for row in rows
    )
    return [Heading(title), Table(("", *labels), body, may_wrap=frozenset(range(1, len(labels) + 1)))]


def _value(value: object) -> str:
    """Return a value of a parameter."""
    return number(value) if isinstance(value, float) else full(value)


def _code(comparison: Comparison, labels: list[str], *, whole_diff: bool) -> list[Block]:
    """Return how the code differs from that of the first run."""
    blocks = _table_of("Code", comparison.git, labels, None)
    for label, code in zip(labels, comparison.code, strict=True):
        if code is None:
            continue
        if not blocks:
            blocks.append(Heading("Code"))
        if not code.patch:
            blocks.append(Lines((f"{labels[0]} and {label}: the same uncommitted changes, on other commits",)))
            continue
        shown = code.patch if whole_diff else code.patch[:_LONGEST_DIFF]
        lines: list[Cell] = [f"uncommitted changes, {labels[0]} against {label}:"]
        lines += [_diff_line(line) for line in shown]
        if len(shown) < len(code.patch):
            lines.append(f"… and {len(code.patch) - len(shown)} more lines: --diff shows them")
        blocks.append(Lines(tuple(lines)))
    return blocks


def _diff_line(line: str) -> Cell:
    """Return a line of a diff in its colour."""
    style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
    return Styled(clean(line), style)


def _metric(row: MetricComparison, labels: list[str]) -> list[Block]:
    """Return one metric over all runs."""
    best = f"best ({row.goal})" if row.goal else "best"
    head = ("run", "final", best, "at step", "difference", "verdict", "parts at step", "points")
    body: list[tuple[Cell, ...]] = []
    for index, (label, run) in enumerate(zip(labels, row.runs, strict=True)):
        first = index == 0
        difference = "" if first else _difference(run)
        body.append(
            (
                Styled(label, "cyan"),
                number(run.final),
                number(run.best),
                "-" if run.best_step is None else str(run.best_step),
                difference,
                "" if first else _verdict(run, row.goal),
                "" if first else _parting(run),
                str(run.points),
            )
        )
    lines: list[Cell] = []
    if row.best_run is not None:
        lines.append(Styled(f"best: {labels[row.best_run]}", "green"))
    return [
        Heading(f"{clean(row.metric)} ({_WORDS[row.goal]})"),
        Table(head, tuple(body), frozenset({1, 2, 3, 4, 6, 7})),
        *([Lines(tuple(lines))] if lines else []),
    ]


def _difference(run: MetricOfRun) -> str:
    """Return how much more the final value is than the first run's."""
    if run.difference is None or not math.isfinite(run.difference):
        return "-"
    if run.relative is None:
        return f"{run.difference:+.6g}"
    return percent(run.relative)


def _verdict(run: MetricOfRun, goal: str | None) -> Cell:
    """Return whether a run did better than the first one."""
    if run.within_noise is None:
        return "not finite"
    if run.within_noise:
        return "within noise"
    if goal is None or run.better is None:
        return "differs"
    return Styled("better", "green") if run.better else Styled("worse", "red")


def _parting(run: MetricOfRun) -> str:
    """Return where a curve parts from the first one."""
    if run.overlap is None:
        return "no common steps"
    return "never" if run.parting is None else str(run.parting.step)


def _document(comparison: Comparison) -> dict[str, object]:
    """Return the comparison for JSON."""
    return {
        "runs": [{"id": run.uid, "name": run.name, "project": run.project} for run in comparison.runs],
        "config": {row.key: list(row.values) for row in comparison.config},
        "environment": {row.key: list(row.values) for row in comparison.environment},
        "git": {row.key: list(row.values) for row in comparison.git},
        "code": [_code_record(code) for code in comparison.code],
        "metrics": [
            {
                "metric": row.metric,
                "goal": row.goal,
                "best_run": row.best_run,
                "runs": [_run_record(run) for run in row.runs],
            }
            for row in comparison.metrics
        ],
        "missing": list(comparison.missing),
        "differs": comparison.differs,
    }


def _code_record(code: CodeDifference | None) -> dict[str, object] | None:
    """Return how the code of a run differs from the first run's."""
    return None if code is None else {"commits": list(code.commits), "diff": list(code.patch)}


def _run_record(run: MetricOfRun) -> dict[str, object]:
    """Return one run's figures for a metric."""
    parting = run.parting
    return {
        "points": run.points,
        "final": run.final,
        "best": run.best,
        "best_step": run.best_step,
        "difference": run.difference,
        "relative": run.relative,
        "better": run.better,
        "within_noise": run.within_noise,
        "first_difference": run.first_difference,
        "parting": None
        if parting is None
        else {
            "step": parting.step,
            "first_run": parting.left,
            "this_run": parting.right,
            "relative": parting.relative,
            "noise": parting.noise,
        },
        "overlap": None if run.overlap is None else list(run.overlap),
    }


def _rows(comparison: Comparison) -> Rows:
    """Return a row for each metric and run, for CSV."""
    head = (
        "metric", "goal", "run_id", "run", "points", "final", "best", "best_step", "difference", "relative", "better",
        "within_noise", "parts_at_step",
    )  # fmt: skip
    rows = [
        (row.metric, row.goal, run.uid, run.name, one.points, one.final, one.best, one.best_step, one.difference,
         one.relative, one.better, one.within_noise, one.parting.step if one.parting else None)
        for row in comparison.metrics
        for run, one in zip(comparison.runs, row.runs, strict=True)
    ]  # fmt: skip
    return Rows(head, rows)


__all__ = ["compare_runs"]
