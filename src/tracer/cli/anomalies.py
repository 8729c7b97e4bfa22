"""`tracer anomalies`: what went wrong in a run, and at which step."""

# ruff: noqa: FBT001 -- click hands over one argument for each option, by name

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tracer.analysis.severities import SEVERITIES, rank
from tracer.cli import completion
from tracer.cli.options import one_run, reading
from tracer.cli.output import Rows, Show
from tracer.cli.records import finding_record
from tracer.render.formats import clean, full, number
from tracer.render.tables import Block, Lines, Styled, Table, severity

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.storage.values import FindingRow

_KINDS = ("gradient_explosion", "vanishing_gradient", "loss_spike", "loss_drop", "nan_or_inf", "memory_spike")
_SUBJECTS = ("layer", "metric", "gpu")


@click.command("anomalies")
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@click.option("--auto", is_flag=True, help="Search the run now, and keep what is found.")
@click.option(
    "--type",
    "-t",
    "kinds",
    metavar="TYPE",
    multiple=True,
    help=f"Only this type; may be repeated. {', '.join(_KINDS)}.",
)
@click.option(
    "--fail-on", type=click.Choice(SEVERITIES), help="Exit with 1 when there is an anomaly this grave or graver."
)
@reading(rows=True)
def show_anomalies(
    run: str,
    auto: bool,
    kinds: tuple[str, ...],
    fail_on: str | None,
    store: Store,
    show: Show,
) -> None:
    """Show what went wrong in a run, and at which step.

    With --auto every metric and every layer is searched: gradients that explode or vanish, spikes and drops of the loss
    against its own noise, NaN and infinities, full memory.
    """
    _check(kinds)
    found = one_run(store, run, show)
    new = None
    if auto:
        from tracer.analysis.anomaly_detection import detect

        with show.progress(f"searching {found.name}"):
            new = store.add_findings(found.uid, detect(store, found.uid))
    findings = sorted(store.findings(found.uid, list(kinds) or None), key=lambda row: (row.step, row.kind, row.rank))
    show(
        {"run": found.uid, "name": found.name, "new": new, "findings": [finding_record(row) for row in findings]},
        blocks=lambda: _blocks(findings, searched=auto),
        rows=lambda: _rows(findings),
    )
    if fail_on and any(rank(row.severity) >= rank(fail_on) for row in findings):
        click.get_current_context().exit(1)


def _check(kinds: Sequence[str]) -> None:
    """Say so when a type is not known: an answer of nothing would look like good news."""
    import difflib

    for kind in kinds:
        if kind not in _KINDS:
            near = difflib.get_close_matches(kind, _KINDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            message = f"There is no anomaly type {kind!r}.{hint} Known: {', '.join(_KINDS)}."
            raise click.UsageError(message)


def _blocks(findings: Sequence[FindingRow], *, searched: bool) -> list[Block]:
    """Return the findings for people."""
    if not findings:
        hint = "" if searched else " Search the run now with --auto."
        return [Lines((f"No anomalies found.{hint}",))]
    rows = tuple(
        (_where(one[0]), one[0].kind, severity(one[0].severity), Styled(_subjects(one), "cyan"), _details(one[0]))
        for one in _together(findings)
    )
    return [Table(("step", "type", "severity", "where", "details"), rows, frozenset({0}), frozenset({4}))]


def _together(findings: Sequence[FindingRow]) -> list[list[FindingRow]]:
    """Return findings of one kind over the same steps as one: a NaN reaches every layer at once."""
    groups: dict[tuple[object, ...], list[FindingRow]] = {}
    for row in findings:
        alone = row.id if "layer" not in row.details else None
        groups.setdefault((_where(row), row.kind, row.severity, row.rank, alone), []).append(row)
    return list(groups.values())


def _subjects(group: Sequence[FindingRow]) -> str:
    """Return what a group is about: its first layer, and how many more."""
    more = f" and {len(group) - 1} more" if len(group) > 1 else ""
    return _subject(group[0]) + more


def _where(row: FindingRow) -> str:
    """Return the step, or the first and last one."""
    last = row.last_step if row.last_step is not None else row.details.get("last_step")
    return str(row.step) if last in (None, row.step) else f"{row.step} … {last}"


def _subject(row: FindingRow) -> str:
    """Return what the finding is about."""
    rank_ = f" (rank {row.rank})" if row.rank else ""
    for name in _SUBJECTS:
        value = row.details.get(name)
        if value is not None:
            return clean(f"GPU {value}" if name == "gpu" else value) + rank_
    return ("memory" if row.kind == "memory_spike" else "") + rank_


def _details(row: FindingRow) -> str:
    """Return the evidence."""
    shown = [
        f"{clean(name)} {number(value, 4) if isinstance(value, float) else full(value)}"
        for name, value in row.details.items()
        if name not in (*_SUBJECTS, "last_step") and value is not None
    ]
    return ", ".join(shown)


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
