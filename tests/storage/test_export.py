"""Exports: what other programs read back is what was logged, and nothing that was there is lost."""

from __future__ import annotations

import csv
import json
import math
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tracer.errors import RunNotFound, StoreError
from tracer.storage import StorageBackend, Store
from tracer.storage.export import CSV_COLUMNS, export_runs, format_of


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[StorageBackend]:
    with StorageBackend(SimpleNamespace(storage_path=tmp_path / "store")) as backend:
        backend.create_run("a", "=test", "run a", 1000.0, {"lr": float("inf")})
        for step, loss in enumerate([1.0, math.nan, -math.inf, -0.5]):
            backend.write_checkpoint("a", step, 1000.0 + step, {"loss": loss, "phase": "=1+1"}, {}, {})
        backend.finalize_run("a", 1100.0, "completed", 4)
        backend.create_run("b", "=test", "run b", 2000.0, {})
        backend.write_checkpoint("b", 0, 2000.0, {"loss": 0.25, "-odd": 1.0}, {}, {})
        backend.finalize_run("b", 2100.0, "completed", 1)
        yield backend


@pytest.fixture
def store(storage: StorageBackend) -> Store:
    return storage.store


def test_csv_holds_one_line_per_value_and_runs_no_formula(store: Store, tmp_path: Path) -> None:
    report = export_runs(store, ["a", "b"], tmp_path / "all.csv")

    with (tmp_path / "all.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = list(csv.reader(file))
    assert tuple(head) == CSV_COLUMNS
    assert rows == [
        ["a", "run a", "'=test", "loss", "0", "0", "1000.0", "1.0"],
        ["a", "run a", "'=test", "loss", "0", "1", "1001.0", "nan"],
        ["a", "run a", "'=test", "loss", "0", "2", "1002.0", "-inf"],
        ["a", "run a", "'=test", "loss", "0", "3", "1003.0", "-0.5"],
        *(["a", "run a", "'=test", "phase", "0", str(step), f"{1000.0 + step}", "'=1+1"] for step in range(4)),
        ["b", "run b", "'=test", "'-odd", "0", "0", "2000.0", "1.0"],
        ["b", "run b", "'=test", "loss", "0", "0", "2000.0", "0.25"],
    ]
    assert (report.format, report.runs, report.points, report.files) == ("csv", 2, 10, 1)
    assert report.bytes == (tmp_path / "all.csv").stat().st_size


def test_json_is_read_by_every_reader(store: Store, tmp_path: Path) -> None:
    export_runs(store, ["a"], tmp_path / "a.json")

    def refuse(name: str) -> None:
        message = f"{name} is no JSON"
        raise AssertionError(message)

    (run,) = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"), parse_constant=refuse)["runs"]
    loss, phase = run["metrics"]
    assert (run["run_id"], run["status"], run["config"]) == ("a", "completed", {"lr": "Infinity"})
    assert loss == {
        "metric": "loss", "rank": 0, "steps": [0, 1, 2, 3], "timestamps": [1000.0, 1001.0, 1002.0, 1003.0],
        "values": [1.0, "NaN", "-Infinity", -0.5],
    }  # fmt: skip
    assert phase["values"] == ["=1+1"] * 4
    assert [found["step"] for found in run["checkpoints"]] == [0, 1, 2, 3]
    assert run["findings"] == []


def test_json_lines_hold_one_object_each(store: Store, tmp_path: Path) -> None:
    export_runs(store, ["a", "b"], tmp_path / "all.jsonl", metrics=["loss"])

    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text(encoding="utf-8").splitlines()]
    kinds = [line["kind"] for line in lines]
    assert kinds == ["run"] + ["point"] * 4 + ["checkpoint"] * 4 + ["run", "point", "checkpoint"]
    assert lines[-2] == {
        "kind": "point", "run_id": "b", "metric": "loss", "rank": 0, "step": 0, "timestamp": 2000.0, "value": 0.25,
    }  # fmt: skip


