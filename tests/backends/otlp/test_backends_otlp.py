"""What a collector is sent, decoded by OpenTelemetry's own protobuf classes."""

from __future__ import annotations

import base64
import gzip
import json
import math
import socket
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tracer.backends import table
from tracer.backends.base import Backend, BackendError, Refused, Rejected, Throttled, Unreachable
from tracer.backends.otlp import OtlpBackend
from tracer.backends.otlp_spans import resource_spans
from tracer.errors import ConfigError
from tracer.testing import check_backend
from tracer.transfer import Histogram, LogLine, Points, RunInfo, Span, Text

RUN = RunInfo(
    "r1", "demo", "first", started=1_700_000_000_000_000, params={"lr": 0.1, "layers": [1, 2], "big": 2**70},
    tags=("a",), environment={"hostname": "box"},
)  # fmt: skip
CLASSES = {
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
    "/v1/traces": ExportTraceServiceRequest,
}
IDS = ("traceId", "spanId", "parentSpanId")


class Collector(HTTPServer):
    """Takes what collectors take, and decodes it; answers as `answers` says, then with 200."""

    def __init__(self) -> None:
        self.took: list[tuple[str, dict[str, str], Any]] = []
        self.answers: list[tuple[int, dict[str, str], str]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        """Where it takes."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def of(self, path: str) -> list[Any]:
        """Return the requests that came to a path."""
        return [message for at, _, message in self.took if at == path]


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert (self.headers["Content-Encoding"], self.headers["Content-Type"]) == ("gzip", "application/json")
        message = decoded(self.path, json.loads(gzip.decompress(body)))
        self.server.took.append((self.path, dict(self.headers.items()), message))
        status, headers, told = self.server.answers.pop(0) if self.server.answers else (200, {}, "{}")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(told.encode())

    def log_message(self, *_: object) -> None:
        return


def decoded(path: str, content: Any) -> Any:  # noqa: ANN401 (JSON)
    """Return what the official class reads; its JSON has ids in base64 where OTLP's has hexadecimal."""

    def based(value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, dict):
            return {
                key: base64.b64encode(bytes.fromhex(told)).decode() if key in IDS else based(told)
                for key, told in value.items()
            }
        return [based(one) for one in value] if isinstance(value, list) else value

    return json_format.ParseDict(based(content), CLASSES[path.partition("/otel")[2] or path]())


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


def opened(collector: Collector, **options: object) -> Backend:
    backend = table.backend("otlp", {"endpoint": collector.url, **options})
    assert backend.open(RUN, {}) == {"run": "r1"}
    return backend


def plain(attributes: Any) -> dict[str, object]:  # noqa: ANN401 (protobuf)
    """Return attributes as a dictionary."""

    def value(told: Any) -> object:  # noqa: ANN401
        kind = told.WhichOneof("value")
        if kind == "array_value":
            return [value(one) for one in told.array_value.values]
        return plain(told.kvlist_value.values) if kind == "kvlist_value" else getattr(told, kind)

    return {one.key: value(one.value) for one in attributes}


def test_every_double_arrives_bit_for_bit_with_its_time_step_and_rank(collector: Collector) -> None:
    backend = opened(collector)
    values = np.array([math.nan, math.inf, -math.inf, -0.0, 1e-300, 1 / 3, 1.7976931348623157e308])
    steps = np.array([5, 3, 2**62, -4, 7, 8, 2**63 - 1])

    backend.write([
        Points("val/löss", steps, RUN.started + np.arange(7), values),
        Points("val/löss", steps[:1], np.array([7]), values[-2:-1], rank=3),
    ])  # fmt: skip

    (message,) = collector.of("/v1/metrics")
    (group,) = message.resource_metrics
    (metric,) = group.scope_metrics[0].metrics
    found = metric.gauge.data_points
    assert metric.name == "val/löss"
    assert np.array([point.as_double for point in found[:-1]]).tobytes() == values.tobytes()
    assert [point.time_unix_nano for point in found[:-1]] == [(RUN.started + at) * 1000 for at in range(7)]
    assert [plain(point.attributes) for point in found] == [
        *({"tracer.step": step, "tracer.rank": 0} for step in steps.tolist()),
        {"tracer.step": 5, "tracer.rank": 3},
    ]
    assert plain(group.resource.attributes) == {
        "service.name": "demo", "service.instance.id": "r1", "tracer.run.id": "r1", "tracer.run.name": "first",
        "tracer.project": "demo", "host.name": "box",
    }  # fmt: skip
    assert group.scope_metrics[0].scope.name == "tracer"


def test_steps_can_be_left_out_where_each_attribute_is_a_series(collector: Collector) -> None:
    opened(collector, steps="none").write([Points("loss", np.array([5]), np.array([7]), np.array([1.0]))])

    (metric,) = collector.of("/v1/metrics")[0].resource_metrics[0].scope_metrics[0].metrics
    assert plain(metric.gauge.data_points[0].attributes) == {"tracer.rank": 0}


@pytest.mark.parametrize(
    ("edges", "counts", "bounds", "buckets"),
    [
        ((0.0, 1.0, 2.0), (3.0, 4.0), [0.0, 1.0, 2.0], [0, 3, 4, 0]),
        ((-math.inf, 0.0, math.inf), (3.0, 4.0), [0.0], [3, 4]),
        ((0.0, math.inf), (2.5,), [0.0], [0, 2]),
    ],
)
def test_a_histogram_keeps_its_buckets(
    collector: Collector, edges: tuple[float, ...], counts: tuple[float, ...], bounds: list[float], buckets: list[int]
) -> None:
    opened(collector).write([Histogram("h", 1, 7, edges, counts)])

    (metric,) = collector.of("/v1/metrics")[0].resource_metrics[0].scope_metrics[0].metrics
    (point,) = metric.histogram.data_points
    assert (list(point.explicit_bounds), list(point.bucket_counts)) == (bounds, buckets)
    assert (point.count, point.time_unix_nano) == (sum(buckets), 7000)


def test_what_is_said_in_words_becomes_log_records(collector: Collector) -> None:
    backend = opened(collector)
    backend.write([
        Text("say", 2, 7, "héllo", rank=1),
        LogLine("log", 8, "careful", None, "warning", 3, {"loss": math.inf, "none": None, "deep": {"a": [1]}}),
        LogLine("event", 9, name="saved"),
        LogLine("stdout", 10, "half a \ud800 pair"),
    ])  # fmt: skip
    backend.close("failed", RUN.started + 1)

    records = [
        one for message in collector.of("/v1/logs") for one in message.resource_logs[0].scope_logs[0].log_records
    ]
    began, text, line, event, broken, ended = records
    assert (began.event_name, began.time_unix_nano) == ("tracer.run.started", RUN.started * 1000)
    facts = plain(began.body.kvlist_value.values)
    assert facts["params"] == {"lr": 0.1, "layers": [1, 2], "big": str(2**70)}
    assert (text.body.string_value, plain(text.attributes)["tracer.metric"]) == ("héllo", "say")
    assert (line.severity_text, line.severity_number, line.body.string_value) == ("WARNING", 13, "careful")
    assert plain(line.attributes) == {
        "event.name": "tracer.log", "tracer.kind": "log", "tracer.step": 3, "tracer.rank": 0, "loss": math.inf,
        "deep": {"a": [1]},
    }  # fmt: skip
    assert (event.event_name, event.time_unix_nano) == ("saved", 9000)
    assert broken.body.string_value == "half a ? pair"
    assert (ended.event_name, ended.time_unix_nano) == ("tracer.run.ended", (RUN.started + 1) * 1000)
    assert plain(ended.body.kvlist_value.values)["status"] == "failed"


def test_spans_arrive_with_their_ids_times_and_status(collector: Collector) -> None:
    backend = opened(collector)
    backend.write([
        Span("step", "ab" * 16, "cd" * 8, 5, 9, step=4, attributes={"size": 3, "nan": math.nan}),
        Span("load", "ab" * 16, "ef" * 8, 6, 7, "cd" * 8, "client", "error", "disk", rank=2),
    ])  # fmt: skip

    (message,) = collector.of("/v1/traces")
    groups = {plain(group.resource.attributes)["tracer.rank"]: group for group in message.resource_spans}
    (step,), (load,) = (groups[rank].scope_spans[0].spans for rank in (0, 2))
    assert (step.trace_id.hex(), step.span_id.hex(), step.parent_span_id) == ("ab" * 16, "cd" * 8, b"")
    assert (step.start_time_unix_nano, step.end_time_unix_nano, step.kind) == (5000, 9000, 1)
    found = plain(step.attributes)
    assert (found["tracer.step"], found["size"]) == (4, 3)
    assert math.isnan(float(str(found["nan"])))
    assert (load.parent_span_id.hex(), load.kind) == ("cd" * 8, 3)
    assert (load.status.code, load.status.message) == (2, "disk")


def test_the_span_encoder_stands_alone() -> None:
    content = resource_spans(RUN, [Span("step", "ab" * 16, "cd" * 8, 5, 9)], {"service.name": "mine"})

    (group,) = decoded("/v1/traces", json.loads(json.dumps(content))).resource_spans
    assert plain(group.resource.attributes)["service.name"] == "mine"


def test_facts_that_change_are_told_at_the_time_of_what_came_with_them(collector: Collector) -> None:
    backend = opened(collector)
    backend.write([Text("say", 1, RUN.started + 5, "x"), RunInfo("r1", "demo", "second", started=RUN.started)])

    *_, changed = collector.of("/v1/logs")[-1].resource_logs[0].scope_logs[0].log_records
    assert (changed.event_name, changed.time_unix_nano) == ("tracer.run.changed", (RUN.started + 5) * 1000)
    assert plain(collector.of("/v1/logs")[-1].resource_logs[0].resource.attributes)["tracer.run.name"] == "second"


def test_it_keeps_the_contract(collector: Collector) -> None:
    def read(remote: Mapping[str, str]) -> dict[str, list[tuple[int, float]]]:
        found: dict[str, list[tuple[int, float]]] = {}
        groups = [group for message in collector.of("/v1/metrics") for group in message.resource_metrics]
        mine = [group for group in groups if plain(group.resource.attributes)["tracer.run.id"] == remote["run"]]
        for metric in (metric for group in mine for metric in group.scope_metrics[0].metrics):
            points = [(plain(one.attributes)["tracer.step"], one.as_double) for one in metric.gauge.data_points]
            found.setdefault(metric.name, []).extend(points)
        return found

    with socket.create_server(("127.0.0.1", 0)) as free:
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
    check_backend(OtlpBackend, read=read, options={"endpoint": collector.url}, dead={"endpoint": dead})


# -------------------------------------------------- answers

LOSS = Points("loss", np.array([1, 2]), np.array([1, 2]), np.array([1.0, 2.0]))


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (429, {"Retry-After": "4"}, Throttled),
        (503, {}, Unreachable),
        (502, {}, Unreachable),
        (401, {}, Refused),
        (404, {}, Rejected),
        (500, {}, Rejected),
    ],
)
def test_an_answer_becomes_an_error(
    collector: Collector, status: int, headers: dict[str, str], error: type[BackendError]
) -> None:
    backend = opened(collector)
    collector.answers = [(status, headers, "{}")]

    with pytest.raises(error):
        backend.write([LOSS])

    backend.write([LOSS])
    assert len(collector.of("/v1/metrics")) == 2


