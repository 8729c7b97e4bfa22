"""P7: values are kept as logged, in the journal and in the store."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest
from journals import only_run, rows
from programs import CALMLY

import tracer
from tracer.storage import Store

VALUES = [math.nan, math.inf, -math.inf, -0.0, 0.0, 5e-324, -2.2250738585072014e-308, 1.7976931348623157e308, 1 / 3]
STEPS = [5, 0, -1, 2**40, 2**63 - 1, -(2**63), 7, 6, 3]
NAMES = ["../x", "深い", "a b", "loss/train", "x" * 1000, "\u202ertl", "%s", "A", "a", "ä", "a\u0308"]


def bits(number: float) -> bytes:
    """Return what tells every float from every other."""
    return struct.pack("<d", number)


@pytest.fixture
def uid() -> str:
    """Give the id of a run with odd values, steps and names."""
    with tracer.init(project="values", **CALMLY) as run:
        for step, value in zip(STEPS, VALUES, strict=True):
            run.log(dict.fromkeys(NAMES, value), step=step)
        return run.run_id


def test_p07_the_journal_keeps_every_bit(uid: str, tmp_path: Path) -> None:
    found = rows(only_run(tmp_path / ".tracer"))

    assert uid == found[0].who["run"]
    assert [row.step for row in found] == STEPS
    assert [list(row.values) for row in found] == [NAMES] * len(STEPS)
    assert [{bits(value) for value in row.values.values()} for row in found] == [{bits(value)} for value in VALUES]


@pytest.mark.parametrize("folded", [False, True], ids=["from the journal", "from Parquet"])
def test_p07_the_store_gives_every_bit_back(uid: str, tmp_path: Path, *, folded: bool) -> None:
    expected = sorted(zip(STEPS, map(bits, VALUES), strict=True))

    with Store.open(tmp_path / ".tracer") as store:
        if folded:
            store.fold()
        assert {row.metric for row in store.metrics(uid)} == set(NAMES)
        for name in NAMES:
            series = store.series(uid, name)
            found = [(int(step), bits(float(value))) for step, value in zip(series.step, series.value, strict=True)]
            assert found == expected


def test_p07_the_last_value_of_a_step_wins(tmp_path: Path) -> None:
    with tracer.init(project="values", **CALMLY) as run:
        for value in (1.0, 2.0, math.nan, 3.0):
            run.log({"loss": value}, step=4)
            run.log({"loss": -value}, step=5)

    with Store.open(tmp_path / ".tracer") as store:
        live = store.series(run.run_id, "loss")
        store.fold()
        folded = store.series(run.run_id, "loss")

    assert live.value.tolist() == folded.value.tolist() == [3.0, -3.0]
    assert live.step.tolist() == folded.step.tolist() == [4, 5]
