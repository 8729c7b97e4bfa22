"""One training goes to every back end at once, and each peer's own reader finds every value, step and parameter.

What a peer cannot hold is named here as it is in the table of limits of the documentation.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
STEPS = 200
FINITE_ODD = [[3, (-0.0).hex()], [4, (1e-300).hex()], [5, (2.0**53 + 2).hex()]]
ODD = [[0, "nan"], [1, "inf"], [2, "-inf"], *FINITE_ODD]
POINTS: dict[str, list[list[Any]]] = {
    "loss": [[step, (1 / (step + 1)).hex()] for step in range(STEPS)],
    "acc/val": [[step, (step / 8).hex()] for step in range(STEPS)],
    "odd": ODD,
    "late": [[500, (2.0).hex()], [1000, (1.0).hex()]],
}
#: The limits of the peers, as the documentation's table has them.
GREATEST = sys.float_info.max
ODD_IN = {
    "mlflow": [[0, "nan"], [1, GREATEST.hex()], [2, (-GREATEST).hex()], [3, (0.0).hex()], *FINITE_ODD[1:]],
    "clearml": FINITE_ODD,
}
EXACT = ("mlflow", "clearml", "aim", "tensorboard", "trackio", "csv", "jsonl", "parquet")


class Taker(ThreadingHTTPServer):
    """A collector and a webhook's receiver: keeps what is posted."""

    def __init__(self) -> None:
        self.took: list[tuple[str, dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Take)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def bodies(self, path: str) -> list[bytes]:
        """Return what was posted to a path."""
        import gzip

        return [
            gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body
            for at, headers, body in self.took
            if at == path
        ]


class _Take(BaseHTTPRequestHandler):
    server: Taker

    def do_POST(self) -> None:
        """Keep it and say yes."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.took.append((self.path, dict(self.headers.items()), body))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a server that stands for AWS."""
    at = port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(at)]
    log = (tmp_path_factory.mktemp("moto") / "log").open("wb")
    server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: urllib.request.urlopen(f"http://127.0.0.1:{at}/moto-api/", timeout=5).close())
        yield f"http://127.0.0.1:{at}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=30)
        log.close()


def wait_for(look: Any, seconds: float = 90.0) -> Any:  # noqa: ANN401 -- whatever is looked for
    """Look again and again until nothing is raised and something is found; return it."""
    until = time.monotonic() + seconds
    while True:
        try:
            found = look()
            if found is not False:
                return found
        except (OSError, AssertionError):
            if time.monotonic() > until:
                raise
        assert time.monotonic() < until
        threading.Event().wait(0.1)


class Everywhere:
    """The run that went everywhere."""

    def __init__(self, folder: Path, options: dict[str, dict[str, object]], taker: Taker, scraped: str) -> None:
        self.folder, self.options, self.taker, self.scraped = folder, options, taker, scraped
        told = json.loads((folder / "states.json").read_text(encoding="utf-8"))
        self.states: dict[str, Any] = told["states"]
        self.run = told["run"]

    def read(self, peer: str) -> dict[str, Any]:
        """Return what a peer's own reader finds."""
        address = {
            "mlflow": "tracking_uri", "wandb": "dir", "clearml": "dir", "aim": "repo_path", "tensorboard": "log_dir",
            "trackio": "dir", "csv": "path", "jsonl": "path", "parquet": "path", "sagemaker": "endpoint",
        }[peer]  # fmt: skip
        where, remote = str(self.options[peer][address]), json.dumps(self.states[peer][2])
        command = [sys.executable, str(HERE / "everywhere_readers.py"), peer, where, remote]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False,
            env=os.environ | ACCESS | {"PATH": path},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        found: dict[str, Any] = json.loads(done.stdout)
        return found


