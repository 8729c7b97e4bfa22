"""A real MLflow server, started once for all tests that need one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

_START_S = 240


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a server; it starts about ten processes, which end as a group."""
    pytest.importorskip("mlflow", reason="needs mlflow")
    folder = tmp_path_factory.mktemp("mlflow-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {"HOME": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
    arguments = [
        *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", "sqlite:///ml.db"),
        *("--artifacts-destination", "./arts", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
    ]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            arguments, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait(f"http://127.0.0.1:{port}/health", server, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=30)


def _wait(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):  # noqa: S310 -- our own server
            return
        threading.Event().wait(0.2)
    pytest.fail(f"The MLflow server did not start:\n{log.read_text(errors='replace')[-3000:]}")
