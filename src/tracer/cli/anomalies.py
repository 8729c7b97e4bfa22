"""`tracer anomalies`: what went wrong in a run, and at which step."""

# ruff: noqa: FBT001 -- click hands over one argument for each option, by name

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from tracer.analysis import explanations, kinds
from tracer.analysis.severities import SEVERITIES, gravest, rank
from tracer.cli import completion
from tracer.cli.options import one_run, reading
from tracer.cli.output import Rows, Show
from tracer.cli.records import finding_record
from tracer.events import Finding
from tracer.render.formats import clean, number
from tracer.render.tables import Block, Heading, Lines, Styled, Table, severity

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.storage.values import FindingRow

_SUBJECTS = ("layer", "metric", "gpu")
#: So many are explained below the table, the gravest; `--explain` explains all.
_EXPLAINED = 10
_WIDTH = 80
_ROWS = 10
#: What spreads from place to place is told once: so many steps after its end it is still the same …
_SPREADING, _SOON = (kinds.NAN_OR_INF, kinds.GRADIENT_EXPLOSION), 16
#: … and so many of its places are told.
_OTHERS = 3


@click.command("anomalies")
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@click.option("--auto", is_flag=True, help="Search the run now, and keep what is found.")
@click.option(
    "--type",
    "-t",
    "types",
    metavar="TYPE",
    multiple=True,
    help="Only this type; may be repeated. "
    f"{', '.join(kinds.KINDS)}; the rule names of SageMaker Debugger are understood too.",
)
@click.option(
    "--fail-on", type=click.Choice(SEVERITIES), help="Exit with 1 when there is an anomaly this grave or graver."
)
@click.option("--explain", is_flag=True, help=f"Explain all of them, not only the {_EXPLAINED} gravest.")
@reading(rows=True)
def show_anomalies(
    run: str,
    auto: bool,
    types: tuple[str, ...],
    fail_on: str | None,
    explain: bool,
    store: Store,
    show: Show,
) -> None:
    """Show what went wrong in a run, and at which step.

    What belongs together is one line: where it began and ended, how grave it is, which layer was the worst. Below the
    table each is told in a sentence, with what led to it (<-) and what to do about it (=>).

    With --auto everything that was recorded is searched: losses, gradients, weights, updates, activations, memory, step
    times and ranks, each against its own past.
    """
    wanted = _wanted(types)
    found = one_run(store, run, show)
    new = None
    if auto:
        from tracer.analysis.anomaly_detection import detect, keep

        with show.progress(f"searching {found.name}"):
            new = keep(store, found.uid, detect(store, found.uid))
    findings = sorted(store.findings(found.uid, wanted), key=lambda row: (row.step, row.kind, row.rank))
    show(
        {"run": found.uid, "name": found.name, "new": new, "findings": [finding_record(row) for row in findings]},
        blocks=lambda: _blocks(findings, searched=auto, explain=explain),
        rows=lambda: _rows(findings),
    )
    if fail_on and any(rank(row.severity) >= rank(fail_on) for row in findings):
        click.get_current_context().exit(1)


def _wanted(types: Sequence[str]) -> list[str] | None:
    """Return the kinds that are meant; an answer of nothing to a mistyped name would look like good news."""
    wanted: list[str] = []
    for name in types:
        try:
            wanted += kinds.resolved(name)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    return wanted or None


def _blocks(findings: Sequence[FindingRow], *, searched: bool, explain: bool) -> list[Block]:
    """Return the findings for people."""
    if not findings:
        hint = "" if searched else " Search the run now with --auto."
        return [Lines((f"No anomalies found.{hint}",))]
    groups = _together(findings)
    rows = tuple(
        (_where(one), one[0].kind, severity(gravest(row.severity for row in one)), Styled(_subjects(one), "cyan"))
        for one in groups
    )
    blocks: list[Block] = [Table(("step", "type", "severity", "where"), rows, frozenset({0}), frozenset({3}))]
    told = groups if explain else _gravest(groups)
    for group in told:
        blocks += [Heading(f"{group[0].kind} at {_where(group)}"), Lines(tuple(_told(group)))]
    if len(told) < len(groups):
        blocks += [Heading(f"{len(groups) - len(told)} more: see --explain.")]
    return blocks


def _gravest(groups: Sequence[list[FindingRow]]) -> list[list[FindingRow]]:
    """Return the gravest groups, in the order of their steps."""
    order = sorted(range(len(groups)), key=lambda place: (-max(rank(row.severity) for row in groups[place]), place))
    return [groups[place] for place in sorted(order[:_EXPLAINED])]


