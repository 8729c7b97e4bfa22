"""What went wrong in the first Tracer and must not go wrong here: one test per case, named after it."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import tracer
from tracer import TracerConfig
from tracer.analysis import AnomalyDetector, QueryEngine
from tracer.errors import StoreError
from tracer.storage import StorageBackend

Commands = Callable[..., Result]


@pytest.fixture
def storage() -> Iterator[StorageBackend]:
    """The default store of a program that runs here."""
    with StorageBackend(TracerConfig(project_name="read")) as backend:
        yield backend


@pytest.fixture
def command() -> Commands:
    """Run `tracer` with arguments, as a shell would."""
    from tracer.cli.main import cli

    return lambda *arguments: CliRunner().invoke(cli, list(arguments))


def record(storage: StorageBackend, name: str, losses: dict[int, float], metric: str = "loss", **config: object) -> str:
    """Store a finished run with one value per step."""
    storage.create_run(name, "test", name, 1000.0, config)
    for step, value in losses.items():
        storage.write_checkpoint(name, step, 1000.0 + step, {metric: value}, {}, {})
    storage.finalize_run(name, 2000.0, "completed", max(losses))
    return name


def allocated(path: Path) -> int:
    return sum(
        os.lstat(os.path.join(folder, name)).st_blocks * 512 for folder, _, names in os.walk(path) for name in names
    )


def program(code: str, *, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a program of its own in this folder; it must end by itself."""
    environment = {**os.environ, "TRACER_STRICT": "0"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=check, env=environment
    )


def test_nan_gradient_is_a_value_and_the_detector_finds_it(storage: StorageBackend) -> None:
    storage.create_run("a", "test", "a", 1000.0, {})
    storage.write_checkpoint("a", 1, 1.0, {}, {"fc": {"norm": math.nan, "mean": math.nan, "num_nans": 4}}, {})

    found = AnomalyDetector(storage).detect_all_anomalies("a")

    assert math.isnan(storage.get_gradient_stats("a")["fc"]["norms"][0])
    assert [(one["anomaly_type"], one["step"]) for one in found] == [("nan_or_inf", 1)]


@pytest.mark.parametrize("arguments", [("--auto",), ("--auto", "--type", "nan_or_inf")])
def test_the_anomalies_command_shows_an_anomaly(
    storage: StorageBackend, command: Commands, arguments: tuple[str, ...]
) -> None:
    storage.create_run("a", "test", "a", 1000.0, {})
    storage.write_checkpoint("a", 7, 1.0, {}, {"fc": {"norm": 1.0, "num_nans": 4}}, {})
    storage.finalize_run("a", 1100.0, "completed", 7)

    result = command("anomalies", "a", *arguments)

    assert "usage" not in result.output.lower()
    assert "nan" in result.output.lower()
    assert "7" in result.output


def test_no_command_function_is_named_like_a_builtin() -> None:
    import builtins

    from tracer.cli.main import cli

    functions = []
    for name in cli.list_commands(cli.make_context("tracer", [], resilient_parsing=True)):
        found = cli.get_command(cli.make_context("tracer", [], resilient_parsing=True), name)
        assert found is not None
        assert found.callback is not None
        functions.append(found.callback.__name__)

    assert len(functions) >= 8
    assert [name for name in functions if hasattr(builtins, name)] == []


def test_3500_log_calls_at_the_default_interval_are_3500_values(storage: StorageBackend) -> None:
    run = tracer.init(project="test")
    for number in range(3500):
        tracer.log({"loss": float(number)})
        tracer.step()
    tracer.finish()

    series = storage.get_metric_timeseries(run.run_id, "loss")
    assert series["values"] == [float(number) for number in range(3500)]
    assert series["steps"] == list(range(3500))


def test_a_log_after_the_last_checkpointed_step_wins_and_the_run_is_completed(storage: StorageBackend) -> None:
    run = tracer.init(project="test", checkpoint_interval=2)
    for loss in (3.0, 2.0):
        tracer.log({"loss": loss})
        tracer.step()
    tracer.log({"train_loss": 2.5, "loss": 1.0})  # as a trainer does when it is done
    tracer.finish()

    stored = storage.get_run(run.run_id)
    (checkpoint,) = storage.get_checkpoints(run.run_id)
    assert stored is not None
    assert (stored["status"], stored["total_checkpoints"], checkpoint["step"]) == ("completed", 1, 2)
    assert json.loads(checkpoint["metrics"])["train_loss"] == 2.5
    assert storage.get_metric_timeseries(run.run_id, "loss")["values"][-1] == 1.0


@pytest.mark.parametrize(
    ("ending", "code", "reason"),
    [("raise ValueError('bad batch')", 1, "ValueError: bad batch"), ("import sys; sys.exit(3)", 3, "3")],
)
def test_an_exception_or_system_exit_ends_the_process_and_the_run_is_failed(
    storage: StorageBackend, ending: str, code: int, reason: str
) -> None:
    ended = program(f"import tracer\ntracer.init(project='test')\ntracer.log({{'loss': 1.0}})\n{ending}")

    (run,) = storage.store.runs()
    assert ended.returncode == code
    assert run.status == "failed"
    assert reason in (run.reason or "")


