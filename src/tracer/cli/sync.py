"""`tracer sync`: what other trackers still miss of runs is sent to them."""

# ruff: noqa: FBT001 -- click hands over one argument for each option, by name

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tracer.cli import completion
from tracer.cli.options import changing, several_runs
from tracer.cli.output import Show
from tracer.errors import CommandError
from tracer.render.formats import clean
from tracer.render.tables import Block, Lines, Styled, Table

if TYPE_CHECKING:
    from tracer.mirroring.starting import Wanted
    from tracer.mirroring.sync import SyncReport
    from tracer.storage.store import Store
    from tracer.storage.values import RunRow

#: Something remote could not be reached.
_OWING = 4
_COLOURS = {"complete": "green", "nothing owed": "green", "served": "cyan", "owing": "red"}


@click.command("sync")
@click.argument("runs", metavar="[RUN]...", nargs=-1, shell_complete=completion.runs)
@click.option("--to", "to", metavar="BACKEND", multiple=True, help="Only this back end; a new one gets the run whole.")
@click.option(
    "--option",
    "options",
    metavar="KEY=VALUE",
    multiple=True,
    help="What the back end of --to is told; may be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Send nothing, only say what is owed.")
@changing()
def sync_runs(
    runs: tuple[str, ...], to: tuple[str, ...], options: tuple[str, ...], dry_run: bool, store: Store, show: Show
) -> None:
    """Send what other trackers still miss of runs that are over; of all runs when none is named.

    Keys are read from the variables that each client reads; none is kept. Exit with 4 while something is owed.
    """
    from tracer.mirroring.sync import sync

    chosen = several_runs(store, runs, show) if runs else [row for row in store.runs() if not row.is_live]
    told = _told(options)
    if options and len(to) != 1:
        message = "--option says something to one back end. Name it with --to."
        raise CommandError(message)
    with show.progress("sending") as progress:
        reports = sync(
            store,
            [run.uid for run in chosen],
            names=to or None,
            add=_added(to, told, store.base) if runs else (),
            options=dict.fromkeys(to, told) if told else None,
            dry_run=dry_run,
            progress=None if progress is None else lambda _run, _lane, sent: progress(sent, 0),
        )
    named = {run.uid: run for run in chosen}
    show(
        {"lanes": [_record(report, named[report.uid]) for report in reports]},
        blocks=lambda: _blocks(reports, named, dry_run=dry_run),
    )
    if any(report.outcome == "owing" for report in reports) and not dry_run:
        click.get_current_context().exit(_OWING)


def _told(options: tuple[str, ...]) -> dict[str, object]:
    """Return the options as they were written, `KEY=VALUE` each."""
    told: dict[str, object] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name:
            message = f"--option {option!r} is not KEY=VALUE, as tracking_uri=http://127.0.0.1:5000."
            raise CommandError(message)
        told[name] = value
    return told


def _added(to: tuple[str, ...], told: dict[str, object], storage: str) -> list[Wanted]:
    """Return the back ends of `--to`; a run that went there before goes on where it was."""
    from tracer.mirroring.asking import choose

    return [one.at(storage) for one in choose(to).wanted(dict.fromkeys(to, told))]


def _record(report: SyncReport, run: RunRow) -> dict[str, object]:
    """Return one lane's report for JSON."""
    return {
        "run": report.uid, "run_name": run.name, "backend": report.name, "outcome": report.outcome,
        "reason": report.reason, "sent": report.sent, "rejected": report.rejected, "lag": report.lag, "url": report.url,
    }  # fmt: skip


def _blocks(reports: list[SyncReport], runs: dict[str, RunRow], *, dry_run: bool) -> list[Block]:
    """Return the reports for people."""
    if not reports:
        return [Lines(("Nothing is owed: no run is mirrored, or each has arrived whole.",))]
    rows = tuple(
        (
            clean(runs[report.uid].name),
            report.name,
            Styled(report.outcome, _COLOURS.get(report.outcome, "yellow")),
            f"{report.sent:,}",
            "-" if report.lag is None else f"{report.lag:,}",
            clean(report.reason or report.url or ""),
        )
        for report in reports
    )
    head = ("run", "back end", "outcome", "sent", "owed", "")
    owing = sum(report.outcome == "owing" for report in reports)
    end = (
        "Nothing was sent: this was a dry run." if dry_run else f"{owing} still owed." if owing else "All has arrived."
    )
    return [Table(head, rows, right=frozenset({3, 4}), may_wrap=frozenset({5})), Lines((end,))]


__all__ = ["sync_runs"]
