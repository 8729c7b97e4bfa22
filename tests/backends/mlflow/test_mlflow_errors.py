"""A server that is dead, hangs, refuses or asks to wait is told to the lane within seconds, and without a password."""

from __future__ import annotations

import socket
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pytest

pytest.importorskip("mlflow", reason="needs mlflow")

from mlflow import MlflowClient

from tracer.backends.base import BackendError, Refused, Rejected, Throttled, Unreachable
from tracer.backends.mlflow import MLflowBackend
from tracer.transfer import Points, RunInfo

if TYPE_CHECKING:
    from conftest import Line

START = 1_700_000_000_000_000
_SOON_S = 6


class Answering(Protocol):
    """Gives the address of a server that answers with one status."""

    def __call__(
        self, status: int, headers: dict[str, str] | None = None, *, healthy: bool = True
    ) -> AbstractContextManager[str]:
        """See `conftest.answering`."""


def info(uid: str) -> RunInfo:
    return RunInfo(uid, f"project {uid}", "run", START, status="running")


def points(first: int, count: int = 10) -> Points:
    steps = np.arange(first, first + count, dtype=np.int64)
    return Points("loss", steps, START + steps * 1000, steps / 8)


def failure(address: str, kind: type[BackendError]) -> BackendError:
    """Open a run there, and return the error."""
    backend = MLflowBackend({"tracking_uri": address.replace("//", "//me:hunter22@"), "api_key": "token-33"})
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        backend.open(info("1"), {})
    assert time.monotonic() - began < _SOON_S
    assert "hunter22" not in str(caught.value)
    assert "token-33" not in str(caught.value)
    assert address in str(caught.value)
    return caught.value


def test_a_dead_server_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "the connection failed" in str(failure(f"http://127.0.0.1:{port}", Unreachable))


def test_a_server_that_never_answers_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "no answer in time" in str(failure(f"http://127.0.0.1:{silent.getsockname()[1]}", Unreachable))


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_are_refused_close_the_lane(mlflow_answering: Answering, status: int) -> None:
    with mlflow_answering(status) as address:
        assert "MLFLOW_TRACKING_TOKEN" in str(failure(address, Refused))


def test_a_server_that_asks_to_wait_says_how_long(mlflow_answering: Answering) -> None:
    with mlflow_answering(429, {"Retry-After": "17"}, healthy=False) as address:
        error = failure(address, Throttled)
    assert isinstance(error, Throttled)
    assert error.after_s == 17


def test_a_server_that_limits_one_call_is_given_time(mlflow_answering: Answering) -> None:
    with mlflow_answering(429) as address:
        error = failure(address, Throttled)
    assert isinstance(error, Throttled)
    assert error.after_s == 10


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_server_in_trouble_is_unreachable(mlflow_answering: Answering, status: int) -> None:
    with mlflow_answering(status) as address:
        failure(address, Unreachable)
    with mlflow_answering(status, healthy=False) as address:
        failure(address, Unreachable)


@pytest.mark.parametrize("status", [400, 409, 413])
def test_what_a_server_will_never_take_is_rejected(mlflow_answering: Answering, status: int) -> None:
    with mlflow_answering(status) as address:
        failure(address, Rejected)


def test_a_batch_on_which_a_living_server_fails_again_and_again_is_given_up(mlflow_answering: Answering) -> None:
    with mlflow_answering(500) as address:
        backend = MLflowBackend({"tracking_uri": address})
        for kind in (Unreachable, Unreachable, Unreachable, Unreachable, Rejected, Unreachable):
            with pytest.raises(kind):
                backend.open(info("1"), {})


def test_a_database_that_cannot_be_opened_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").mkdir()
    backend = MLflowBackend({"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"})
    with pytest.raises(Unreachable, match="the database cannot be opened"):
        backend.open(info("1"), {})


def test_after_an_outage_nothing_is_missing_and_nothing_is_there_twice(mlflow_server: str, mlflow_line: Line) -> None:
    backend = MLflowBackend({"tracking_uri": mlflow_line.address})
    run_id = backend.open(info("outage"), {})["run_id"]
    backend.write([points(0)])
    mlflow_line.cut()
    began = time.monotonic()
    with pytest.raises(Unreachable):
        backend.write([points(10)])
    assert time.monotonic() - began < _SOON_S
    mlflow_line.mend()
    for first in (0, 10, 20):  # the lane does not know what arrived, and sends again
        backend.write([points(first)])
    backend.close("completed", START + 1_000_000)
    history = MlflowClient(mlflow_server).get_metric_history(run_id, "loss")
    assert sorted((one.step, one.value) for one in history) == [(step, step / 8) for step in range(30)]
