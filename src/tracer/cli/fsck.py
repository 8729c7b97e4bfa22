"""`tracer fsck`: every byte of a store checked, and mended where it can be."""

# ruff: noqa: FBT001 -- click hands over one argument for each option, by name

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tracer.cli.options import reading
from tracer.cli.output import Rows, Show
from tracer.render.formats import clean, size
from tracer.render.tables import Block, Lines, Styled, Table

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.storage.values import CheckReport


@click.command("fsck")
@click.option(
    "--repair", is_flag=True, help="Mend what can be mended; what is damaged is set aside, never thrown away."
)
@reading(rows=True)
def check_store(repair: bool, store: Store, show: Show) -> None:
    """Check every byte of a store: journals, Parquet files, catalog. Exit with 1 when something is wrong.

    Nothing is changed without --repair.
    """
    with show.progress("checking") as progress:
        report = store.check(repair=repair, progress=progress)
    show(_document(report), blocks=lambda: _blocks(report, repair=repair), rows=lambda: _rows(report))
    if not report.is_clean:
        click.get_current_context().exit(1)


def _document(report: CheckReport) -> dict[str, object]:
    """Return the report for JSON."""
    problems = [
        {"path": one.path, "fact": one.fact, "remedy": one.remedy, "repaired": one.repaired} for one in report.problems
    ]
    return {
        "clean": report.is_clean,
        "runs": report.runs,
        "files": report.files,
        "bytes": report.bytes,
        "lost": report.lost,
        "problems": problems,
    }


def _blocks(report: CheckReport, *, repair: bool) -> list[Block]:
    """Return the report for people."""
    checked = f"Checked {report.runs} runs, {report.files} files, {size(report.bytes)}"
    if not report.problems:
        return [Lines((f"{checked}: everything is in order.",))]
    rows = tuple(
        (
            Styled("mended", "green") if one.repaired else Styled("wrong", "red"),
            clean(one.path),
            clean(one.fact),
            "" if one.repaired else clean(one.remedy),
        )
        for one in report.problems
    )
    left = sum(not one.repaired for one in report.problems)
    end = f"{checked}: {len(report.problems)} problems, {left} left."
    if report.lost:
        end += f" {report.lost} points could not be read."
    if left and not repair:
        end += " `tracer fsck --repair` mends what can be mended."
    return [Table(("", "where", "fact", "remedy"), rows, may_wrap=frozenset({1, 2, 3})), Lines((end,))]


def _rows(report: CheckReport) -> Rows:
    """Return the problems for CSV."""
    return Rows(
        ("path", "fact", "remedy", "repaired"),
        [(one.path, one.fact, one.remedy, one.repaired) for one in report.problems],
    )


__all__ = ["check_store"]
