"""Shapes as SVG text: no script, no style sheet, nothing fetched, and names are escaped. Standard library only."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from tracer.render.shapes import Band, Line, Picture, Shape, Text

_FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


def to_svg(picture: Picture) -> str:
    """Return a picture as an SVG document.

    Args:
        picture: The shapes.

    Returns:
        The document, with a title for screen readers.

    Example:
        >>> to_svg(Picture(10, 10, "#ffffff", (), "a < b")).splitlines()[1]
        '<title>a &lt; b</title>'
    """
    wide, high = picture.width, picture.height
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" '
        f'role="img" font-family={quoteattr(_FONT)}>'
    )
    ground = f'<rect width="{wide}" height="{high}" fill="{picture.ground}"/>'
    shapes = (_shape(shape) for shape in picture.shapes)
    return "\n".join([head, f"<title>{escape(picture.title)}</title>", ground, *shapes, "</svg>", ""])


def _shape(shape: Shape) -> str:
    """Return one element."""
    match shape:
        case Line():
            points = " ".join(f"{x:.2f},{y:.2f}" for x, y in shape.points)
            more = f' stroke-dasharray="{" ".join(f"{part:g}" for part in shape.dash)}"' if shape.dash else ""
            more += f' opacity="{shape.opacity:g}"' if shape.opacity < 1 else ""
            return (
                f'<polyline points="{points}" fill="none" stroke="{shape.colour}" stroke-width="{shape.width:g}" '
                f'stroke-linejoin="round" stroke-linecap="round"{more}/>'
            )
        case Band():
            there = list(zip(shape.x, shape.top, strict=True))
            back = list(zip(shape.x, shape.bottom, strict=True))[::-1]
            points = " ".join(f"{x:.2f},{y:.2f}" for x, y in there + back)
            # The thin outline keeps a spike visible that is less than a pixel wide.
            return (
                f'<polygon points="{points}" fill="{shape.colour}" fill-opacity="{shape.opacity:g}" '
                f'stroke="{shape.colour}" stroke-opacity="{shape.opacity:g}" stroke-width="1"/>'
            )
        case Text():
            more = f' transform="rotate(-90 {shape.x:.1f} {shape.y:.1f})"' if shape.turned else ""
            more += ' font-weight="600"' if shape.bold else ""
            return (
                f'<text x="{shape.x:.1f}" y="{shape.y:.1f}" font-size="{shape.size:g}" fill="{shape.colour}" '
                f'text-anchor="{shape.anchor}"{more}>{escape(shape.text)}</text>'
            )


__all__ = ["to_svg"]
