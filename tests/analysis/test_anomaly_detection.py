"""A recorded run is searched by the names of what it holds, and what is found is kept once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

import tracer
from tracer.analysis import AnomalyDetector
from tracer.analysis.anomaly_detection import detect, keep
from tracer.config import Config
from tracer.events import Axis, Finding, LayerValues
from tracer.storage.backend import StorageBackend
from tracer.storage.store import Store
from tracer.testing import FakeClock


@pytest.fixture
def store() -> Iterator[Store]:
    """The store of the working folder."""
    with Store.open(".tracer", create=True) as opened:
        yield opened


def record(values: Any, *, name: str = "run", count: int = 400, second: float = 0.1, **config: object) -> str:  # noqa: ANN401
    """Record what a function gives for each step, the steps a tenth of a second apart."""
    with FakeClock() as clock, tracer.init(
        project="detection", run_name=name, quiet=True, track_system_metrics=False, track_git=False,
        track_environment=False, detect_anomalies=False, config=config,
    ) as run:  # fmt: skip
        for step in range(count):
            run.log(values(step))
            run.step()
            clock.advance(second(step) if callable(second) else second)
        return str(run.run_id)


def wave(step: int) -> float:
    return 2 - step / 400 + 0.01 * math.sin(step * 7.0)


def told(found: list[Finding]) -> list[tuple[str, int]]:
    return [(one.kind, one.step) for one in found]


def test_step_and_data_times_are_known_by_their_names(store: Store) -> None:
    uid = record(
        lambda step: {
            "loss": wave(step),
            "time/step": 0.1 + 0.001 * math.sin(step * 7.0),
            "time/data": 0.09 if step >= 200 else 0.001,
        }
    )

    assert told(detect(store, uid)) == [("data_loader_stall", 200)]


def test_without_step_times_those_of_the_values_tell(store: Store) -> None:
    uid = record(lambda step: {"loss": wave(step)}, second=lambda step: 0.1 if step < 200 else 0.5)

    [found] = detect(store, uid)

    assert (found.kind, found.details["metric"]) == ("throughput_drop", "time per step")
    assert found.step in (200, 201)


def test_memory_that_grows_is_found_by_the_name_of_its_metric(store: Store) -> None:
    uid = record(lambda step: {"loss": wave(step), "system/memory/process_rss_gb": 2 + step / 100})

    assert told(detect(store, uid)) == [("memory_growth", 40)]


def test_a_validation_loss_is_compared_with_the_training_loss_of_its_name(store: Store) -> None:
    def values(step: int) -> dict[str, float]:
        here = {"train/loss": 3 - step / 200 + 0.01 * math.sin(step * 7.0), "train/aux_loss": wave(step) + 1}
        return here | ({"val/loss": 2 + abs(step - 150) / 100} if step % 10 == 0 else {})

    [found] = detect(store, record(values), ["overfitting"])

    assert (found.details["metric"], found.details["training"], found.details["best_step"]) == (
        "val/loss", "train/loss", 150,
    )  # fmt: skip


def test_a_leap_of_the_learning_rate_is_the_cause_of_a_spike(store: Store) -> None:
    uid = record(lambda step: {"loss": 9.0 if step == 204 else wave(step), "lr": 0.01 if step < 200 else 0.1})

    [found] = detect(store, uid)

    assert (found.kind, found.step) == ("loss_spike", 204)
    assert found.details["cause"] == ["learning rate rose 10 times at step 200 (0.01 → 0.1)"]


def test_a_warm_up_is_no_cause(store: Store) -> None:
    uid = record(lambda step: {"loss": 9.0 if step == 60 else wave(step), "lr": min((step + 1) / 100, 1.0)}, count=120)

    [found] = detect(store, uid)

    assert found.details["cause"] == []


def test_runs_of_other_settings_with_the_same_curve_are_similar(store: Store) -> None:
    first = record(lambda step: {"loss": wave(step)}, name="first", lr=0.1)
    record(lambda step: {"loss": wave(step)}, name="again", lr=0.1)
    record(lambda step: {"loss": wave(step)}, name="other", lr=0.2)
    record(lambda step: {"loss": wave(step + 1)}, name="different", lr=0.3)

    found = detect(store, first)

    assert [(one.kind, one.severity, one.details["run"]) for one in found] == [("similar_across_runs", "low", "other")]


def test_only_the_kinds_that_are_asked_for_are_returned(store: Store) -> None:
    uid = record(lambda step: {"loss": 9.0 if step == 100 else float("nan") if step == 300 else wave(step)})

    assert told(detect(store, uid, ["nan_or_inf"])) == [("nan_or_inf", 300)]
    assert told(detect(store, uid)) == [("loss_spike", 100), ("nan_or_inf", 300)]


def test_what_was_kept_is_not_kept_again(store: Store) -> None:
    uid = record(lambda step: {"loss": 9.0 if step == 100 else wave(step)})
    store.add_findings(uid, [Finding("loss_spike", "high", 100, {"metric": "loss", "loss": 9.0}, 101)], source="live")

    assert keep(store, uid, detect(store, uid)) == 0
    assert len(store.findings(uid)) == 1


def test_layers_of_a_run_are_searched_each_axis_with_its_own_steps(store: Store) -> None:
    import array

    from tracer import sink

    gradients = Axis("gradients", ("fc1.weight", "fc2.weight"), ("norm", "nans", "infs"))
    activations = Axis("activations", ("act",), ("dead",))

    def values(step: int) -> dict[str, float]:
        norm = 50.0 if step == 300 else 0.1 * wave(step)
        sink.emit(LayerValues(gradients, array.array("f", [0.1, norm, 0, 0, 0, 0]).tobytes(), step))
        if step % 20 == 0:
            sink.emit(LayerValues(activations, array.array("f", [1.0 if step >= 200 else 0.1]).tobytes(), step))
        return {"loss": wave(step)}

    found = detect(store, record(values))

    assert [(one.kind, one.step, one.details["layers"]) for one in found] == [
        ("dead_relu", 200, ["act"]),
        ("gradient_explosion", 300, ["fc2.weight"]),
    ]


def test_the_records_of_the_documents_keep_their_keys(store: Store) -> None:
    uid = record(lambda step: {"loss": 9.0 if step == 100 else wave(step)})
    detector = AnomalyDetector(StorageBackend(Config(project_name="detection", storage_path=".tracer")))

    [found] = detector.detect_all_anomalies(uid)

    assert set(found) == {"run_id", "checkpoint_id", "step", "anomaly_type", "severity", "details"}
    assert {"loss", "window_mean", "z_score", "explanation", "remedy", "cause", "count"} <= set(found["details"])
    assert (detector.store_anomalies([found]), detector.store_anomalies([found])) == (1, 0)
    assert len(store.findings(uid)) == 1
