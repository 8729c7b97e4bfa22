"""What a type checker sees of the public names; `make check` runs mypy on this file, nothing executes it."""

from __future__ import annotations

from typing import assert_type

import tracer
from tracer import Config, Run, TracerConfig, TrainingTracer
from tracer.analysis import AnomalyDetector, QueryEngine
from tracer.errors import RunNotFound, UsageError
from tracer.storage import StorageBackend, Store


def train() -> None:
    """Use every public function as a program does."""
    run = tracer.init(project="types", run_name="one", config={"lr": 3e-4}, tags=["a"], checkpoint_interval=10)
    assert_type(run, Run)
    tracer.log({"loss": 0.5, "phase": "warm-up", "nested": {"a": 1}})
    tracer.log({"loss": 0.5}, step=3)
    tracer.step()
    assert_type(tracer.get_step(), int)
    assert_type(tracer.get_run_id(), str)
    run.log_samples(inputs=[[1.0]], targets=[0], loss=[0.1])
    tracer.finish()
    with tracer.init("types", resume="one") as resumed:
        assert_type(resumed, Run)
        assert_type(resumed.step_count, int)


def configure() -> TrainingTracer:
    """The Tracer documents' names are the same classes."""
    config: Config = TracerConfig(project_name="types", retention_days=7)
    assert_type(config.checkpoint_interval, int)
    assert_type(config.gradient_layers, list[str] | None)
    return TrainingTracer(config)


def read(path: str) -> None:
    """Reading gives values with fields, not bare dictionaries."""
    with Store.open(path) as store:
        row = store.run("@last")
        assert_type(row.steps, int)
        assert_type(row.name, str)
    query = QueryEngine(storage_path=path)
    backend: StorageBackend = query.storage
    AnomalyDetector(backend).detect_all_anomalies("run1")


def refuse() -> None:
    """Errors are what older programs catch."""
    error: RuntimeError = UsageError("no run is active")
    missing: ValueError = RunNotFound("no such run")
    raise error from missing