def test_delete_leaves_neither_checkpoints_nor_gradients_nor_samples(storage: StorageBackend) -> None:
    storage.create_run("keep", "test", "keep", 1000.0, {})
    storage.finalize_run("keep", 1001.0, "completed", 0)
    storage.list_runs()
    before = allocated(storage.base_path)
    storage.create_run("a", "test", "a", 1000.0, {})
    gradients = {f"layer{number}": {"norm": 1.0} for number in range(50)}
    for step in range(40):
        samples = {"inputs": [list(range(5000))], "targets": [0]}
        storage.write_checkpoint("a", step, 1000.0 + step, {"loss": 1.0}, gradients, {}, samples)
    storage.finalize_run("a", 2000.0, "completed", 40)
    storage.store.fold()
    full = allocated(storage.base_path)

    storage.store.delete("a", now=True)

    assert full > before + 200_000
    assert allocated(storage.base_path) - before < 0.01 * (full - before) + 16_384
    assert storage.get_checkpoints("a") == []
    assert storage.get_gradient_stats("a") == {}
    assert list(storage.samples_dir.glob("*")) == []
    counts = [
        storage.conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 -- our own words
        for table in ("runs", "checkpoints", "gradient_stats", "system_metrics", "anomalies")
    ]
    assert counts == [1, 0, 0, 0, 0]


def test_a_checkpoint_does_not_wait_for_the_processor_to_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    psutil = pytest.importorskip("psutil", reason="needs psutil")
    waited = []
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval=None, **_: waited.append(interval) or 0.0)

    with tracer.init(project="test", checkpoint_interval=1):
        for _ in range(5):
            tracer.step()

    assert [interval for interval in waited if interval] == []


def test_tags_and_notes_are_kept(storage: StorageBackend) -> None:
    with tracer.init(project="test", tags=["first", "keep"], notes="with warm-up"):
        pass

    (run,) = storage.store.runs()
    assert (run.tags, run.notes) == (("first", "keep"), "with warm-up")


def test_retention_days_that_somebody_set_let_a_run_expire(storage: StorageBackend) -> None:
    with tracer.init(project="test", retention_days=2):
        pass
    with tracer.init(project="test"):
        pass

    expiring, unset = sorted(storage.store.runs(), key=lambda run: run.expires is None)
    assert expiring.expires is not None
    assert expiring.expires - expiring.started == pytest.approx(2 * 86_400_000_000, rel=0.01)
    assert unset.expires is None


def test_custom_metrics_are_called_at_checkpoints(storage: StorageBackend) -> None:
    with tracer.init(project="test", checkpoint_interval=2, custom_metrics={"answer": lambda: 42}) as run:
        for _ in range(4):
            tracer.step()

    assert storage.get_metric_timeseries(run.run_id, "answer")["values"][:2] == [42.0, 42.0]


def test_samples_are_captured_and_capture_samples_says_how_many(storage: StorageBackend) -> None:
    from tracer.storage.samples import read_samples

    with tracer.init(project="test", capture_samples=2) as run:
        run.log_samples(inputs=[[1.0], [2.0], [3.0]], targets=[0, 1, 0], loss=[0.1, 0.9, 0.5], step=4)

    (path,) = storage.store.samples(run.run_id)
    assert sorted(read_samples(path)["loss"]) == [0.5, 0.9]


