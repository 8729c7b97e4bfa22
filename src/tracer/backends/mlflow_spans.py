"""Spans as MLflow's traces: by OTLP to a server, into the tables of a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tracer.backends.mlflow_client import Connection
from tracer.transfer import Span

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

_KINDS = ("internal", "server", "client", "producer", "consumer")
_STATUSES = {"ok": "STATUS_CODE_OK", "error": "STATUS_CODE_ERROR"}
_LARGEST = 2**63
#: So many traces one call may link to a run.
_LINKED = 100


def send(connection: Connection, experiment: str, run: str, spans: Sequence[Span]) -> None:
    """Send spans, and link their traces to the run; to be used inside `connection.calls()`."""
    from mlflow.entities import Span as TheirSpan
    from mlflow.tracing.client import TracingClient
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as Wire
    from opentelemetry.proto.trace.v1.trace_pb2 import Status

    made = [
        TheirSpan.from_otel_proto(
            Wire(
                trace_id=bytes.fromhex(span.trace),
                span_id=bytes.fromhex(span.id),
                parent_span_id=bytes.fromhex(span.parent or ""),
                name=span.name,
                kind=Wire.SpanKind.Value(f"SPAN_KIND_{span.kind.upper() if span.kind in _KINDS else 'INTERNAL'}"),
                start_time_unix_nano=span.started * 1000,
                end_time_unix_nano=span.ended * 1000,
                attributes=_attributes(span),
                status=Status(
                    code=Status.StatusCode.Value(_STATUSES.get(span.status, "STATUS_CODE_UNSET")),
                    message=span.message or "",
                ),
            )
        )
        for span in spans
    ]
    TracingClient(connection.uri).log_spans(experiment, made)
    traces = sorted({span.trace_id for span in made})
    for first in range(0, len(traces), _LINKED):
        connection.client.link_traces_to_run(traces[first : first + _LINKED], run)


def _attributes(span: Span) -> list[KeyValue]:
    """Return the attributes of a span, with our step and rank."""
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

    ours = {"tracer.step": span.step, "tracer.rank": span.rank or None}
    held = {**span.attributes, **{name: value for name, value in ours.items() if value is not None}}
    return [KeyValue(key=name, value=_value(value)) for name, value in held.items()]


def _value(value: object) -> AnyValue:
    """Return a value of an attribute."""
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int) and -_LARGEST <= value < _LARGEST:
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, (list, tuple)):
        return AnyValue(array_value=ArrayValue(values=[_value(one) for one in value]))
    if isinstance(value, Mapping):
        pairs = [KeyValue(key=str(name), value=_value(one)) for name, one in value.items()]
        return AnyValue(kvlist_value=KeyValueList(values=pairs))
    return AnyValue(string_value=str(value))
