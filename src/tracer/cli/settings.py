"""`tracer settings`: every setting, what a new run would get, and where that comes from."""

from __future__ import annotations

import click

from tracer.cli.options import reading
from tracer.cli.output import Rows, Show
from tracer.render.formats import clean
from tracer.render.tables import Block, Cell, Styled, Table


@click.command("settings")
@click.argument("name", required=False, default="")
@reading(store=False, rows=True)
def show_settings(name: str, storage: str, show: Show) -> None:  # noqa: ARG001 -- every reading command has a store
    """Show every setting, what a run begun here would get, and where that comes from.

    NAME shows only the settings whose name holds this text.
    """
    from tracer.config import explained

    found = [(row, value, source) for row, value, source in explained() if name in row.name or name in row.env]
    if not found:
        message = f"No setting has {name!r} in its name. `tracer settings` lists them all."
        raise click.UsageError(message)
    show(
        {
            "settings": [
                {
                    "name": row.name, "value": value, "source": source, "default": row.default, "type": row.type,
                    "environment": list(row.env), "file": row.file_key, "help": row.help,
                }
                for row, value, source in found
            ]
        },
        blocks=lambda: _blocks([(row.name, value, source, row.help) for row, value, source in found]),
        rows=lambda: Rows(
            ("name", "value", "source", "help"), [(row.name, value, source, row.help) for row, value, source in found]
        ),
    )  # fmt: skip


def _blocks(found: list[tuple[str, object, str, str]]) -> list[Block]:
    """Return the settings for people: those that somebody set stand out."""
    rows: list[tuple[Cell, ...]] = [
        (
            Styled(name, "cyan") if source != "default" else name,
            clean("" if value is None else value),
            Styled(clean(source), "green") if source != "default" else Styled(source, "dim"),
            help_,
        )
        for name, value, source, help_ in found
    ]
    return [Table(("setting", "value", "from", "what it is for"), tuple(rows), frozenset(), frozenset({3}))]


__all__ = ["show_settings"]