ACCESS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str, moto: str) -> Everywhere:
    """Train once, with everything on."""
    folder, taker, scrape = tmp_path_factory.mktemp("everywhere"), Taker(), port()
    options: dict[str, dict[str, object]] = {
        "mlflow": {"tracking_uri": mlflow_server},
        "wandb": {"dir": str(folder / "wandb"), "mode": "offline"},
        "clearml": {"dir": str(folder / "clearml")},
        "aim": {"repo_path": str(folder / "aim")},
        "tensorboard": {"log_dir": str(folder / "tensorboard")},
        "trackio": {"dir": str(folder / "trackio")},
        "otlp": {"endpoint": taker.url},
        "prometheus": {"port": scrape},
        "sagemaker": {"endpoint": moto, "region": "us-east-1"},
        "csv": {"path": str(folder / "csv")},
        "jsonl": {"path": str(folder / "jsonl")},
        "parquet": {"path": str(folder / "parquet")},
        "webhook": {"url": f"{taker.url}/hook"},
    }
    (folder / "options.json").write_text(json.dumps(options), encoding="utf-8")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CLEARML_", "WANDB_"))}
    training = subprocess.Popen(
        [sys.executable, str(HERE / "everywhere_program.py")],
        cwd=folder, env=clean | ACCESS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert training.stdin is not None
    assert training.stdout is not None
    try:
        assert training.stdout.readline() == "recorded\n"

        def look() -> Any:  # noqa: ANN401
            with urllib.request.urlopen(f"http://127.0.0.1:{scrape}/metrics", timeout=5) as answer:
                text: str = answer.read().decode()
            return text if 'metric="late"' in text else False

        scraped = wait_for(look)
        training.communicate("\n", timeout=240)
        assert training.returncode == 0
    finally:
        training.kill()
        training.wait()
    return Everywhere(folder, options, taker, scraped)


def test_every_back_end_has_everything(everywhere: Everywhere) -> None:
    assert {name: state[:2] for name, state in everywhere.states.items() if state[0] != "complete"} == {}


@pytest.mark.parametrize("peer", EXACT)
def test_every_value_and_step_is_there_bit_for_bit(everywhere: Everywhere, peer: str) -> None:
    found = everywhere.read(peer)["points"]

    expected = {**POINTS, "odd": ODD_IN.get(peer, ODD)}
    assert {name: sorted(rows, key=lambda row: row[0]) for name, rows in found.items() if name in POINTS} == expected


@pytest.mark.parametrize("peer", ["mlflow", "aim", "trackio", "csv", "jsonl", "parquet"])
def test_parameters_and_tags_are_there(everywhere: Everywhere, peer: str) -> None:
    found = everywhere.read(peer)

    params = {name: str(value) for name, value in found["params"].items()}
    assert (params["lr"], params["layers"]) == ("0.125", "3")
    assert "adam" in str(params)
    assert {"night", "good"} <= set(re.findall(r"\w+", str(found["tags"])))


@pytest.mark.parametrize("peer", ["mlflow", "clearml", "aim", "csv", "jsonl", "parquet"])
def test_the_artifact_is_there_byte_for_byte(everywhere: Everywhere, peer: str) -> None:
    assert everywhere.read(peer)["artifact"] == "weights\n"


def test_weights_and_biases_has_every_row(everywhere: Everywhere) -> None:
    expected = {**POINTS, "odd": [*ODD[:3], [3, (0.0).hex()], *ODD[4:]]}  # its inspector shows -0 as 0
    assert wandb_points(everywhere.read("wandb")["records"]) == expected


def wandb_points(records: list[dict[str, Any]]) -> dict[str, list[list[Any]]]:
    """Return the values that W&B's inspector shows, by our own steps."""
    found: dict[str, list[list[Any]]] = {name: [] for name in POINTS}
    for row in (record["history"]["item"] for record in records if record["type"] == "history"):
        for name in POINTS:
            if name in row:
                found[name].append([row["tracer_step"], float(row[name]).hex()])
    return {name: sorted(rows, key=lambda row: row[0]) for name, rows in found.items()}


def test_prometheus_is_shown_the_latest_values(everywhere: Everywhere) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    samples = [one for family in text_string_to_metric_families(everywhere.scraped) for one in family.samples]
    latest = {one.labels["metric"]: one.value for one in samples if one.name == "tracer_metric"}
    assert {name: latest[name] for name in ("loss", "acc/val", "late")} == {
        "loss": 1 / STEPS, "acc/val": (STEPS - 1) / 8, "late": 2.0,
    }  # fmt: skip


def test_a_collector_was_sent_every_value(everywhere: Everywhere) -> None:
    from google.protobuf import json_format
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    found: dict[str, list[list[Any]]] = {}
    for body in everywhere.taker.bodies("/v1/metrics"):
        message = json_format.Parse(body, ExportMetricsServiceRequest())
        for resource in message.resource_metrics:
            for metric in (one for scope in resource.scope_metrics for one in scope.metrics):
                for point in metric.gauge.data_points:
                    about = {one.key: one.value for one in point.attributes}
                    step = next(value.int_value for name, value in about.items() if name.endswith("step"))
                    found.setdefault(metric.name, []).append([step, point.as_double.hex()])
    assert {name: sorted(rows, key=lambda row: row[0]) for name, rows in found.items() if name in POINTS} == POINTS


def test_sagemaker_counts_what_it_was_given(everywhere: Everywhere) -> None:
    found = everywhere.read("sagemaker")

    counts = {name: count for name, (count, _) in found["metrics"].items()}
    assert (counts["loss"], found["status"]) == (STEPS, "Completed")
    assert float(found["params"]["lr"]) == 0.125


def test_a_webhook_was_told_everything(everywhere: Everywhere) -> None:
    bodies = [body.decode() for body in everywhere.taker.bodies("/hook")]

    told = "\n".join(bodies)
    assert all(f'"{name}"' in told for name in POINTS)
    assert "night" in told
