"""Charts for a terminal: lines in braille, sparklines, histograms; values in, lines of text out.

A cell is a grid of 2 by 4 dots. Every column shows the whole range of its values, so a spike of one step in a million
is seen; NaN and the infinities are marks on the border. Series differ by colour and by the symbol they carry, never by
colour alone. Without UTF-8 the same charts come in ASCII. Standard library only.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tracer.analysis.columns import Columns
from tracer.render import tables, ticks
from tracer.render.formats import clean, number

SYMBOLS, ASCII_SYMBOLS = "●▲■◆▼★", "o^x+v*"
_BARS, _ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-=+*#@"
_BRAILLE = 0x2800
#: The bit of each dot of a cell, by column and row: Unicode numbers them by history, not by place.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_NAN, _HIGH, _LOW = "\u00d7", "▲", "▼"
_ASCII_MARKS = {_NAN: "x", _HIGH: "^", _LOW: "v"}
#: Colours that people who see red and green alike can tell apart, for 256 colours and for 16.
_PALETTE = {
    256: ("38;5;39", "38;5;208", "38;5;36", "38;5;170", "38;5;220", "38;5;245"),
    16: ("36", "33", "32", "35", "34", "37"),
}
_NARROWEST, _LOWEST = 10, 2
_LABEL_EVERY = 12
_SYMBOL_EVERY = 16


@dataclass(frozen=True, slots=True)
class Curve:
    """A named series, reduced to columns."""

    name: str
    columns: Columns


@dataclass(frozen=True, slots=True)
class Style:
    """How a chart is drawn: `colours` is 0, 16 or 256; `ascii_only` is for terminals without UTF-8."""

    colours: int = 0
    ascii_only: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the plane that a chart shows; y is its logarithm where `log` is set."""

    left: float
    right: float
    bottom: float
    top: float
    log: bool = False

    def across(self, x: float) -> float:
        """Return where x lies, from 0 at the left to 1 at the right."""
        return _share(x, self.left, self.right)

    def up(self, y: float) -> float:
        """Return where y lies, from 0 at the bottom to 1 at the top."""
        if not self.log:
            return _share(y, self.bottom, self.top)
        # What no logarithm has lies on the bottom; it is marked there as well.
        return _share(math.log10(y), math.log10(self.bottom), math.log10(self.top)) if y > 0 else 0.0


def window_of(curves: Sequence[Curve], *, log: bool = False) -> Window | None:
    """Return the smallest window that shows all curves, or None when nothing can be shown.

    Args:
        curves: What is to be shown.
        log: Whether the y axis is logarithmic; values of zero and below are left out then.

    Returns:
        The window; a flat curve gets room above and below.
    """
    xs = [x for curve in curves for x in _every_x(curve.columns)]
    columns = [curve.columns for curve in curves]
    if log:
        lows = [y for one in columns for pair in zip(one.low, one.high, strict=True) for y in pair if y > 0]
        highs = lows
    else:
        lows, highs = [y for one in columns for y in one.low], [y for one in columns for y in one.high]
    if not xs:
        return None
    bottom, top = (min(lows), max(highs)) if lows else (1.0, 10.0) if log else (0.0, 1.0)
    if bottom == top:
        if log:
            bottom, top = bottom / 2, top * 2
        else:
            room = abs(bottom) / 10 or 1.0
            bottom, top = bottom - room, top + room
    left, right = min(xs), max(xs)
    if left == right:
        left, right = left - 0.5, right + 0.5
    return Window(left, right, bottom, top, log)


