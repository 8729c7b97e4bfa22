"""`tracer logs`: what a run printed and logged, as lines; filtered, the last ones, or as they come."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from tracer import clock
from tracer.cli.options import one_run, reading
from tracer.cli.output import JSON_VERSION, Show
from tracer.errors import CommandError
from tracer.render.formats import clean, to_json, when

if TYPE_CHECKING:
    from tracer.storage.log_rows import LogRow
    from tracer.storage.store import Store
    from tracer.storage.values import RunRow

#: As the module `logging` counts them, and as other languages call them.
_LEVELS = {
    "TRACE": 5, "DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40, "CRITICAL": 50, "FATAL": 50,
}  # fmt: skip
_POLL_S = 0.5
#: How far behind the newest line one may still come that is older: several threads and ranks write.
_LATE_US = 5_000_000


class Wanted:
    """Which lines are shown.

    Args:
        level: The least level of a record; lines of output have none, and are not shown then.
        pattern: A regular expression that is found in the text.
        stream: `stdout`, `stderr`, `log` or `event`.
    """

    def __init__(self, level: str | None, pattern: str | None, stream: str | None) -> None:
        self._least = _LEVELS[level.upper()] if level else 0
        self._stream = stream
        try:
            self._pattern = re.compile(pattern) if pattern else None
        except re.error as error:
            message = f"--grep {pattern!r} is no regular expression: {error}. Write \\ before special characters."
            raise CommandError(message) from None

    def __call__(self, row: LogRow) -> bool:
        """Tell whether a row is shown."""
        if self._stream is not None and self._stream not in (row.kind, row.name if row.kind == "line" else None):
            return False
        if self._least and not (row.level and _level(row.level) >= self._least):
            return False
        return self._pattern is None or self._pattern.search(f"{row.name or ''}: {row.body or ''}") is not None


@click.command("logs")
@click.argument("name", metavar="RUN")
@click.option("--follow", "-f", is_flag=True, help="Go on as lines come, until the run ends.")
@click.option(
    "--level",
    type=click.Choice(list(_LEVELS), case_sensitive=False),
    help="Only records of `logging` of this level or a higher one.",
)
@click.option("--grep", metavar="REGEX", help="Only lines in which this is found.")
@click.option("--stream", type=click.Choice(["stdout", "stderr", "log", "event"]), help="Only what came this way.")
@click.option("--rank", type=click.IntRange(min=0), help="Only what this rank said.")
@click.option("--step", "steps", metavar="A:B", help="Only from step A on, and before step B; one may be left out.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
@reading()
def show_logs(
    name: str,
    *,
    follow: bool,
    rank: int | None,
    steps: str | None,
    tail: int | None,
    store: Store,
    show: Show,
    **which: str | None,
) -> None:
    r"""Show what a run printed and logged.

    \b
      tracer logs @last --level WARNING
      tracer logs @last -f --stream stdout
      tracer logs gpt --step 1000:2000 --grep "loss|nan"
    """
    run = one_run(store, name, show)
    start, stop = _range(steps)
    wanted = Wanted(which["level"], which["grep"], which["stream"])
    rows = store.log_lines(run.uid, rank=rank, start=start, stop=stop)
    chosen = [row for row in rows if wanted(row)]
    if tail is not None:
        chosen = chosen[len(chosen) - min(tail, len(chosen)) :]
    if follow:
        with_rank = run.world_size > 1
        _print(chosen, show, with_rank=with_rank)
        for more in _coming(store, run, rows, rank, (start, stop)):
            _print([row for row in more if wanted(row)], show, with_rank=with_rank)
    elif show.as_json:
        document = {"version": JSON_VERSION, "run": run.uid, "lines": [_record(row) for row in chosen]}
        sys.stdout.write(to_json(document) + "\n")
    else:
        _print(chosen, show, with_rank=run.world_size > 1)
        if not rows:
            show.note(f"{clean(run.name)} has kept no output. Ask for it: track_output='wrap', or TRACER_TRACK_OUTPUT.")


def _coming(
    store: Store, run: RunRow, rows: Sequence[LogRow], rank: int | None, steps: tuple[int | None, int | None]
) -> Iterator[list[LogRow]]:
    """Yield what is new again and again, until the run ends; a line that comes late is not forgotten."""
    newest = rows[-1].time if rows else None
    shown = {row for row in rows if newest is None or row.time >= newest - _LATE_US}
    pause = threading.Event()
    is_live = True
    while is_live:
        clock.wait(pause, _POLL_S)
        is_live = store.run(run.uid).is_live
        since = None if newest is None else newest - _LATE_US
        found = store.log_lines(run.uid, rank=rank, start=steps[0], stop=steps[1], since=since)
        fresh = [row for row in found if row not in shown]
        if fresh:
            newest = max(row.time for row in found)
            shown = {row for row in found if row.time >= newest - _LATE_US}
            yield fresh


def _print(rows: Sequence[LogRow], show: Show, *, with_rank: bool) -> None:
    """Print lines: for machines one JSON object each, for people the time and where it came from before the text."""
    for row in rows:
        if show.as_json:
            sys.stdout.write(to_json(_record(row), indent=None) + "\n")
            continue
        place = f"{row.level or row.kind} {row.name}" if row.kind != "line" else (row.name or "")
        head = f"{when(row.time)}  {row.step:>7}  " + (f"[{row.rank}] " if with_rank else "") + clean(place)
        for part in (row.body or "").split("\n"):
            sys.stdout.write(f"{head}  {clean(part)}".rstrip() + "\n")
    sys.stdout.flush()


def _record(row: LogRow) -> dict[str, object]:
    """Return a row as JSON holds it."""
    return {
        "time": row.time,
        "step": row.step,
        "rank": row.rank,
        "kind": row.kind,
        "level": row.level,
        "name": row.name,
        "body": row.body,
        "fields": json.loads(row.fields) if row.fields else None,
    }


def _level(name: str) -> int:
    """Return how grave a level is; one with a name of its own is taken for information."""
    found = _LEVELS.get(name.upper())
    if found is None and name.lower().startswith("level "):  # what `logging` calls a number without a name
        number = name[6:]
        return int(number) if number.isdigit() else _LEVELS["INFO"]
    return _LEVELS["INFO"] if found is None else found


def _range(steps: str | None) -> tuple[int | None, int | None]:
    """Return the first step and the one after the last."""
    if steps is None:
        return None, None
    first, colon, last = steps.partition(":")
    try:
        start = int(first) if first else None
        return start, (int(last) if last else None) if colon else int(first) + 1
    except ValueError:
        message = f"--step {steps!r} is no range of steps. Write it as 100:200, 100:, :200 or 100."
        raise CommandError(message) from None


__all__ = ["show_logs"]
