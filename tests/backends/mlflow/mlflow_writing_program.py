"""Fills an MLflow with runs, as one of its users does. Arguments: the tracking URI, a folder."""

from __future__ import annotations

import os
import sys

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag


def fill(uri: str, folder: str) -> None:
    """Write the runs."""
    mlflow.set_tracking_uri(uri)
    client = MlflowClient()
    location = None if uri.startswith("http") else f"file://{folder}/mlruns-of-it"
    experiment = client.create_experiment("vision", artifact_location=location)
    run = client.create_run(experiment, start_time=1_700_000_000_000, run_name="first")
    uid = run.info.run_id
    batch = [Metric("train/loss", step / 8, 1_700_000_000_000 + step, step) for step in range(1200)]
    values = [float("nan"), float("inf"), 1e-300, -5.0]
    batch += [Metric("odd", value, 1_700_000_000_100 + turn, turn) for turn, value in enumerate(values)]
    batch += [Metric("unnumbered", turn * 1.5, 1_700_000_000_000 + turn, 0) for turn in (2, 0, 1)]
    for first in range(0, len(batch), 1000):
        client.log_batch(uid, metrics=batch[first : first + 1000])
    params = [Param("lr", "0.1"), Param("layers", "12"), Param("name", "007"), Param("shuffle", "True")]
    tags = [
        RunTag("team", "vision"),
        RunTag("mlflow.note.content", "a note"),
        RunTag("mlflow.source.git.commit", "abc"),
    ]
    client.log_batch(uid, params=params, tags=tags)
    os.makedirs(f"{folder}/out/deep")
    for path, content in (("out/weights.bin", b"\0\1\2"), ("out/deep/ä.txt", "ü".encode())):
        with open(f"{folder}/{path}", "wb") as file:
            file.write(content)
    client.log_artifacts(uid, f"{folder}/out", "data")
    client.log_artifact(uid, f"{folder}/out/weights.bin")
    client.set_terminated(uid, "FAILED", 1_700_000_009_000)
    nested = client.create_run(
        experiment, start_time=1_700_000_001_000, run_name="nested", tags={"mlflow.parentRunId": uid}
    )
    client.set_terminated(nested.info.run_id, "KILLED", 1_700_000_002_000)
    gone = client.create_run(experiment, start_time=1_700_000_003_000, run_name="gone")
    client.delete_run(gone.info.run_id)
    trash = client.create_experiment("trash")
    client.create_run(trash, run_name="in the trash")
    client.delete_experiment(trash)


if __name__ == "__main__":
    fill(*sys.argv[1:])
