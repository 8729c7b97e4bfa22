"""Read one run back with a peer's own reader and print it as JSON: started by the test, one process for each peer.

Usage: python everywhere_readers.py PEER ADDRESS REMOTE   (REMOTE: what the back end calls the run, as JSON)

Prints `points` (name → [step, value as hexadecimal text]), `params`, `tags` and `artifact`, the text of the one file.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

Found = dict[str, Any]


def rows_of(rows: Any) -> dict[str, list[list[Any]]]:  # noqa: ANN401 -- any rows of name, step, value
    """Return rows by name, sorted by step, values as hexadecimal text."""
    found: dict[str, list[list[Any]]] = {}
    for name, step, value in rows:
        found.setdefault(name, []).append([int(step), float(value).hex()])
    return {name: sorted(series) for name, series in found.items()}


def mlflow(address: str, remote: Found) -> Found:
    """Ask a server."""
    import mlflow

    client = mlflow.MlflowClient(address)
    run = client.get_run(remote["run_id"])
    rows = [
        (name, point.step, point.value)
        for name in run.data.metrics
        for point in client.get_metric_history(run.info.run_id, name)
    ]
    where = client.download_artifacts(run.info.run_id, "model/model.txt", "fetched")
    return {
        "points": rows_of(rows), "params": run.data.params, "tags": list(run.data.tags.values()),
        "artifact": Path(where).read_text(encoding="utf-8"),
    }  # fmt: skip


def wandb(address: str, remote: Found) -> Found:  # noqa: ARG001 -- each reader is called in one way
    """Ask W&B's own inspector."""
    (file,) = Path(address).rglob("*.wandb")
    done = subprocess.run(["wandb", "leet", "inspect", "--json", str(file)], capture_output=True, text=True, check=True)
    records = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
    return {"records": records}


def clearml(address: str, remote: Found) -> Found:  # noqa: ARG001 -- each reader is called in one way
    """Read the session as the format says."""
    with zipfile.ZipFile(remote["zip"]) as zipped:
        events = [event for line in zipped.read("metrics.jsonl").splitlines() for event in json.loads(line)]
        task = json.loads(zipped.read("task.json"))
        names = [name for name in zipped.namelist() if name.endswith("model.txt")]
        artifact = zipped.read(names[0]).decode() if names else ""
    rows = [
        ("/".join(dict.fromkeys((one["metric"], one["variant"]))), one["iter"], one["value"])
        for one in events
        if one.get("type") == "training_stats_scalar"
    ]
    return {"points": rows_of(rows), "task": task, "tags": task["tags"], "artifact": artifact}


def aim(address: str, remote: Found) -> Found:
    """Ask Aim."""
    from aim import Repo

    repo = Repo.from_path(address)
    rows = []
    for found in repo.query_metrics("True", report_mode=0).iter_runs():
        for metric in found:
            steps, (values, _, _) = metric.data.numpy()
            rows += [(metric.name, step, value) for step, value in zip(steps.tolist(), values.tolist(), strict=True)]
    run = repo.get_run(remote["run_hash"]) or next(iter(repo.iter_runs()))
    (artifact,) = run.artifacts.values()
    return {
        "points": rows_of(rows), "params": run["hparams"], "tags": list(run.tags),
        "artifact": Path(artifact.uri.removeprefix("file://")).read_text(encoding="utf-8"),
    }  # fmt: skip


def tensorboard(address: str, remote: Found) -> Found:  # noqa: ARG001 -- each reader is called in one way
    """Ask TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    found = EventAccumulator(remote["folder"], size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    tags = found.Tags()
    rows: list[tuple[str, int, float]] = [
        (tag, one.step, one.value) for tag in tags["scalars"] for one in found.Scalars(tag)
    ]
    for tag in tags["tensors"]:
        made = [(one.step, tensor_util.make_ndarray(one.tensor_proto)) for one in found.Tensors(tag)]
        rows += [(tag, step, value.item()) for step, value in made if value.dtype.kind == "f" and value.size == 1]
    return {"points": rows_of(rows)}


def trackio(address: str, remote: Found) -> Found:
    """Ask trackio."""
    os.environ["TRACKIO_DIR"] = address
    from trackio import Api
    from trackio.sqlite_storage import SQLiteStorage

    project = remote["run"].partition("/")[0]
    (run,) = Api().runs(project)
    logged = SQLiteStorage.get_logs(project, run.name, run_id=run.id)
    rows = [
        (name, row["step"], value)
        for row in logged
        for name, value in row.items()
        if name not in ("step", "timestamp", "id") and isinstance(value, float | int | str) and _is_number(value)
    ]
    return {"points": rows_of(rows), "params": run.config, "tags": (run.config.get("_Tracer") or {}).get("tags", [])}


def csv_(address: str, remote: Found) -> Found:  # noqa: ARG001 -- each reader is called in one way
    """Read it with Python's own reader."""
    with open(Path(remote["folder"]) / "points.csv", newline="", encoding="utf-8") as file:
        rows = [(row["name"], int(row["step"]), float(row["value"])) for row in csv.DictReader(file)]
    return _beside(remote["folder"]) | {"points": rows_of(rows)}


def jsonl(address: str, remote: Found) -> Found:  # noqa: ARG001 -- each reader is called in one way
    """Read it with Python's own reader."""
    lines = (Path(remote["folder"]) / "points.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [(row["name"], row["step"], float(row["value"])) for row in map(json.loads, lines)]
    return _beside(remote["folder"]) | {"points": rows_of(rows)}


def parquet(address: str, remote: Found) -> Found:  # noqa: ARG001 -- each reader is called in one way
    """Read it with pyarrow."""
    import pyarrow.parquet as reader

    table = reader.read_table(Path(remote["folder"]) / "points.parquet").to_pylist()
    return _beside(remote["folder"]) | {"points": rows_of((row["name"], row["step"], row["value"]) for row in table)}


def sagemaker(address: str, remote: Found) -> Found:
    """Ask moto's server by boto3."""
    import boto3

    client = boto3.client("sagemaker", endpoint_url=address, region_name="us-east-1")
    found = client.describe_trial_component(TrialComponentName=remote["component"])
    metrics = {one["MetricName"]: [one["Count"], one["Last"]] for one in found.get("Metrics", [])}
    params = {name: next(iter(value.values())) for name, value in found.get("Parameters", {}).items()}
    return {"metrics": metrics, "params": params, "status": found["Status"]["PrimaryStatus"]}


def _beside(folder: str) -> Found:
    """Return what stands beside the points in a folder."""
    about = json.loads((Path(folder) / "run.json").read_text(encoding="utf-8"))
    (artifact,) = (Path(folder) / "artifacts").rglob("model.txt")
    return {"params": about["params"], "tags": about["tags"], "artifact": artifact.read_text(encoding="utf-8")}


def _is_number(value: object) -> bool:
    """Tell whether a value is a number, or how trackio writes one that JSON has not."""
    return not isinstance(value, str) or value in ("NaN", "Infinity", "-Infinity")


READERS = {
    "mlflow": mlflow, "wandb": wandb, "clearml": clearml, "aim": aim, "tensorboard": tensorboard, "trackio": trackio,
    "csv": csv_, "jsonl": jsonl, "parquet": parquet, "sagemaker": sagemaker,
}  # fmt: skip

if __name__ == "__main__":
    sys.stdout.write(json.dumps(READERS[sys.argv[1]](sys.argv[2], json.loads(sys.argv[3]))))