def test_what_the_collector_did_not_take_is_counted(collector: Collector) -> None:
    backend = opened(collector)
    partly = {"partialSuccess": {"rejectedDataPoints": "1", "errorMessage": "too old"}}
    collector.answers = [(200, {}, json.dumps(partly))]

    with pytest.raises(Rejected, match="took all but 1 of 2 data points: too old") as found:
        backend.write([LOSS])
    assert found.value.lost == 1


@pytest.mark.parametrize(
    "body", ["", "[]", "null", '{"partialSuccess": null}', '{"partialSuccess": {}}', "\x00", "[" * 9999]
)
def test_a_body_that_says_nothing_of_it_means_all_was_taken(collector: Collector, body: str) -> None:
    backend = opened(collector)
    collector.answers = [(200, {}, body)]

    backend.write([LOSS])


def test_a_request_that_is_too_large_is_halved_until_only_what_is_to_blame_is_lost(collector: Collector) -> None:
    backend = opened(collector)
    too_large = (413, {}, "")
    collector.answers = [too_large, too_large, too_large, (200, {}, "{}"), (200, {}, "{}")]

    with pytest.raises(Rejected, match="HTTP 413") as found:
        backend.write([LOSS, LOSS, LOSS])

    sizes = [
        sum(len(metric.gauge.data_points) for metric in message.resource_metrics[0].scope_metrics[0].metrics)
        for message in collector.of("/v1/metrics")
    ]
    assert sizes == [6, 4, 2, 2, 2]
    assert found.value.lost == 2


