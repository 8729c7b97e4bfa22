"""What `render.formats` makes."""

from __future__ import annotations

import json
import math

import pytest

from tracer.render.formats import clean, duration, full, iso, number, percent, size, to_csv, to_json, when

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain name", "plain name"),
        ("größe 損失 🙂", "größe 損失 🙂"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07name", "name"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x1b[2J\x1b[Hb", "ab"),
        ("two\nlines\ttab\r", "two\\nlines\\ttab\\r"),
        ("bell\x07 del\x7f c1\x9b31m", "bell\\x07 del\\x7f c1\\x9b31m"),
        ("rtl\u202egnp.exe", "rtl\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("\x1b", "\\x1b"),
    ],
)
def test_text_from_outside_cannot_move_the_cursor(text: str, expected: str) -> None:
    assert clean(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1 + 0.2, "0.3"),
        (1234.5678, "1234.57"),
        (-0.0, "-0"),
        (1e-5, "1e-05"),
        (123456789.0, "1.2346e+08"),
        (NAN, "NaN"),
        (-INF, "-Infinity"),
        (None, "-"),
        (False, "false"),
        (12345678901234567890, "12345678901234567890"),
    ],
)
def test_numbers_are_short(value: object, expected: str) -> None:
    assert number(value) == expected


def test_full_values_lose_nothing() -> None:
    values = (0.1 + 0.2, NAN, None, True, [1, {"a": 0.5}], "x\n")

    assert [full(value) for value in values] == [
        "0.30000000000000004",
        "NaN",
        "null",
        "true",
        '[1, {"a": 0.5}]',
        "x\\n",
    ]


def test_shares_bear_their_sign() -> None:
    values = (0.5, -0.012, 0.0001, 12.0, None, NAN)

    assert [percent(value) for value in values] == ["+50.0%", "-1.2%", "+0.01%", "+1200%", "-", "-"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, "0.00s"), (9.994, "9.99s"), (59.6, "1m 00s"), (3599.6, "1h 00m"), (86399.9, "1d 00h"), (NAN, "NaN")],
)
def test_durations_have_two_units(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_sizes_have_one_unit() -> None:
    assert [size(value) for value in (0, 1023, 1024, 1 << 50)] == ["0 B", "1023 B", "1.0 KiB", "1024.0 TiB"]


def test_times_far_outside_the_calendar_are_still_shown() -> None:
    assert when(None) == "-"
    assert when(10**18) == "1000000000000s since 1970"
    assert (iso(None), iso(0), iso(10**18)) == (None, "1970-01-01T00:00:00.000000Z", None)


def test_json_is_valid_whatever_the_values() -> None:
    document = {"nan": NAN, "inf": [INF, -INF], "name": "\x1b\ud800", "deep": ({"a": 1},), "odd": object}

    text = to_json(document)

    assert text.isascii()
    assert json.loads(text, parse_constant=pytest.fail) == {
        "nan": "NaN",
        "inf": ["Infinity", "-Infinity"],
        "name": "\x1b\ud800",
        "deep": [{"a": 1}],
        "odd": str(object),
    }
    assert float("Infinity") == INF


def test_csv_quotes_what_needs_it_and_disarms_formulas() -> None:
    assert to_csv(
        ["name", "value"], [["a,b", 0.1], ['"', NAN], ["=1+1", -2.5], ["line\nbreak", None]]
    ).splitlines() == [
        "name,value",
        '"a,b",0.1',
        '"""",NaN',
        "'=1+1,-2.5",
        "line\\nbreak,",
    ]
