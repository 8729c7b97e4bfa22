"""Whole runs of rows at once give what record by record gives."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_builder import JournalBuilder

from tracer import clock, journal
from tracer.storage import tails
from tracer.storage.columns import Columns, Decoder, void
from tracer.storage.log_rows import micros
from tracer.storage.points import arrange, summarise
from tracer.storage.tails import Place

Point = tuple[str, int, int, int, bytes]


def decode(builder: JournalBuilder) -> Columns:
    """Decode a builder's segment."""
    builder.write(closed=True)
    decoder = Decoder()
    decoder.add(tails.load(str(builder.path), Place(0, 0), [], clock.boot_id(), whole=True))
    return decoder.columns


def flat(columns: Columns) -> list[Point]:
    """Every decoded value with name, rank, step and time, in no order."""
    found = [
        (key, one.rank, int(one.step[row]), int(one.time[row]), struct.pack("<d", one.values[row, at]))
        for one in columns.rows
        for row in range(len(one.step))
        for at, key in enumerate(one.keys)
    ]
    loose = columns.loose
    parts = zip(loose.names, loose.ranks, loose.steps, loose.times, loose.values, strict=True)
    found += [(name, rank, step, micros(time), struct.pack("<d", value)) for name, rank, step, time, value in parts]
    return sorted(found)


def one_by_one(builder: JournalBuilder) -> list[Point]:
    """The same by the plain reader of records."""
    tail = tails.load(str(builder.path), Place(0, 0), [], clock.boot_id(), whole=True)
    return sorted(
        (name, tail.rank, record.step, micros(record.time), struct.pack("<d", value))
        for record in tails.walk(tail)
        if record.schema >= journal.FIRST_ROW_SCHEMA
        for name, value in zip(tail.schemas[record.schema], record.values(), strict=True)
    )


def rows_of(pattern: list[int], count: int, builder: JournalBuilder, special: int) -> None:
    """Append rows whose widths repeat a pattern, with another record every so often."""
    for step in range(count):
        width = pattern[step % len(pattern)]
        builder.row({f"m{width}-{at}": step + at / 8 for at in range(width)}, step, 1.7e9 + step / 3)
        if special and step % special == special - 1:
            builder.record(journal.Kind.CHECKPOINT, {"values": {}}, step)


@pytest.mark.parametrize("pattern", [[1], [5], [3, 1], [2, 2, 4], [1, 2, 3, 4, 5, 6, 7]])
@pytest.mark.parametrize("special", [0, 7, 100])
def test_patterns_of_rows_decode_as_one_by_one(tmp_path: Path, pattern: list[int], special: int) -> None:
    builder = JournalBuilder(tmp_path)
    rows_of(pattern, 700, builder, special)

    columns = decode(builder)

    assert flat(columns) == one_by_one(builder)
    assert columns.points == len(flat(columns))
    assert len([row for row in columns.logs if row.kind == "checkpoint"]) == (700 // special if special else 0)


shapes = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 80), st.sampled_from(["row", "checkpoint", "typed"])),
    min_size=1,
    max_size=12,
)
times = st.sampled_from([0.0, 1.7e9, math.nan, math.inf, -math.inf, 1e300, -5.25])


@settings(max_examples=60, deadline=None)
@given(shapes=shapes, time=times)
def test_any_mixture_decodes_as_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[tuple[int, int, str]], time: float
) -> None:
    builder = JournalBuilder(tmp_path_factory.mktemp("run"))
    for width, count, kind in shapes:
        for step in range(count):
            if kind == "row" or step:
                builder.row({f"m{width}-{at}": step * 0.1 for at in range(width)}, step - 3, time)
            elif kind == "checkpoint":
                builder.record(journal.Kind.CHECKPOINT, {"values": {}}, step)
            else:
                builder.record(journal.Kind.TYPED, {"values": {"text": "a", "none": None}}, step)

    assert flat(decode(builder)) == one_by_one(builder)


