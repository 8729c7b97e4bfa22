"""`StorageBackend.conn`: the SQL of the documents, on views that are always up to date."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tracer.errors import StoreError
from tracer.storage import StorageBackend

LAYER = {"norm": 0.5, "mean": 0.25, "std": 1.0, "max": 2.0, "min": -2.0, "num_zeros": 3, "num_nans": 0, "num_infs": 0}


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[StorageBackend]:
    with StorageBackend(SimpleNamespace(storage_path=tmp_path / "store")) as backend:
        backend.create_run("a", "test", "run a", 1000.5, {"lr": 0.1})
        system = {"cpu": {"percent": 5.0}, "memory": {"percent": 50.0}, "gpu": {"gpu_0": {"memory_util": 97.0}}}
        for step in (10, 20):
            backend.write_checkpoint("a", step, 1000.0 + step, {"loss": 1 / step}, {"fc": LAYER, "out": LAYER}, system)
        backend.finalize_run("a", 1100.0, "completed", 20)
        yield backend


def test_rows_answer_to_their_names(storage: StorageBackend) -> None:
    row = storage.conn.execute("SELECT * FROM runs WHERE run_id = ?", ("a",)).fetchone()

    assert isinstance(row, sqlite3.Row)
    assert {key: row[key] for key in row.keys() if not key.endswith("_at")} == {  # noqa: SIM118 -- a Row is no dict
        "run_id": "a", "project_name": "test", "run_name": "run a", "start_time": 1000.5, "end_time": 1100.0,
        "status": "completed", "config": '{"lr": 0.1}', "total_steps": 20, "total_checkpoints": 2,
    }  # fmt: skip
    assert len(row["created_at"]) == len("2026-01-01 00:00:00")


def test_checkpoints_have_their_identifiers_and_metrics(storage: StorageBackend) -> None:
    rows = storage.conn.execute("SELECT * FROM checkpoints WHERE run_id = 'a' ORDER BY step ASC").fetchall()

    assert [(row["checkpoint_id"], row["timestamp"], row["has_samples"]) for row in rows] == [
        ("a_step_10", 1010.0, 0),
        ("a_step_20", 1020.0, 0),
    ]
    assert json.loads(rows[0]["metrics"]) == {"loss": 0.1}


def test_gradient_statistics_join_their_checkpoints(storage: StorageBackend) -> None:
    rows = storage.conn.execute(
        "SELECT c.step, g.layer_name, g.norm, g.max_val, g.num_zeros FROM gradient_stats g"
        " JOIN checkpoints c ON g.checkpoint_id = c.checkpoint_id WHERE c.run_id = ? ORDER BY c.step, g.layer_name",
        ("a",),
    ).fetchall()

    assert [tuple(row) for row in rows] == [(step, layer, 0.5, 2.0, 3) for step in (10, 20) for layer in ("fc", "out")]
    ids = [row["id"] for row in storage.conn.execute("SELECT id FROM gradient_stats")]
    assert len(set(ids)) == 4


def test_nan_is_null_and_infinity_is_infinity(storage: StorageBackend) -> None:
    storage.create_run("b", "test", "b", 1.0, {})
    layer = {**LAYER, "norm": float("nan"), "max": float("inf"), "num_nans": 7}
    storage.write_checkpoint("b", 1, 1.0, {"loss": float("nan")}, {"it's": layer}, {"gpu": {"x": float("nan")}})

    (row,) = storage.conn.execute(
        "SELECT g.* FROM gradient_stats g WHERE g.checkpoint_id = 'b_step_1' AND g.num_nans > 0"
    ).fetchall()
    (gpu,) = storage.conn.execute("SELECT gpu_metrics FROM system_metrics WHERE checkpoint_id = 'b_step_1'").fetchone()

    assert (row["layer_name"], row["norm"], row["max_val"], row["num_nans"]) == ("it's", None, float("inf"), 7)
    assert "NaN" in gpu


def test_system_figures_are_numbers_and_json(storage: StorageBackend) -> None:
    rows = storage.conn.execute("SELECT * FROM system_metrics").fetchall()

    assert [(row["cpu_percent"], row["memory_percent"]) for row in rows] == [(5.0, 50.0)] * 2
    assert json.loads(rows[0]["gpu_metrics"]) == {"gpu_0": {"memory_util": 97.0}}
    assert len({row["id"] for row in rows}) == 2


def test_a_held_connection_sees_what_is_written_later(storage: StorageBackend) -> None:
    connection = storage.conn
    before = connection.execute("SELECT count(*) FROM checkpoints").fetchone()[0]

    storage.create_run("b", "test", "b", 2000.0, {})
    storage.write_checkpoint("b", 1, 2001.0, {"loss": 1.0}, {"fc": LAYER}, {})
    cursor = connection.cursor()

    assert cursor.execute("SELECT count(*) FROM checkpoints").fetchone()[0] == before + 1
    assert connection.execute("SELECT count(*) FROM gradient_stats").fetchone()[0] == 5
    assert connection.execute("SELECT status FROM runs WHERE run_id = 'b'").fetchone()[0] == "running"
    assert storage.conn is connection


def insert(storage: StorageBackend, step: int, kind: str = "loss_spike") -> None:
    storage.conn.execute(
        "INSERT INTO anomalies (run_id, checkpoint_id, step, anomaly_type, severity, details)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        ("a", f"a_step_{step}", step, kind, "high", json.dumps({"loss": 3.0})),
    )


def test_an_inserted_anomaly_is_a_finding(storage: StorageBackend) -> None:
    insert(storage, 10)
    storage.conn.commit()

    (finding,) = storage.store.findings("a")
    (row,) = storage.conn.execute("SELECT * FROM anomalies WHERE run_id = 'a'").fetchall()
    assert (finding.kind, finding.step, finding.severity, finding.details) == ("loss_spike", 10, "high", {"loss": 3.0})
    assert (row["checkpoint_id"], row["anomaly_type"], json.loads(row["details"])) == (
        "a_step_10", "loss_spike", {"loss": 3.0},
    )  # fmt: skip
    assert row["detected_at"]


def test_an_inserted_anomaly_is_read_before_the_commit(storage: StorageBackend) -> None:
    insert(storage, 10)

    assert storage.conn.execute("SELECT count(*) FROM anomalies").fetchone()[0] == 1


def test_a_severity_that_is_not_given_is_medium(storage: StorageBackend) -> None:
    with storage.conn as connection:
        connection.execute(
            "INSERT INTO anomalies (run_id, checkpoint_id, step, anomaly_type) VALUES ('a', 'a_step_10', 10, 'odd')"
        )

    assert [(found.kind, found.severity) for found in storage.store.findings("a")] == [("odd", "medium")]


def test_the_same_anomaly_twice_is_one(storage: StorageBackend) -> None:
    for _ in range(2):
        insert(storage, 10)
        storage.conn.commit()

    assert len(storage.store.findings("a")) == 1


def test_many_anomalies_are_one_journal_segment(storage: StorageBackend) -> None:
    def writers() -> int:
        return int(storage.conn.execute("SELECT count(*) FROM writer").fetchone()[0])

    before = writers()
    for step in range(50):
        insert(storage, step)
    storage.conn.commit()

    assert len(storage.store.findings("a")) == 50
    assert writers() - before == 1


def test_a_rolled_back_anomaly_is_forgotten(storage: StorageBackend) -> None:
    insert(storage, 10)
    storage.conn.rollback()

    def fail() -> None:
        with storage.conn:
            insert(storage, 20)
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert storage.store.findings("a") == []


def test_a_deleted_run_is_in_the_trash_with_all_its_rows(storage: StorageBackend) -> None:
    insert(storage, 10)
    storage.conn.execute("DELETE FROM runs WHERE run_id = ?", ("a",))
    storage.conn.commit()

    assert storage.get_run("a") is None
    assert [row.uid for row in storage.store.trash()] == ["a"]
    for table in ("runs", "checkpoints", "gradient_stats", "system_metrics", "anomalies"):
        assert storage.conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 0  # noqa: S608 -- our words
    storage.store.restore("a")
    assert storage.conn.execute("SELECT count(*) FROM checkpoints").fetchone()[0] == 2


def test_a_run_that_this_backend_still_writes_can_be_deleted(storage: StorageBackend) -> None:
    storage.create_run("b", "test", "b", 2000.0, {})
    storage.write_checkpoint("b", 1, 2001.0, {"loss": 1.0}, {}, {})

    storage.conn.execute("DELETE FROM runs WHERE run_id = 'b'")

    assert [run["run_id"] for run in storage.list_runs()] == ["a"]


def test_an_update_changes_what_is_known_of_a_run(storage: StorageBackend) -> None:
    storage.conn.execute("UPDATE runs SET run_name = 'renamed', total_steps = 30 WHERE run_id = 'a'")
    storage.conn.commit()

    found = storage.get_run("a")
    assert found is not None
    assert (found["run_name"], found["total_steps"], found["status"]) == ("renamed", 30, "completed")
    assert storage.conn.execute("SELECT run_name FROM runs").fetchone()[0] == "renamed"


def test_an_unknown_status_is_refused(storage: StorageBackend) -> None:
    with pytest.raises(StoreError, match="'done' is no status"):
        storage.conn.execute("UPDATE runs SET status = 'done' WHERE run_id = 'a'")


def test_the_catalog_itself_cannot_be_written(storage: StorageBackend) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        storage.conn.execute("DELETE FROM run")


def test_the_join_of_the_documents_reads_each_run_once(storage: StorageBackend) -> None:
    calls = []
    read = storage.get_gradient_stats
    storage.get_gradient_stats = lambda run_id: calls.append(run_id) or read(run_id)  # type: ignore[method-assign, func-returns-value, assignment]
    storage.create_run("b", "test", "b", 2000.0, {})
    for step in range(20):
        storage.write_checkpoint("b", step, 2001.0, {}, {"fc": LAYER}, {})

    rows = storage.conn.execute(
        "SELECT c.step FROM gradient_stats g JOIN checkpoints c ON g.checkpoint_id = c.checkpoint_id"
        " WHERE c.run_id = 'b'"
    ).fetchall()

    assert len(rows) == 20
    assert calls.count("b") == 1
