"""A line chart as a picture: axes, grid, legend, curves with the band in which their values were; as SVG or PNG.

The layout is made once, as shapes; `svg` and `png` only draw them. Curves differ by colour and by dashes.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from tracer.analysis.columns import Columns
from tracer.render import ticks
from tracer.render.charts import Curve, Window, window_of
from tracer.render.formats import clean
from tracer.render.shapes import Band, Line, Picture, Point, Shape, Text

#: Okabe and Ito's colours, which people with any kind of colour vision tell apart; darkened for white ground.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b0568f", "#a07800", "#5b5b5b", "#2f9fd0", "#8a2be2")
_DASHES: tuple[tuple[float, ...], ...] = ((), (9.0, 4.0), (2.5, 3.0), (10.0, 3.0, 2.5, 3.0), (14.0, 4.0), (5.0, 3.0))
_INK, _SOFT, _GRID, _GROUND = "#1f2933", "#52606d", "#e4e7eb", "#ffffff"
_TITLE, _TEXT = 17.0, 13.0
_CHARACTER = 0.62
_EDGE, _LINE, _LEGEND_ROW = 18.0, 1.8, 20.0
_PIXELS_PER_X, _PIXELS_PER_Y = 110, 48
_ROOM = 0.04
#: A column that reaches so many times further than the middle one is a spike.
_SPIKE = 8.0


@dataclass(frozen=True, slots=True)
class Chart:
    """What a picture shows: the curves with their titles; `faint` are drawn pale behind those of the same index."""

    title: str
    curves: tuple[Curve, ...]
    x_label: str = "step"
    y_label: str = ""
    log: bool = False
    faint: tuple[Curve, ...] = ()


def lay_out(chart: Chart, width: int = 960, height: int = 540) -> Picture:
    """Return the shapes of a chart.

    Args:
        chart: What is to be shown.
        width: Width in pixels.
        height: Height in pixels.

    Returns:
        The picture, ready for `svg.to_svg` or `png.to_png`.

    Example:
        >>> len(lay_out(Chart("empty", ())).shapes)
        2
    """
    window = window_of([*chart.curves, *chart.faint], log=chart.log)
    shapes: list[Shape] = [Text(_EDGE, _EDGE + _TITLE * 0.8, clean(chart.title), _TITLE, _INK, bold=True)]
    if window is None:
        shapes.append(Text(width / 2, height / 2, "no points", _TEXT, _SOFT, "middle"))
        return Picture(width, height, _GROUND, tuple(shapes), chart.title)
    window = _with_room(window)
    legend, legend_height = _legend(chart.curves, width, _EDGE + _TITLE + 12)
    top = _EDGE + _TITLE + 14 + legend_height
    marks_y = _marks(window, height - top - 60)
    step = marks_y[1] - marks_y[0] if len(marks_y) > 1 and not chart.log else None
    labels = [ticks.label(mark, step) for mark in marks_y]
    left = _EDGE + max(len(label) for label in labels) * _TEXT * _CHARACTER + (28 if chart.y_label else 10)
    frame = _Frame(left, top, width - _EDGE, height - 52.0, window)
    shapes += legend
    for mark, label in zip(marks_y, labels, strict=True):
        y = frame.y(mark)
        shapes.append(Line(((frame.left, y), (frame.right, y)), _GRID, 1.0))
        shapes.append(Text(frame.left - 8, y + _TEXT * 0.36, label, _TEXT, _SOFT, "end"))
    shapes += _x_axis(frame, chart.x_label)
    if chart.y_label:
        middle = (frame.top + frame.bottom) / 2
        shapes.append(Text(_EDGE + 6, middle, clean(chart.y_label), _TEXT, _SOFT, "middle", turned=True))
    for index, curve in enumerate(chart.faint):
        shapes += _line(curve.columns, frame, index, opacity=0.28, last=True)
    for index, curve in enumerate(chart.curves):
        shapes += _curve(curve.columns, frame, index)
    return Picture(width, height, _GROUND, tuple(shapes), chart.title)


@dataclass(frozen=True, slots=True)
class _Frame:
    """The rectangle of the curves, and what part of the plane lies in it."""

    left: float
    top: float
    right: float
    bottom: float
    window: Window

    def x(self, value: float) -> float:
        """Return the pixel of a value of x."""
        return self.left + self.window.across(value) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Return the pixel of a value of y."""
        return self.bottom - self.window.up(value) * (self.bottom - self.top)


def _with_room(window: Window) -> Window:
    """Return the window with a little room above and below."""
    if window.log:
        factor = (window.top / window.bottom) ** _ROOM
        return Window(window.left, window.right, window.bottom / factor, window.top * factor, log=True)
    room = (window.top / 2 - window.bottom / 2) * 2 * _ROOM
    most = sys.float_info.max
    return Window(window.left, window.right, max(window.bottom - room, -most), min(window.top + room, most))


def _marks(window: Window, height: float) -> list[float]:
    """Return the marks of the y axis."""
    choose = ticks.log_ticks if window.log else ticks.ticks
    marks = choose(window.bottom, window.top, max(int(height / _PIXELS_PER_Y), 2))
    return [mark for mark in marks if mark > 0] if window.log else marks