def _told(group: Sequence[FindingRow]) -> list[str]:
    """Return a trouble in words: what it is, where else it shows, what led to it, its rows, what to do."""
    lead = group[0]
    lines = _wrapped(_explanation(lead), "  ")
    for other in group[1 : 1 + _OTHERS]:
        lines += _wrapped(_explanation(other), "  + ")
    chains = [cause for row in group if isinstance(cause := row.details.get("cause"), (list, tuple))]
    told = [_explanation(row) for row in group]
    for cause in max(chains, key=len, default=()):
        if not any(text.startswith(str(cause)) for text in told):
            lines += _wrapped(str(cause), "  <- ")
    for row in group:
        lines += _worst_rows(row.details)
    capsule = next((row.details["capsule"] for row in group if row.details.get("capsule")), None)
    lines += [f"  capsule: {clean(capsule)}"] if capsule else []
    remedy = lead.details.get("remedy") or explanations.remedy(_finding(lead))
    return lines + (_wrapped(str(remedy), "  => ") if remedy else [])


def _explanation(row: FindingRow) -> str:
    """Return what was found as a sentence, also for a finding that came without one."""
    return str(row.details.get("explanation") or explanations.explanation(_finding(row)))


def _finding(row: FindingRow) -> Finding:
    """Return the finding that a row keeps."""
    return Finding(row.kind, row.severity, row.step, row.details, row.last_step)


def _worst_rows(details: Mapping[str, object]) -> list[str]:
    """Return the rows of the data set that carry the loss."""
    found = details.get("rows")
    lines = []
    for one in found[:_ROWS] if isinstance(found, (list, tuple)) else ():
        if isinstance(one, Mapping):
            share = one.get("share")
            part = f", {100 * share:.3g} % of the batch" if isinstance(share, (int, float)) else ""
            lines.append(f"     row {clean(one.get('row'))}: loss {number(one.get('loss'), 4)}{part}")
    return lines


def _wrapped(text: str, first: str) -> list[str]:
    """Return text in lines that fit into eighty columns, the first with a mark in front."""
    return textwrap.wrap(
        clean(text), _WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip


def _together(findings: Sequence[FindingRow]) -> list[list[FindingRow]]:
    """Return findings of one trouble as one, the one that tells the most first.

    A NaN reaches every layer at once, and what the flight recorder saw at a step the rules see too.
    """
    groups: list[list[FindingRow]] = []
    for row in findings:
        for group in reversed(groups):
            if _is_same(row, group):
                group.append(row)
                break
        else:
            groups.append([row])
    return [sorted(group, key=_telling, reverse=True) for group in groups]


def _is_same(row: FindingRow, group: Sequence[FindingRow]) -> bool:
    """Tell whether a finding is of the trouble of a group."""
    first = group[0]
    if (row.kind, row.rank) != (first.kind, first.rank):
        return False
    if row.kind in _SPREADING:
        return row.step <= _end(group) + _SOON
    is_alike = (_where([row]), row.severity) == (_where([first]), first.severity)
    return is_alike and "layer" in row.details and "layer" in first.details


def _telling(row: FindingRow) -> tuple[bool, bool, int]:
    """Return what puts the finding first that says the most: one with an origin, then one of a metric, the gravest."""
    details = row.details
    return bool(details.get("origin") or details.get("capsule")), bool(details.get("metric")), rank(row.severity)


def _end(group: Sequence[FindingRow]) -> int:
    """Return the last step of a group."""
    return max(row.step if row.last_step is None else row.last_step for row in group)


def _subjects(group: Sequence[FindingRow]) -> str:
    """Return what a group is about: its first layer or metric, and how many more."""
    names = list(dict.fromkeys(name for row in group if (name := _subject(row))))
    counted = [row.details.get("layer_count") for row in group]
    count = max(len(names), *(one for one in (*counted, 1) if isinstance(one, int)))
    return (names[0] if names else "") + (f" and {count - 1} more" if count > 1 else "")


def _where(group: Sequence[FindingRow]) -> str:
    """Return the step, or the first and last one."""
    first, last = min(row.step for row in group), _end(group)
    return str(first) if last == first else f"{first} … {last}"


def _subject(row: FindingRow) -> str:
    """Return what the finding is about."""
    of_rank = row.details.get("rank") or row.rank
    rank_ = f" (rank {clean(of_rank)})" if of_rank else ""
    for name in _SUBJECTS:
        value = row.details.get(name)
        if value is not None:
            return clean(f"GPU {value}" if name == "gpu" else value) + rank_
    rows = row.details.get("rows")
    if isinstance(rows, (list, tuple)) and rows and isinstance(rows[0], Mapping):
        return f"row {clean(rows[0].get('row'))}{f' and {len(rows) - 1} more' if len(rows) > 1 else ''}{rank_}"
    return ("memory" if row.kind == kinds.MEMORY_SPIKE else "") + rank_


def _rows(findings: Sequence[FindingRow]) -> Rows:
    """Return the findings for CSV."""
    head = ("step", "last_step", "type", "severity", "rank", "where", "details", "source")
    return Rows(
        head,
        [
            (row.step, row.last_step, row.kind, row.severity, row.rank, _subject(row), dict(row.details), row.source)
            for row in findings
        ],
    )


__all__ = ["show_anomalies"]
