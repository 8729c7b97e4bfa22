"""Damaged and hostile event files give what is whole in them, and say what is not."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter

from tracer.backends import tensorboard_checks as checks
from tracer.backends.tensorboard_reading import TensorBoardSource
from tracer.transfer import Event, Points


def file_of(folder: Path, count: int = 18) -> Path:
    path = folder / "events.out.tfevents.1.x"
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for step in range(count):
            value = summary_pb2.Summary.Value(tag="loss", simple_value=step)
            event = event_pb2.Event(wall_time=1.7e9, step=step, summary=summary_pb2.Summary(value=[value]))
            writer.write(event.SerializeToString())
    return path


def read(path: Path) -> tuple[list[int], list[str]]:
    source = TensorBoardSource(str(path))
    found: list[Event] = [event for run in source.runs() for event in source.events(run)]
    return [step for one in found if isinstance(one, Points) for step in one.steps.tolist()], source.notes


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 31, 255, 1023, 1024, 1025, 5000])
def test_checksums_are_those_of_tensorboard(length: int) -> None:
    message = random.Random(length).randbytes(length)  # noqa: S311 -- any bytes

    assert checks.of_one(message) == masked_crc32c(message)


def test_a_flipped_byte_anywhere_costs_one_event(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    whole = path.read_bytes()
    begins = [0]
    while len(begins) < 18:
        begins.append(begins[-1] + 16 + struct.unpack_from("<Q", whole, begins[-1])[0])

    for at in (200, begins[4], begins[4] + 9, begins[4] + 30, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[at] ^= 0x40
        path.write_bytes(damaged)
        steps, notes = read(path)
        lost = max(step for step in range(18) if begins[step] <= at)
        assert steps == [step for step in range(18) if step != lost]
        assert len(notes) == 1


def test_a_file_that_ends_anywhere_gives_all_whole_events(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    whole = path.read_bytes()
    ends = [0]
    while ends[-1] < len(whole):
        ends.append(ends[-1] + 16 + struct.unpack_from("<Q", whole, ends[-1])[0])

    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        steps, notes = read(path)
        assert steps == list(range(sum(end <= size for end in ends) - 1))
        assert len(notes) == (size not in ends)


def test_a_hole_of_zeros_and_one_of_noise_are_passed_over(tmp_path: Path) -> None:
    path = file_of(tmp_path, 100)
    whole = path.read_bytes()
    noise = random.Random(1).randbytes(5000)  # noqa: S311 -- any bytes

    path.write_bytes(whole + bytes(5000) + noise + whole)

    assert read(path)[0] == [*range(100), *range(100)]


def test_lengths_that_lie_with_a_right_checksum_take_no_memory(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    for length in (2**63, 2**40, 2**31):
        header = struct.pack("<Q", length)
        path.write_bytes(path.read_bytes()[:1000] + header + struct.pack("<I", masked_crc32c(header)) + b"rest")
        assert read(path)[1]


def test_any_mutation_gives_a_part_of_the_events_and_ends(tmp_path: Path) -> None:
    chance = random.Random(7)  # noqa: S311 -- the same files in every test
    path = file_of(tmp_path)
    whole = path.read_bytes()

    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 8)):
            at = chance.randrange(len(damaged))
            kind = chance.randrange(3)
            if kind == 0:
                damaged[at] = chance.randrange(256)
            elif kind == 1:
                del damaged[at : at + chance.randrange(1, 60)]
            else:
                damaged[at:at] = chance.randbytes(chance.randrange(1, 60))
        path.write_bytes(damaged)
        steps, notes = read(path)
        assert set(steps) <= set(range(18))
        assert notes or len(steps) == 18


def test_events_that_pass_their_checks_but_hold_nonsense_are_left_out(tmp_path: Path) -> None:
    chance = random.Random(11)  # noqa: S311 -- the same files in every test
    path = file_of(tmp_path)
    value = summary_pb2.Summary.Value(tag="loss", simple_value=1.0)
    event = event_pb2.Event(wall_time=1.7e9, step=3, summary=summary_pb2.Summary(value=[value])).SerializeToString()
    huge = summary_pb2.Summary.Value(tag="huge")
    huge.tensor.dtype = 1
    huge.tensor.float_val.append(1.0)
    huge.tensor.tensor_shape.dim.add(size=2**40)
    huge.metadata.plugin_data.plugin_name = "scalars"
    last = event_pb2.Event(wall_time=float("inf"), summary=summary_pb2.Summary(value=[huge])).SerializeToString()

    with path.open("wb") as file:
        writer = RecordWriter(file)
        for _ in range(400):
            mutated = bytearray(event)
            for _ in range(chance.randrange(0, 3)):
                mutated[chance.randrange(len(mutated))] = chance.randrange(256)
            writer.write(bytes(mutated))
        writer.write(last)

    steps, notes = read(path)
    assert len(steps) > 100
    assert any("left out" in note for note in notes)


def test_a_link_that_leads_round_or_out_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    file_of(tmp_path / "logs")
    os.symlink(tmp_path / "logs", tmp_path / "logs" / "again")

    assert read(tmp_path / "logs")[0] == list(range(18))


def test_a_file_of_nothing_but_damage_ends_soon(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1.x"
    empty = struct.pack("<QI", 0, masked_crc32c(bytes(8))) + struct.pack("<I", masked_crc32c(b""))
    path.write_bytes((empty + b"?") * 100_000)

    steps, notes = read(path)

    assert steps == []
    assert any("too many places" in note for note in notes)