def test_one_signal_that_is_refused_does_not_keep_the_others(collector: Collector) -> None:
    backend = opened(collector)
    collector.answers = [(404, {}, "")]

    with pytest.raises(Rejected, match="does not take 2 data points") as found:
        backend.write([LOSS, Text("say", 1, 1, "x"), Span("step", "ab" * 16, "cd" * 8, 5, 9)])

    assert found.value.lost == 2
    assert (len(collector.of("/v1/logs")), len(collector.of("/v1/traces"))) == (2, 1)


# -------------------------------------------------- where to


def test_only_the_signals_that_were_asked_for_are_sent(collector: Collector) -> None:
    backend = opened(collector, signals="traces")
    backend.write([LOSS, Text("say", 1, 1, "x"), Span("step", "ab" * 16, "cd" * 8, 5, 9)])

    assert [path for path, _, _ in collector.took] == ["/v1/traces"]


@pytest.mark.parametrize("path", ["", "/", "/v1/traces", "/v1/metrics/"])
def test_the_signal_is_appended_to_the_endpoint(collector: Collector, path: str) -> None:
    table.backend("otlp", {"endpoint": f"{collector.url}{path}"}).open(RUN, {})

    assert collector.took[0][0] == "/v1/logs"


def test_an_endpoint_below_a_path_keeps_it(collector: Collector) -> None:
    table.backend("otlp", {"endpoint": f"{collector.url}/otel"}).open(RUN, {})

    assert collector.took[0][0] == "/otel/v1/logs"


