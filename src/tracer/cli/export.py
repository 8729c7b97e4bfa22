"""`tracer export`: runs as files that other programs read."""

# ruff: noqa: FBT001 -- click hands over one argument for each option, by name

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tracer.cli import completion
from tracer.cli.options import changing, several_runs
from tracer.cli.output import Show
from tracer.errors import CommandError
from tracer.render.formats import clean, size

if TYPE_CHECKING:
    from tracer.storage.store import Store

_FORMATS = ("csv", "json", "jsonl", "parquet", "folder", "tar")


@click.command("export")
@click.argument("names", metavar="RUN…", nargs=-1, shell_complete=completion.runs)
@click.option("--output", "-o", "path", metavar="PATH", required=True, type=click.Path(), help="Where to.")
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
@changing()
def export_runs(
    names: tuple[str, ...],
    path: str,
    form: str | None,
    metrics: tuple[str, ...],
    everything: bool,
    overwrite: bool,
    store: Store,
    show: Show,
) -> None:
    """Write runs to a file or a folder; the ending of the path chooses the format.

    csv, json, jsonl and parquet hold every value of every metric; folder and tar copy the runs whole, so that another
    store can take them.
    """
    if everything == bool(names):
        message = "Name the runs to export, or say --all; one of the two."
        raise CommandError(message)
    runs = store.runs() if everything else several_runs(store, names, show)
    with show.progress("exporting") as progress:
        report = store.export(
            [run.uid for run in runs],
            path,
            form,
            metrics=list(metrics) or None,
            progress=progress,
            overwrite=overwrite,
        )
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


__all__ = ["export_runs"]
