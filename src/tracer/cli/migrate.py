"""`tracer migrate`: whole runs from one tracker to another, with a proof of what arrived."""

# ruff: noqa: FBT001, PLR0913, PLR0917 -- click hands over one argument for each option, by name

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from tracer.cli.moves import ask_for_import, check_found, end, options_of, reaching, report_blocks, say_what_is_there
from tracer.cli.options import reading
from tracer.cli.output import Show
from tracer.render.tables import Block, Heading

if TYPE_CHECKING:
    from tracer.migration.addresses import Address
    from tracer.migration.importing import Importing
    from tracer.migration.reports import MigrationReport

_EXAMPLES = """\b
  tracer migrate wandb:./wandb mlflow:sqlite:///ml.db
  tracer migrate --from mlflow:http://host:5000 --to aim:.
"""


@click.command("migrate", epilog=_EXAMPLES)
@click.argument("ends", metavar="SOURCE[:URI] TARGET[:URI]", nargs=-1)
@click.option("--from", "source", metavar="SOURCE[:URI]", help="Where the runs are; else the first argument.")
@click.option("--to", "target", metavar="TARGET[:URI]", help="Where they go; else the second argument.")
@click.option("--project", metavar="NAME", help="Put the runs into this project; else into the source's own.")
@click.option("--runs", "pattern", metavar="PATTERN", help="Only runs whose name or id matches, such as 'gpt-*'.")
@click.option("--source-option", "reads", metavar="KEY=VALUE", multiple=True, help="Tell the source more.")
@click.option("--target-option", "writes", metavar="KEY=VALUE", multiple=True, help="Tell the target more.")
@click.option("--verify/--no-verify", default=True, show_default=True, help="Compare both sides, series by series.")
@click.option("--dry-run", is_flag=True, help="Only show which runs would go; nothing is written.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@reading(store=False)
def migrate_runs(
    ends: tuple[str, ...],
    source: str | None,
    target: str | None,
    project: str | None,
    pattern: str | None,
    reads: tuple[str, ...],
    writes: tuple[str, ...],
    verify: bool,
    dry_run: bool,
    yes: bool,
    storage: str,
    show: Show,
) -> None:
    """Move whole runs from one tracker to another, through the store, and prove that they arrived.

    Nothing is deleted at the source, and the runs stay in the store. What was interrupted goes on with the same
    command. Every series is compared on both sides; a difference that the target's limits do not explain is an error.
    """
    from tracer.migration.addresses import address
    from tracer.migration.exporting import Exporting
    from tracer.migration.importing import importing_of
    from tracer.migration.migrating import carried_over, check_ends
    from tracer.migration.reports import record
    from tracer.storage.store import Store

    first, second = _ends(ends, source, target)
    where = address(first, options_of(reads, "--source-option"))
    to = address(second, options_of(writes, "--target-option"), writing=True)
    say_what_is_there(where, show)
    importing = importing_of(where, project=project, pattern=pattern)
    check_ends(importing, to)
    with reaching():
        to.backend()  # what is misspelt or missing is said before anything is read
        if dry_run:
            report = _planned(importing, to)
        else:
            ask_for_import(importing, to.shown, show, yes=yes)
            with Store.open(storage, create=True) as store, show.progress("moving") as progress:
                report = carried_over(importing, Exporting(store, to), store, verify=verify, progress=progress)
    check_found(importing, len(report.imported.runs))
    show(record(report), blocks=lambda: _blocks(report))
    end(report.imported)
    end(report.exported)


def _planned(importing: Importing, to: Address) -> MigrationReport:
    """Return what would be moved; no store is made for it."""
    from tracer.backends.table import entry
    from tracer.migration.reports import MigrationReport, Report

    runs = importing.plan(None)
    leaving = Report(
        "export", entry(to.name).shown, to.shown, tuple(replace(run, there="") for run in runs), dry_run=True
    )
    return MigrationReport(importing.report(runs, dry_run=True), leaving)


def _ends(ends: tuple[str, ...], source: str | None, target: str | None) -> tuple[str, str]:
    """Return source and target, wherever they were named."""
    named = list(ends)
    first = source if source is not None else named.pop(0) if named else None
    second = target if target is not None else named.pop(0) if named else None
    if first is None or second is None or named:
        message = "Name where the runs are and where they go: `tracer migrate SOURCE TARGET`."
        raise click.UsageError(message)
    return first, second


def _blocks(report: MigrationReport) -> list[Block]:
    """Return both halves."""
    return [
        Heading("Into the store"),
        *report_blocks(report.imported),
        Heading("Out of the store"),
        *report_blocks(report.exported),
    ]


__all__ = ["migrate_runs"]
