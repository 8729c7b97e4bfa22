"""A real MLflow server, started once for all tests of this folder, a database, and a line to the server to be cut."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

_START_S = 240
_HERE = Path(__file__).parent
#: What MLflow and its parts warn of among themselves, whoever calls.
_WARNINGS = (
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning",
    "ignore:unclosed database:ResourceWarning",  # SQLAlchemy's pool leaves them to the garbage collector
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the tests of this folder pass over those warnings."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            for one in _WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(one))


_CHUNK = 1 << 16


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tests' own clients say nothing and wait for nobody."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def mlflow_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a database with MLflow's tables and nothing in it: making them takes seconds, copying does not."""
    pytest.importorskip("mlflow", reason="needs mlflow")
    path = tmp_path_factory.mktemp("mlflow-tables") / "empty.db"
    program = f"from mlflow import MlflowClient; MlflowClient('sqlite:///{path}').search_experiments()"
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run(
        [sys.executable, "-c", program], check=True, env=environment, capture_output=True, cwd=path.parent, timeout=240
    )
    return path


@pytest.fixture
def mlflow_database(mlflow_tables: Path, tmp_path: Path) -> str:
    """Give the address of a new database."""
    path = tmp_path / "mlflow.db"
    path.write_bytes(mlflow_tables.read_bytes())
    return f"sqlite:///{path}"


@pytest.fixture(params=["database", "server"])
def mlflow_uri(request: pytest.FixtureRequest) -> str:
    """Give the address of either."""
    return str(request.getfixturevalue(f"mlflow_{request.param}"))


class Answers(BaseHTTPRequestHandler):
    """Answers every request with one status, except for the question whether it lives."""

    status: ClassVar[int] = 200
    headers_sent: ClassVar[dict[str, str]] = {}
    healthy: ClassVar[bool] = True

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        alive = self.healthy and self.path == "/health"
        self.send_response(200 if alive else self.status)
        for name, value in {} if alive else self.headers_sent.items() if self.headers_sent else ():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_PUT = do_PATCH = _answer  # noqa: N815 -- the names are the base's

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name is the base's
        """Say nothing."""


@contextlib.contextmanager
def answering(status: int, headers: dict[str, str] | None = None, *, healthy: bool = True) -> Iterator[str]:
    """Give the address of a server that answers so."""
    handler = type("Handler", (Answers,), {"status": status, "headers_sent": headers or {}, "healthy": healthy})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class Line:
    """A line to a server: it can be cut, and mended on the same port."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("http://").partition(":")
        self._target, self._port = (host, int(port)), free_port()
        self._open: list[socket.socket] = []
        self._listening: socket.socket | None = None
        self.address = f"http://127.0.0.1:{self._port}"
        self.mend()

    def mend(self) -> None:
        """Let connections pass."""
        self._listening = socket.create_server(("127.0.0.1", self._port), reuse_port=False)
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def cut(self) -> None:
        """End every connection and accept no more."""
        assert self._listening is not None
        for one in [self._listening, *self._open]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listening.accept()
                far = socket.create_connection(self._target)
                self._open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=_pump, args=pair, daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Pass on bytes until either side ends."""
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def mlflow_line(mlflow_server: str) -> Iterator[Line]:
    """Give a line to the server."""
    line = Line(mlflow_server)
    yield line
    line.cut()


@pytest.fixture
def mlflow_answering() -> object:
    """Give what makes a server that answers with one status."""
    return answering
