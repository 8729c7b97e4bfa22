"""What Prometheus sees: read by its own parser, by a real server of it, and by a real push gateway."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tracer.backends import prometheus_serving, table
from tracer.backends.base import Backend, Rejected, Unreachable
from tracer.backends.prometheus import PrometheusBackend, grouped
from tracer.errors import ConfigError
from tracer.testing import check_backend
from tracer.transfer import Points, RunInfo

RUN = RunInfo("r1", "demo", 'fi"r\\s\nt', started=5_500_000, group="g")
Labels = frozenset[tuple[str, str]]


def points(name: str, *values: float, rank: int = 0, at: int = 1) -> Points:
    steps = np.arange(at, at + len(values))
    return Points(name, steps, steps * 1_000_000, np.array(values, float), rank)


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 (of this machine)
        return answer.read().decode()


def scraped(url: str) -> dict[str, dict[Labels, float]]:
    """Scrape, and return what Prometheus' own parser reads: name → labels → value."""
    families = text_string_to_metric_families(get(url))
    found: dict[str, dict[Labels, float]] = {}
    for sample in (sample for family in families for sample in family.samples):
        found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def values(found: dict[Labels, float], *names: str) -> dict[tuple[str, ...], float]:
    return {tuple(dict(labels)[name] for name in names): value for labels, value in found.items()}


@pytest.fixture
def backend() -> Iterator[Backend]:
    made = table.backend("prometheus", {"port": 0})
    made.open(RUN, {})
    yield made
    made.close("completed", None)


def test_the_newest_values_are_shown(backend: Backend) -> None:
    backend.write([points("loss", 3, 2, 0.1), points("loss", 7, rank=2), points("system/memory/percent", 250)])

    found = scraped(backend.url() or "")

    assert values(found["tracer_metric"], "project", "run", "metric", "rank") == {
        ("demo", RUN.name, "loss", "0"): 0.1,
        ("demo", RUN.name, "loss", "2"): 7.0,
    }
    assert values(found["tracer_system"], "metric") == {("memory/percent",): 250.0}
    assert values(found["tracer_step"], "rank") == {("0",): 3.0, ("2",): 1.0}
    assert values(found["tracer_run_info"], "run_id", "group", "status") == {("r1", "g", "completed"): 1.0}
    assert list(found["tracer_points_total"].values()) == [5.0]
    assert list(found["tracer_last_point_timestamp_seconds"].values()) == [3.0]


def test_all_doubles_are_legal(backend: Backend) -> None:
    told = {"nan": math.nan, "inf": math.inf, "less": -math.inf, "zero": -0.0, "tiny": 1e-300, "third": 1 / 3}
    backend.write([points(name, value) for name, value in told.items()])

    found = values(scraped(backend.url() or "")["tracer_metric"], "metric")

    assert {name: str(value) for (name,), value in found.items()} == {name: str(value) for name, value in told.items()}


def test_every_name_is_a_label(backend: Backend) -> None:
    names = ['a"b', "a\\b", "a\\n", "a\nb", "ünï", "{}", "a,b", "💥", ""]
    backend.write([points(name, 1) for name in names])

    assert set(values(scraped(backend.url() or "")["tracer_metric"], "metric")) == {(name,) for name in names}


def test_a_batch_that_comes_again_changes_no_value(backend: Backend) -> None:
    old, new = [points("loss", 3, 2)], [points("loss", 1, at=3)]
    for batch in (old, new, old):
        backend.write(batch)

    found = scraped(backend.url() or "")
    assert list(found["tracer_metric"].values()) == [1.0]
    assert list(found["tracer_step"].values()) == [3.0]


def test_names_that_never_end_are_bounded_and_counted() -> None:
    backend = table.backend("prometheus", {"port": 0, "series": 100})
    backend.open(RUN, {})
    backend.write([points(f"m{number}", 1) for number in range(150)] + [points("m60", 2, at=2)])

    found = scraped(backend.url() or "")
    backend.close("completed", None)

    assert len(found["tracer_metric"]) == 100
    assert ("m149",) in values(found["tracer_metric"], "metric")
    assert ("m49",) not in values(found["tracer_metric"], "metric")
    assert list(found["tracer_series_dropped_total"].values()) == [50.0]


def test_a_closed_run_is_gone_and_its_port_is_free() -> None:
    backend = table.backend("prometheus", {"port": 0})
    backend.open(RUN, {})
    url = backend.url() or ""
    port = int(url.split(":")[2].partition("/")[0])
    backend.close("completed", None)

    with pytest.raises(urllib.error.URLError):
        get(url)
    again = table.backend("prometheus", {"port": port})
    again.open(RUN, {"run": "r1"})
    assert "tracer_run_info" in scraped(again.url() or "")
    again.close("running", None)


def test_the_page_ends_with_the_run_though_the_gateway_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        gateway = f"http://127.0.0.1:{free.getsockname()[1]}"
    backend = table.backend("prometheus", {"port": 0, "gateway": gateway})
    for attempt in (lambda: backend.open(RUN, {}), lambda: backend.close("completed", None)):
        with pytest.raises(Unreachable, match="Connection refused"):
            attempt()

    assert threading.active_count() == len([one for one in threading.enumerate() if one.name != "tracer-prometheus"])


