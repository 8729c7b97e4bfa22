"""The MLflow back end keeps the contract, in a database and on a real server."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import pytest

pytest.importorskip("mlflow", reason="needs mlflow")

from mlflow import MlflowClient

from tracer.backends.mlflow import MLflowBackend
from tracer.testing import check_backend


def test_the_contract_is_kept(mlflow_uri: str) -> None:
    client = MlflowClient(mlflow_uri)

    def read(remote: Mapping[str, str]) -> dict[str, list[tuple[int, float]]]:
        run_id = remote["run_id"]
        names = client.get_run(run_id).data.metrics
        return {name: [(one.step, one.value) for one in client.get_metric_history(run_id, name)] for name in names}

    with socket.create_server(("127.0.0.1", 0)) as free:
        dead = {"tracking_uri": f"http://127.0.0.1:{free.getsockname()[1]}"}
    check_backend(MLflowBackend, read=read, options={"tracking_uri": mlflow_uri}, dead=dead, many=2500)
