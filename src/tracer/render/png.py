"""Shapes as a PNG, drawn by ourselves: antialiased strokes into an array, compressed by zlib; no drawing library.

How much of a pixel a stroke covers is taken from the distance of its middle to the stroke: exact enough for lines and
for the stroke font, and one pass over the pixels around each piece.
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tracer.render import glyphs
from tracer.render.shapes import Band, Line, Picture, Point, Text

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Values per pixel → what a PNG calls that.
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
_CAPITALS = 0.72
_THIN, _BOLD = 0.095, 0.135

Mask = NDArray[np.float32]
Size = tuple[int, int]


def to_png(picture: Picture, scale: float = 2.0) -> bytes:
    """Return a picture as a PNG file.

    Args:
        picture: The shapes.
        scale: Pixels of the file for each pixel of the layout; 2 is sharp on dense screens.

    Returns:
        The bytes of the file.

    Example:
        >>> to_png(Picture(2, 2, "#ffffff", (), ""))[1:4]
        b'PNG'
    """
    wide, high = round(picture.width * scale), round(picture.height * scale)
    canvas = np.empty((high, wide, 3), dtype=np.float32)
    canvas[:] = _rgb(picture.ground)
    for shape in picture.shapes:
        match shape:
            case Line():
                mask = _strokes((high, wide), _dashed(shape.points, shape.dash), shape.width, scale)
                _blend(canvas, mask, shape.colour, shape.opacity)
            case Band():
                _blend(canvas, _area((high, wide), shape, scale), shape.colour, shape.opacity)
            case Text():
                width = shape.size * (_BOLD if shape.bold else _THIN)
                _blend(canvas, _strokes((high, wide), _written(shape), width, scale), shape.colour, 1.0)
    return pixels_to_png(np.clip(np.rint(canvas), 0, 255).astype(np.uint8))


def _strokes(size: Size, lines: Sequence[Sequence[Point]], width: float, scale: float) -> Mask:
    """Return how much of each pixel the strokes cover; where they overlap it counts once."""
    mask = np.zeros(size, dtype=np.float32)
    half = width * scale / 2
    for line in lines:
        for start, end in zip(line, line[1:] or line, strict=False):
            _stroke(mask, start[0] * scale, start[1] * scale, end[0] * scale, end[1] * scale, half)
    return mask


def _stroke(mask: Mask, x0: float, y0: float, x1: float, y1: float, half: float) -> None:
    """Draw one straight stroke with round ends into a mask."""
    reach = half + 1
    left, right = max(int(min(x0, x1) - reach), 0), min(int(max(x0, x1) + reach) + 1, mask.shape[1])
    top, bottom = max(int(min(y0, y1) - reach), 0), min(int(max(y0, y1) + reach) + 1, mask.shape[0])
    if left >= right or top >= bottom:
        return
    x = np.arange(left, right, dtype=np.float32)[None, :] + np.float32(0.5 - x0)
    y = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - y0)
    dx, dy = x1 - x0, y1 - y0
    square = dx * dx + dy * dy
    along = np.clip((x * dx + y * dy) / square, 0, 1) if square else np.zeros((1, 1), dtype=np.float32)
    distance = np.hypot(x - along * dx, y - along * dy)
    part = mask[top:bottom, left:right]
    np.maximum(part, np.clip(half + 0.5 - distance, 0, 1), out=part)


def _area(size: Size, band: Band, scale: float) -> Mask:
    """Return how much of each pixel a band covers, at least a little where it is thinner than one."""
    mask = np.zeros(size, dtype=np.float32)
    x = np.asarray(band.x) * scale
    left, right = max(int(x[0]), 0), min(math.ceil(x[-1]) + 1, mask.shape[1])
    if right <= left:
        return mask
    pixels = np.arange(left, right) + 0.5
    tops = np.interp(pixels, x, np.asarray(band.top) * scale)
    bottoms = np.interp(pixels, x, np.asarray(band.bottom) * scale)
    # A spike may lie between the middles of two pixels: the column it belongs to takes its whole range.
    place = np.clip(x.astype(np.int64) - left, 0, right - left - 1)
    np.minimum.at(tops, place, np.asarray(band.top) * scale)
    np.maximum.at(bottoms, place, np.asarray(band.bottom) * scale)
    tops, bottoms = tops - 0.5, bottoms + 0.5
    y = np.arange(mask.shape[0])[:, None]
    mask[:, left:right] = np.clip(np.minimum(y + 1, bottoms) - np.maximum(y, tops), 0, 1)
    return mask


def _dashed(points: Sequence[Point], dash: Sequence[float]) -> list[list[Point]]:
    """Return a polyline cut into its dashes."""
    return [list(points)] if not dash else list(_dashes(points, dash))


def _dashes(points: Sequence[Point], dash: Sequence[float]) -> Iterator[list[Point]]:
    """Walk along a polyline and yield the pieces that are drawn."""
    index, left, piece = 0, dash[0], [points[0]]
    for start, end in itertools.pairwise(points):
        length, gone = math.dist(start, end), 0.0
        while length - gone > left:
            gone += left
            share = gone / length
            here = (start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share)
            if index % 2 == 0:
                yield [*piece, here]
            index += 1
            left, piece = dash[index % len(dash)], [here]
        left -= length - gone
        piece.append(end)
    if index % 2 == 0:
        yield piece


def _written(text: Text) -> list[list[Point]]:
    """Return the strokes of a text in pixels."""
    lines, wide = glyphs.strokes(text.text)
    unit = text.size * _CAPITALS / glyphs.CAP_HEIGHT
    shift = {"start": 0.0, "middle": wide / 2, "end": wide}[text.anchor]
    placed = [[((x - shift) * unit, (y - glyphs.CAP_HEIGHT) * unit) for x, y in line] for line in lines]
    if text.turned:
        return [[(text.x + y, text.y - x) for x, y in line] for line in placed]
    return [[(text.x + x, text.y + y) for x, y in line] for line in placed]


def _blend(canvas: Mask, mask: Mask, colour: str, opacity: float) -> None:
    """Lay a colour over the canvas where the mask says so."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    share = mask[box][:, :, None] * np.float32(opacity)
    canvas[box] += (_rgb(colour) - canvas[box]) * share


