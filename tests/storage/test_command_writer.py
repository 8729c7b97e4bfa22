"""The writer of commands: what it wrote is what `journal` reads, and its segment says whose it is."""

from __future__ import annotations

import fcntl
import os
import zlib
from pathlib import Path

import pytest

from tracer import journal
from tracer.errors import StoreError
from tracer.storage.command_writer import CommandWriter


def segment(folder: Path) -> bytes:
    (path,) = (folder / "journal").glob("*.trj")
    return path.read_bytes()


def records(folder: Path) -> list[journal.Record]:
    data = segment(folder)
    return list(journal.scan(data, journal.HEADER_SIZE, len(data), 1))


def test_rows_and_texts_are_read_as_they_were_added(tmp_path: Path) -> None:
    with CommandWriter(tmp_path, "run") as writer:
        writer.add_row({"loss": 0.5, "lr": float("inf")}, -3, 12.5)
        writer.add_row({"loss": 0.25, "lr": 1.0}, 2**63 - 1, 13.5)
        writer.add(journal.Kind.METADATA, {"notes": "ü"}, 7, 14.0)
        writer.write()

        schema, first, second, note = records(tmp_path)

    assert schema.json() == {"schema": 256, "keys": ["loss", "lr"]}
    assert (first.schema, first.step, first.time, first.values()) == (256, -3, 12.5, (0.5, float("inf")))
    assert (second.step, second.values()) == (2**63 - 1, (0.25, 1.0))
    assert (note.schema, note.step, note.json()) == (journal.Kind.METADATA, 7, {"notes": "ü"})


def test_layers_declare_their_axis_once(tmp_path: Path) -> None:
    with CommandWriter(tmp_path, "run") as writer:
        for step in (1, 2):
            writer.add_layers("gradients", ["a", "b"], ["norm"], b"\0" * 8, step, 1.0)

    kinds = [record.schema for record in records(tmp_path)]
    assert kinds == [journal.Kind.AXIS, journal.Kind.LAYERS, journal.Kind.LAYERS]
    assert records(tmp_path)[1].layers()[1].tolist() == [0.0, 0.0]


def test_nothing_is_read_before_it_was_written(tmp_path: Path) -> None:
    with CommandWriter(tmp_path, "run") as writer:
        writer.add_row({"loss": 1.0}, 1, 1.0)

        assert records(tmp_path) == []


def test_closing_seals_every_byte_and_marks_the_end(tmp_path: Path) -> None:
    writer = CommandWriter(tmp_path, "run", role="command", rank=2)
    writer.add_row({"loss": 1.0}, 1, 1.0)
    writer.sync()
    writer.add_row({"loss": 2.0}, 2, 2.0)
    writer.close()
    writer.close()

    data = segment(tmp_path)
    header = journal.Header.unpack(data)
    (seal,) = (tmp_path / "journal").glob("*.seal")
    blocks = journal.read_blocks(seal.read_bytes())
    assert (header.closed, header.end, header.steps) == (True, len(data), 2)
    assert {key: header.identity[key] for key in ("run", "role", "rank", "mode", "pid")} == {
        "run": "run", "role": "command", "rank": 2, "mode": "append", "pid": os.getpid(),
    }  # fmt: skip
    assert [(block.sequence, block.start) for block in blocks] == [(1, 4096), (2, blocks[0].start + blocks[0].length)]
    assert sum(block.length for block in blocks) == len(data) - journal.HEADER_SIZE
    assert all(zlib.crc32(data[block.start : block.start + block.length]) == block.crc for block in blocks)


def test_the_segment_is_locked_while_its_writer_lives(tmp_path: Path) -> None:
    writer = CommandWriter(tmp_path, "run")
    (path,) = (tmp_path / "journal").glob("*.trj")

    with path.open("rb") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        writer.close()
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    writer = CommandWriter(tmp_path, "run")
    (path,) = (tmp_path / "journal").glob("*.trj")
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:  # lives on until the parent has looked
        os.write(ready[1], b"x" if writer.is_closed else b"-")
        os.read(done[0], 1)
        os._exit(0)

    assert os.read(ready[0], 1) == b"x"
    writer.close()
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    os.write(done[1], b"x")
    os.waitpid(child, 0)
    for descriptor in (*ready, *done):
        os.close(descriptor)


def test_names_without_end_take_one_schema_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MAX_SCHEMAS", 2)

    with CommandWriter(tmp_path, "run") as writer:
        for number in range(4):
            writer.add_row({"loss": 1.0, f"at_{number}": 2.0}, number, 1.0)

    found = [record for record in records(tmp_path) if record.schema >= journal.FIRST_ROW_SCHEMA]
    assert [len(record.values()) for record in found] == [2, 2, 1, 1, 1, 1]


def test_a_step_beyond_64_bits_is_refused_with_its_range(tmp_path: Path) -> None:
    with CommandWriter(tmp_path, "run") as writer, pytest.raises(ValueError, match="does not fit in 64 bits"):
        writer.add_row({"loss": 1.0}, 2**63, 1.0)


def test_a_folder_that_takes_no_file_is_said_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("", encoding="utf-8")

    with pytest.raises(StoreError, match=r"journal cannot be written \(File exists\)"):
        CommandWriter(tmp_path, "run")


def test_a_closed_writer_says_so(tmp_path: Path) -> None:
    writer = CommandWriter(tmp_path, "run")
    writer.close()
    writer.add_row({"loss": 1.0}, 1, 1.0)

    with pytest.raises(StoreError, match="is closed"):
        writer.write()
