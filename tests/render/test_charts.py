"""What `render.charts` makes."""

from __future__ import annotations

import math

import pytest

from tracer.analysis.columns import Columns
from tracer.render.charts import Curve, Style, histogram, line_chart, sparkline, window_of

NAN, INF = math.nan, math.inf


def curve(name: str, ys: list[float], **odd: tuple[float, ...]) -> Curve:
    values = tuple(ys)
    return Curve(name, Columns(tuple(map(float, range(len(ys)))), values, values, values, values, **odd))


def test_a_line_has_a_name_two_axes_and_round_marks() -> None:
    lines = line_chart([curve("loss", [10 - i / 2 for i in range(21)])], 40, 10)

    assert lines == [
        "loss",
        "10 ┤⠉⠑⠢⢄⣀",
        "   │     ⠉⠑⠒⢄⣀",
        "   │          ⠉⠉⠒⠤⣀⡀",
        " 5 ┤               ⠈⠉⠢⠤⣀⣀",
        "   │                     ⠉⠒⠤⢄⣀",
        "   │                          ⠉⠑⠤⢄⣀⡀",
        " 0 ┤                               ⠈⠑⠢⠤⣀",
        "   └────────────────────────────────────",
        "    0                10               20",
    ]


def test_a_spike_of_one_column_reaches_its_height() -> None:
    flat = tuple([1.0] * 50)
    spiked = (*flat[:20], 9.0, *flat[21:])
    columns = Columns(tuple(map(float, range(50))), flat, spiked, flat, flat)

    lines = line_chart([Curve("loss", columns)], 30, 8)

    tall = [line for line in lines[1:-2] if any("⠀" < character <= "⣿" for character in line)]
    assert len(tall) == len(lines[1:-2])


def test_several_series_differ_by_symbol_without_colour() -> None:
    lines = line_chart([curve("a", [0.0] * 60), curve("b", [1.0] * 60)], 60, 8)

    assert lines[0] == "● a   ▲ b"
    assert any("▲" in line for line in lines[1:3])
    assert any("●" in line for line in lines[-4:-2])
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(("colours", "sequence"), [(16, "\x1b[36m"), (256, "\x1b[38;5;39m")])
def test_colours_are_used_where_there_are_some(colours: int, sequence: str) -> None:
    lines = line_chart([curve("a", [0.0, 1.0])], 20, 6, style=Style(colours))

    assert lines[0] == f"{sequence}a\x1b[0m"


def test_what_is_not_finite_is_marked_on_the_border() -> None:
    lines = line_chart([curve("a", [0.0] * 11, nans=(5.0,), highs=(2.0,), lows=(8.0,))], 24, 8)

    assert lines[1].strip() == "▲"
    assert "\u00d7" in lines[-2]
    assert "▼" in lines[-2]
    assert lines[-2].index("\u00d7") < lines[-2].index("▼")


def test_a_curve_of_nan_alone_is_drawn_as_marks() -> None:
    lines = line_chart([Curve("a", Columns((), (), (), (), (), nans=(1.0, 2.0)))], 24, 6)

    assert lines[-2].count("\u00d7") == 2


def test_a_line_is_broken_where_it_was_nan() -> None:
    broken = Columns((0.0, 20.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0), nans=(10.0,))

    whole = "".join(line_chart([Curve("a", broken)], 30, 6)[1:-2])

    assert sum("⠀" < character <= "⣿" for character in whole) == 2


def test_no_points_are_said_so() -> None:
    assert line_chart([Curve("a", Columns((), (), (), (), ()))], 20, 6) == ["(no points)"]


def test_a_logarithmic_axis_marks_powers_of_ten_and_what_it_cannot_show() -> None:
    lines = line_chart([curve("a", [1000.0, 100.0, 10.0, 1.0, 0.0])], 30, 12, log=True)

    assert [line.split("┤")[0].strip() for line in lines if "┤" in line] == ["1000", "100", "10", "1"]
    assert "▼" in lines[-2]


def test_without_utf8_everything_is_ascii() -> None:
    curves = [curve("a", [0.0, 1.0, 2.0], nans=(1.0,)), curve("b", [2.0, 1.0, 0.0], highs=(1.0,))]

    text = "".join(line_chart(curves, 30, 8, style=Style(ascii_only=True)))

    assert text.isascii()
    assert "o a   ^ b" in text


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("height", [5, 10, 40])
def test_a_chart_is_as_large_as_it_may_be(width: int, height: int) -> None:
    lines = line_chart([curve("a", [math.sin(i / 9) * 1e5 for i in range(300)])], width, height)

    assert max(map(len, lines)) <= width
    assert len(lines) == height


@pytest.mark.parametrize("values", [[5.0], [0.0, 0.0], [-1.7e308, 1.7e308], [1e-320, 2e-320], [1e15, 1e15 + 0.125]])
def test_extreme_values_are_drawn(values: list[float]) -> None:
    lines = line_chart([curve("a", values)], 30, 8)

    assert any("⠀" < character <= "⣿" for line in lines for character in line)


def test_control_characters_in_a_name_are_harmless() -> None:
    assert line_chart([curve("evil\x1b[2J\n", [0.0, 1.0])], 30, 6)[0] == "evil\\n"


def test_a_long_name_keeps_its_end() -> None:
    assert line_chart([curve("very/long/prefix/of/a/metric/loss", [0.0, 1.0])], 20, 6)[0] == "..x/of/a/metric/loss"


def test_the_window_gives_a_flat_curve_room() -> None:
    window = window_of([curve("a", [2.0, 2.0])])

    assert window is not None
    assert (window.bottom, window.top) == (1.8, 2.2)


def test_a_sparkline_shows_the_extreme_of_each_column() -> None:
    assert sparkline([0.0] * 50 + [8.0] + [0.0] * 49, 10) == "▁▁▁▁▁█▁▁▁▁"
    assert sparkline([0.0, NAN, INF, 4.0], 4) == "▁\u00d7\u00d7█"
    assert sparkline([3.0, 3.0], 10) == "▁▁"
    assert sparkline([], 10) == ""
    assert sparkline([0.0, 4.0], 10, ascii_only=True) == "_@"


def test_a_histogram_counts_everything() -> None:
    assert histogram([0.0, 0.0, 1.0, NAN, INF, -INF], 30, bins=2) == [
        "0 … 0.5  ██████████████████  2",
        "0.5 … 1  █████████  1",
        "    NaN  █████████  1",
        "    Inf  █████████  1",
        "   -Inf  █████████  1",
    ]