def _rgb(colour: str) -> NDArray[np.float32]:
    """Return the parts of `#rrggbb`."""
    return np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)], dtype=np.float32)


def pixels_to_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return an array of bytes as a PNG: every line with the filter 'up', which suits flat ground.

    Args:
        pixels: Height and width; then 1, 3 or 4 values for grey, colour, colour with transparency.

    Returns:
        The bytes of the file.

    Raises:
        ValueError: It has another shape.

    Example:
        >>> pixels_to_png(np.zeros((2, 3), dtype=np.uint8))[1:4]
        b'PNG'
    """
    shaped = pixels[..., np.newaxis] if pixels.ndim == 2 else pixels  # noqa: PLR2004 -- grey without a third dimension
    if shaped.ndim != 3 or shaped.shape[2] not in _COLOUR_TYPES:  # noqa: PLR2004 -- as above
        message = f"A picture has the shape (height, width) or (height, width, 1, 3 or 4), not {pixels.shape}."
        raise ValueError(message)
    high, wide, depth = shaped.shape
    above = np.concatenate([np.zeros((1, wide, depth), dtype=np.uint8), shaped[:-1]])
    lines = np.empty((high, 1 + depth * wide), dtype=np.uint8)
    lines[:, 0] = 2
    lines[:, 1:] = (shaped - above).reshape(high, -1)
    header = struct.pack(">IIBBBBB", wide, high, 8, _COLOUR_TYPES[depth], 0, 0, 0)
    return b"".join(
        [_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)), _chunk(b"IEND", b"")]
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG with its length and check."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


__all__ = ["pixels_to_png", "to_png"]
