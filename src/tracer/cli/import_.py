"""`tracer import`: whole runs of another tracker into the store."""

# ruff: noqa: FBT001, PLR0913, PLR0917 -- click hands over one argument for each option, by name

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from tracer.cli.moves import ask_for_import, check_found, end, options_of, reaching, report_blocks, say_what_is_there
from tracer.cli.options import reading
from tracer.cli.output import Show

if TYPE_CHECKING:
    from tracer.migration.importing import Importing
    from tracer.migration.reports import Moved

_EXAMPLES = """\b
  tracer import mlflow:sqlite:///ml.db      tracer import wandb:./wandb
  tracer import tensorboard:runs            tracer import aim:.
  tracer import clearml:task.zip            tracer import ./runs
"""


@click.command("import", epilog=_EXAMPLES)
@click.argument("place", metavar="SOURCE[:URI]")
@click.option("--project", metavar="NAME", help="Put the runs into this project; else into the source's own.")
@click.option("--runs", "pattern", metavar="PATTERN", help="Only runs whose name or id matches, such as 'gpt-*'.")
@click.option(
    "--option", "options", metavar="KEY=VALUE", multiple=True, help="Tell the source more, such as step=epoch."
)
@click.option("--verify", is_flag=True, help="Compare what the store holds afterwards with what the source said.")
@click.option("--dry-run", is_flag=True, help="Only show which runs there are; nothing is written.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@reading(store=False)
def import_runs(
    place: str,
    project: str | None,
    pattern: str | None,
    options: tuple[str, ...],
    verify: bool,
    dry_run: bool,
    yes: bool,
    storage: str,
    show: Show,
) -> None:
    """Take whole runs of another tracker into the store; nothing there is changed.

    A run that is here already is updated, never doubled. A bare path is recognised by what stands there.
    """
    from tracer.migration.addresses import address
    from tracer.migration.importing import importing_of, taken_in
    from tracer.migration.reports import record
    from tracer.storage.store import Store

    where = address(place, options_of(options))
    say_what_is_there(where, show)
    importing = importing_of(where, project=project, pattern=pattern)
    with reaching():
        if dry_run:
            report = importing.report(_planned(importing, storage), dry_run=True)
        else:
            ask_for_import(importing, storage, show, yes=yes)
            with Store.open(storage, create=True) as store, show.progress("importing") as progress:
                report = taken_in(importing, store, verify=verify, progress=progress)
    check_found(importing, len(report.runs))
    show(record(report), blocks=lambda: report_blocks(report))
    end(report)


def _planned(importing: Importing, storage: str) -> list[Moved]:
    """Return what would be taken in; a store that is not there is not made for it."""
    from tracer.storage.store import Store

    if not os.path.isdir(os.path.join(storage, "runs")):
        return importing.plan(None)
    with Store.open(storage) as store:
        return importing.plan(store)


__all__ = ["import_runs"]
