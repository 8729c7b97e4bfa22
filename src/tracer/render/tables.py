"""What a command shows, as blocks: headings, lines, pairs, tables; drawn with rich on a terminal, plain elsewhere.

Plain text has no colour, no box, no cut column: cells are padded so that columns stand below each other, and two blanks
part them. rich is imported only by `draw`, and `draw` is called only for a terminal.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tracer.render.formats import clean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


class Styled(NamedTuple):
    """A text with the name of a style; the style is seen on a terminal only."""

    text: str
    style: str


Cell = str | Styled
_GAP = "  "
#: A column that gives way does not get narrower than this.
_NARROWEST = 12
#: Status and severity in colour; the word itself always stands beside the colour.
STATUS_STYLES = {"running": "yellow", "completed": "green", "failed": "red", "crashed": "bold red"}
SEVERITY_STYLES = {"low": "dim", "medium": "yellow", "high": "red", "critical": "bold red"}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a header; `right` holds the indexes of the columns that are numbers.

    `may_wrap` holds the columns that give way when a terminal is too narrow.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    right: frozenset[int] = frozenset()
    may_wrap: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Pairs:
    """Names and what belongs to them, one line each."""

    rows: tuple[tuple[str, Cell], ...]


@dataclass(frozen=True, slots=True)
class Heading:
    """The title of what follows."""

    text: str


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines as they are, such as a chart or a diff; with ANSI colours of ours only where `coloured`."""

    lines: tuple[Cell, ...]
    coloured: bool = False


Block = Table | Pairs | Heading | Lines


def status(name: str) -> Styled:
    """Return a status in its colour."""
    return Styled(clean(name), STATUS_STYLES.get(name, ""))


def severity(name: str) -> Styled:
    """Return a severity in its colour."""
    return Styled(clean(name), SEVERITY_STYLES.get(name, ""))


def plain_lines(blocks: Iterable[Block]) -> list[str]:
    """Return blocks as plain lines, for a pipe or a file.

    Args:
        blocks: What there is to show.

    Returns:
        The lines, without colour and without trailing blanks; an empty line before each heading but the first.

    Example:
        >>> plain_lines([Table(("run", "steps"), (("a", "10"), ("bcd", "5")), frozenset({1}))])
        ['run  steps', 'a       10', 'bcd      5']
    """
    lines: list[str] = []
    for block in blocks:
        match block:
            case Heading():
                lines += ["", block.text] if lines else [block.text]
            case Lines():
                lines += [_text(cell) for cell in block.lines]
            case Pairs():
                lines += _columns([(name, _text(cell)) for name, cell in block.rows], frozenset())
            case Table():
                rows = [block.header, *(tuple(_text(cell) for cell in row) for row in block.rows)]
                lines += _columns(rows, block.right)
    return [line.rstrip() for line in lines]


def draw(blocks: Iterable[Block], console: Console) -> None:
    """Draw blocks on a terminal, with colour if it has any.

    Args:
        blocks: What there is to show.
        console: Where to.
    """
    first = True
    for block in blocks:
        match block:
            case Heading():
                if not first:
                    console.print()
                console.print(_rich(Styled(block.text, "bold")))
            case Lines() if block.coloured:
                for cell in block.lines:
                    console.file.write(_text(cell) + "\n")
            case Lines():
                for cell in block.lines:
                    console.print(_rich(cell), soft_wrap=True)
            case Pairs():
                _draw_pairs(block, console)
            case Table():
                _draw_table(block, console)
        first = False


def table_width(table: Table, *, narrowed: bool = False) -> int:
    """Return how many cells of a terminal a table takes when nothing is cut.

    Args:
        table: The table.
        narrowed: Whether the columns that may wrap have given way already.

    Returns:
        The cells.
    """
    widths = [_column_width(table, column) for column in range(len(table.header))]
    if narrowed:
        widths = [min(wide, _NARROWEST) if i in table.may_wrap else wide for i, wide in enumerate(widths)]
    return sum(widths) + len(_GAP) * (len(widths) - 1)


def width(text: str) -> int:
    """Return how many cells of a terminal a text takes.

    Example:
        >>> width("loss"), width("損失")
        (4, 4)
    """
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _column_width(table: Table, column: int) -> int:
    """Return the width of the widest cell of a column."""
    return max(width(_text(row[column])) for row in (table.header, *table.rows))


def _columns(rows: Sequence[Sequence[str]], right: frozenset[int]) -> list[str]:
    """Return rows with their cells padded to columns."""
    if not rows:
        return []
    widths = [max(width(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [_GAP.join(_padded(cell, widths[i], i in right) for i, cell in enumerate(row)).rstrip() for row in rows]


def _padded(text: str, wide: int, right: bool) -> str:  # noqa: FBT001 -- a column is right or left
    """Return a cell filled up with blanks."""
    blanks = " " * (wide - width(text))
    return blanks + text if right else text + blanks


def _cells(character: str) -> int:
    """Return the cells of one character: none for a combining one, two for a wide one."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _text(cell: Cell) -> str:
    """Return the text of a cell."""
    return cell.text if isinstance(cell, Styled) else cell


def _rich(cell: Cell) -> Text:
    """Return a cell as rich has it; the text is never read as markup."""
    from rich.text import Text

    return Text(cell.text, cell.style) if isinstance(cell, Styled) else Text(cell)


def _draw_pairs(block: Pairs, console: Console) -> None:
    """Draw names and values."""
    from rich.table import Table as Grid

    grid = Grid.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, cell in block.rows:
        grid.add_row(_rich(name), _rich(cell))
    console.print(grid)


def _draw_table(block: Table, console: Console) -> None:
    """Draw rows under a header, or as records below each other when the terminal is too narrow for columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as Grid

    if table_width(block, narrowed=True) > console.width:
        _draw_records(block, console)
        return
    grid = Grid(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for index, name in enumerate(block.header):
        wraps = index in block.may_wrap
        grid.add_column(
            name,
            justify="right" if index in block.right else "left",
            no_wrap=not wraps,
            overflow="fold",
            min_width=min(_column_width(block, index), _NARROWEST) if wraps else None,
        )
    for row in block.rows:
        grid.add_row(*(_rich(cell) for cell in row))
    console.print(grid)


def _draw_records(block: Table, console: Console) -> None:
    """Draw each row as names and values, parted by a line."""
    for row in block.rows:
        console.rule(characters="-", style="dim")
        _draw_pairs(Pairs(tuple(zip(block.header, row, strict=True))), console)


__all__ = [
    "Block",
    "Cell",
    "Heading",
    "Lines",
    "Pairs",
    "Styled",
    "Table",
    "draw",
    "plain_lines",
    "severity",
    "status",
    "table_width",
    "width",
]
