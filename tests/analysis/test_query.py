"""What `analysis.query` finds."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

import tracer
from tracer import events
from tracer.analysis import AnomalyDetector, QueryEngine
from tracer.config import Config

NAN = float("nan")


def record(name: str, losses: list[float], **settings: object) -> str:
    """Record a run with these losses and return its id."""
    off = ("track_system_metrics", "track_git", "track_environment", "detect_anomalies")
    quiet = {"quiet": True, **dict.fromkeys(off, False)}
    with tracer.init(project="demo", run_name=name, **quiet, **settings) as run:
        for loss in losses:
            run.log({"loss": loss, "eval": {"acc": 1 - loss / 10}})
            run.step()
        run.log({"phase": "done"})
        return str(run.run_id)


@pytest.fixture
def query() -> Iterator[QueryEngine]:
    with QueryEngine(storage_path="./.tracer") as engine:
        yield engine


def test_the_room_is_light_until_a_class_is_asked_for() -> None:
    program = "import sys, tracer.analysis\nprint([n for n in ('numpy', 'sqlite3', 'duckdb') if n in sys.modules])"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout == "[]\n"


def test_an_unknown_name_of_the_room_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        importlib.import_module("tracer.analysis").Nonsense  # noqa: B018 -- the access is the test


def test_a_summary_has_the_keys_of_the_documents(query: QueryEngine) -> None:
    run_id = record("first", [2.0, 1.0, NAN], config={"lr": 0.1})

    summary = query.get_run_summary(run_id)

    assert list(summary) == [
        "run_id", "project_name", "run_name", "status", "start_time", "end_time", "duration_seconds", "total_steps",
        "total_checkpoints", "final_metrics", "anomalies", "config",
    ]  # fmt: skip
    assert (summary["run_id"], summary["project_name"], summary["run_name"]) == (run_id, "demo", "first")
    assert (summary["status"], summary["total_steps"], summary["anomalies"]) == ("completed", 3, {})
    assert summary["duration_seconds"] == pytest.approx(summary["end_time"] - summary["start_time"], abs=1e-5)
    assert summary["config"]["lr"] == 0.1
    assert summary["config"]["checkpoint_interval"] == 1000
    assert summary["final_metrics"]["phase"] == "done"
    assert summary["final_metrics"]["loss"] != summary["final_metrics"]["loss"], "NaN is a value"


def test_a_running_run_has_lasted_so_far(query: QueryEngine) -> None:
    with tracer.init(run_name="live", quiet=True) as run:
        run.log({"loss": 1.0})
        summary = query.get_run_summary(run.run_id)

    assert (summary["status"], summary["end_time"]) == ("running", None)
    assert 0 <= summary["duration_seconds"] < time.time()
    assert summary["final_metrics"] == {"loss": 1.0}


def test_an_unknown_run_is_a_value_error(query: QueryEngine) -> None:
    with pytest.raises(ValueError, match="nobody"):
        query.get_run_summary("nobody")
    with pytest.raises(ValueError, match="nobody"):
        query.compare_runs("nobody", "nobody either")


def test_a_comparison_has_the_keys_of_the_documents(query: QueryEngine) -> None:
    first = record("first", [1.0] * 40, config={"lr": 0.1, "seed": 1})
    second = record("second", [1.0] * 20 + [3.0] * 20, config={"lr": 0.2, "seed": 1})

    found = query.compare_runs(first, second)

    assert list(found) == ["run1", "run2", "config_diff", "metrics_comparison", "divergence_analysis"]
    assert (found["run1"], found["run2"]["run_name"]) == ({"run_id": first, "run_name": "first"}, "second")
    assert found["config_diff"]["lr"] == {"run1": 0.1, "run2": 0.2}
    assert found["config_diff"]["run_name"] == {"run1": "first", "run2": "second"}
    assert "seed" not in found["config_diff"]
    loss = found["metrics_comparison"]["loss"]
    assert (loss["final_value_run1"], loss["final_value_run2"]) == (1.0, 3.0)
    assert (loss["run2"]["steps"][:2], loss["run2"]["values"][-1], len(loss["run2"]["timestamps"])) == ([0, 1], 3.0, 40)
    assert found["divergence_analysis"] == {
        "step": 20, "loss_run1": 1.0, "loss_run2": 3.0, "relative_diff": 2.0, "metric": "loss",
    }  # fmt: skip


def test_equal_runs_do_not_diverge_and_a_missing_metric_is_empty(query: QueryEngine) -> None:
    first, second = record("first", [1.0, 2.0, 3.0]), record("second", [1.0, 2.0, 3.0])

    found = query.compare_runs(first, second, metrics=["eval/acc", "nothing"])

    assert found["divergence_analysis"] is None
    assert found["metrics_comparison"]["eval/acc"]["final_value_run1"] == pytest.approx(0.7)
    assert found["metrics_comparison"]["nothing"] == {
        "run1": {"steps": [], "timestamps": [], "values": []},
        "run2": {"steps": [], "timestamps": [], "values": []},
        "final_value_run1": None,
        "final_value_run2": None,
    }


def test_a_divergence_from_zero_is_measured_by_the_other_value(query: QueryEngine) -> None:
    first, second = record("first", [0.0] * 40), record("second", [0.0] * 20 + [-2.0] * 20)

    found = query.compare_runs(first, second)["divergence_analysis"]

    assert (found["step"], found["relative_diff"]) == (20, 1.0)


def spiked(count: int = 60) -> list[float]:
    losses = [1 + 0.01 * (step % 3) for step in range(count)]
    losses[40], losses[50] = 9.0, NAN
    return losses


def test_the_detector_finds_what_happened(query: QueryEngine) -> None:
    run_id = record("sick", spiked())

    found = AnomalyDetector(query.storage).detect_all_anomalies(run_id)

    spike = next(one for one in found if one["anomaly_type"] == "loss_spike")
    assert list(spike) == ["run_id", "checkpoint_id", "step", "anomaly_type", "severity", "details"]
    assert (spike["run_id"], spike["step"], spike["checkpoint_id"]) == (run_id, 40, f"{run_id}_step_40")
    assert spike["details"]["loss"] == 9.0
    assert {(one["anomaly_type"], one["step"]) for one in found} == {("loss_spike", 40), ("nan_or_inf", 50)}
    nans = {one["details"]["metric"] for one in found if one["anomaly_type"] == "nan_or_inf"}
    assert nans == {"loss", "eval/acc"}


def test_each_detector_can_be_asked_alone(query: QueryEngine) -> None:
    run_id = record("sick", spiked())
    detector = AnomalyDetector(query.storage)

    assert [one["anomaly_type"] for one in detector.detect_loss_anomalies(run_id, window_size=20)] == ["loss_spike"]
    assert {one["severity"] for one in detector.detect_nan_inf(run_id)} == {"critical"}
    assert detector.detect_gradient_anomalies(run_id) == []
    assert detector.detect_memory_spikes(run_id, threshold=1.0) == []


def test_gradients_and_memory_come_from_checkpoints(query: QueryEngine) -> None:
    storage = query.storage
    storage.create_run("g", "demo", "gradients", start_time=1000.0, config={})
    calm = {"norm": 1.0, "mean": 0.0, "std": 1.0, "max": 1.0, "min": -1.0, "num_zeros": 0, "num_nans": 0, "num_infs": 0}
    for step, changes in (
        (100, {}),
        (200, {"norm": 5000.0}),
        (300, {"norm": NAN, "num_nans": 7}),
        (400, {"norm": 0.0}),
    ):
        gpu = {
            "cpu": {"percent": 5.0},
            "memory": {"percent": 50.0},
            "gpu": {"0": {"memory_util": 99.0 if step == 200 else 40.0}},
        }
        storage.write_checkpoint("g", step, 1000.0 + step, {"loss": 0.5}, {"fc": {**calm, **changes}}, gpu)
    detector = AnomalyDetector(storage)

    found = detector.detect_all_anomalies("g")

    assert [(one["step"], one["anomaly_type"], one["severity"]) for one in found] == [
        (200, "gradient_explosion", "critical"),
        (200, "memory_spike", "high"),
        (300, "nan_or_inf", "critical"),
        (400, "vanishing_gradient", "medium"),
    ]
    details = [one["details"] for one in found]
    expected = {"layer": "fc", "norm": 5000.0, "threshold": 100.0, "last_step": 200}
    assert {name: details[0][name] for name in expected} == expected
    assert {key: details[1][key] for key in ("gpu", "memory_util", "threshold")} == {
        "gpu": "0",
        "memory_util": 99.0,
        "threshold": 90.0,
    }
    assert {key: details[2][key] for key in ("layer", "num_nans", "num_infs")} == {
        "layer": "fc",
        "num_nans": 7,
        "num_infs": 0,
    }


def test_storing_twice_doubles_nothing(query: QueryEngine) -> None:
    run_id = record("sick", spiked())
    detector = AnomalyDetector(query.storage)
    found = detector.detect_all_anomalies(run_id)

    kept = [detector.store_anomalies(found), detector.store_anomalies(found), detector.store_anomalies([])]
    rows = query.find_anomalous_checkpoints(run_id)

    assert kept == [3, 0, 0]
    assert [(row["step"], row["anomaly_type"]) for row in rows] == [
        (40, "loss_spike"), (50, "nan_or_inf"), (50, "nan_or_inf"),
    ]  # fmt: skip
    assert query.get_run_summary(run_id)["anomalies"] == {"loss_spike": 1, "nan_or_inf": 2}


def test_kept_anomalies_have_the_keys_of_the_documents(query: QueryEngine) -> None:
    run_id = record("sick", spiked())
    AnomalyDetector(query.storage).store_anomalies(
        [
            {
                "run_id": run_id,
                "checkpoint_id": "x",
                "step": 7,
                "anomaly_type": "nan_or_inf",
                "severity": "critical",
                "details": {"layer": "fc"},
            }
        ]
    )

    [row] = query.find_anomalous_checkpoints(run_id, anomaly_types=["nan_or_inf", "gradient_explosion"])

    assert list(row) == ["id", "run_id", "checkpoint_id", "step", "anomaly_type", "severity", "details", "detected_at"]
    assert (row["run_id"], row["step"], json.loads(row["details"])) == (run_id, 7, {"layer": "fc"})
    assert query.find_anomalous_checkpoints(run_id, ["memory_spike"]) == []


def test_findings_of_the_run_itself_are_there_too(query: QueryEngine) -> None:
    with tracer.init(run_name="live", quiet=True) as run:
        run.take(events.Finding("loss_spike", "high", 3, {"metric": "loss"}))
        run_id = run.run_id

    assert [row["anomaly_type"] for row in query.find_anomalous_checkpoints(run_id)] == ["loss_spike"]


def test_an_unknown_run_has_no_anomalies_to_detect(query: QueryEngine) -> None:
    with pytest.raises(ValueError, match="nobody"):
        AnomalyDetector(query.storage).detect_all_anomalies("nobody")


def record_gradients() -> str:
    """Record two layers: norms at every step, everything at every second one; return the run's id."""
    from array import array

    from tracer.storage.backend import StorageBackend

    names = ["fc.weight", "fc.bias"]
    backend = StorageBackend(Config(project_name="demo", storage_path="./.tracer"))
    backend.create_run("grads", "demo", "grads", 1000.0, {})
    writer = backend._writer("grads")
    for step in range(4):
        statistics = events.TENSOR_STATISTICS if step % 2 == 0 else ("norm",)
        rows = [[step + 0.5, step + 0.25], *([7.0, 8.0] for _ in statistics[1:])]
        matrix = array("f", [value for row in rows for value in row]).tobytes()
        writer.add_layers("gradients", names, statistics, matrix, step, 1000.0 + step)
    backend.close()
    return "grads"