def _legend(curves: Sequence[Curve], width: float, top: float) -> tuple[list[Shape], float]:
    """Return the legend and how high it is: a line and a name for each curve, in rows."""
    shapes: list[Shape] = []
    x, row = _EDGE, 0
    for index, curve in enumerate(curves):
        name = clean(curve.name)
        wide = 34 + len(name) * _TEXT * _CHARACTER + 22
        if x > _EDGE and x + wide > width - _EDGE:
            x, row = _EDGE, row + 1
        y = top + row * _LEGEND_ROW + 10
        shapes.append(Line(((x, y), (x + 26, y)), _colour(index), _LINE + 0.4, _dash(index)))
        shapes.append(Text(x + 34, y + _TEXT * 0.36, name, _TEXT, _INK))
        x += wide
    return shapes, (row + 1) * _LEGEND_ROW if curves else 0.0


def _x_axis(frame: _Frame, name: str) -> list[Shape]:
    """Return the x axis with marks, labels and name."""
    window = frame.window
    marks = ticks.ticks(window.left, window.right, max(int((frame.right - frame.left) / _PIXELS_PER_X), 2))
    step = marks[1] - marks[0] if len(marks) > 1 else None
    shapes: list[Shape] = [Line(((frame.left, frame.bottom), (frame.right, frame.bottom)), _SOFT, 1.2)]
    for mark in marks:
        x = frame.x(mark)
        label = ticks.label(mark, step)
        shapes.append(Line(((x, frame.bottom), (x, frame.bottom + 5)), _SOFT, 1.2))
        half = len(label) * _TEXT * _CHARACTER / 2
        inside = min(max(x, frame.left - 8 + half), frame.right + _EDGE - 2 - half)
        shapes.append(Text(inside, frame.bottom + 20, label, _TEXT, _SOFT, "middle"))
    shapes.append(Text((frame.left + frame.right) / 2, frame.bottom + 40, clean(name), _TEXT, _SOFT, "middle"))
    return shapes


def _curve(columns: Columns, frame: _Frame, index: int) -> list[Shape]:
    """Return a curve: the band of its values where it was reduced, its line, its marks."""
    shapes: list[Shape] = []
    shown = [i for i in range(len(columns.x)) if not frame.window.log or columns.high[i] > 0]
    if any(columns.low[i] != columns.high[i] for i in shown):
        x = tuple(frame.x(columns.x[i]) for i in shown)
        top = tuple(frame.y(columns.high[i]) for i in shown)
        bottom = tuple(frame.y(columns.low[i]) for i in shown)
        shapes.append(Band(x, top, bottom, _colour(index), 0.25))
        shapes += _spikes(x, top, bottom, index)
    shapes += _line(columns, frame, index)
    for places, mark, y in (
        (columns.highs, "Inf", frame.top + 9),
        (columns.nans, "NaN", frame.bottom - 6),
        (columns.lows, "-Inf", frame.bottom - 6),
    ):
        shapes += _marked(places, mark, y, frame, index)
    return shapes


def _spikes(x: Sequence[float], top: Sequence[float], bottom: Sequence[float], index: int) -> list[Shape]:
    """Return a thin line for each column that reaches far beyond the others: in the band alone it would be too pale."""
    reach = [low - high for low, high in zip(bottom, top, strict=True)]
    usual = max(statistics.median(reach), 1.0)
    return [
        Line(((x[i], top[i]), (x[i], bottom[i])), _colour(index), 1.1)
        for i in range(len(x))
        if reach[i] > _SPIKE * usual
    ]


def _line(columns: Columns, frame: _Frame, index: int, *, opacity: float = 1.0, last: bool = False) -> list[Shape]:
    """Return the line of a curve, broken where it is not a number; a single point is a short stroke."""
    pieces: list[list[Point]] = [[]]
    nans = iter((*columns.nans, float("inf")))
    gap = next(nans)
    for x, value in zip(columns.x, columns.last if last else columns.mean, strict=True):
        if (x > gap or (frame.window.log and value <= 0)) and pieces[-1]:
            pieces.append([])
        while x > gap:
            gap = next(nans)
        if not (frame.window.log and value <= 0):
            pieces[-1].append((frame.x(x), frame.y(value)))
    shapes: list[Shape] = []
    for piece in pieces:
        if len(piece) == 1:
            shapes.append(Line(((piece[0][0] - 2, piece[0][1]), (piece[0][0] + 2, piece[0][1])), _colour(index), 4.0))
        elif piece:
            shapes.append(Line(tuple(piece), _colour(index), _LINE, _dash(index), opacity))
    return shapes


def _marked(places: Sequence[float], mark: str, y: float, frame: _Frame, index: int) -> list[Shape]:
    """Return ticks on the border where values were not finite, the first one with its name."""
    shapes: list[Shape] = []
    for x in dict.fromkeys(float(round(frame.x(place))) for place in places):
        shapes.append(Line(((x - 4.0, y - 4), (x + 4.0, y + 4)), _colour(index), 1.6))
        shapes.append(Line(((x - 4.0, y + 4), (x + 4.0, y - 4)), _colour(index), 1.6))
    if places:
        x = frame.x(places[0])
        anchor = "start" if x < (frame.left + frame.right) / 2 else "end"
        shapes.append(Text(x + (9 if anchor == "start" else -9), y + 4, mark, 11.0, _colour(index), anchor))
    return shapes


def _colour(index: int) -> str:
    """Return the colour of a curve."""
    return _COLOURS[index % len(_COLOURS)]


def _dash(index: int) -> tuple[float, ...]:
    """Return the dashes of a curve."""
    return _DASHES[index % len(_DASHES)]


__all__ = ["Chart", "lay_out"]
