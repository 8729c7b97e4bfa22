"""Heat maps for a terminal: a line for each row, steps to the right; values in, lines of text out.

With 256 colours a cell is a patch of colour from dark to light; with fewer, a character from thin to thick, so that the
map is read without colours too. A cell that held NaN or an infinity is a `!`, white on red where there is colour: it is
seen before anything else. A blank cell was not measured. Standard library only.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

from tracer.render import tables, ticks
from tracer.render.charts import Style
from tracer.render.formats import clean, number

#: From few to much; a blank is nothing at all.
_SHADES = ".:-=+*#%@"
#: Dark violet to yellow, which people who see red and green alike read as dark to light too.
_RAMP = (53, 54, 60, 24, 25, 31, 30, 36, 35, 71, 77, 113, 149, 185, 221, 227)
#: Without 256 colours: blue, cyan, green, yellow and white, each for some of the characters.
_FEW = (34, 34, 36, 36, 32, 32, 33, 33, 97)
_BAD, _BAD_COLOUR = "!", "97;41;1"
_LABEL_EVERY = 12
_NARROWEST = 10
_LABEL_SHARE = 3


@dataclass(frozen=True, slots=True)
class Heat:
    """What a heat map shows: rows of values, NaN where there is none, and which cells held something not finite.

    `first_steps` says with which step each column begins; the last column ends with `last_step`.
    """

    names: Sequence[str]
    values: Sequence[Sequence[float]]
    bad: Sequence[Sequence[bool]]
    first_steps: Sequence[int]
    last_step: int
    log: bool = False
    unit: str = ""


def heat_map(heat: Heat, width: int, style: Style | None = None) -> list[str]:
    """Draw rows of values over steps.

    Args:
        heat: What to draw.
        width: How many cells a line may take, names included.
        style: Colours and characters.

    Returns:
        The lines: the rows, the axis, the scale; colours are ANSI sequences and count nothing.

    Example:
        >>> for line in heat_map(Heat(["a", "b"], [[1, 10], [100, 1]], [[False, False], [False, True]], [0, 5], 9), 60):
        ...     print(line[:24])
        a ......................
        b @@@@@@@@@@@@@@@@@@@@@@
          0          2
        1 .:-=+*#%@ 100   ! NaN
    """
    style = style or Style()
    names = [clean(name) for name in heat.names]
    widest = max(width // _LABEL_SHARE, _NARROWEST)
    shared = ("", "")
    if max(map(tables.width, names), default=0) > widest:
        shared = _shared(names)
        names = [name[len(shared[0]) : len(name) - len(shared[1])] for name in names]
    margin = min(max(map(tables.width, names), default=0), widest)
    columns = max(width - margin - 1, _NARROWEST)
    scale = _Scale.of(heat)
    places = _places(heat, columns)
    lines = []
    for name, values, bad in zip(names, heat.values, heat.bad, strict=True):
        cells = [_cell(values[at], scale, style, is_bad=bad[at]) for at in places]
        lines.append(f"{_padded(name, margin)} {_joined(cells)}".rstrip())
    said = [f"names without {shared[0]!r} before and {shared[1]!r} behind them"] if any(shared) else []
    return [*lines, f"{'':{margin}} {_axis(heat, columns)}", *_legend(heat, scale, width, style), *said]


@dataclass(frozen=True, slots=True)
class _Scale:
    """From which value to which one the shades go."""

    low: float
    high: float
    log: bool

    @classmethod
    def of(cls, heat: Heat) -> _Scale:
        """Return the scale on which all values have a place."""
        known = [value for row in heat.values for value in row if math.isfinite(value)]
        if heat.log:
            known = [value for value in known if value > 0]
        return cls(min(known, default=0.0), max(known, default=0.0), heat.log)

    def share(self, value: float) -> float:
        """Return where a value lies, from 0 to 1; what has no logarithm lies at the lower end."""
        low, high = self.low, self.high
        if self.log:
            if value <= 0 or low <= 0:
                return 0.0
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        # Halved, so that no difference of two numbers is beyond what a double holds.
        span = high / 2 - low / 2
        return min(max((value / 2 - low / 2) / span, 0.0), 1.0) if span > 0 else 0.5


#: The text of a cell and its colour, as ANSI has it.
_Cell = tuple[str, str]


def _cell(value: float, scale: _Scale, style: Style, *, is_bad: bool) -> _Cell:
    """Return one cell."""
    if is_bad or math.isinf(value):
        return _BAD, _BAD_COLOUR if style.colours else ""
    if math.isnan(value):
        return " ", ""
    return _shade(scale.share(value), style)


def _shade(share: float, style: Style) -> _Cell:
    """Return the cell of a share of the scale."""
    if style.colours >= 256:  # noqa: PLR2004 -- a terminal's number of colours
        return " ", f"48;5;{_RAMP[min(int(share * len(_RAMP)), len(_RAMP) - 1)]}"
    at = min(int(share * len(_SHADES)), len(_SHADES) - 1)
    return _SHADES[at], str(_FEW[at]) if style.colours else ""


def _joined(cells: Sequence[_Cell]) -> str:
    """Return cells as text, neighbours of one colour together."""
    text, before = "", ""
    for cell, colour in cells:
        if colour != before:
            text += ("\x1b[0m" if before else "") + (f"\x1b[{colour}m" if colour else "")
            before = colour
        text += cell
    return text + ("\x1b[0m" if before else "")


def _places(heat: Heat, columns: int) -> list[int]:
    """Return which column of values each column of cells shows: the one that holds the step at its middle."""
    first, last = heat.first_steps[0], heat.last_step
    places = []
    for column in range(columns):
        step = first + (last + 1 - first) * (2 * column + 1) / (2 * columns)
        places.append(max(bisect.bisect_right(heat.first_steps, step) - 1, 0))
    return places


def _axis(heat: Heat, columns: int) -> str:
    """Return the line of steps below the rows."""
    first, last = heat.first_steps[0], heat.last_step
    marks = [mark for mark in ticks.ticks(first, last, max(columns // _LABEL_EVERY, 1)) if mark == round(mark)] or [
        first
    ]
    step = marks[1] - marks[0] if len(marks) > 1 else None
    line = ""
    for mark in marks:
        text = ticks.label(mark, step)
        # A label stands where its step begins; the last one ends with the line.
        start = min(int((mark - first) / (last + 1 - first) * columns), columns - len(text))
        if start >= len(line) + (1 if line else 0):
            line = line.ljust(start) + text
    return line


def _legend(heat: Heat, scale: _Scale, width: int, style: Style) -> list[str]:
    """Return what the shades mean, on as many lines as it takes."""
    steps = len(_RAMP) if style.colours >= 256 else len(_SHADES)  # noqa: PLR2004 -- a terminal's number of colours
    bar = _joined([_shade((at + 0.5) / steps, style) for at in range(steps)])
    unit = f" {heat.unit}" if heat.unit else ""
    ends = f"{number(scale.low, 3)} ", f" {number(scale.high, 3)}{unit}{', logarithmic' if heat.log else ''}"
    bad = _joined([(_BAD, _BAD_COLOUR if style.colours else "")])
    parts = [(f"{ends[0]}{bar}{ends[1]}", len(ends[0]) + steps + len(ends[1])), (f"{bad} NaN or Inf", 12)]
    parts.append(("blank: not measured", 19))
    lines, room = [""], width
    for text, size in parts:
        if lines[-1] and size + 3 > room:
            lines.append("")
            room = width
        gap = "   " if lines[-1] else ""
        lines[-1] += gap + text
        room -= size + len(gap)
    return lines


def _shared(names: Sequence[str]) -> tuple[str, str]:
    """Return what all names begin and end with, whole parts between dots only; something of each name is left."""
    parts = [name.split(".") for name in names]
    least = min(map(len, parts), default=1)
    if len(parts) < _LABEL_SHARE:
        return "", ""
    before = 0
    while before < least - 1 and len({one[before] for one in parts}) == 1:
        before += 1
    behind = 0
    while behind < least - 1 - before and len({one[-1 - behind] for one in parts}) == 1:
        behind += 1
    first = parts[0]
    return "".join(f"{one}." for one in first[:before]), "".join(f".{one}" for one in first[len(first) - behind :])


def _padded(name: str, margin: int) -> str:
    """Return a name in its column, cut in its middle: the number of a block stands before it, the kind behind it."""
    if tables.width(name) > margin:
        head = (margin - 2) // 3
        tail = name
        while tables.width(tail) > margin - 2 - tables.width(name[:head]):
            tail = tail[1:]
        name = f"{name[:head]}..{tail}"
    return " " * (margin - tables.width(name)) + name


__all__ = ["Heat", "heat_map"]
