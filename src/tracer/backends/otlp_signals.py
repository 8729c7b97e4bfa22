"""Points and histograms as OTLP's metrics, and what is said in words as its log records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from tracer.backends.otlp_values import Json, any_value, attributes, double, nanoseconds, text
from tracer.transfer import Histogram, LogLine, Points, RunInfo, Text

#: The names of levels → OTLP's numbers for them.
_SEVERITIES = {"TRACE": 1, "DEBUG": 5, "INFO": 9, "WARNING": 13, "WARN": 13, "ERROR": 17, "CRITICAL": 21, "FATAL": 21}
_DELTA = 1


def metrics(events: Iterable[Points | Histogram], *, steps: bool) -> list[Json]:
    """Return metrics, one for each name, with all their data points in the order of the events.

    Args:
        events: The points and histograms.
        steps: Whether each point says its step.
    """
    gauges: dict[str, list[Json]] = {}
    histograms: dict[str, list[Json]] = {}
    for event in events:
        if isinstance(event, Points):
            gauges.setdefault(event.name, []).extend(_gauge_points(event, steps=steps))
        else:
            histograms.setdefault(event.name, []).append(_histogram_point(event, steps=steps))
    found: list[Json] = [{"name": text(name), "gauge": {"dataPoints": points}} for name, points in gauges.items()]
    found += [
        {"name": text(name), "histogram": {"dataPoints": points, "aggregationTemporality": _DELTA}}
        for name, points in histograms.items()
    ]
    return found


def _gauge_points(series: Points, *, steps: bool) -> Iterator[Json]:
    triples = zip(series.steps.tolist(), series.times.tolist(), series.values.tolist(), strict=True)
    for step, time, value in triples:
        where = attributes({"tracer.step": step if steps else None, "tracer.rank": series.rank})
        yield {"timeUnixNano": nanoseconds(time), "asDouble": double(value), "attributes": where}


def _histogram_point(event: Histogram, *, steps: bool) -> Json:
    """Return one histogram. Outermost buckets of OTLP are open: ours get empty ones outside, or are open too."""
    counts = [round(count) for count in event.counts]
    edges = list(event.edges)
    below = [0] if edges and math.isfinite(edges[0]) else []
    above = [0] if edges and math.isfinite(edges[-1]) else []
    bounds = [edge for edge in edges if math.isfinite(edge)]
    return {
        "timeUnixNano": nanoseconds(event.time),
        "count": str(sum(counts)),
        "bucketCounts": [str(count) for count in [*below, *counts, *above]],
        "explicitBounds": bounds,
        "attributes": attributes({"tracer.step": event.step if steps else None, "tracer.rank": event.rank}),
    }


def text_record(event: Text) -> Json:
    """Return a metric's text."""
    where = {"tracer.metric": event.name, "tracer.step": event.step, "tracer.rank": event.rank}
    return record("tracer.text", event.time, event.body, where)


def line_record(event: LogLine) -> Json:
    """Return a line of output, a record of `logging` or an event with a name."""
    where = {"tracer.kind": event.kind, "tracer.step": event.step, "tracer.rank": event.rank, **event.fields}
    found = record(event.name or f"tracer.{event.kind}", event.time, event.body or event.name or "", where)
    level = (event.level or "").upper()
    if level:
        found["severityText"] = text(level)
        found["severityNumber"] = _SEVERITIES.get(level, 0)
    return found


def facts_record(run: RunInfo, name: str, time: int) -> Json:
    """Return what is known of a run, as an event."""
    told: dict[str, object] = {
        "status": run.status,
        "started": run.started,
        "ended": run.ended,
        "steps": run.steps,
        "params": run.params,
        "summary": run.summary,
        "tags": run.tags,
        "labels": run.labels,
        "notes": run.notes,
        "environment": run.environment,
        "git": run.git,
    }
    kept = {key: value for key, value in told.items() if value is not None and value not in ({}, ())}
    return record(name, time, kept, {})


def record(name: str, time: int, body: object, where: Mapping[str, object]) -> Json:
    """Return one log record; its name also stands among the attributes, where older collectors look for it."""
    return {
        "timeUnixNano": nanoseconds(time),
        "observedTimeUnixNano": nanoseconds(time),
        "eventName": text(name),
        "body": any_value(body),
        "attributes": attributes({"event.name": name, **where}),
    }