def test_a_killed_run_is_crashed_with_a_reason(storage: StorageBackend) -> None:
    ended = program(
        "import os, signal, tracer\ntracer.init(project='test')\ntracer.log({'loss': 1.0})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )

    (run,) = storage.store.runs()
    assert ended.returncode == -signal.SIGKILL
    assert run.status == "crashed"
    assert run.reason
    assert storage.get_metric_timeseries(run.uid, "loss")["values"] == [1.0]


def test_a_status_is_one_of_four(storage: StorageBackend) -> None:
    storage.create_run("a", "test", "a", 1000.0, {})

    with pytest.raises(ValueError, match="'done' is no status of a run"):
        storage.finalize_run("a", 1100.0, "done", 1)


def test_the_duration_of_a_running_run_is_the_time_so_far(storage: StorageBackend) -> None:
    storage.create_run("a", "test", "a", time.time() - 60, {})

    summary = QueryEngine().get_run_summary("a")

    assert summary["status"] == "running"
    assert 59 < summary["duration_seconds"] < 120


def test_total_checkpoints_is_kept(storage: StorageBackend) -> None:
    storage.create_run("a", "test", "a", 1000.0, {})
    for step in (1, 2, 2, 3):
        storage.write_checkpoint("a", step, 1000.0, {}, {}, {})

    before = storage.get_run("a")
    storage.finalize_run("a", 1100.0, "completed", 3)
    after = storage.get_run("a")

    assert before is not None
    assert after is not None
    assert (before["total_checkpoints"], after["total_checkpoints"]) == (3, 3)
    (row,) = storage.conn.execute("SELECT total_checkpoints FROM runs").fetchall()
    assert row["total_checkpoints"] == 3


def test_a_loss_of_another_name_is_watched(storage: StorageBackend) -> None:
    values = {step: 1.0 + 0.01 * math.sin(step * 12.9) for step in range(100)} | {60: 40.0}
    record(storage, "a", values, metric="train/loss")

    found = AnomalyDetector(storage).detect_loss_anomalies("a")

    assert ("loss_spike", 60) in [(one["anomaly_type"], one["step"]) for one in found]


def test_noise_is_no_loss_anomaly(storage: StorageBackend) -> None:
    import random

    numbers = random.Random(0)  # noqa: S311 -- noise
    record(storage, "a", {step: 1.0 + numbers.gauss(0, 0.05) for step in range(400)})

    assert AnomalyDetector(storage).detect_loss_anomalies("a") == []


def test_divergence_does_not_stumble_over_negative_losses(storage: StorageBackend) -> None:
    same = {step: -1.0 - 0.01 * step for step in range(50)}
    for name in ("a", "b"):
        record(storage, name, same)
    record(storage, "c", {step: value if step < 30 else 5.0 for step, value in same.items()})

    assert QueryEngine().compare_runs("a", "b")["divergence_analysis"] is None
    parted = QueryEngine().compare_runs("a", "c")["divergence_analysis"]
    assert parted["step"] >= 30
    assert parted["relative_diff"] > 0


def test_divergence_does_not_need_equal_steps(storage: StorageBackend) -> None:
    record(storage, "a", {step: 100.0 - step for step in range(0, 100, 2)})
    record(storage, "b", {step: 100.0 - step if step < 50 else 300.0 for step in range(1, 100, 2)})

    parted = QueryEngine().compare_runs("a", "b")["divergence_analysis"]

    assert parted is not None
    assert 45 <= parted["step"] <= 60


def test_a_run_older_than_the_newest_hundred_is_found_by_name(storage: StorageBackend, command: Commands) -> None:
    for number in range(105):
        storage.create_run(f"id{number}", "test", f"run-{number:03}", 1000.0 + number, {})
        storage.finalize_run(f"id{number}", 2000.0, "completed", 0)

    shown = command("show", "run-000")

    assert len(storage.list_runs()) == 100
    assert len(storage.list_runs(limit=None)) == 105
    assert shown.exit_code == 0, shown.output
    assert "run-000" in shown.output
    assert storage.store.run("run-000").uid == storage.store.run("id0").uid


def test_compare_says_better_by_the_direction_of_the_metric(storage: StorageBackend, command: Commands) -> None:
    for name, accuracy in (("low", 0.5), ("high", 0.9)):
        record(storage, name, dict.fromkeys(range(10), accuracy), metric="accuracy")

    result = command("compare", "low", "high", "-m", "accuracy", "--json")

    assert result.exit_code == 0, result.output
    (compared,) = json.loads(result.output)["metrics"]
    assert (compared["goal"], compared["best_run"]) == ("max", 1)


def test_no_record_points_to_a_samples_file_that_is_missing(storage: StorageBackend) -> None:
    storage.create_run("a", "test", "a", 1000.0, {})
    (Path(storage.base_path) / "runs" / "a" / "samples").write_text("in the way", encoding="utf-8")

    with pytest.raises(StoreError, match="samples"):
        storage.write_checkpoint("a", 1, 1.0, {"loss": 1.0}, {}, {}, {"inputs": [1.0], "targets": [0]})

    assert storage.get_checkpoints("a") == []


def test_training_never_waits_for_a_queue() -> None:
    with tracer.init(project="test", write_buffer_size=1) as run:
        assert run.write_queue is None


def test_a_frozen_layer_is_absent_and_an_unused_one_has_no_entry(storage: StorageBackend) -> None:
    storage.create_run("a", "test", "a", 1000.0, {})
    storage.write_checkpoint("a", 1, 1.0, {}, {"used": {"norm": 1.0}, "sometimes": {"norm": 2.0}}, {})
    storage.write_checkpoint("a", 2, 2.0, {}, {"used": {"norm": 3.0}}, {})

    stats = storage.get_gradient_stats("a")

    assert {layer: (lists["steps"], lists["norms"]) for layer, lists in stats.items()} == {
        "used": ([1, 2], [1.0, 3.0]),
        "sometimes": ([1], [2.0]),
    }


def test_the_plot_command_and_the_integrations_that_the_documents_name_exist(
    storage: StorageBackend, command: Commands
) -> None:
    from tracer import integrations

    record(storage, "a", {1: 1.0, 2: 0.5})

    assert command("plot", "a", "loss").exit_code == 0
    assert {"TransformersCallback", "LightningCallback"} <= set(dir(integrations)) | set(integrations.__all__)
