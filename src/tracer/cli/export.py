"""`tracer export`: runs as files that other programs read, or into another tracker."""

# ruff: noqa: FBT001, PLR0913, PLR0917 -- click hands over one argument for each option, by name

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import click

from tracer.cli import completion
from tracer.cli.moves import ask, end, losses_blocks, options_of, reaching, report_blocks
from tracer.cli.options import changing, several_runs
from tracer.cli.output import Show
from tracer.errors import CommandError
from tracer.render.formats import clean, size
from tracer.render.tables import plain_lines

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.storage.values import RunRow

_FORMATS = ("csv", "json", "jsonl", "parquet", "folder", "tar")

_EXAMPLES = """\b
  tracer export brave-sun-3 -o run.csv
  tracer export 'gpt/*' --to mlflow:sqlite:///ml.db --verify
"""


@click.command("export", epilog=_EXAMPLES)
@click.argument("names", metavar="RUN…", nargs=-1, shell_complete=completion.runs)
@click.option("--output", "-o", "path", metavar="PATH", type=click.Path(), help="Write to this file or folder.")
@click.option("--to", "target", metavar="TARGET[:URI]", help="Send to a tracker, such as mlflow:sqlite:///ml.db.")
@click.option("--format", "-f", "form", type=click.Choice(_FORMATS), help="The format; else the path's ending decides.")
@click.option(
    "--metric",
    "-m",
    "metrics",
    metavar="NAME",
    multiple=True,
    shell_complete=completion.metrics,
    help="Only this metric; may be repeated.",
)
@click.option("--all", "everything", is_flag=True, help="Export all runs of the store.")
@click.option("--overwrite", is_flag=True, help="Replace what is at the path already.")
@click.option("--option", "options", metavar="KEY=VALUE", multiple=True, help="With --to: tell the tracker more.")
@click.option("--layers", is_flag=True, help="With --to: send the statistics of layers, too, as metrics.")
@click.option("--verify", is_flag=True, help="With --to: read the runs back afterwards, and compare.")
@click.option("--dry-run", is_flag=True, help="With --to: only show what would be sent, and what would be lost.")
@click.option("--yes", "-y", is_flag=True, help="With --to: do not ask.")
@changing()
def export_runs(
    names: tuple[str, ...],
    path: str | None,
    target: str | None,
    form: str | None,
    metrics: tuple[str, ...],
    everything: bool,
    overwrite: bool,
    store: Store,
    show: Show,
    **sending: Any,  # noqa: ANN401 -- the options of --to
) -> None:
    """Write runs to a file or a folder, or send them to another tracker.

    With -o, the ending of the path chooses the format: csv, json, jsonl and parquet hold every value of every metric;
    folder and tar copy the runs whole, so that another store can take them.

    With --to, runs go to another tracker; what it cannot hold is said before and after. What it has already is not sent
    again. A RUN may be a pattern, such as 'gpt/*'.
    """
    if everything == bool(names):
        message = "Name the runs to export, or say --all; one of the two."
        raise CommandError(message)
    if (path is None) == (target is None):
        message = "Say where to: -o PATH for a file, or --to TARGET for a tracker; one of the two."
        raise CommandError(message)
    runs = store.runs() if everything else _meant(store, names, show)
    if target is not None:
        if form or metrics or overwrite:
            message = "--to sends whole runs; --format, --metric and --overwrite belong to -o."
            raise CommandError(message)
        _send(store, [run.uid for run in runs], target, sending, show)
    if path is not None:
        _write(store, [run.uid for run in runs], (path, form, metrics, overwrite), show)


def _write(store: Store, uids: list[str], how: tuple[str, str | None, tuple[str, ...], bool], show: Show) -> None:
    """Write runs to a path, in a format, some metrics only, over what is there."""
    path, form, metrics, overwrite = how
    with show.progress("exporting") as progress:
        report = store.export(uids, path, form, metrics=list(metrics) or None, progress=progress, overwrite=overwrite)
    what = f"{report.runs} run{'s' if report.runs != 1 else ''}"
    show.done(f"{clean(report.path)}: {what}, {report.points:,} points, {size(report.bytes)}")
    if show.as_json:
        show(
            {
                "path": report.path,
                "format": report.format,
                "runs": report.runs,
                "points": report.points,
                "files": report.files,
                "bytes": report.bytes,
            },
            blocks=list,
        )


def _send(store: Store, uids: list[str], target: str, said: dict[str, Any], show: Show) -> None:
    """Send runs to a tracker."""
    from tracer.migration.addresses import address
    from tracer.migration.exporting import Exporting, carried_out, report_of
    from tracer.migration.reports import record

    where = address(target, options_of(said["options"]), writing=True)
    exporting = Exporting(store, where, layers=said["layers"])
    with show.progress("reading"):
        planned = exporting.plan(uids)
    report = report_of(exporting, planned, dry_run=True)
    if not said["dry_run"]:
        for line in plain_lines(losses_blocks(report.losses, report.peer)):
            show.note(line)
        ask(f"Send {len(uids)} run{'s' if len(uids) > 1 else ''} to {where.shown}?", show, yes=said["yes"])
        with reaching(), show.progress("sending") as progress:
            report = carried_out(exporting, uids, verify=said["verify"], progress=progress)
    show(record(report), blocks=lambda: report_blocks(report))
    end(report)


def _meant(store: Store, names: tuple[str, ...], show: Show) -> list[RunRow]:
    """Return the runs that names and patterns mean, each once."""
    found: dict[str, RunRow] = {}
    for name in names:
        if not any(sign in name for sign in "*?["):
            found |= {run.uid: run for run in several_runs(store, (name,), show)}
            continue
        matching = {
            run.uid: run
            for run in store.runs()
            if fnmatchcase(run.name, name) or fnmatchcase(f"{run.project}/{run.name}", name)
        }
        if not matching:
            message = f"No run matches {name!r}. `tracer list` shows all."
            raise CommandError(message)
        found |= matching
    return list(found.values())


__all__ = ["export_runs"]
