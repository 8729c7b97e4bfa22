"""What `import`, `export --to` and `migrate` share: options as KEY=VALUE, the tables of a report, the exit code."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from tracer.cli.output import Show
from tracer.errors import CommandError
from tracer.render.formats import clean
from tracer.render.tables import Block, Cell, Lines, Styled, Table

if TYPE_CHECKING:
    from tracer.migration.addresses import Address
    from tracer.migration.importing import Importing
    from tracer.migration.reports import Difference, Loss, Moved, Report

T = TypeVar("T")
#: The answer is no; something remote cannot be reached.
NO, AWAY = 1, 4
_STYLES = {"created": "green", "updated": "cyan", "failed": "bold red", "planned": "yellow"}
_MOST_DIFFERENCES = 50


def options_of(texts: Sequence[str], name: str = "--option") -> dict[str, object]:
    """Return options from `KEY=VALUE`; a value that is JSON is read as such.

    Raises:
        UsageError: One has no `=`.
    """
    found: dict[str, object] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key.strip():
            message = f"{name} {text!r} is no option. Write KEY=VALUE."
            raise click.UsageError(message)
        found[key.strip()] = _read(value)
    return found


def can_ask(show: Show, *, yes: bool) -> bool:
    """Tell whether a person can be asked; a script has said what it wants."""
    return not (yes or show.as_json or show.quiet or not sys.stdin.isatty())


def ask(question: str, show: Show, *, yes: bool) -> None:
    """Ask a person, if there is one.

    Raises:
        CommandError: The answer is no.
    """
    if can_ask(show, yes=yes) and not click.confirm(question, err=True, default=True):
        message = "Nothing was moved."
        raise CommandError(message, exit_code=NO)


def ask_for_import(importing: Importing, into: str, show: Show, *, yes: bool) -> None:
    """Ask a person whether these runs are meant; the runs are listed for it."""
    if can_ask(show, yes=yes):
        with reaching(), show.progress("looking for runs"):
            found = len(importing.runs)
        if found:
            ask(f"Move {found} run{'s' if found > 1 else ''} from {importing.where.shown} to {into}?", show, yes=yes)


def check_found(importing: Importing, found: int) -> None:
    """See that there was something.

    Raises:
        CommandError: There was not.
    """
    if not found:
        matching = f" that match {importing.pattern!r}" if importing.pattern is not None else ""
        message = f"No runs{matching} were found in {importing.where.shown}."
        raise CommandError(" ".join((message, *importing.source.notes)), exit_code=NO)


@contextlib.contextmanager
def reaching() -> Iterator[None]:
    """Turn what a tracker says that cannot be reached into the exit code for it."""
    from tracer.backends.base import Refused, Throttled, Unreachable

    try:
        yield
    except (Unreachable, Refused, Throttled) as error:
        raise CommandError(str(error), exit_code=AWAY) from error


def say_what_is_there(where: Address, show: Show) -> None:
    """Say which tracker was recognised at a bare path."""
    from tracer.backends.table import entry

    if where.guessed:
        show.note(f"Recognised {entry(where.name).shown}: {clean(where.shown)}")


def report_blocks(report: Report) -> list[Block]:
    """Return a report as people read it."""
    if not report.runs:
        return [Lines(("No runs found.",))]
    blocks: list[Block] = [_runs(report), Lines((_summary(report),))]
    blocks += losses_blocks(report.losses, report.peer)
    notes = [*report.notes, *(f"{run.name}: {note}" for run in report.runs for note in run.notes)]
    if notes:
        blocks.append(Lines(tuple(clean(note) for note in notes)))
    blocks += _differences(report)
    if report.stopped is not None:
        done = "What has arrived is written down; the same command goes on from there."
        blocks.append(Lines((f"Stopped: {clean(report.stopped)}", done)))
    return blocks


def losses_blocks(losses: Sequence[Loss], peer: str) -> list[Block]:
    """Return what a tracker cannot hold."""
    if not losses:
        return []
    rows = tuple((clean(loss.what), f"{loss.count:,}", clean(loss.reason)) for loss in losses)
    return [
        Lines((f"What {peer} cannot hold:",)),
        Table(("what", "count", "what becomes of it"), rows, frozenset({1}), frozenset({2})),
    ]


def end(report: Report) -> None:
    """Leave with 1 where something is wrong, with 4 where the other side is away."""
    if not report.is_good:
        click.get_current_context().exit(AWAY if report.stopped is not None else NO)


def _runs(report: Report) -> Table:
    """Return the table of runs."""
    shown = [_row(run) for run in report.runs]
    header = ("run", "project", "outcome", "points", "series", "artifacts", "verified")
    return Table(header, tuple(shown), frozenset({3, 4, 5}), frozenset({0}))


def _row(run: Moved) -> tuple[Cell, ...]:
    """Return a run's row."""

    def figure(value: int | None) -> str:
        return "" if value is None else f"{value:,}"

    return (
        Styled(clean(run.name), "cyan"),
        clean(run.project),
        Styled(run.outcome, _STYLES.get(run.outcome, "dim")),
        figure(run.points),
        figure(run.series),
        figure(run.artifacts),
        _verdict(run),
    )


def _verdict(run: Moved) -> Cell:
    """Return what the comparison of a run came to."""
    if not run.verified:
        return ""
    if run.errors:
        return Styled(f"{len(run.errors)} ERROR{'S' if len(run.errors) > 1 else ''}", "bold red")
    if run.differences:
        return Styled(f"{run.compared} series, {len(run.differences)} explained", "yellow")
    return Styled(f"{run.compared} series equal", "green")


def _summary(report: Report) -> str:
    """Return one line for all runs."""
    counts = [
        f"{report.count(outcome)} {outcome}"
        for outcome in ("created", "updated", "unchanged", "failed", "planned")
        if report.count(outcome)
    ]
    runs = f"{len(report.runs)} run{'s' if len(report.runs) != 1 else ''}"
    way = "from" if report.kind == "import" else "to"
    points = (
        "" if report.dry_run and not report.points else f"; {report.points:,} points, {report.sent:,} of them moved now"
    )
    return f"{runs} {way} {report.peer}: {', '.join(counts)}{points}."


def _differences(report: Report) -> list[Block]:
    """Return what is not the same on both sides, errors first."""
    found = [(run, one) for run in report.runs for one in run.differences]
    if not found:
        return []
    found.sort(key=lambda pair: not pair[1].is_error)
    rows = tuple(_difference(run, one) for run, one in found[:_MOST_DIFFERENCES])
    sides = ("there", "here") if report.kind == "import" else ("here", "there")
    header = ("run", "what", "name", *sides, "because")
    more = len(found) - len(rows)
    blocks: list[Block] = [Table(header, rows, frozenset(), frozenset({2, 5}))]
    return [*blocks, Lines((f"and {more:,} more; --json lists all.",))] if more else blocks


def _difference(run: Moved, one: Difference) -> tuple[Cell, ...]:
    """Return a difference's row."""
    because: Cell = Styled("ERROR", "bold red") if one.reason is None else clean(one.reason)
    name = clean(one.name) + (f" (rank {one.rank})" if one.rank else "")
    return (clean(run.name), one.what, name, clean(one.here), clean(one.there), because)


def _read(value: str) -> object:
    """Return a value as JSON says it, else as text."""
    try:
        return json.loads(value)
    except ValueError:
        return value


__all__ = [
    "ask",
    "ask_for_import",
    "check_found",
    "end",
    "losses_blocks",
    "options_of",
    "reaching",
    "report_blocks",
    "say_what_is_there",
]
