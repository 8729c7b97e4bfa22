"""What `render.tables` makes."""

from __future__ import annotations

import io

from rich.console import Console

from tracer.render.tables import Block, Heading, Lines, Pairs, Styled, Table, draw, plain_lines, severity, status, width

BLOCKS: list[Block] = [
    Heading("Runs"),
    Table(("name", "steps", "state"), (("first", "10", status("completed")), ("損失", "2000", "x")), frozenset({1})),
    Heading("Facts"),
    Pairs((("id", "abc"), ("severity", severity("high")))),
    Lines(("a line", Styled("[bold]another[/bold]", "red"))),
]


def drawn(blocks: list[Block], *, columns: int = 60, colours: bool = True) -> list[str]:
    text = io.StringIO()
    system = "standard" if colours else None
    console = Console(file=text, force_terminal=True, color_system=system, width=columns, markup=False, highlight=False)
    draw(blocks, console)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_plain_text_stands_in_columns_without_colour_or_box() -> None:
    assert plain_lines(BLOCKS) == [
        "Runs",
        "name   steps  state",
        "first     10  completed",
        "損失    2000  x",
        "",
        "Facts",
        "id        abc",
        "severity  high",
        "a line",
        "[bold]another[/bold]",
    ]


def test_plain_text_cuts_nothing() -> None:
    long = "x" * 500

    assert plain_lines([Table(("name",), ((long,),))])[1] == long


def test_a_terminal_gets_colour_and_rules() -> None:
    lines = drawn(BLOCKS)

    assert lines[0] == "\x1b[1mRuns\x1b[0m"
    assert any("───" in line for line in lines)
    assert any("\x1b[32mcompleted\x1b[0m" in line for line in lines)
    assert any("\x1b[31m[bold]another[/bold]\x1b[0m" in line for line in lines)


def test_without_colours_there_are_none() -> None:
    assert not any("\x1b[3" in line for line in drawn(BLOCKS, colours=False))


def test_a_narrow_terminal_folds_the_columns_that_may_wrap() -> None:
    table = Table(("step", "details"), (("1", "word " * 30),), frozenset({0}), frozenset({1}))

    lines = drawn([table], columns=40, colours=False)

    assert max(map(width, lines)) <= 40
    assert sum(line.count("word") for line in lines) == 30


def test_a_table_that_cannot_fit_is_shown_record_by_record() -> None:
    table = Table(("name", "value"), (("x" * 20, "1" * 20), ("y" * 20, "2" * 20)))

    assert drawn([table], columns=30, colours=False) == [
        "-" * 30,
        "name   " + "x" * 20,
        "value  " + "1" * 20,
        "-" * 30,
        "name   " + "y" * 20,
        "value  " + "2" * 20,
    ]


def test_an_empty_table_is_its_header() -> None:
    assert plain_lines([Table(("a", "b"), ())]) == ["a  b"]


def test_combining_characters_take_no_room() -> None:
    assert (width("e\u0301"), width("損"), width("abc")) == (1, 2, 3)
