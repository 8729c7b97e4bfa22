"""`tracer show --follow`: a run as it goes on, read from its live journal.

On a terminal one screen is redrawn, at most four times a second and only when something changed; elsewhere every change
is a line. It ends when the run ends, with the run's exit: 0, or 1 when it failed or crashed.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from tracer import clock, events
from tracer.cli.output import JSON_VERSION, Show
from tracer.cli.records import metric_record, run_record
from tracer.render.formats import clean, number, to_json
from tracer.render.tables import draw

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.storage.values import RunRow, SeriesRow

_PERIOD_S = 0.25
_MOST_ON_A_LINE = 8


def follow_run(store: Store, run: RunRow, wanted: Sequence[str], show: Show) -> None:
    """Show a run until it ends.

    Args:
        store: Where it is.
        run: The run.
        wanted: Metrics to show; all but the system's when empty.
        show: Where to.
    """
    states = _states(store, run, wanted)
    if show.as_json:
        last = _print_json(states)
    elif show.terminal.draws and sys.stdout.isatty():
        last = _redraw(store, states, show)
    else:
        last = _print_lines(states)
    if last is not None and last.status in (events.FAILED, events.CRASHED):
        click.get_current_context().exit(1)


def _states(store: Store, run: RunRow, wanted: Sequence[str]) -> Iterator[tuple[RunRow, list[SeriesRow]]]:
    """Yield the run and its metrics whenever they changed, and once more at its end."""
    from tracer.cli.run_page import matching_metrics

    pause = threading.Event()
    before: object = None
    while True:
        began = clock.monotonic()
        now = store.run(run.uid)
        rows = matching_metrics(store.metrics(run.uid), wanted)
        state = (now.status, now.steps, [(row.metric, row.rank, row.n, row.last_step) for row in rows])
        if state != before:
            yield now, rows
        if not now.is_live:
            return
        before = state
        clock.wait(pause, max(_PERIOD_S - (clock.monotonic() - began), 0.01))


def _print_lines(states: Iterator[tuple[RunRow, list[SeriesRow]]]) -> RunRow | None:
    """Print a line for each change."""
    run = None
    for run, rows in states:
        shown = [row for row in rows if row.last is not None][:_MOST_ON_A_LINE]
        step = max((row.last_step for row in rows if row.last_step is not None), default=run.steps)
        figures = "  ".join(f"{clean(row.metric)} {number(row.last)}" for row in shown)
        more = f"  (+{len(rows) - len(shown)} more)" if len(rows) > len(shown) else ""
        sys.stdout.write(f"{run.status}  step {step}  {figures}{more}".rstrip() + "\n")
        sys.stdout.flush()
    return run


def _print_json(states: Iterator[tuple[RunRow, list[SeriesRow]]]) -> RunRow | None:
    """Print a line of JSON for each change."""
    run = None
    for run, rows in states:
        record = {**run_record(run), "metrics": [metric_record(row) for row in rows]}
        sys.stdout.write(to_json({"version": JSON_VERSION, "run": record}, indent=None) + "\n")
        sys.stdout.flush()
    return run


def _redraw(store: Store, states: Iterator[tuple[RunRow, list[SeriesRow]]], show: Show) -> RunRow | None:
    """Redraw one screen for each change; what was drawn last stays."""
    import io

    from rich.live import Live
    from rich.text import Text

    from tracer.cli.run_page import header, metric_table

    run = None
    with Live(console=show.console(), auto_refresh=False, vertical_overflow="crop", transient=False) as live:
        for run, rows in states:
            text = io.StringIO()
            draw([*header(run), *metric_table(store, run, rows, show)], show.console(text))
            live.update(Text.from_ansi(text.getvalue().rstrip("\n")), refresh=True)
    return run


__all__ = ["follow_run"]