def test_gradient_statistics_come_by_layer_with_the_keys_of_the_documents(query: QueryEngine) -> None:
    run_id = record_gradients()

    found = query.get_gradient_stats(run_id)

    assert list(found) == ["fc.weight", "fc.bias"]
    assert list(found["fc.bias"]) == ["steps", *events.DOCUMENTED_STATISTICS]
    assert found["fc.bias"]["steps"] == [0, 1, 2, 3]
    assert found["fc.bias"]["norm"] == [0.25, 1.25, 2.25, 3.25]
    assert found["fc.weight"]["num_nans"][::2] == [7, 7]
    assert all(value != value for value in found["fc.weight"]["mean"][1::2])  # noqa: PLR0124 -- NaN


def test_gradient_statistics_of_some_layers_and_steps(query: QueryEngine) -> None:
    run_id = record_gradients()

    assert query.get_gradient_stats(run_id, "fc.weight", "norm", steps=(1, 3)) == {
        "fc.weight": {"steps": [1, 2], "norm": [1.5, 2.5]}
    }
    assert query.get_gradient_stats(run_id, ["fc.bias"], ["num_zeros"], steps=2) == {
        "fc.bias": {"steps": [2], "num_zeros": [8]}
    }
    assert query.get_gradient_stats(run_id, axis="weights") == {}


def test_gradient_statistics_that_nobody_recorded_are_an_error(query: QueryEngine) -> None:
    run_id = record_gradients()

    with pytest.raises(ValueError, match=r"no layer 'conv'\. There are: fc\.weight, fc\.bias"):
        query.get_gradient_stats(run_id, "conv")
    with pytest.raises(ValueError, match="no statistic 'median'"):
        query.get_gradient_stats(run_id, statistic="median")
