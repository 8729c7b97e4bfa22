"""Runs come out of the Parquet files of Neptune's exporter, with everything that its schema has a place for."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tracer import events
from tracer.backends.neptune_reading import NeptuneSource
from tracer.transfer import Event, File, Histogram, LogLine, Points, RunInfo, Text

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

#: The table of the exporter's README.
SCHEMA = pa.schema(
    [
        ("project_id", pa.string()), ("run_id", pa.string()), ("attribute_path", pa.string()),
        ("attribute_type", pa.string()), ("step", pa.decimal128(18, 6)), ("timestamp", pa.timestamp("ms", tz="UTC")),
        ("int_value", pa.int64()), ("float_value", pa.float64()), ("string_value", pa.string()),
        ("bool_value", pa.bool_()), ("datetime_value", pa.timestamp("ms", tz="UTC")),
        ("string_set_value", pa.list_(pa.string())), ("file_value", pa.struct([("path", pa.string())])),
        (
            "histogram_value",
            pa.struct([("type", pa.string()), ("edges", pa.list_(pa.float64())), ("values", pa.list_(pa.float64()))]),
        ),
    ]
)  # fmt: skip
BEGAN = datetime(2025, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
START = 1_740_830_400_250_000


def row(
    path: str, kind: str, *, step: str | None = None, at: int | None = None, run: str = "RUN-1", **value: object
) -> dict[str, object]:
    time = None if at is None else datetime.fromtimestamp((START + at * 1000) / 1e6, UTC)
    said = {
        "project_id": "team/vision",
        "run_id": run,
        "attribute_path": path,
        "attribute_type": kind,
        "timestamp": time,
    }
    return said | {"step": None if step is None else Decimal(step)} | value


def rows() -> Iterator[dict[str, object]]:
    yield row("sys/name", "string", string_value="a name")
    yield row("sys/creation_time", "datetime", datetime_value=BEGAN)
    yield row("sys/tags", "string_set", string_set_value=["one", "zwei"])
    yield row("sys/description", "string", string_value="A note.")
    yield row("sys/failed", "bool", bool_value=True)
    yield row("sys/owner", "string", string_value="somebody")
    yield row("config/lr", "float", float_value=0.1)
    yield row("config/depth", "int", int_value=2**60)
    yield row("config/amp", "bool", bool_value=False)
    yield row("config/when", "datetime", datetime_value=BEGAN)
    for step in range(50):
        yield row("train/loss", "float_series", step=f"{step}.000000", at=step, float_value=step * 0.1)
    yield row("epoch", "float_series", step="1.500000", at=9, float_value=float("inf"))
    yield row("words", "string_series", step="3", at=3, string_value="hello")
    yield row("monitoring/ab12/stdout", "string_series", step="1", at=4, string_value="a line\n")
    histogram = {"type": "COUNTING", "edges": [0.0, 1.0, 2.0], "values": [3.0, 4.0]}
    yield row("weights", "histogram_series", step="5", at=5, histogram_value=histogram)
    yield row("model", "file", file_value={"path": "team_vision/model.bin"})
    yield row("stolen", "file", file_value={"path": "../../secret"})
    yield row("linked", "file", file_value={"path": "team_vision/link"})


def exported(folder: Path) -> Path:
    data, files = folder / "data" / "team_vision_0a", folder / "files" / "team_vision"
    data.mkdir(parents=True)
    files.mkdir(parents=True)
    (folder / "secret").write_text("no")
    (files / "model.bin").write_bytes(b"weights")
    os.symlink(folder / "secret", files / "link")
    found = list(rows())
    for part, half in enumerate((found[:30], found[30:])):
        pq.write_table(pa.Table.from_pylist(half, SCHEMA), data / f"RUN-1_part_{part}.parquet", compression="snappy")
    other = [row("train/loss", "float_series", step="0", at=0, run="RUN-2", float_value=1.0)]
    pq.write_table(pa.Table.from_pylist(other, SCHEMA), data / "RUN-2_part_0.parquet")
    return folder / "data"


def read(uri: Path, **options: object) -> tuple[dict[str, tuple[RunInfo, list[Event]]], list[str]]:
    source = NeptuneSource(str(uri), options)
    return {run.labels["neptune.run"]: (run, list(source.events(run))) for run in source.runs()}, source.notes


def test_a_run_has_its_facts_and_its_parts_are_one(tmp_path: Path) -> None:
    found, _ = read(exported(tmp_path))
    run = found["RUN-1"][0]

    assert sorted(found) == ["RUN-1", "RUN-2"]
    assert run.origin == "neptune:team/vision/RUN-1"
    assert (run.project, run.name, run.started, run.status) == ("team/vision", "a name", START, events.FAILED)
    assert (run.tags, run.notes, run.steps) == (("one", "zwei"), "A note.", 50)
    assert run.params == {
        "config/lr": 0.1, "config/depth": 2**60, "config/amp": False, "config/when": BEGAN.isoformat(),
    }  # fmt: skip
    assert run.environment == {"neptune": {"owner": "somebody"}}


def test_series_keep_every_value_step_and_time(tmp_path: Path) -> None:
    found, _ = read(exported(tmp_path))
    series = {one.name: one for one in found["RUN-1"][1] if isinstance(one, Points)}

    assert series["train/loss"].steps.tolist() == list(range(50))
    assert series["train/loss"].values.tolist() == [step * 0.1 for step in range(50)]
    assert series["train/loss"].times.tolist() == [START + step * 1000 for step in range(50)]
    assert series["epoch"].values.tolist() == [float("inf")]


def test_texts_output_histograms_and_files_travel_and_nothing_leads_out(tmp_path: Path) -> None:
    found, notes = read(exported(tmp_path))
    others = [one for one in found["RUN-1"][1] if not isinstance(one, Points)]

    assert others[:-1] == [
        LogLine("line", START + 4000, body="a line", name="stdout"),
        Text("words", 3, START + 3000, "hello"),
        Histogram("weights", 5, START + 5000, (0.0, 1.0, 2.0), (3.0, 4.0)),
    ]
    [artifact] = [one for one in others if isinstance(one, File)]
    [part] = artifact.parts
    assert (artifact.name, part.path, part.digest) == ("model", "model.bin", hashlib.sha256(b"weights").hexdigest())
    assert sum("left out" in note for note in notes) == 2


def test_steps_that_are_no_whole_numbers_are_said_and_can_be_kept(tmp_path: Path) -> None:
    data = exported(tmp_path)
    cut, notes = read(data)
    kept, silent = read(data, step_multiplier=10)

    def steps(found: dict[str, tuple[RunInfo, list[Event]]]) -> list[int]:
        return next(one for one in found["RUN-1"][1] if isinstance(one, Points) and one.name == "epoch").steps.tolist()

    assert any("no whole numbers" in note for note in notes)
    assert not any("no whole numbers" in note for note in silent)
    assert (steps(cut), steps(kept)) == ([1], [15])


def test_damaged_and_other_files_are_said_and_the_rest_is_read(tmp_path: Path) -> None:
    data = exported(tmp_path)
    pq.write_table(pa.table({"a": [1]}), data / "other.parquet")
    chance = random.Random(3)  # noqa: S311 -- the same damage in every test
    whole = (data / "team_vision_0a" / "RUN-1_part_0.parquet").read_bytes()

    for _ in range(6):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        (data / "team_vision_0a" / "RUN-1_part_0.parquet").write_bytes(damaged)
        found, notes = read(data)
        assert "RUN-2" in found
        assert any("other.parquet" in note for note in notes)
