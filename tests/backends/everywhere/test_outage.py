"""A peer dies in a run, or its disk is full: the training hears nothing of it, and later everything is there once."""

from __future__ import annotations

import collections
import contextlib
import csv
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
from typing import Any

import pytest

HERE = Path(__file__).parent
#: Two halves of a training, with the word of the test between them.
PROGRAM = """
import sys, time, tracer
address, storage = sys.argv[1:3]
run = tracer.init(
    project="outage", run_name="one", storage_path=storage, quiet=True, track_system_metrics=False, track_git=False,
    track_code=False, track_environment=False, backend=["mlflow", "tensorboard", "csv"], finish_timeout_s=8, linger_s=0,
    backend_options={"mlflow": {"tracking_uri": address}, "csv": {"path": sys.argv[3]}},
)
for step in range(300):
    tracer.log({"loss": 1.0 / (step + 1)}, step=step)
print("half", flush=True)
sys.stdin.readline()
spent = []
for step in range(300, 600):
    began = time.thread_time_ns()
    tracer.log({"loss": 1.0 / (step + 1)}, step=step)
    spent.append(time.thread_time_ns() - began)
print(sorted(spent)[150], flush=True)
sys.stdin.readline()
began = time.monotonic()
run.finish()
print(round(time.monotonic() - began, 2), run.run_id, flush=True)
"""


class Server:
    """An MLflow server on one database, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        clean |= {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--backend-store-uri", "sqlite:///ml.db"),
            *("--artifacts-destination", "./arts", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"),
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=clean, stdout=log, stderr=log, start_new_session=True
            )
        health = f"{self.url}/health"
        wait_for(lambda: urllib.request.urlopen(health, timeout=5).close() is None)  # noqa: S310 -- our own server

    def kill(self) -> None:
        """Kill all of its processes."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=30)


def wait_for(look: Any, seconds: float = 120.0) -> None:  # noqa: ANN401 -- whatever tells
    """Look again and again until it is so."""
    until = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if look():
                return
        assert time.monotonic() < until
        threading.Event().wait(0.1)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """Give a folder on a disk of its own that is soon full."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Leave no byte of a disk free."""
    with (folder / "junk").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, of what it asks of SQLAlchemy
def test_after_an_outage_each_point_is_there_exactly_once(tmp_path: Path, full: Path) -> None:
    from tracer import cursors

    server, storage = Server(tmp_path), tmp_path / "store"
    server.start()
    training = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, server.url, str(storage), str(full)],
        cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert training.stdin is not None
    assert training.stdout is not None

    def lanes() -> dict[str, cursors.Cursor]:
        (folder,) = (storage / "runs").iterdir()
        return {lane.name: lane for lane in cursors.of_run(str(folder))}

    def say() -> str:
        assert training.stdin is not None
        assert training.stdout is not None
        training.stdin.write("\n")
        training.stdin.flush()
        return training.stdout.readline()

    try:
        assert training.stdout.readline() == "half\n"
        wait_for(lambda: lanes()["mlflow"].said.get("sent", 0) >= 300)
        server.kill()
        fill(full)
        median_ns = int(say())
        took, run = say().split()
        training.communicate(timeout=60)
    finally:
        training.kill()
        training.wait()
    assert median_ns < 100_000  # a hundred times what it takes when nothing is asked of anybody
    assert float(took) < 8

    (full / "junk").unlink()
    server.start()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tracer", "--storage", str(storage), "sync", run],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert {name: lane.state for name, lane in lanes().items()} == dict.fromkeys(
            ("csv", "mlflow", "tensorboard"), "complete"
        )
        from mlflow.tracking import MlflowClient

        history = MlflowClient(server.url).get_metric_history(lanes()["mlflow"].said["remote"]["run_id"], "loss")
        found = [(point.step, point.value) for point in history]
    finally:
        server.kill()
    expected = [(step, 1.0 / (step + 1)) for step in range(600)]
    assert sorted(found) == expected
    with Path(lanes()["csv"].said["remote"]["file"]).open(newline="") as file:
        rows = [(int(row["step"]), float(row["value"])) for row in csv.DictReader(file) if row["name"] == "loss"]
    assert rows == expected
    assert counted(lanes()["tensorboard"].said["remote"]["folder"]) == collections.Counter(range(600))


def counted(folder: str) -> collections.Counter[int]:
    """Return how often each step of the loss stands in TensorBoard's files, by its own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(folder, size_guidance={"scalars": 0, "tensors": 0})
    reader.Reload()
    tags = reader.Tags()
    steps = [one.step for one in reader.Scalars("loss")] if "loss" in tags["scalars"] else []
    steps += [one.step for one in reader.Tensors("loss")] if "loss" in tags["tensors"] else []
    return collections.Counter(steps)
