"""Strands go on where they stopped, and series are woven together without a point lost or moved."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from moving import ODD, series

from tracer.migration.streams import Comparison, Strand, key_of, part, woven
from tracer.transfer import LogLine, Points, Text

TIMES = st.lists(st.integers(0, 20), max_size=60)


def points(name: str, times: list[int]) -> Points:
    """Return a series with these times."""
    count = len(times)
    return Points(name, np.arange(count), np.array(times, np.int64), np.arange(count, dtype=np.float64))


@settings(max_examples=60, deadline=None)
@given(st.lists(TIMES, max_size=5), st.integers(1, 30))
def test_weaving_keeps_every_point_in_its_order(times: list[list[int]], batch: int) -> None:
    given_series = [points(f"s{at}", one) for at, one in enumerate(times)]

    batches = list(woven(given_series, batch))

    assert all(0 < sum(map(len, one)) <= batch for one in batches)
    for one in given_series:
        found = [piece.values for batch_ in batches for piece in batch_ if piece.name == one.name]
        assert (np.concatenate(found).tolist() if found else []) == one.values.tolist()


def test_what_belongs_to_one_moment_is_in_one_batch() -> None:
    batches = list(woven([points("a", list(range(10))), points("b", list(range(10)))], 4))

    assert [[(one.name, len(one)) for one in batch] for batch in batches] == [[("a", 2), ("b", 2)]] * 5


def test_a_strand_goes_on_where_it_stopped_however_it_was_cut() -> None:
    whole = series("loss", 50)
    sent, key = Strand(), key_of(whole)
    sent.add(part(whole, 0, 10))
    sent.add(part(whole, 10, 30))

    comparison = Comparison({key: (sent.count, sent.digest)})
    for start in range(0, 50, 7):
        comparison.add(part(whole, start, start + 7))

    assert (comparison.skipped, comparison.changed, comparison.is_equal) == ({key: 30}, [], False)


def test_a_strand_that_changed_is_sent_whole() -> None:
    before, after = series("loss", 50, seed=1), series("loss", 50, seed=2)
    sent, key = Strand(), key_of(before)
    sent.add(before)

    comparison = Comparison({key: (sent.count, sent.digest)})
    comparison.add(after)

    assert (comparison.skipped, comparison.changed) == ({}, [key])


def test_every_nan_is_one_and_each_zero_its_own() -> None:
    def told(*values: float) -> str:
        strand = Strand()
        strand.add(Points("a", np.arange(len(values)), np.arange(len(values)), np.array(values)))
        return strand.digest

    other_nan = float(np.array([0x7FF8000000000001], np.uint64).view(np.float64)[0])
    assert told(float("nan")) == told(other_nan)
    assert told(0.0) != told(-0.0)
    assert told(*ODD) != told(*reversed(ODD))


def test_strands_are_told_apart() -> None:
    keys = [
        key_of(one)
        for one in (series("a", 1), series("a", 1, rank=1), series("b", 1), Text("a", 0, 0, ""), LogLine("line", 0))
    ]

    assert len(set(keys)) == len(keys)