def test_the_variables_of_opentelemetry_are_honoured(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{collector.url}/otel")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.url}/v1/traces")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20abc,x-a=1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "x-a=2")
    backend = table.backend("otlp", {"headers": {"x-b": "3"}})
    backend.open(RUN, {})
    backend.write([LOSS, Span("step", "ab" * 16, "cd" * 8, 5, 9)])

    sent = {path: headers for path, headers, _ in collector.took}
    assert list(sent) == ["/otel/v1/logs", "/otel/v1/metrics", "/v1/traces"]
    assert [headers["x-a"] for headers in sent.values()] == ["2", "1", "1"]
    assert {(headers["authorization"], headers["x-b"]) for headers in sent.values()} == {("Basic abc", "3")}


@pytest.mark.parametrize(("key", "sent"), [("s3cret==", "Bearer s3cret=="), ("Authorization=Basic%20x", "Basic x")])
def test_a_key_is_a_bearer_or_headers(collector: Collector, key: str, sent: str) -> None:
    opened(collector, api_key=key)

    assert collector.took[0][1]["Authorization"] == sent


@pytest.mark.parametrize("options", [{"endpoint": "collector:4318"}, {"signals": "profiles"}, {"steps": "yes"}])
def test_options_that_cannot_be_are_said(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        table.backend("otlp", options)


def test_a_run_that_will_go_on_has_not_ended(collector: Collector) -> None:
    backend = opened(collector)
    backend.close("running", None)
    backend.open(RUN, {"run": "r1"})

    names = [message.resource_logs[0].scope_logs[0].log_records[0].event_name for message in collector.of("/v1/logs")]
    assert names == ["tracer.run.started", "tracer.run.resumed"]


def test_the_same_batch_is_the_same_bytes(collector: Collector) -> None:
    backend = opened(collector)
    for _ in range(2):
        backend.write([LOSS, Text("say", 1, 1, "x")])

    first, second = ([message.SerializeToString(deterministic=True) for message in collector.of(path)[-2:]]
                     for path in ("/v1/metrics", "/v1/logs"))  # fmt: skip
    assert first[0] == first[1]
    assert second[0] == second[1]
