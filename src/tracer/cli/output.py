"""How a command answers: one JSON document, CSV, blocks drawn on a terminal, or the same blocks as plain text."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import click

from tracer.cli.terminal import Terminal
from tracer.render.formats import to_csv, to_json
from tracer.render.tables import Block, plain_lines

if TYPE_CHECKING:
    from rich.console import Console

#: The version of the JSON documents; it rises when a key changes its meaning or goes away.
JSON_VERSION = 1


class Progress(Protocol):
    """What long work reports to: how much is done of how much."""

    def __call__(self, done: int, total: int, /) -> None:
        """Take the state of the work."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows with a header, for CSV."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True, slots=True)
class Show:
    """Writes answers in the form that was asked for."""

    terminal: Terminal
    as_json: bool = False
    as_csv: bool = False
    quiet: bool = False
    no_color: bool = False

    def __call__(
        self,
        document: Mapping[str, object],
        blocks: Callable[[], Sequence[Block]],
        rows: Callable[[], Rows] | None = None,
    ) -> None:
        """Show an answer.

        Args:
            document: What `--json` prints.
            blocks: Makes what people read; called only for them.
            rows: Makes what `--csv` prints.
        """
        if self.as_json:
            sys.stdout.write(to_json({"version": JSON_VERSION, **document}) + "\n")
        elif self.as_csv and rows is not None:
            made = rows()
            sys.stdout.write(to_csv(made.header, made.rows))
        elif self.terminal.draws:
            self._draw(blocks())
        else:
            self.lines(plain_lines(blocks()))

    def lines(self, lines: Sequence[str]) -> None:
        """Write lines as they are."""
        sys.stdout.write("".join(f"{line}\n" for line in lines))

    def note(self, message: str) -> None:
        """Say something beside the answer, to stderr; `--quiet` and machines do not hear it."""
        if not self.quiet and not self.as_json and not self.as_csv:
            click.echo(message, err=True)

    def done(self, message: str) -> None:
        """Say that something was done, for people only."""
        if not self.quiet and not self.as_json:
            click.echo(message)

    def console(self, stream: io.TextIOBase | None = None) -> Console:
        """Return rich's console for this terminal."""
        return _console(self.terminal, stream)

    @contextmanager
    def progress(self, doing: str) -> Iterator[Progress | None]:
        """Show how far long work is, on stderr, if that is a terminal; it disappears when the work is done."""
        terminal = Terminal.of(sys.stderr, no_color=self.no_color)
        if self.quiet or not terminal.draws or not sys.stderr.isatty():
            yield None
            return
        from rich import progress as bars

        with bars.Progress(
            bars.TextColumn("{task.description}", markup=False),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TimeRemainingColumn(),
            console=_console(terminal, sys.stderr),
            transient=True,
        ) as shown:
            task = shown.add_task(doing, total=None)

            def report(done: int, total: int) -> None:
                shown.update(task, completed=done, total=total or None)

            yield report

    def _draw(self, blocks: Sequence[Block]) -> None:
        """Draw blocks; what is higher than the screen goes through PAGER if there is one."""
        from tracer.render.tables import draw

        if not os.environ.get("PAGER") or not sys.stdout.isatty():
            draw(blocks, self.console())
            return
        text = io.StringIO()
        draw(blocks, self.console(text))
        drawn = text.getvalue()
        if drawn.count("\n") < self.terminal.height:
            sys.stdout.write(drawn)
        else:
            click.echo_via_pager(drawn)


def _console(terminal: Terminal, stream: object = None) -> Console:
    """Return a console of rich that does as the terminal's facts say, and finds no markup in our texts."""
    from rich.console import Console

    systems = {0: None, 16: "standard", 256: "256"}
    return Console(
        file=stream or sys.stdout,  # type: ignore[arg-type]  # any text stream will do
        force_terminal=True,
        color_system=systems[terminal.colours],  # type: ignore[arg-type]  # one of rich's names
        no_color=terminal.colours == 0,
        width=terminal.width,
        markup=False,
        highlight=False,
        emoji=False,
        legacy_windows=False,
        safe_box=True,
    )


__all__ = ["JSON_VERSION", "Progress", "Rows", "Show"]
