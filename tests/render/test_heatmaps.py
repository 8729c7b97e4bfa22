"""Heat maps as lines of text."""

from __future__ import annotations

import math
import re

import pytest

from tracer.render.charts import Style
from tracer.render.heatmaps import Heat, heat_map

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
NAN = math.nan


def heat(**changes: object) -> Heat:
    """Return three layers over ten steps, two steps in a column."""
    facts = {
        "names": ["a", "bb", "c"],
        "values": [[1, 2, 3, 4, 5], [10, 20, NAN, 40, 50], [100, 200, 300, 400, 1000]],
        "bad": [[False] * 5, [False, True, False, False, False], [False] * 5],
        "first_steps": [0, 2, 4, 6, 8],
        "last_step": 9,
        **changes,
    }
    return Heat(**facts)  # type: ignore[arg-type]


def test_a_row_for_each_layer_an_axis_and_a_scale() -> None:
    assert heat_map(heat(log=True), 33) == [
        " a ............::::::::::::------",
        "bb ======!!!!!!      ++++++******",
        " c ############%%%%%%%%%%%%@@@@@@",
        "   0              5",
        "1 .:-=+*#%@ 1000, logarithmic",
        "! NaN or Inf",
        "blank: not measured",
    ]


@pytest.mark.parametrize("colours", [0, 16, 256])
@pytest.mark.parametrize("width", [30, 57, 140])
def test_no_line_is_wider_than_it_may_be(width: int, colours: int) -> None:
    names = [f"transformer.h.{number}.attn.c_attn.weight" for number in range(3)]

    lines = heat_map(heat(names=names), width, Style(colours))

    assert max(len(_COLOUR.sub("", line)) for line in lines[:4]) <= width


def test_what_is_not_finite_is_white_on_red_and_what_was_not_measured_is_blank() -> None:
    lines = heat_map(heat(log=True), 13, Style(256))

    assert "\x1b[97;41;1m!!\x1b[0m  \x1b[48;5;" in lines[1]


def test_an_infinite_value_is_marked_even_where_nobody_said_so() -> None:
    assert "!" in heat_map(heat(values=[[1.0, math.inf, 1, 1, 1]], names=["a"], bad=[[False] * 5]), 30)[0]


def test_long_names_lose_what_they_share() -> None:
    names = [f"transformer.h.{number}.attn.c_attn.weight" for number in range(3)]

    lines = heat_map(heat(names=names), 40)

    assert [line.split()[0] for line in lines[:3]] == ["0", "1", "2"]
    assert lines[-1] == "names without 'transformer.h.' before and '.attn.c_attn.weight' behind them"


def test_a_name_without_anything_shared_is_cut_in_its_middle() -> None:
    lines = heat_map(heat(names=["x" * 40, "b", "c"]), 40)

    assert lines[0].startswith("xxx..xxxxxxxx ")


def test_a_name_cannot_colour_the_screen() -> None:
    assert "\x1b" not in "".join(heat_map(heat(names=["\x1b[31mred", "b", "c"]), 40))


def test_equal_values_and_values_without_logarithm_have_a_place() -> None:
    flat = heat_map(heat(values=[[2.0] * 5] * 3, bad=[[False] * 5] * 3), 30)
    zeros = heat_map(heat(values=[[0.0] * 5, [0.0] * 5, [1.0] * 5], bad=[[False] * 5] * 3, log=True), 30)

    assert set(flat[0][3:]) == {"+"}
    assert set(zeros[0][3:]) == {"."}


def test_numbers_at_the_ends_of_a_double_are_drawn() -> None:
    lines = heat_map(heat(values=[[-1.7e308, 1.7e308, 0, 0, 0]] * 3, bad=[[False] * 5] * 3), 30)

    assert lines[0][3] == "."
    assert "@" in lines[0]
