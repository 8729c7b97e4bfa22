"""`tracer query`: SQL over the store, reading only."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from tracer.cli.options import reading
from tracer.cli.output import Rows, Show
from tracer.errors import CommandError
from tracer.render.formats import full, number
from tracer.render.tables import Block, Lines, Table

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.storage.values import Table as Answer


@click.command("query")
@click.argument("text", metavar="SQL")
@click.option(
    "--limit", type=click.IntRange(min=0), default=1000, show_default=True, help="At most so many rows; 0 for all."
)
@reading(rows=True)
def query_store(text: str, limit: int, store: Store, show: Show) -> None:
    r"""Ask the store a question in SQL (DuckDB's); - reads it from standard input. Nothing can be changed.

    \b
      tracer query "SELECT run, avg(value) FROM points WHERE metric = 'loss' GROUP BY run"
    """
    if text == "-":
        text = sys.stdin.read()
    if not text.strip():
        message = 'The question is empty. Write SQL, such as: tracer query "SHOW TABLES"'
        raise CommandError(message)
    answer = store.sql(text, limit=limit or None)
    show(
        {
            "columns": list(answer.columns),
            "types": list(answer.types),
            "rows": [list(row) for row in answer.rows],
            "complete": answer.complete,
        },
        blocks=lambda: _blocks(answer),
        rows=lambda: Rows(answer.columns, answer.rows),
    )
    if not answer.complete:
        show.note(f"These are the first {len(answer.rows)} rows; --limit 0 shows all.")


def _blocks(answer: Answer) -> list[Block]:
    """Return the rows for people."""
    if not answer.rows:
        return [Lines(("no rows",))]
    right = {
        index
        for index in range(len(answer.columns))
        if all(isinstance(row[index], (int, float)) for row in answer.rows if row[index] is not None)
    }
    rows = tuple(
        tuple(number(cell, 10) if isinstance(cell, float) else full(cell) for cell in row) for row in answer.rows
    )
    return [Table(answer.columns, rows, frozenset(right), frozenset(range(len(answer.columns))))]


__all__ = ["query_store"]
