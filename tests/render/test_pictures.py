"""What `render.pictures` makes."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from tracer.analysis.columns import Columns
from tracer.analysis.reduction import reduce_series
from tracer.render.charts import Curve
from tracer.render.pictures import Chart, lay_out
from tracer.render.png import to_png
from tracer.render.shapes import Line, Text
from tracer.render.svg import to_svg


def pixels(data: bytes) -> NDArray[np.uint8]:
    """Read a PNG of ours back, as any reader would: chunks, their checks, zlib, the filter 'up'."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, body, header = 8, b"", b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        content = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + content)
        header, body = (content, body) if kind == b"IHDR" else (header, body + content if kind == b"IDAT" else body)
        at += 12 + length
    wide, high, depth, colour = struct.unpack(">IIBB", header[:10])
    assert (depth, colour) == (8, 2)
    lines = np.frombuffer(zlib.decompress(body), dtype=np.uint8).reshape(high, 1 + 3 * wide)
    assert set(lines[:, 0]) == {2}
    return np.cumsum(lines[:, 1:].reshape(high, wide, 3), axis=0, dtype=np.uint8)


def bluish(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray(image[:, :, 0].astype(int) < image[:, :, 2].astype(int) - 30)


def chart(*ys: NDArray[np.float64], **options: object) -> Chart:
    curves = tuple(Curve(f"curve {i}", reduce_series(np.arange(len(y), dtype=float), y, 800)) for i, y in enumerate(ys))
    return Chart("loss - run", curves, **options)  # type: ignore[arg-type]  # whatever the test asks for


def test_a_png_holds_the_curve_where_it_belongs() -> None:
    image = pixels(to_png(lay_out(chart(np.linspace(0.0, 1.0, 400)), 600, 400), scale=1))

    assert image.shape == (400, 600, 3)
    blue = bluish(image)[80:340]
    left, right = np.flatnonzero(blue[:, 120]).mean(), np.flatnonzero(blue[:, 560]).mean()
    assert left > right + 100  # it rises, and rows are counted from the top


def test_a_spike_of_one_point_in_a_hundred_thousand_is_inked_up_to_its_peak() -> None:
    values = np.zeros(100_000)
    values[50_000] = 1.0

    image = pixels(to_png(lay_out(chart(values), 600, 400), scale=1))

    inked = np.flatnonzero(bluish(image)[80:340].any(axis=1))
    assert inked.min() < 30
    assert len(inked) > 200


def test_scale_multiplies_the_pixels() -> None:
    assert pixels(to_png(lay_out(chart(np.ones(3)), 200, 150), scale=2)).shape == (300, 400, 3)


def test_an_svg_is_well_formed_and_escapes_names() -> None:
    evil = Chart(
        "<script>alert(1)</script> & 'x'", (Curve("</svg>\x1b[31m", reduce_series(np.arange(3.0), np.arange(3.0), 9)),)
    )

    root = ET.fromstring(to_svg(lay_out(evil)))  # noqa: S314 -- our own text

    names = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert names == {"svg", "title", "rect", "polyline", "text"}
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert "<script>alert(1)</script> & 'x'" in texts
    assert "</svg>" in texts


def test_curves_differ_by_dashes_as_well() -> None:
    picture = lay_out(chart(np.ones(5), np.zeros(5), np.full(5, 0.5)))

    dashes = [shape.dash for shape in picture.shapes if isinstance(shape, Line) and shape.width > 2]
    assert len(set(dashes)) == 3


def test_nan_breaks_the_line_and_is_named() -> None:
    values = np.ones(100)
    values[40:60] = np.nan

    picture = lay_out(chart(values))

    lines = [shape for shape in picture.shapes if isinstance(shape, Line) and shape.width == 1.8]
    assert len(lines) == 2
    assert "NaN" in [shape.text for shape in picture.shapes if isinstance(shape, Text)]


def test_a_logarithmic_axis_leaves_out_what_it_cannot_show() -> None:
    picture = lay_out(chart(np.array([100.0, 10.0, 0.0, -5.0, 1.0]), log=True))

    points = [point for shape in picture.shapes if isinstance(shape, Line) for point in shape.points]
    assert all(0 <= x <= 960 and 0 <= y <= 540 for x, y in points)


@pytest.mark.parametrize("drawn", [to_svg, to_png])
def test_an_empty_chart_is_drawn_too(drawn: object) -> None:
    picture = lay_out(Chart("nothing", (Curve("a", Columns((), (), (), (), ())),)))

    assert "no points" in [shape.text for shape in picture.shapes if isinstance(shape, Text)]
    assert drawn(picture)  # type: ignore[operator]  # both take a picture


def test_everything_lies_within_the_picture_however_wide_the_labels() -> None:
    picture = lay_out(chart(np.linspace(-1.0, 1.0, 50) * 1.7e308, y_label="loss"), 500, 300)

    for shape in picture.shapes:
        if isinstance(shape, Line):
            assert all(-1 <= x <= 501 and -1 <= y <= 301 for x, y in shape.points)