def test_a_port_that_is_taken_is_said_and_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        backend = table.backend("prometheus", {"port": taken.getsockname()[1]})
        with pytest.raises(Unreachable, match="Another run may hold it"):
            backend.open(RUN, {})
    backend.open(RUN, {})
    backend.close("completed", None)


def test_slow_scrapers_hold_nobody_up(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus_serving, "REQUEST_S", 0.5)
    port = int((backend.url() or "").split(":")[2].partition("/")[0])
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(prometheus_serving.REQUESTS)]
    try:
        for connection in slow:
            connection.sendall(b"GET /metrics HTT")
        until(lambda: "tracer_run_info" in attempted(backend.url() or ""))
    finally:
        for connection in slow:
            connection.close()


def test_there_is_nothing_but_metrics(backend: Backend) -> None:
    url = (backend.url() or "").removesuffix("/metrics")
    assert "/metrics" in get(f"{url}/")
    with pytest.raises(urllib.error.HTTPError, match="404") as found:
        get(f"{url}/secrets")
    found.value.close()


@pytest.mark.parametrize(
    ("job", "run", "path"),
    [
        ("tracer", "r1", "/metrics/job/tracer/instance/r1"),
        ("a/b", "..", "/metrics/job@base64/YS9i/instance@base64/Li4"),
        ("ü", "", "/metrics/job@base64/w7w/instance@base64/="),
    ],
)
def test_a_group_has_an_address(job: str, run: str, path: str) -> None:
    assert grouped("http://g:9091/base/", job, run) == f"http://g:9091/base{path}"


@pytest.mark.parametrize("options", [{"port": "http"}, {"gateway": "localhost:9091"}, {"series": "many"}])
def test_options_that_cannot_be_are_said(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        table.backend("prometheus", options)


def test_it_keeps_the_contract() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
    check_backend(PrometheusBackend, options={"port": 0}, dead={"gateway": dead})


# -------------------------------------------------- the real ones


def until(condition: Callable[[], bool], deadline_s: float = 30.0) -> None:
    """Ask until it is so."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        threading.Event().wait(0.05)


def attempted(url: str) -> str:
    try:
        return get(url)
    except (OSError, urllib.error.URLError):
        return ""


@contextlib.contextmanager
def running(folder: Path, program: str, *arguments: str, ready: str) -> Iterator[str]:
    """Run a server on a free port of this machine until it is no longer needed; yield its address."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program}: apt-get install {program}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [found, f"--web.listen-address=127.0.0.1:{port}", *arguments],
            cwd=folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: bool(attempted(f"http://127.0.0.1:{port}{ready}")))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)


def test_a_real_prometheus_scrapes_it_and_sees_it_end(tmp_path: Path) -> None:
    backend = table.backend("prometheus", {"port": 0})
    backend.open(RUN, {})
    target = (backend.url() or "").removeprefix("http://").removesuffix("/metrics")
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{"job_name": "runs", "static_configs": [{"targets": [target]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # YAML is a superset of JSON
    backend.write([points("val/loss", 1.5), points("inf", math.inf), points("val/loss", 9, rank=1)])

    with running(tmp_path, "prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data",
                 ready="/-/ready") as server:  # fmt: skip

        def seen(query: str) -> list[tuple[dict[str, str], str]]:
            told = json.loads(get(f"{server}/api/v1/query?query={quote(query)}"))["data"]["result"]
            return [(one["metric"], one["value"][1]) for one in told]

        until(lambda: len(seen("tracer_metric")) == 3)
        found = {(labels["metric"], labels["rank"]): (labels["run"], value) for labels, value in seen("tracer_metric")}
        assert found == {
            ("val/loss", "0"): (RUN.name, "1.5"),
            ("val/loss", "1"): (RUN.name, "9"),
            ("inf", "0"): (RUN.name, "+Inf"),
        }
        backend.write([points("val/loss", math.nan, at=2)])
        until(lambda: seen('tracer_metric{metric="val/loss",rank="0"}')[0][1] == "NaN")
        kinds = json.loads(get(f"{server}/api/v1/metadata?metric=tracer_metric"))["data"]["tracer_metric"]
        assert kinds == [{"type": "gauge", "help": "The newest value of a metric.", "unit": ""}]

        backend.close("completed", None)
        until(lambda: seen("tracer_metric") == [])


def test_a_real_push_gateway_keeps_the_last_values(tmp_path: Path) -> None:
    with running(tmp_path, "prometheus-pushgateway", ready="/-/ready") as server:
        backend = table.backend("prometheus", {"gateway": server, "job": "night/7"})
        backend.open(RUN, {})
        backend.write([points("loss", 3, 2), points("gone", math.nan)])
        backend.write([points("loss", 1, at=3)])
        backend.close("failed", None)

        found = scraped(f"{server}/metrics")

    assert (
        values(found["tracer_metric"], "metric", "job", "instance", "run")[("loss", "night/7", "r1", RUN.name)] == 1.0
    )
    assert values(found["tracer_run_info"], "status") == {("failed",): 1.0}
    assert backend.url() == server


def test_a_push_gateway_that_refuses_is_believed(tmp_path: Path) -> None:
    with running(tmp_path, "prometheus-pushgateway", ready="/-/ready") as server:
        backend = table.backend("prometheus", {"gateway": f"{server}/nowhere"})
        with pytest.raises(Rejected, match="HTTP 404"):
            backend.open(RUN, {})