def test_large_integers_are_points_and_exact_texts(tmp_path: Path) -> None:
    builder = JournalBuilder(tmp_path)
    builder.record(
        journal.Kind.TYPED, {"values": {"big": 2**60 + 1, "huge": 10**400, "note": "hello", "none": None}}, 3
    )

    columns = decode(builder)

    assert dict(zip(columns.loose.names, columns.loose.values, strict=True)) == {"big": 2.0**60, "huge": math.inf}
    assert [(row.name, row.body) for row in columns.logs] == [
        ("big", str(2**60 + 1)), ("huge", str(10**400)), ("note", "hello"), ("none", None),
    ]  # fmt: skip


def test_unknown_kinds_are_stepped_over_and_counted(tmp_path: Path) -> None:
    builder = JournalBuilder(tmp_path)
    builder.record(200, {"new": "kind"})
    builder.row({"x": 1.0}, 1)

    columns = decode(builder)

    assert (columns.unknown, columns.points) == (1, 1)


many = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-3, 12), st.floats(-10, 10)), max_size=120)


@settings(max_examples=60, deadline=None)
@given(points=many, beside=st.sampled_from([(), ("other",)]))
def test_points_are_sorted_each_step_once_and_the_last_wins(
    tmp_path_factory: pytest.TempPathFactory, points: list[tuple[str, int, float]], beside: tuple[str, ...]
) -> None:
    builder = JournalBuilder(tmp_path_factory.mktemp("run"))
    oracle: dict[tuple[str, int], float] = {}
    for name, step, value in points:
        values = {name: value, **dict.fromkeys(beside, -value)}
        builder.row(values, step)
        oracle |= {(key, step): one for key, one in values.items()}

    found = arrange(decode(builder))
    summary = summarise(found)

    keys = [
        (found.names[metric], int(found.step[at]))
        for group, metric in enumerate(found.metric)
        for at in range(found.starts[group], found.starts[group + 1])
    ]
    assert keys == sorted(oracle)
    assert found.value.tolist() == [oracle[key] for key in sorted(oracle)]
    for group, metric in enumerate(found.metric):
        mine = [value for (name, _), value in sorted(oracle.items()) if name == found.names[metric]]
        assert (summary.n[group], summary.min[group], summary.max[group]) == (len(mine), min(mine), max(mine))
        assert summary.sum[group] == pytest.approx(math.fsum(mine))
        assert summary.last[group] == mine[-1]


def test_summaries_count_what_is_not_finite_and_look_past_it(tmp_path: Path) -> None:
    builder = JournalBuilder(tmp_path)
    for step, value in enumerate([1.0, math.nan, math.inf, -math.inf, 3.0]):
        builder.row({"x": value, "bad": math.nan}, step)

    found = arrange(decode(builder))
    summary = summarise(found)

    x, bad = found.names.index("x"), found.names.index("bad")
    assert (summary.nan[x], summary.inf[x], summary.min[x], summary.max[x], summary.sum[x]) == (1, 2, 1.0, 3.0, 4.0)
    assert (summary.nan[bad], np.isnan(summary.min[bad]), summary.sum[bad]) == (5, True, 0.0)


def test_between_writers_the_later_time_wins(tmp_path: Path) -> None:
    decoder = Decoder()
    for value, time in ((1.0, 20.0), (2.0, 10.0)):
        builder = JournalBuilder(tmp_path)
        builder.row({"x": value}, 1, time)
        builder.write(closed=True)
        decoder.add(tails.load(str(builder.path), Place(0, 0), [], clock.boot_id(), whole=True))

    assert arrange(decoder.columns).value.tolist() == [1.0]


def test_a_rewind_drops_matching_names_from_a_step_on(tmp_path: Path) -> None:
    builder = JournalBuilder(tmp_path)
    for step in range(40):
        builder.row({"loss/a": 1.0, "keep": 2.0}, step)
    builder.row({"loss/b": 1.0}, 30)
    columns = decode(builder)

    void(columns, 10, "loss/*")

    found = arrange(columns)
    assert dict(zip(found.names, found.counts.tolist(), strict=True)) == {"keep": 40, "loss/a": 10}
    assert columns.points == 50
