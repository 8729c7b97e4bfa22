"""P6: never a wrong value silently: damage stays in the block it hit, and blocks nothing else."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import only_run, points, rows, runs, segments
from programs import CALMLY

import tracer
from tracer import journal, runfile
from tracer.errors import JournalCorrupt, StoreError, TracerError
from tracer.storage import Store


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Give the folder of a run of 2,000 calls in twenty sealed blocks."""
    with tracer.init(project="damage", **CALMLY) as run:
        for step in range(2000):
            run.log({"a": float(step), "b": -float(step)}, step=step)
            if step % 100 == 99:
                run.flush()
    return only_run(tmp_path / ".tracer")


def damage(data: bytearray, chance: random.Random) -> None:
    """Do what a bad disk does: flip, zero, repeat or cut."""
    at = chance.randrange(len(data))
    kind = chance.choice(["flip", "zero", "repeat", "cut"])
    if kind == "flip":
        data[at] ^= 1 << chance.randrange(8)
    elif kind == "zero":
        length = chance.choice([1, 64, 512, 4096])
        data[at : at + length] = bytes(len(data[at : at + length]))
    elif kind == "repeat":
        length = chance.choice([64, 512, 4096])
        piece = data[at : at + length]
        target = chance.randrange(len(data) - len(piece) + 1)
        data[target : target + len(piece)] = piece
    else:
        del data[at:]


@pytest.mark.parametrize("what", ["*.trj", "*.seal"])
def test_p06_no_damage_to_a_journal_makes_a_wrong_value(recorded: Path, storm_seed: int, what: str) -> None:
    chance = random.Random(f"{storm_seed} {what}")  # noqa: S311 (no secrets)
    (path,) = (recorded / "journal").glob(what)
    whole = path.read_bytes()
    missing = []
    for _ in range(300):
        damaged = bytearray(whole)
        damage(damaged, chance)
        path.write_bytes(damaged)

        found = rows(recorded)

        assert all(row.values == {"a": float(row.step), "b": -float(row.step)} for row in found)
        assert len({row.step for row in found}) == len(found)
        missing.append(2000 - len(found))
    assert 0 in missing or what == "*.trj"


def test_p06_a_flipped_byte_costs_its_block_only(recorded: Path) -> None:
    (path,) = segments(recorded)
    data = bytearray(path.read_bytes())
    block = journal.read_blocks((recorded / "journal" / f"{path.name.split('.')[0]}.seal").read_bytes())[5]
    data[block.start + block.length // 2] ^= 1
    path.write_bytes(data)

    lost = set(range(2000)) - {row.step for row in rows(recorded)}

    assert lost == set(range(500, 600))


def test_p06_other_runs_and_the_next_start_know_nothing_of_it(recorded: Path, tmp_path: Path) -> None:
    for path in recorded.rglob("*"):
        if path.is_file():
            path.write_bytes(b"\xff" * 100)

    with tracer.init(project="damage", **CALMLY) as run:
        run.log({"loss": 1.0})

    (other,) = (folder for folder in runs(tmp_path / ".tracer") if folder != recorded)
    assert points(other) == [("loss", 0, 1.0)]


@pytest.mark.parametrize("content", [b"", b"x", b"TRJ1", b"\0" * 8192, b"\xff" * 8192, b"PK\3\4" * 2048])
def test_p06_a_file_that_is_no_segment_is_refused_by_name(content: bytes) -> None:
    with pytest.raises(JournalCorrupt, match=r"strange\.trj"):
        journal.Header.unpack(content, "strange.trj")


@given(st.binary(max_size=400), st.integers(0, 2**32 - 1))
@settings(max_examples=300, deadline=None)
def test_p06_no_bytes_make_the_decoder_fail(data: bytes, generation: int) -> None:
    for record in journal.scan(data, 0, len(data), generation):
        assert record.offset + record.length <= len(data)
    assert all(block.length >= 0 for block in journal.read_blocks(data))
    with pytest.raises(TracerError):
        journal.Header.unpack(data)


@given(st.integers(64, 200), st.integers(0, 7))
@settings(max_examples=200, deadline=None)
def test_p06_every_bit_of_a_header_is_checked(byte: int, bit: int) -> None:
    header = bytearray(journal.Header(b"w" * 16, 3, 1, 65536, {"run": "r" * 200, "rank": 0}).pack())
    header[byte] ^= 1 << bit

    with pytest.raises(JournalCorrupt):
        journal.Header.unpack(header)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": "one"}'])
def test_p06_a_broken_store_file_does_not_stop_a_run(tmp_path: Path, content: bytes) -> None:
    store = tmp_path / ".tracer"
    store.mkdir()
    (store / "store.json").write_bytes(content)

    try:
        with tracer.init(project="damage", **CALMLY):
            tracer.log({"loss": 1.0})
    except StoreError as error:
        said = str(error)
        assert "store.json" in said
        assert (store / "store.json").read_bytes() == content
    else:
        assert points(only_run(store)) == [("loss", 0, 1.0)]


def test_p06_a_segment_can_be_read_alone(recorded: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    (alone / "journal").mkdir(parents=True)
    shutil.copy(segments(recorded)[0], alone / "journal")

    assert [row.step for row in rows(alone)] == list(range(2000))
    assert rows(alone)[0].who["run"] == json.loads((recorded / "run.json").read_text(encoding="utf-8"))["id"]


def test_p06_a_half_written_run_file_is_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runfile.create(str(tmp_path), {"id": "one"})

    def fail(*_: object) -> None:
        message = "died"
        raise KeyboardInterrupt(message)

    monkeypatch.setattr("tracer.runfile.os.fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        runfile.replace(str(tmp_path), {"id": "two", "much": "x" * 100_000})
    monkeypatch.undo()

    assert runfile.read(str(tmp_path)) == {"id": "one"}


def test_p06_a_record_that_is_met_while_it_is_packed_is_read_whole_or_not_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader's copy can pass over the values before they are stored, and over the commit word after."""
    with tracer.init(project="torn", **CALMLY) as run, Store.open(tmp_path / ".tracer") as store:
        for step in range(10):
            run.log({"loss": 1.0 + step}, step=step)
        offset, real, met = run._recorder.writer().at - 40, os.pread, []

        def torn(descriptor: int, size: int, start: int) -> bytes:
            data = bytearray(real(descriptor, size, start))
            if start <= offset and start + size >= offset + 40 and start > 0 and not met:
                met.append(start)
                data[offset - start + 24 : offset - start + 32] = bytes(8)
            return bytes(data)

        monkeypatch.setattr("tracer.storage.tails.os.pread", torn)
        first = store.series(run.run_id, "loss").value.tolist()
        second = store.series(run.run_id, "loss").value.tolist()

    assert met != []
    assert first == [1.0 + step for step in range(len(first))]
    assert second == [1.0 + step for step in range(10)]