def test_parquet_is_one_table_that_others_read(store: Store, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")

    report = export_runs(store, ["a", "b"], tmp_path / "it's.parquet")

    table = parquet.read_table(tmp_path / "it's.parquet").to_pylist()
    numbers = [row["value"] for row in table if row["metric"] == "loss"]
    assert report.points == len(table) == 10
    assert [repr(value) for value in numbers] == ["1.0", "nan", "-inf", "-0.5", "0.25"]
    assert [row["text"] for row in table if row["metric"] == "phase"] == ["=1+1"] * 4
    assert {row["project"] for row in table} == {"=test"}
    assert table[0]["time"].timestamp() != 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it's.parquet", "store"]


def test_a_folder_export_is_a_store_of_its_own(store: Store, storage: StorageBackend, tmp_path: Path) -> None:
    export_runs(store, ["a"], tmp_path / "copy" / "runs", "folder")

    with StorageBackend(SimpleNamespace(storage_path=tmp_path / "copy")) as copy:
        assert copy.get_run("a") == storage.get_run("a")
        found = copy.get_metric_timeseries("a", "loss")["values"]
    assert [repr(value) for value in found] == ["1.0", "nan", "-inf", "-0.5"]


@pytest.mark.parametrize("name", ["runs.tar", "runs.tar.gz"])
def test_a_packed_export_unpacks_to_run_folders(store: Store, tmp_path: Path, name: str) -> None:
    report = export_runs(store, ["a", "b"], tmp_path / name)

    with tarfile.open(tmp_path / name) as archive:
        archive.extractall(tmp_path / "out" / "runs", filter="data")
    assert report.format == "tar"
    with Store.open(tmp_path / "out", create=True) as unpacked:
        assert {row.uid for row in unpacked.runs()} == {"a", "b"}
        assert len(unpacked.series("a", "loss")) == 4


@pytest.mark.parametrize("format", ["csv", "json", "jsonl", "parquet", "folder", "tar"])
def test_what_is_there_is_only_replaced_when_asked(store: Store, tmp_path: Path, format: str) -> None:  # noqa: A002
    path = tmp_path / "out"
    path.write_text("precious", encoding="utf-8")

    with pytest.raises(StoreError, match="exists already"):
        export_runs(store, ["b"], path, format)
    assert path.read_text(encoding="utf-8") == "precious"

    export_runs(store, ["b"], path, format, overwrite=True)
    export_runs(store, ["b"], path, format, overwrite=True)
    assert path.is_dir() == (format == "folder")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out", "store"]


def test_a_failed_export_leaves_nothing_behind(store: Store, tmp_path: Path) -> None:
    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_runs(store, ["a"], tmp_path / "a.csv", progress=stop)

    assert [entry.name for entry in tmp_path.iterdir()] == ["store"]


def test_progress_is_told_to_the_end(store: Store, tmp_path: Path) -> None:
    told = []

    export_runs(store, ["a", "b"], tmp_path / "all.csv", progress=lambda done, total: told.append((done, total)))

    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_only_the_metrics_asked_for_are_written(store: Store, tmp_path: Path) -> None:
    report = export_runs(store, ["a", "b"], tmp_path / "all.csv", metrics=["phase"])

    assert report.points == 4


def test_a_metric_that_nobody_logged_is_said_with_what_comes_near(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"metric 'los'\. Did you mean 'loss'\?"):
        export_runs(store, ["a"], tmp_path / "a.csv", metrics=["los"])


def test_an_unknown_run_or_format_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(RunNotFound):
        export_runs(store, ["none"], tmp_path / "a.csv")
    with pytest.raises(ValueError, match="'xml' is not an export format"):
        export_runs(store, ["a"], tmp_path / "a.csv", "xml")
    with pytest.raises(ValueError, match="names no format"):
        format_of("a.xlsx")


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a.csv", "csv"), ("a.JSON", "json"), ("a.ndjson", "jsonl"), ("a.parquet", "parquet"), ("a", "folder"),
     ("a.tar.gz", "tar"), ("a.tgz", "tar"), ("a.tar", "tar")],
)  # fmt: skip
def test_the_ending_names_the_format(path: str, expected: str) -> None:
    assert format_of(path) == expected


def test_the_store_exports_too(store: Store, tmp_path: Path) -> None:
    report = store.export(["a"], tmp_path / "a.csv", "csv", metrics=["loss"])

    assert report.points == 4
