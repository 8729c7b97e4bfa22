"""The format, bit by bit: what is written is read, and what was not committed is not."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer import journal
from tracer.errors import JournalCorrupt
from tracer.journal import Block, Header, Kind

KEY = journal.commit_key(1)


def row(values: tuple[float, ...], step: int = 0, time: float = 0.0, sequence: int = 0, generation: int = 1) -> bytes:
    """Return a row record of schema 256."""
    packer = journal.row_struct(len(values))
    return packer.pack(packer.size, 256, step, time, *values, sequence, journal.commit_key(generation) ^ sequence)


def test_a_row_takes_32_bytes_and_8_for_each_value() -> None:
    assert [journal.row_struct(keys).size for keys in (0, 1, 10, 100)] == [32, 40, 112, 832]
    assert journal.row_struct(3) is journal.row_struct(3)


@given(st.lists(st.floats(), max_size=20), st.integers(-(2**63), 2**63 - 1), st.floats(), st.integers(0, 2**32 - 1))
def test_a_row_comes_back_bit_by_bit(values: list[float], step: int, time: float, sequence: int) -> None:
    data = row(tuple(values), step, time, sequence)

    (record,) = journal.scan(data, 0, len(data), 1)

    assert (record.offset, record.length, record.schema, record.step) == (0, len(data), 256, step)
    assert struct.pack("<d", record.time) == struct.pack("<d", time)
    assert struct.pack(f"<{len(values)}d", *record.values()) == struct.pack(f"<{len(values)}d", *values)


@given(st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.floats(allow_nan=False)))
def test_a_payload_of_text_comes_back(content: dict[str, object]) -> None:
    payload = journal.json_payload(content)
    data = journal.record_bytes(Kind.TYPED, payload, -5, 1.5, 9, KEY)

    (record,) = journal.scan(data, 0, len(data), 1)

    assert len(data) == journal.record_size(payload)
    assert len(data) % 8 == 0
    assert record.json() == content


def test_records_follow_each_other_until_one_is_not_committed() -> None:
    whole = [row((float(n),), step=n, sequence=n) for n in range(5)]
    data = b"".join(whole) + bytes(4096)

    assert [record.step for record in journal.scan(data, 0, len(data), 1)] == [0, 1, 2, 3, 4]
    for cut in range(len(whole[0]) * 3, len(whole[0]) * 4):
        assert [record.step for record in journal.scan(data[:cut], 0, cut, 1)] == [0, 1, 2]
        assert [record.step for record in journal.scan(data, 0, cut, 1)] == [0, 1, 2]


@given(st.integers(0, 39))
def test_a_record_that_lacks_its_end_is_not_there(missing: int) -> None:
    """Stores arrive in order when a process dies: the commit word is the last of them."""
    data = row((1.0,), sequence=3)
    torn = data[: 40 - missing - 1] + bytes(missing + 1)

    assert list(journal.scan(torn, 0, len(torn), 1)) == []


def test_what_an_earlier_life_of_the_file_held_is_not_read() -> None:
    data = row((1.0,), generation=1)

    assert list(journal.scan(data, 0, len(data), 2)) == []


@given(st.integers(0, 2**32 - 1), st.integers(1, 2**16))
def test_a_commit_word_is_never_zero(sequence: int, generation: int) -> None:
    """For the sequences that a segment can hold."""
    key = journal.commit_key(generation)

    assert key & 0x80000000
    assert sequence >= 2**31 or key ^ sequence != 0


def test_a_header_tells_whose_segment_it_is() -> None:
    header = Header(b"w" * 16, 3, 2, 65536, {"run": "r", "rank": 1})

    data = bytearray(header.pack())
    found = Header.unpack(data)

    assert len(data) == journal.HEADER_SIZE
    assert (found.writer, found.number, found.generation, found.size, found.first) == (b"w" * 16, 3, 2, 65536, 4096)
    assert found.identity == {"run": "r", "rank": 1}
    assert (found.closed, found.end, found.steps) == (False, 0, 0)


def test_a_stamp_changes_the_tail_and_no_checksum(clock) -> None:  # noqa: ANN001
    data = bytearray(Header(b"w" * 16, 0, 1, 65536, {}).pack())
    clock.advance(2.0)

    journal.stamp(data, closed=True, end=5000, steps=-7)
    found = Header.unpack(data)
    journal.stamp_steps(data, journal.STEPS_AT, 8)

    assert (found.closed, found.end, found.steps) == (True, 5000, -7)
    assert (found.heartbeat_ns, found.heartbeat_us) == (2_000_000_000, 1_767_225_602_000_000)
    assert Header.unpack(data).steps == 8
    assert Header.unpack(data).heartbeat_ns == 2_000_000_000


def test_a_clock_before_1970_is_no_reason_to_fail(clock) -> None:  # noqa: ANN001
    data = bytearray(Header(b"w" * 16, 0, 1, 65536, {}).pack())
    clock.set_wall(-1000.0)

    journal.stamp(data, closed=False, end=0, steps=0)

    assert Header.unpack(data).heartbeat_us == 0


def test_an_identity_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 3968 fit"):
        Header(b"w" * 16, 0, 1, 65536, {"run": "x" * 4000}).pack()


def test_a_short_file_is_refused() -> None:
    with pytest.raises(JournalCorrupt, match="10 bytes"):
        Header.unpack(bytes(10))


def test_a_block_header_comes_back_and_damage_is_seen() -> None:
    block = Block(b"w" * 16, 3, 1, 7, 4096, 1000, 0xDEADBEEF)

    data = block.pack()
    found = Block.unpack(data)

    assert len(data) == Block.SIZE
    assert found is not None
    assert [getattr(found, name) for name in Block.__slots__] == [getattr(block, name) for name in Block.__slots__]
    for bit in range(56 * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert Block.unpack(damaged) is None


def test_a_damaged_block_header_hides_no_other() -> None:
    blocks = [Block(b"w" * 16, 0, 1, n, 4096 + n, 1, n).pack() for n in range(5)]
    blocks[2] = bytes(64)

    assert [block.sequence for block in journal.read_blocks(b"".join(blocks) + b"half")] == [0, 1, 3, 4]


def test_layer_values_are_floats_in_row_order() -> None:
    matrix = struct.pack("<6f", 1, 2, 3, 4, 5, 6)
    data = journal.record_bytes(Kind.LAYERS, journal.layers_payload(4, matrix), 1, 0.0, 0, KEY)

    (record,) = journal.scan(data, 0, len(data), 1)
    axis, values = record.layers()

    assert axis == 4
    assert values.tolist()[:6] == [1, 2, 3, 4, 5, 6]


def test_files_are_named_after_their_writer() -> None:
    writer = bytes(range(16))

    assert journal.segment_name(writer, 3) == "000102030405060708090a0b0c0d0e0f.000003.trj"
    assert journal.seal_name(writer) == "000102030405060708090a0b0c0d0e0f.seal"
