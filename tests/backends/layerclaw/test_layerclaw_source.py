"""The database of the earlier program of the same name is read whole, and nothing in it is trusted."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tracer.backends.base import Rejected, Unreachable
from tracer.backends.layerclaw_reading import LayerClawSource
from tracer.migration import import_runs
from tracer.storage import Store
from tracer.transfer import File, LayerPoints, LogLine, Points, Text

SCHEMA = """
CREATE TABLE runs (run_id TEXT PRIMARY KEY, project_name TEXT NOT NULL, run_name TEXT NOT NULL,
    start_time REAL NOT NULL, end_time REAL, status TEXT DEFAULT 'running', config TEXT,
    total_steps INTEGER DEFAULT 0, total_checkpoints INTEGER DEFAULT 0,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE checkpoints (checkpoint_id TEXT PRIMARY KEY, run_id TEXT NOT NULL, step INTEGER NOT NULL,
    timestamp REAL NOT NULL, metrics TEXT, has_samples BOOLEAN DEFAULT 0, sample_path TEXT);
CREATE TABLE gradient_stats (id INTEGER PRIMARY KEY AUTOINCREMENT, checkpoint_id TEXT NOT NULL,
    layer_name TEXT NOT NULL, norm REAL, mean REAL, std REAL, max_val REAL, min_val REAL, num_zeros INTEGER,
    num_nans INTEGER, num_infs INTEGER);
CREATE TABLE system_metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, checkpoint_id TEXT NOT NULL, cpu_percent REAL,
    memory_percent REAL, gpu_metrics TEXT);
CREATE TABLE anomalies (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, checkpoint_id TEXT NOT NULL,
    step INTEGER NOT NULL, anomaly_type TEXT NOT NULL, severity TEXT DEFAULT 'medium', details TEXT,
    detected_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE schema_version (version INTEGER PRIMARY KEY, applied_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
INSERT INTO schema_version (version) VALUES (1);
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database of two runs, the second of which was cut off."""
    folder = tmp_path / "old"
    (folder / "samples").mkdir(parents=True)
    (folder / "samples" / "r1_step_2.parquet").write_bytes(b"PAR1")
    with closing(sqlite3.connect(folder / "tracer.db")) as connection, connection:
        connection.executescript(SCHEMA)
        connection.executemany(
            "INSERT INTO runs (run_id, project_name, run_name, start_time, end_time, status, config, total_steps) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                ("r1", "vision", "first", 1700000000.25, 1700000060.5, "completed", '{"lr": 0.1}', 3),
                ("r2", "vision", "cut off", 1700000100.0, None, "running", "{", 1),
            ],
        )
        for step in range(3):
            metrics = {"loss": 1 / (step + 1) if step else math.nan, "val": {"acc": step}, "phase": "warm"}
            has = step == 2
            connection.execute(
                "INSERT INTO checkpoints VALUES (?, 'r1', ?, ?, ?, ?, ?)",
                (f"r1_{step}", step, 1700000000.5 + step, json.dumps(metrics), has, "../../r1_step_2.parquet"),
            )
            nans = 5 if step == 1 else 0
            connection.execute(
                "INSERT INTO gradient_stats (checkpoint_id, layer_name, norm, num_zeros, num_nans, num_infs) "
                "VALUES (?, 'fc1.weight', ?, 0, ?, 0)",
                (f"r1_{step}", None if nans else 0.5, nans),
            )
            connection.execute(
                "INSERT INTO system_metrics (checkpoint_id, cpu_percent, memory_percent, gpu_metrics) "
                "VALUES (?, 50.0, 25.0, ?)",
                (f"r1_{step}", json.dumps({"0": {"memory_mb": 100 + step}})),
            )
        connection.execute(
            "INSERT INTO anomalies (run_id, checkpoint_id, step, anomaly_type, severity, details, detected_at) "
            "VALUES ('r1', 'r1_1', 1, 'nan_gradient', 'high', '{\"layer\": \"fc1.weight\"}', '2023-11-14 22:13:21')"
        )
    return folder


def test_runs_are_known_by_what_the_database_says(database: Path) -> None:
    first, second = LayerClawSource(str(database)).runs()

    assert (first.name, first.project, first.status, first.params) == ("first", "vision", "completed", {"lr": 0.1})
    assert (first.started, first.ended, first.steps) == (1_700_000_000_250_000, 1_700_000_060_500_000, 3)
    assert first.origin == f"layerclaw:{database}/tracer.db#r1"
    assert (second.status, second.ended, second.params) == ("crashed", None, {})


def test_every_table_is_read(database: Path) -> None:
    source = LayerClawSource(str(database / "tracer.db"))
    events = list(source.events(next(source.runs())))

    def series(kind: type) -> dict[str, list[float]]:
        return {one.name: one.values.tolist() for one in events if type(one) is kind}

    numbers, layers = series(Points), series(LayerPoints)
    assert str(numbers["loss"]) == str([math.nan, 0.5, 1 / 3])
    assert numbers["val/acc"] == [0, 1, 2]
    assert numbers["system/cpu_percent"] == [50.0] * 3
    assert numbers["system/gpu/0/memory_mb"] == [100, 101, 102]
    assert str(layers["gradients/fc1.weight/norm"]) == str([0.5, math.nan, 0.5])
    assert layers["gradients/fc1.weight/nans"] == [0, 5, 0]
    assert [(one.step, one.body) for one in events if isinstance(one, Text)] == [(0, "warm"), (1, "warm"), (2, "warm")]
    assert [(one.name, one.level, one.time) for one in events if isinstance(one, LogLine)] == [
        ("nan_gradient", "high", 1_700_000_001_000_000)
    ]


def test_no_path_is_taken_from_the_database(database: Path) -> None:
    source = LayerClawSource(str(database))
    files = [event for event in source.events(next(source.runs())) if isinstance(event, File)]

    assert [[part.local for part in one.parts] for one in files] == [[str(database / "samples" / "r1_step_2.parquet")]]


def test_it_comes_into_the_store_once(database: Path, tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", create=True) as store:
        report = import_runs(store, LayerClawSource(str(database)), verify=True)
        again = import_runs(store, LayerClawSource(str(database)))

        assert [(run.outcome, run.is_good) for run in report.runs] == [("created", True)] * 2
        assert [run.outcome for run in again.runs] == ["unchanged"] * 2
        norm = store.series(report.runs[0].uid, "gradients/fc1.weight/norm").value
        assert str(norm.tolist()) == str([0.5, math.nan, 0.5])


def test_an_empty_file_has_no_runs(tmp_path: Path) -> None:
    (tmp_path / "tracer.db").write_bytes(b"")

    assert list(LayerClawSource(str(tmp_path)).runs()) == []


@pytest.mark.parametrize("data", [b"SQLite format 3\x00" + b"\xff" * 4096, b"no database at all" * 100])
def test_what_is_no_database_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "tracer.db").write_bytes(data)

    with pytest.raises(Rejected, match="cannot be read"):
        list(LayerClawSource(str(tmp_path)).runs())


def test_a_database_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"There is no database .*gone"):
        list(LayerClawSource(str(tmp_path / "gone")).runs())
