"""Runs come out of tables that anyone wrote, and out of what `tracer export` writes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

import tracer
from tracer.backends.files_reading import CsvSource, JsonLinesSource, ParquetSource
from tracer.errors import ConfigError
from tracer.storage import Store
from tracer.transfer import Event, Points, RunInfo, Text

FORMATS = [(CsvSource, "csv"), (JsonLinesSource, "jsonl"), (JsonLinesSource, "json"), (ParquetSource, "parquet")]


def read(kind: type, uri: Path, **options: object) -> tuple[list[tuple[RunInfo, list[Event]]], list[str]]:
    source = kind(str(uri), options)
    return [(run, list(source.events(run))) for run in source.runs()], source.notes


def values(found: list[Event]) -> dict[str, list[tuple[int, str]]]:
    return {
        one.name: [(step, repr(value)) for step, value in zip(one.steps.tolist(), one.values.tolist(), strict=True)]
        for one in found
        if isinstance(one, Points)
    }


def times(found: list[Event]) -> list[int]:
    return next(one for one in found if isinstance(one, Points)).times.tolist()


def test_a_wide_table_is_a_metric_per_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "global_step,timestamp,train/loss,acc,note,done\n"
        "1,1767225600.25,0.5,,hello,true\n2,1767225601,NaN,1e-3,,False\n3,1767225602.000001,-inf,-0.0,12,true\n"
    )

    [(run, found)], notes = read(CsvSource, tmp_path)

    assert notes == []
    assert (run.name, run.project, run.steps) == ("a", tmp_path.name, 4)
    assert (run.started, run.ended) == (1_767_225_600_250_000, 1_767_225_602_000_001)
    assert values(found) == {
        "train/loss": [(1, "0.5"), (2, "nan"), (3, "-inf")],
        "acc": [(2, "0.001"), (3, "-0.0")],
        "note": [(3, "12.0")],
        "done": [(1, "1.0"), (2, "0.0"), (3, "1.0")],
    }
    assert [one for one in found if isinstance(one, Text)] == [Text("note", 1, 1_767_225_600_250_000, "hello")]


@pytest.mark.parametrize(
    ("header", "time", "expected"),
    [
        ("Wall time", "1767225600.5", 1_767_225_600_500_000),
        ("_timestamp", "1767225600500", 1_767_225_600_500_000),
        ("time", "1767225600500001", 1_767_225_600_500_001),
        ("timestamp", "2026-01-01T02:00:00.5+02:00", 1_767_225_600_500_000),
        ("date", "2026-01-01 00:00:00.5", 1_767_225_600_500_000),
    ],
)
def test_times_are_understood_by_their_size_or_as_text(header: str, time: str, expected: int, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{header},_step,loss\n{time},7,0.5\n")
    (tmp_path / "a.jsonl").write_text(
        json.dumps({header: time if ":" in time else float(time), "_step": 7, "loss": 0.5})
    )

    for kind in (CsvSource, JsonLinesSource):
        [(_, found)], _ = read(kind, tmp_path)
        assert (times(found), values(found)) == ([expected], {"loss": [(7, "0.5")]})


def test_tensorboards_download_is_the_series_that_its_file_is_named_after(tmp_path: Path) -> None:
    (tmp_path / "run-a_b-tag-train_loss.csv").write_text(
        "Wall time,Step,Value\n1767225600.5,1,0.25\n1767225601,2,0.5\n"
    )

    [(_, found)], _ = read(CsvSource, tmp_path)

    assert values(found) == {"train_loss": [(1, "0.25"), (2, "0.5")]}


def test_columns_can_be_named_and_a_wrong_name_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("when,n,what,how_much,step\n1767225600,3,loss,0.5,99\n")

    [(_, found)], _ = read(CsvSource, tmp_path, step="n", time="when", name="what", value="how_much")

    assert (values(found), times(found)) == ({"loss": [(3, "0.5")]}, [1_767_225_600_000_000])
    with pytest.raises(ConfigError, match="no such column"):
        read(CsvSource, tmp_path, step="nn")


def test_a_folder_is_a_run_per_file_and_a_table_without_steps_counts_its_rows(tmp_path: Path) -> None:
    for name in ("a", "deep/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.jsonl").write_text('{"loss": 0.5}\n\n{"loss": {"inner": 1}, "x": "NaN"}\nno json\n')

    found, notes = read(JsonLinesSource, tmp_path)

    assert [run.name for run, _ in found] == ["a", "deep/b"]
    assert values(found[0][1]) == {"loss": [(0, "0.5")], "loss/inner": [(1, "1.0")], "x": [(1, "nan")]}
    assert sum("left out" in note for note in notes) == 2


def test_foreign_parquet_is_read_with_its_types(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table(
        {
            "step": pa.array([1, 2], pa.int32()),
            "at": pa.array([1_767_225_600_500, None], pa.timestamp("ms", tz="UTC")),
            "loss": pa.array([0.5, float("nan")], pa.float32()), "n": pa.array([2**53, None], pa.int64()),
            "ok": pa.array([True, False]), "list": pa.array([[1], [2]]), "word": pa.array(["a", None]),
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "a[1]*.parquet")

    [(_, found)], _ = read(ParquetSource, tmp_path, time="at")

    assert values(found) == {
        "loss": [(1, "0.5"), (2, "nan")], "n": [(1, repr(2.0**53))], "ok": [(1, "1.0"), (2, "0.0")],
    }  # fmt: skip
    assert times(found)[0] == 1_767_225_600_500_000


@pytest.mark.parametrize(("kind", "ending"), FORMATS)
def test_what_tracer_exports_is_read_back_without_a_loss(kind: type, ending: str, tmp_path: Path) -> None:
    numbers = [0.1, float("nan"), float("inf"), float("-inf"), -0.0, 1e-300, 5e-324]
    with tracer.init(
        project="p", run_name="one", storage_path=str(tmp_path / "store"), config={"lr": 0.1}, capture="off"
    ) as run:
        for step, value in enumerate(numbers):
            run.log({"loss": value, "=odd,name": value}, step=step * 10**12)
        run.log({"words": "hello"}, step=3)
    store = Store(str(tmp_path / "store"))
    [row] = store.runs()
    path = tmp_path / f"out.{ending}"
    store.export([row.uid], str(path), format=ending)

    [(info, found)], notes = read(kind, path)

    assert notes == []
    assert info.origin == f"{kind.name}:{path}#{row.uid}"
    assert (info.name, info.project) == ("one", "p")
    for name in ("loss", "=odd,name"):
        kept = store.series(row.uid, name)
        one = next(one for one in found if isinstance(one, Points) and one.name == name)
        assert one.steps.tolist() == kept.step.tolist()
        assert one.times.tolist() == kept.time.tolist()
        assert one.values.tobytes() == np.where(np.isnan(kept.value), np.nan, kept.value).tobytes()
    assert [one.body for one in found if isinstance(one, Text)] == ["hello"]


def test_damaged_and_hostile_files_are_said_and_the_rest_is_read(tmp_path: Path) -> None:
    chance = random.Random(5)  # noqa: S311 -- the same damage in every test
    tables = {
        "b.csv": b'step,loss\n1,0.5\n2,0.25,7,8\n3,"0.1\n',
        "c.csv": bytes(range(256)) * 20,
        "d.csv": b"",
        "e.jsonl": b"[" * 100_000
        + b"\n"
        + b'{"step": 1e400, "loss": 1'
        + b"0" * 400
        + b"}\n"
        + b'{"step": "x", "time": [], "loss": 1}',
        "f.parquet": b"PAR1" + chance.randbytes(300) + b"PAR1",
        "g.csv": b"step,loss\n" + b"1," + b"9" * 1_000_000 + b"\n",
    }
    for name, content in tables.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "a.csv").write_text("step,loss\n1,0.5\n")
    (tmp_path / "a.jsonl").write_text('{"step": 1, "loss": 0.5}\n')

    for kind in (CsvSource, JsonLinesSource, ParquetSource):
        found, notes = read(kind, tmp_path)
        assert notes
        assert kind is ParquetSource or values(found[0][1]) == {"loss": [(1, "0.5")]}


def test_what_lies_beside_a_file_is_never_taken_from_outside(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "media").mkdir(parents=True)
    (tmp_path / "secret").write_text("no")
    (folder / "media" / "link").symlink_to(tmp_path / "secret")
    (folder / "points.csv").write_text("name,rank,step,time,value\nloss,0,1,1767225600.0,0.5\n")
    (folder / "run.json").write_text(json.dumps({"format": "tracer-files", "points": "points.csv", "name": "x"}))
    said = {"kind": "media", "type": "image", "name": "m", "step": 1, "time": "1.0", "suffix": ".png"}
    lines = [said | {"file": name} for name in ("../secret", str(tmp_path / "secret"), "media/link", "media/none")]
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"kind": "?"}, []]))

    [(run, found)], notes = read(CsvSource, folder)

    assert (run.name, values(found)) == ("x", {"loss": [(1, "0.5")]})
    assert not [one for one in found if not isinstance(one, Points)]
    assert any("6 lines" in note for note in notes)
