"""What a picture is made of, whoever draws it: lines, bands, texts and marks in pixels from the upper left corner."""

from __future__ import annotations

from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """A polyline; `dash` holds the lengths of strokes and gaps in turn, empty for a solid one."""

    points: tuple[Point, ...]
    colour: str
    width: float
    dash: tuple[float, ...] = ()
    opacity: float = 1.0


@dataclass(frozen=True, slots=True)
class Band:
    """The area between two curves over the same places: the range in which values were."""

    x: tuple[float, ...]
    top: tuple[float, ...]
    bottom: tuple[float, ...]
    colour: str
    opacity: float


@dataclass(frozen=True, slots=True)
class Text:
    """A text; `anchor` is `start`, `middle` or `end`; `turned` writes it upwards."""

    x: float
    y: float
    text: str
    size: float
    colour: str
    anchor: str = "start"
    turned: bool = False
    bold: bool = False


Shape = Line | Band | Text


@dataclass(frozen=True, slots=True)
class Picture:
    """Shapes in the order in which they are drawn, on a plain ground."""

    width: int
    height: int
    ground: str
    shapes: tuple[Shape, ...]
    title: str


__all__ = ["Band", "Line", "Picture", "Point", "Shape", "Text"]
