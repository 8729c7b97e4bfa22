"""The feed: everything that a run recorded, once, in order, from any place on, whoever is killed meanwhile."""

from __future__ import annotations

import json
import math
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from journal_builder import JournalBuilder, make_run, make_store
from programs import CALMLY

import tracer
from tracer import journal, transfer
from tracer.storage import Store
from tracer.storage.feed import Feed, FeedBatch
from tracer.transfer import Histogram, LayerPoints, LogLine, Media, Points, Text

ALL = frozenset(transfer.KINDS)
Key = tuple[str, int]
Series = dict[Key, list[tuple[int, bytes]]]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


def bits(value: float) -> bytes:
    """A value bit by bit; every NaN is one."""
    return struct.pack("<d", math.nan if math.isnan(value) else value)


def add(series: Series, batch: FeedBatch) -> None:
    """Append the points of a batch."""
    for event in batch.events:
        if isinstance(event, Points):
            rows = zip(event.steps.tolist(), event.values.tolist(), strict=True)
            series.setdefault((event.name, event.rank), []).extend((step, bits(value)) for step, value in rows)


def drained(folder: Path, kinds: frozenset[str] = ALL, limit: int = 10**6) -> list[transfer.Event]:
    """Everything that a run's journal holds."""
    feed = Feed(str(folder), {}, kinds=kinds)
    found: list[transfer.Event] = []
    while (batch := feed.read(limit)).events:
        found += batch.events
    feed.close()
    return found


VALUES = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([-0.0, 1e-300, 5e-324, math.nan])
ROW = st.tuples(
    st.sampled_from([("loss",), ("loss", "acc"), ("acc", "lr", "loss"), ("größe/µ",)]),
    st.integers(-(2**63), 2**63 - 1),
    st.lists(VALUES, min_size=3, max_size=3),
)
WRITER = st.lists(st.one_of(ROW, st.just("next"), st.just("tombstone"), st.just("typed")), max_size=60)


