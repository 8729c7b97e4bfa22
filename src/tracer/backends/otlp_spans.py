"""Spans of ours as OTLP's `ExportTraceServiceRequest`, in JSON; the peers that take traces share it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tracer.backends.otlp_values import Json, attributes, nanoseconds, resource, scope, text
from tracer.transfer import RunInfo, Span

_KINDS = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
_CODES = {"unset": 0, "ok": 1, "error": 2}


def resource_spans(run: RunInfo, spans: Iterable[Span], more: Mapping[str, object] | None = None) -> Json:
    """Return what is posted to `/v1/traces`: the spans of each rank under a resource of its own.

    Args:
        run: Whose spans they are.
        spans: In any order.
        more: Further attributes of the resource.

    Example:
        >>> run = RunInfo("r", "docs", "first", started=0)
        >>> sent = resource_spans(run, [Span("step", "ab" * 16, "cd" * 8, started=1, ended=3)])
        >>> sent["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["endTimeUnixNano"]
        '3000'
    """
    ranks: dict[int, list[Json]] = {}
    for span in spans:
        ranks.setdefault(span.rank, []).append(span_json(span))
    return {
        "resourceSpans": [
            {
                "resource": resource(run, {"tracer.rank": rank, **(more or {})}),
                "scopeSpans": [{"scope": scope(), "spans": found}],
            }
            for rank, found in ranks.items()
        ]
    }


def span_json(span: Span) -> Json:
    """Return one span; its ids stay the hexadecimal that they are."""
    status: Json = {"code": _CODES.get(span.status, 0)}
    if span.message:
        status["message"] = text(span.message)
    found: Json = {
        "traceId": span.trace,
        "spanId": span.id,
        "name": text(span.name),
        "kind": _KINDS.get(span.kind, 1),
        "startTimeUnixNano": nanoseconds(span.started),
        "endTimeUnixNano": nanoseconds(span.ended),
        "attributes": attributes({"tracer.step": span.step, **span.attributes}),
        "status": status,
    }
    if span.parent:
        found["parentSpanId"] = span.parent
    return found