def line_chart(
    curves: Sequence[Curve], width: int, height: int, *, log: bool = False, style: Style | None = None
) -> list[str]:
    """Draw curves with axes, as lines of text.

    Args:
        curves: What is to be drawn; up to six differ by symbol.
        width: How many cells the chart is wide, axis labels included.
        height: How many lines it is high, legend and axis included.
        log: Whether the y axis is logarithmic.
        style: Colours and characters.

    Returns:
        The lines, none longer than `width` cells; colours are ANSI sequences and count nothing.

    Example:
        >>> falling = (1.0, 0.0)
        >>> line_chart([Curve("loss", Columns((0.0, 1.0), falling, falling, falling, falling))], 14, 5)[1]
        '1 ┤⠉⠒⠢⠤⣀⡀'
    """
    style = style or Style()
    window = window_of(curves, log=log)
    if window is None:
        return ["(no points)"]
    legend = _legend(curves, width, style)
    has_highs = any(curve.columns.highs for curve in curves)
    rows = max(height - len(legend) - 2 - has_highs, _LOWEST)
    labels = _y_labels(window, rows)
    margin = max(map(len, labels.values()), default=1)
    columns = max(width - margin - 2, _NARROWEST)
    canvas = _Canvas(columns, rows, style)
    for index, curve in enumerate(curves):
        canvas.draw(curve.columns, window, index)
    if len(curves) > 1:
        for index, curve in enumerate(curves):
            canvas.put_symbols(curve.columns, window, index)
    lines = list(legend)
    if has_highs:
        marks = [(x, _HIGH, index) for index, curve in enumerate(curves) for x in curve.columns.highs]
        lines.append((" " * (margin + 2) + _marked(" " * columns, marks, window, style)).rstrip())
    axis, corner, line = ("+", "+", "-") if style.ascii_only else ("┤", "└", "─")
    side = "|" if style.ascii_only else "│"
    for row in range(rows):
        label = labels.get(row, "")
        lines.append(f"{label:>{margin}} {axis if label else side}{canvas.line(row)}".rstrip())
    marks = [
        (x, mark, index)
        for index, curve in enumerate(curves)
        for mark, places in ((_LOW, _below(curve.columns, window)), (_NAN, curve.columns.nans))
        for x in places
    ]
    lines.append(" " * (margin + 1) + corner + _marked(line * columns, marks, window, style))
    lines.append((" " * (margin + 2) + _x_labels(window, columns)).rstrip())
    return lines