@given(writers=st.lists(WRITER, min_size=1, max_size=3), limits=st.lists(st.integers(1, 40), min_size=1, max_size=8))
@example(  # two schemas take turns, a few rows each
    writers=[[(("loss",), 0, [0.0] * 3), (("loss", "acc"), 0, [1.0, 0.0, 0.0]), (("loss",), 0, [2.0] * 3)]], limits=[6]
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_value_comes_once_in_the_order_of_the_journal_however_it_is_parted(
    tmp_path_factory: pytest.TempPathFactory, writers: list[list[object]], limits: list[int]
) -> None:
    folder = make_run(make_store(tmp_path_factory.mktemp("feed") / "store"))
    oracle: Series = {}
    for rank, records in enumerate(writers):
        builder = JournalBuilder(folder, rank=rank)
        for record in records:
            if record == "next":
                builder.next_segment()
            elif record == "tombstone":
                builder.record(journal.Kind.TOMBSTONE, {"step": 0, "pattern": "*"})
            elif record == "typed":
                builder.record(journal.Kind.TYPED, {"values": {"big": 2**60 + 1, "phase": "warm"}}, 7)
                oracle.setdefault(("big", rank), []).append((7, bits(float(2**60))))
            else:
                keys, step, values = record  # type: ignore[misc]
                row = dict(zip(keys, values, strict=False))
                builder.row(row, step)
                for name, value in row.items():
                    oracle.setdefault((name, rank), []).append((step, bits(value)))
        builder.write(closed=True)

    found: Series = {}
    places: dict[str, tuple[int, int]] = {}
    for turn in range(2000):
        feed = Feed(str(folder), json.loads(json.dumps(places)), kinds=ALL)
        for _ in range(3):
            batch = feed.read(limits[turn % len(limits)])
            add(found, batch)
            before, places = places, dict(batch.places)
        feed.close()
        if before == places and not batch.events:
            break

    assert found == oracle
    assert not feed.gap


def test_a_batch_is_about_as_large_as_was_asked(base: Path) -> None:
    folder = make_run(base)
    builder = JournalBuilder(folder)
    builder.rows(["a", "b"], np.arange(50_000), np.arange(50_000.0), np.random.default_rng(0).random((50_000, 2)))
    builder.write(closed=True)
    feed = Feed(str(folder), {}, kinds=ALL)

    sizes = [feed.read(limit).points for limit in (1, 999, 1000, 64_000)]
    feed.close()

    assert sizes == [2, 1000, 1000, 64_000]


def test_writers_take_turns(base: Path) -> None:
    folder = make_run(base)
    for rank in range(2):
        builder = JournalBuilder(folder, rank=rank)
        for step in range(100):
            builder.row({"x": 1.0}, step)
        builder.write(closed=True)
    feed = Feed(str(folder), {}, kinds=ALL)

    ranks = [event.rank for _ in range(4) for event in feed.read(10).events if isinstance(event, Points)]

    assert sorted(ranks) == [0, 0, 1, 1]


def test_texts_lines_media_histograms_and_layers_travel_when_they_are_wanted(base: Path) -> None:
    folder = make_run(base)
    builder = JournalBuilder(folder, rank=2)
    builder.row({"loss": 1.0, "tracer/step_us": 2.0, "system/cpu": 3.0}, 1)
    builder.record(journal.Kind.TYPED, {"values": {"phase": "warm", "none": None}}, 1, 5.0)
    builder.record(
        journal.Kind.LOG, {"kind": "log", "body": "hi", "name": "me", "level": "info", "fields": {"a": 1}}, 4
    )
    builder.record(journal.Kind.FINDING, {"kind": "spike"}, 4)
    media = {"name": "pic", "kind": "image", "digest": "a" * 64, "bytes": 3, "suffix": ".png", "caption": "c"}
    builder.record(journal.Kind.MEDIA, media, 6)
    builder.record(journal.Kind.MEDIA, {"name": "note", "kind": "text", "text": "short"}, 6)
    builder.layers("gradients", ["fc.weight", "fc.bias"], ["norm", "nans"], np.array([[1.5, 2.5], [0, math.nan]]), 8)
    counts = np.zeros((2, 2, 3), int)
    counts[0, 0], counts[1, 0] = [1, 0, 0], [0, 2, 3]
    builder.histograms("gradients", ["fc.weight", "fc.bias"], -2, counts, 9)
    builder.write(closed=True)

    found = drained(folder)

    assert {(e.name, e.rank): e.values.tolist() for e in found if type(e) is Points} == {
        ("loss", 2): [1.0], ("system/cpu", 2): [3.0],
    }  # fmt: skip
    assert [e for e in found if isinstance(e, Text)] == [
        Text("phase", 1, 5_000_000, "warm", 2), Text("none", 1, 5_000_000, "null", 2),
    ]  # fmt: skip
    assert [e for e in found if isinstance(e, LogLine)] == [
        LogLine("log", 1_700_000_000_000_000, "hi", "me", "info", 4, {"a": 1}, 2)
    ]
    picture, note = (e for e in found if isinstance(e, Media))
    assert (picture.name, picture.path, picture.suffix, picture.caption, picture.step) == (
        "pic", str(folder / "artifacts" / ("a" * 64)), ".png", "c", 6,
    )  # fmt: skip
    assert (note.data, note.path, note.kind) == (b"short", None, "text")
    assert {e.name: e.values.tolist() for e in found if isinstance(e, LayerPoints)} == {
        "gradients/fc.weight/norm": [1.5], "gradients/fc.weight/nans": [0.0],
    }  # fmt: skip
    weight, _ = (e for e in found if isinstance(e, Histogram))
    assert (weight.name, weight.step, weight.rank) == ("gradients/fc.weight", 9, 2)
    assert weight.edges == (-2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0)
    assert weight.counts == (0, 0, 1, 0, 0, 2, 3)
    assert {e.KIND for e in drained(folder, frozenset({"text", "log"}))} == {"text", "log"}


def test_a_hostile_digest_of_media_leads_nowhere(base: Path) -> None:
    folder = make_run(base)
    builder = JournalBuilder(folder)
    builder.record(journal.Kind.MEDIA, {"name": "pic", "kind": "image", "digest": "../../etc/passwd"}, 6)
    builder.write(closed=True)

    (event,) = drained(folder)

    assert isinstance(event, Media)
    assert event.path is None


def test_of_another_boot_only_what_is_sealed_travels(base: Path) -> None:
    folder = make_run(base)
    builder = JournalBuilder(folder, boot="another")
    builder.row({"x": 1.0}, 1)
    builder.seal()
    builder.row({"x": 2.0}, 2)
    builder.write(room=1 << 16)

    (event,) = drained(folder)

    assert isinstance(event, Points)
    assert event.steps.tolist() == [1]


def test_a_damaged_record_of_a_closed_segment_is_stepped_over(base: Path) -> None:
    folder = make_run(base)
    builder = JournalBuilder(folder)
    offsets = [builder.row({"x": float(step)}, step) for step in range(20)]
    builder.data[offsets[7] + 36] ^= 0xFF
    builder.data[offsets[12] + 34] ^= 0xFF
    builder.write(closed=True)

    steps = [step for event in drained(folder) if isinstance(event, Points) for step in event.steps.tolist()]

    assert steps == [step for step in range(20) if step not in (7, 12)]


def test_a_record_longer_than_a_piece_comes_whole(base: Path) -> None:
    folder = make_run(base)
    builder = JournalBuilder(folder)
    body = "x" * 3_000_000
    builder.record(journal.Kind.LOG, {"kind": "line", "body": body}, 1)
    builder.row({"x": 1.0}, 1)
    builder.write(room=1 << 16)

    line, point = sorted(drained(folder, limit=1), key=lambda event: event.KIND)

    assert isinstance(line, LogLine)
    assert isinstance(point, Points)
    assert line.body == body


PROGRAM = """
import sys, tracer
run = tracer.init(project="p", run_name="r", **{settings!r})
print(run.folder, flush=True)
for step in range({steps}):
    tracer.log({{"loss": step / 7, "acc": float(step)}})
    tracer.step()
    if step == {steps} // 2:
        print("half", flush=True)
{end}
"""


def start(tmp_path: Path, steps: int, end: str) -> tuple[subprocess.Popen[str], Path]:
    """Start a training of its own process; return it and the run's folder."""
    text = PROGRAM.format(settings=CALMLY, steps=steps, end=end)
    process = subprocess.Popen([sys.executable, "-c", text], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, tmp_path / process.stdout.readline().strip()


def test_a_live_run_of_another_process_is_read_while_it_is_written(tmp_path: Path) -> None:
    process, folder = start(tmp_path, 30_000, "tracer.finish()")
    feed = Feed(str(folder), {}, kinds=ALL)
    found: Series = {}
    with process:
        while process.poll() is None:
            add(found, feed.read(5000))
    assert process.returncode == 0
    while (batch := feed.read(5000)).events:
        add(found, batch)
    feed.close()

    assert found["loss", 0] == [(step, bits(step / 7)) for step in range(30_000)]
    assert len(found["acc", 0]) == 30_000
    assert not feed.gap


def test_what_a_killed_run_recorded_is_all_there(tmp_path: Path) -> None:
    process, folder = start(tmp_path, 2000, "print('done', flush=True); __import__('signal').pause()")
    with process:
        assert process.stdout is not None
        assert [process.stdout.readline().strip() for _ in range(2)] == ["half", "done"]
        process.send_signal(signal.SIGKILL)

    found: Series = {}
    feed = Feed(str(folder), {}, kinds=ALL)
    while (batch := feed.read(700)).events:
        add(found, batch)

    assert [step for step, _ in found["loss", 0]] == list(range(2000))
    assert all(offset == 0 for _, offset in feed.read(1).places.values())
    feed.close()


def test_a_run_that_is_finished_and_not_folded_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tracer.init(project="p", run_name="r", **{**CALMLY, "track_code": False})  # type: ignore[arg-type]
    for step in range(50):
        tracer.log({"loss": step / 3, "phase": "a"})
        tracer.step()
    before = drained(Path(run.folder), frozenset({"points", "text"}))
    tracer.finish()

    def counted(found: list[transfer.Event]) -> tuple[int, int]:
        points = sum(len(e) for e in found if isinstance(e, Points) and e.name == "loss")
        return points, sum(isinstance(e, Text) for e in found)

    assert counted(before) == (50, 50)
    with Store.open(tmp_path / ".tracer") as store:
        store.fold()
        assert counted(list(store.outgoing(run.id, {"points", "text"}))) == (50, 50)


def test_a_feed_loads_no_duckdb() -> None:
    code = "import sys, tracer.storage.feed, tracer.storage.outgoing; print('duckdb' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)

    assert found.stdout.strip() == "False"
