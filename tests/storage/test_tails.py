"""Which bytes of a journal are read, and which are set aside."""

from __future__ import annotations

from pathlib import Path

import pytest
from journal_builder import JournalBuilder

from tracer import clock, journal
from tracer.errors import JournalCorrupt, SchemaTooNew
from tracer.storage import tails
from tracer.storage.tails import Place

OTHER_BOOT = "another-boot"


def steps(tail: tails.Tail) -> list[int]:
    """The steps of the rows that are read."""
    return [record.step for record in tails.walk(tail) if record.schema >= journal.FIRST_ROW_SCHEMA]


def load(builder: JournalBuilder, place: Place = Place(0, 0)) -> tails.Tail:  # noqa: B008 -- a value
    """Load the builder's segment as this boot's maintainer does."""
    blocks = tails.sealed_blocks(str(builder.folder), builder.writer.hex())
    return tails.load(str(builder.path), place, blocks, clock.boot_id(), whole=True)


@pytest.fixture
def builder(tmp_path: Path) -> JournalBuilder:
    return JournalBuilder(tmp_path)


def fill(builder: JournalBuilder, first: int, count: int) -> list[int]:
    """Append rows; return their offsets."""
    return [builder.row({"x": float(step)}, step) for step in range(first, first + count)]


def test_of_this_boot_everything_committed_is_read_sealed_or_not(builder: JournalBuilder) -> None:
    fill(builder, 0, 3)
    builder.seal()
    fill(builder, 3, 2)
    builder.write(room=4096)

    tail = load(builder)

    assert steps(tail) == [0, 1, 2, 3, 4]
    assert (tail.lost, tail.end) == ([], len(builder.data))


def test_of_another_boot_only_sealed_blocks_are_read(tmp_path: Path) -> None:
    builder = JournalBuilder(tmp_path, boot=OTHER_BOOT)
    fill(builder, 0, 3)
    builder.seal()
    sealed = len(builder.data)
    fill(builder, 3, 2)
    builder.write(room=4096)

    tail = load(builder)

    assert steps(tail) == [0, 1, 2]
    assert [(lost.start, lost.stop) for lost in tail.lost] == [(sealed, len(builder.data))]


def test_a_closed_segment_of_another_boot_is_read_to_its_end(tmp_path: Path) -> None:
    builder = JournalBuilder(tmp_path, boot=OTHER_BOOT)
    fill(builder, 0, 3)
    builder.write(closed=True)

    assert steps(load(builder)) == [0, 1, 2]


def test_a_damaged_block_is_lost_and_the_next_one_is_read(builder: JournalBuilder) -> None:
    fill(builder, 0, 3)
    builder.seal()
    begin = len(builder.data)
    at = fill(builder, 3, 3)
    builder.seal()
    end = len(builder.data)
    fill(builder, 6, 3)
    builder.seal()
    builder.data[at[1] + 24] ^= 1  # a value: its commit word is right
    builder.write(closed=True)

    tail = load(builder)

    assert steps(tail) == [0, 1, 2, 6, 7, 8]
    assert [(lost.start, lost.stop, lost.reason) for lost in tail.lost] == [(begin, end, "block 2 fails its check")]
    assert tail.end == len(builder.data)


def test_rows_whose_schema_was_lost_are_lost_with_it(builder: JournalBuilder) -> None:
    from tracer.storage.columns import Decoder

    fill(builder, 0, 2)
    builder.seal()
    builder.row({"y": 1.0}, 1)
    at = len(builder.data) - 1
    builder.seal()
    builder.row({"y": 2.0}, 2)
    fill(builder, 5, 1)
    builder.seal()
    builder.data[at] ^= 255
    builder.write(closed=True)
    decoder = Decoder()

    tail = load(builder)
    decoder.add(tail)

    assert decoder.columns.loose.names == ["x", "x", "x"]
    assert decoder.columns.loose.steps == [0, 1, 5]
    assert any("schema" in lost.reason for lost in decoder.columns.lost)


def test_a_damaged_record_that_no_seal_covers_costs_itself_only(builder: JournalBuilder) -> None:
    at = fill(builder, 0, 5)
    builder.data[at[2] + 4] ^= 7  # its schema, which makes nothing of it
    builder.data[at[3] - 1] ^= 255  # its commit word
    builder.write(closed=True)

    tail = load(builder)

    assert steps(tail) == [0, 1, 3, 4]
    assert [(lost.start, lost.stop) for lost in tail.lost] == [(at[2], at[3])]


def test_a_torn_record_at_the_end_is_simply_not_there_yet(builder: JournalBuilder) -> None:
    fill(builder, 0, 2)
    whole = len(builder.data)
    fill(builder, 2, 1)
    builder.data[-4:] = bytes(4)
    builder.write(room=4096)

    tail = load(builder)

    assert (steps(tail), tail.lost, tail.end) == ([0, 1], [], whole)


def test_reading_goes_on_where_it_stopped_with_the_schemas_declared_before(builder: JournalBuilder) -> None:
    fill(builder, 0, 2)
    builder.write(room=4096)
    first = load(builder)
    assert steps(first) == [0, 1]
    fill(builder, 2, 2)
    builder.seal()
    builder.write(room=4096)

    for declared in (tails.pack_offsets(first.declared), b""):
        tail = load(builder, Place(0, first.end, declared))
        assert steps(tail) == [2, 3]
        assert list(tail.schemas.values()) == [("x",)]


def test_a_record_longer_than_a_piece_is_read_whole(builder: JournalBuilder) -> None:
    text = "x" * (3 << 20)
    builder.record(journal.Kind.TYPED, {"values": {"note": text}}, 1)
    fill(builder, 2, 1)
    builder.write(room=1 << 20)

    tail = tails.load(str(builder.path), Place(0, 0), [], clock.boot_id())
    found = list(tails.walk(tail))

    assert found[0].json() == {"values": {"note": text}}
    assert found[-1].step == 2


def test_a_segment_cut_short_keeps_what_is_left(builder: JournalBuilder) -> None:
    fill(builder, 0, 4)
    builder.seal()
    builder.write(closed=True)
    data = builder.path.read_bytes()
    builder.path.write_bytes(data[:-10])

    tail = load(builder)

    assert steps(tail) == []  # the one block has lost its end: nothing in it can be trusted
    assert sum(lost.stop - lost.start for lost in tail.lost) > 0


def test_what_is_no_header_is_refused_with_the_reason(builder: JournalBuilder) -> None:
    fill(builder, 0, 1)
    path = builder.write()
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.write_bytes(data)

    with pytest.raises(JournalCorrupt, match="fails its check"):
        load(builder)


def test_a_newer_format_is_refused_politely(builder: JournalBuilder) -> None:
    fill(builder, 0, 1)
    path = builder.write()
    data = bytearray(path.read_bytes())
    data[8] = 99
    path.write_bytes(data)

    with pytest.raises(SchemaTooNew, match="pip install -U ml-tracer"):
        load(builder)


def test_seal_headers_that_fail_their_check_are_left_out(builder: JournalBuilder) -> None:
    fill(builder, 0, 2)
    builder.seal()
    fill(builder, 2, 2)
    builder.seal()
    seals = bytearray(builder.seal_path.read_bytes())
    seals[50] ^= 1
    builder.seal_path.write_bytes(seals)
    builder.write(closed=True)

    tail = load(builder)

    assert steps(tail) == [0, 1, 2, 3]  # of this boot: what no seal vouches for is read all the same
    assert [span.is_sealed for span in tail.spans] == [False, True]