def sparkline(values: Sequence[float], width: int, *, ascii_only: bool = False) -> str:
    """Draw a series on one line; of several values in one column the one furthest from the middle is shown.

    Args:
        values: The series.
        width: How many cells there are.
        ascii_only: For terminals without UTF-8.

    Returns:
        One character per column; a cross where a value is not finite.

    Example:
        >>> sparkline([0.0, 1.0, 2.0, 3.0, 4.0], 8)
        '▁▃▅▇█'
    """
    bars = _ASCII_BARS if ascii_only else _BARS
    known = sorted(value for value in values if math.isfinite(value))
    middle = known[len(known) // 2] if known else 0.0
    low, high = (known[0], known[-1]) if known else (0.0, 0.0)
    line = ""
    for part in _parts(values, width):
        kept = [value for value in part if math.isfinite(value)]
        if len(kept) < len(part):
            line += _ASCII_MARKS[_NAN] if ascii_only else _NAN
            continue
        value = max(kept, key=lambda one: abs(one - middle))
        line += bars[min(int(_share(value, low, high) * len(bars)), len(bars) - 1)] if high > low else bars[0]
    return line


def histogram(values: Sequence[float], width: int, *, bins: int = 10, ascii_only: bool = False) -> list[str]:
    """Draw how often values occur, one line for each range of values.

    Args:
        values: The values; what is not finite is counted on lines of its own.
        width: How many cells the lines may take.
        bins: How many ranges there are.
        ascii_only: For terminals without UTF-8.

    Returns:
        The lines: range, bar, count.

    Example:
        >>> histogram([0.0, 0.0, 1.0], 24, bins=2)
        ['0 … 0.5  ████████████  2', '0.5 … 1  ██████  1']
    """
    known = [value for value in values if math.isfinite(value)]
    rows: list[tuple[str, int]] = []
    if known:
        low, high = min(known), max(known)
        counts = [0] * (bins if high > low else 1)
        for value in known:
            counts[min(int(_share(value, low, high) * len(counts)), len(counts) - 1)] += 1
        edges = [low + (high - low) * index / len(counts) for index in range(len(counts) + 1)]
        dots = ".." if ascii_only else "…"
        names = [f"{number(edges[i], 4)} {dots} {number(edges[i + 1], 4)}" for i in range(len(counts))]
        rows = list(zip(names, counts, strict=True))
    odd = {"NaN": sum(map(math.isnan, values)), "Inf": values.count(math.inf), "-Inf": values.count(-math.inf)}
    rows += [(name, count) for name, count in odd.items() if count]
    margin = max((len(name) for name, _ in rows), default=0)
    digits = max((len(str(count)) for _, count in rows), default=1)
    room, most = max(width - margin - digits - 4, 1), max((count for _, count in rows), default=1)
    bar = "#" if ascii_only else "█"
    return [f"{name:>{margin}}  {bar * round(room * count / most)}  {count}" for name, count in rows]


class _Canvas:
    """A grid of dots, and of whole cells that carry a symbol."""

    def __init__(self, columns: int, rows: int, style: Style) -> None:
        self.columns, self.rows, self.style = columns, rows, style
        self._dots = [[0] * columns for _ in range(rows)]
        self._owner = [[0] * columns for _ in range(rows)]
        self._symbols: dict[tuple[int, int], str] = {}

    def draw(self, curve: Columns, window: Window, owner: int) -> None:
        """Draw a curve: each column's range, and lines from one column to the next."""
        before: tuple[float, int, int] | None = None
        for x, low, high, last in zip(curve.x, curve.low, curve.high, curve.last, strict=True):
            if window.log and high <= 0:
                before = None
                continue
            across = round(window.across(x) * (2 * self.columns - 1))
            bottom, top = self._row(window, low), self._row(window, high)
            self._vertical(across, top, bottom, owner)
            if before is not None and not _between(curve.nans, before[0], x):
                # Go to the nearest value of this column: its range is drawn already.
                self._line((before[1], before[2]), (across, min(max(before[2], top), bottom)), owner)
            before = (x, across, self._row(window, last))

    def put_symbols(self, curve: Columns, window: Window, owner: int) -> None:
        """Put the curve's symbol on it every so often; each curve at other places."""
        symbols = ASCII_SYMBOLS if self.style.ascii_only else SYMBOLS
        wanted = _SYMBOL_EVERY // 2 + owner * 5
        for x, high, last in zip(curve.x, curve.high, curve.last, strict=True):
            column = round(window.across(x) * (2 * self.columns - 1)) // 2
            if column >= wanted or (wanted >= self.columns and column == self.columns - 1):
                if not (window.log and high <= 0):
                    self._symbols[self._row(window, last) // 4, column] = symbols[owner % len(symbols)]
                    self._owner[self._row(window, last) // 4][column] = owner
                wanted = column + _SYMBOL_EVERY

    def line(self, row: int) -> str:
        """Return one line of cells."""
        return "".join(_coloured(text, owner, self.style) for text, owner in self._runs(row))

    def _runs(self, row: int) -> Iterator[tuple[str, int | None]]:
        """Return the cells of a line, neighbours of one owner together."""
        text, before = "", None
        for column in range(self.columns):
            cell = self._cell(row, column)
            owner = None if cell == " " else self._owner[row][column]
            if owner != before and text:
                yield text, before
                text = ""
            text, before = text + cell, owner
        yield text, before

    def _cell(self, row: int, column: int) -> str:
        """Return the character of a cell."""
        symbol = self._symbols.get((row, column))
        if symbol is not None:
            return symbol
        dots = self._dots[row][column]
        if not dots:
            return " "
        return (
            ASCII_SYMBOLS[self._owner[row][column] % len(ASCII_SYMBOLS)]
            if self.style.ascii_only
            else chr(_BRAILLE + dots)
        )

    def _row(self, window: Window, y: float) -> int:
        """Return the row of dots of a value, from the top."""
        return round((1 - window.up(y)) * (4 * self.rows - 1))

    def _dot(self, across: int, down: int, owner: int) -> None:
        """Set a dot."""
        self._dots[down // 4][across // 2] |= _DOTS[across % 2][down % 4]
        self._owner[down // 4][across // 2] = owner

    def _vertical(self, across: int, top: int, bottom: int, owner: int) -> None:
        """Draw the range of a column."""
        for down in range(top, bottom + 1):
            self._dot(across, down, owner)

    def _line(self, start: tuple[int, int], end: tuple[int, int], owner: int) -> None:
        """Draw a straight line of dots."""
        across, down = end[0] - start[0], end[1] - start[1]
        count = max(abs(across), abs(down), 1)
        for index in range(count + 1):
            self._dot(start[0] + round(across * index / count), start[1] + round(down * index / count), owner)


def _share(value: float, low: float, high: float) -> float:
    """Return where a value lies between two others, kept within 0 … 1; exact for spans that overflow."""
    if high - low in (0, math.inf):
        return 0.5 if high == low else (value / 2 - low / 2) / (high / 2 - low / 2)
    return min(max((value - low) / (high - low), 0.0), 1.0)


def _between(places: Sequence[float], left: float, right: float) -> bool:
    """Tell whether one of the places lies between two others."""
    index = bisect.bisect_right(places, left)
    return index < len(places) and places[index] < right


def _every_x(columns: Columns) -> Iterator[float]:
    """Return every place at which a curve has something to show."""
    for places in (columns.x, columns.nans, columns.highs, columns.lows):
        if places:
            yield places[0]
            yield places[-1]


def _below(columns: Columns, window: Window) -> list[float]:
    """Return where a curve leaves the window downwards: -Inf, and on a logarithmic axis zero and less."""
    hidden = [x for x, low in zip(columns.x, columns.low, strict=True) if low <= 0] if window.log else []
    return [*columns.lows, *hidden]


def _legend(curves: Sequence[Curve], width: int, style: Style) -> list[str]:
    """Return the names of the curves with their symbols, on as many lines as they need."""
    symbols = ASCII_SYMBOLS if style.ascii_only else SYMBOLS
    lines: list[str] = []
    room = 0
    for index, curve in enumerate(curves):
        symbol = f"{symbols[index % len(symbols)]} " if len(curves) > 1 else ""
        text = symbol + _shortened(clean(curve.name), width - len(symbol))
        if lines and tables.width(text) + 3 <= room:
            lines[-1] += "   "
            room -= 3
        else:
            lines.append("")
            room = width
        lines[-1] += _coloured(text, index, style)
        room -= tables.width(text)
    return lines


def _shortened(text: str, width: int) -> str:
    """Return a text cut at its beginning if it is too long: the end of a metric's name tells most."""
    if tables.width(text) <= width:
        return text
    while tables.width(text) > width - 2:
        text = text[1:]
    return ".." + text


def _y_labels(window: Window, rows: int) -> dict[int, str]:
    """Return the labels of the y axis by row, one row apart at least."""
    if window.log:
        marks = ticks.log_ticks(window.bottom, window.top, rows // 2)
    else:
        marks = ticks.ticks(window.bottom, window.top, max(rows // 3, 1))
    step = marks[1] - marks[0] if len(marks) > 1 and not window.log else None
    labels: dict[int, str] = {}
    for mark in marks:
        row = round((1 - window.up(mark)) * (4 * rows - 1)) // 4
        labels.setdefault(row, ticks.label(mark, step))
    return labels


def _x_labels(window: Window, columns: int) -> str:
    """Return the line of labels below the x axis."""
    marks = ticks.ticks(window.left, window.right, max(columns // _LABEL_EVERY, 1))
    step = marks[1] - marks[0] if len(marks) > 1 else None
    line = ""
    for mark in marks:
        text = ticks.label(mark, step)
        place = round(window.across(mark) * (columns - 1))
        start = max(0, min(place - len(text) // 2, columns - len(text)))
        if not line or start >= len(line) + 2:
            line = line.ljust(start) + text
    return line[:columns]


def _marked(line: str, marks: Sequence[tuple[float, str, int]], window: Window, style: Style) -> str:
    """Return a border with its marks."""
    cells = list(line)
    for x, mark, owner in marks:
        place = round(window.across(x) * (2 * len(line) - 1)) // 2
        cells[place] = _coloured(_ASCII_MARKS[mark] if style.ascii_only else mark, owner, style)
    return "".join(cells)


def _coloured(text: str, owner: int | None, style: Style) -> str:
    """Return text in the colour of its curve."""
    if owner is None or style.colours not in _PALETTE or not text:
        return text
    palette = _PALETTE[style.colours]
    return f"\x1b[{palette[owner % len(palette)]}m{text}\x1b[0m"


def _parts(values: Sequence[float], width: int) -> Iterator[Sequence[float]]:
    """Return the values in as many parts as there are columns."""
    count = min(len(values), max(width, 1))
    for index in range(count):
        yield values[index * len(values) // count : (index + 1) * len(values) // count]


__all__ = ["Curve", "Style", "Window", "histogram", "line_chart", "sparkline", "window_of"]
