"""A run to any OpenTelemetry collector: points as gauges, words as log records, spans as spans: OTLP/HTTP in JSON."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from tracer import transfer
from tracer.backends import posting
from tracer.backends.base import Backend, Limits, Rejected, RemoteIds
from tracer.backends.otlp_signals import facts_record, line_record, metrics, text_record
from tracer.backends.otlp_spans import resource_spans
from tracer.backends.otlp_values import Json, resource, scope
from tracer.backends.posting import Address, NotTaken, headers_of
from tracer.errors import ConfigError
from tracer.events import RUNNING
from tracer.transfer import Event, Histogram, LogLine, Points, RunInfo, Span, Text

SIGNALS = ("metrics", "logs", "traces")
#: What a collector counts as refused, by signal.
_REFUSED = {"metrics": "rejectedDataPoints", "logs": "rejectedLogRecords", "traces": "rejectedSpans"}
_THINGS = {"metrics": "data points", "logs": "log records", "traces": "spans"}
#: A request that is too large, or has one bad item among good ones, is halved so often.
_HALVINGS = 8


class OtlpBackend(Backend):
    """One run in one collector.

    Options: `endpoint` (else `OTEL_EXPORTER_OTLP_ENDPOINT`, else this machine's port 4318), to which `/v1/metrics`,
    `/v1/logs` and `/v1/traces` are appended; `headers`; `signals`, those that the collector takes; `steps`, whether
    each point says its step; `timeout_s`.
    """

    name: ClassVar[str] = "otlp"
    kinds: ClassVar[frozenset[str]] = frozenset({
        transfer.POINTS, transfer.LAYER, transfer.TEXT, transfer.LOG, transfer.HISTOGRAM, transfer.FACTS, transfer.SPAN,
    })  # fmt: skip
    limits: ClassVar[Limits] = Limits(
        batch=1000,
        # OTLP has no key of a batch; whether a point that comes twice is kept twice is the collector's affair.
        repeatable=False,
        losses={
            "media and artifacts": "not sent",
            "steps": "an attribute of each point, `tracer.step`; steps='none' leaves it out",
            "counts of a histogram": "rounded to whole numbers",
            "integers beyond 64 bits": "sent as text",
            "a batch whose answer was lost": "sent again, with the same times and ids",
        },
    )

    def __init__(self, options: Mapping[str, object]) -> None:
        super().__init__(options)
        asked = options.get("signals") or SIGNALS
        self._signals = tuple(asked.split(",") if isinstance(asked, str) else (str(one) for one in _each(asked)))
        if unknown := set(self._signals) - set(SIGNALS):
            message = f"The option signals={sorted(unknown)} of OTLP is not known. Known: {', '.join(SIGNALS)}."
            raise ConfigError(message)
        if options.get("steps", "attribute") not in {"attribute", "none"}:
            message = f"The option steps={options['steps']!r} of OTLP is not known. Known: attribute, none."
            raise ConfigError(message)
        self._steps = options.get("steps", "attribute") == "attribute"
        self._timeout_s = float(str(options.get("timeout_s") or posting.TIMEOUT_S))
        self._addresses = {signal: _address(signal, options) for signal in self._signals}
        self._run = RunInfo("", "", "", started=0)
        #: When the newest of what was sent happened: the time of what has none of its own.
        self._latest = 0

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Say that the run began, or goes on; there is nothing to create in a collector."""
        self._run, self._latest = run, max(self._latest, run.started)
        name = "tracer.run.resumed" if remote else "tracer.run.started"
        self._tell(facts_record(run, name, run.started))
        return {"run": run.uid}

    def write(self, events: Sequence[Event]) -> None:
        """Send each signal's part; when one is refused the others are sent all the same."""
        records: list[Json] = []
        for event in events:
            self._latest = max(self._latest, _time(event))
            if isinstance(event, RunInfo):
                self._run = event
                records.append(facts_record(event, "tracer.run.changed", self._latest))
            elif isinstance(event, Text):
                records.append(text_record(event))
            elif isinstance(event, LogLine):
                records.append(line_record(event))
        refused: list[Rejected] = []
        for signal, items in (
            ("metrics", [event for event in events if isinstance(event, (Points, Histogram))]),
            ("logs", records),
            ("traces", [event for event in events if isinstance(event, Span)]),
        ):
            refused += self._send(signal, items, _HALVINGS)
        if refused:
            lost = sum(error.lost or 0 for error in refused)
            raise Rejected(" ".join(dict.fromkeys(str(error) for error in refused[:3])), lost)

    def close(self, status: str, ended: int | None) -> None:
        """Say how the run ended."""
        if status == RUNNING:
            return
        time = self._latest if ended is None else ended
        known = replace(self._run, status=status, ended=ended)
        self._tell(facts_record(known, "tracer.run.ended", time))

    def url(self) -> str | None:
        """Return where the collector is."""
        return next(iter(self._addresses.values())).shown if self._addresses else None

    def _tell(self, record: Json) -> None:
        """Send one record; what is known of the run is no loss that is counted."""
        for error in self._send("logs", [record], 0):
            raise Rejected(str(error), 0)

    def _send(self, signal: str, items: Sequence[object], halvings: int) -> list[Rejected]:
        """Send items of one signal, in halves where the whole is not taken; return what was not taken at all."""
        if not items or signal not in self._addresses:
            return []
        try:
            self._post(signal, items)
        except NotTaken as error:
            if len(items) > 1 and error.status in posting.PARTED and halvings:
                half = (len(items) + 1) // 2
                parts = items[:half], items[half:]
                return [one for part in parts for one in self._send(signal, part, halvings - 1)]
            error.lost = _count(items)
            return [error]
        except Rejected as error:
            return [error]
        return []

    def _post(self, signal: str, items: Sequence[object]) -> None:
        """Post one request and count what the collector says that it did not take."""
        address = self._addresses[signal]
        body = gzip.compress(json.dumps(_BODIES[signal](self, items), separators=(",", ":")).encode(), 1, mtime=0)
        what = f"{_count(items)} {_THINGS[signal]}"
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        answer = address.send(body, headers, timeout_s=self._timeout_s)
        posting.judge(answer, address, what)
        refused, why = _partial(answer.body, _REFUSED[signal])
        if refused:
            message = f"{address.shown} took all but {refused} of {what}{f': {why}' if why else ''}."
            raise Rejected(message, refused)

    def _metrics(self, items: Sequence[object]) -> Json:
        found = metrics((one for one in items if isinstance(one, (Points, Histogram))), steps=self._steps)
        scoped = [{"scope": scope(), "metrics": found}]
        return {"resourceMetrics": [{"resource": resource(self._run), "scopeMetrics": scoped}]}

    def _logs(self, items: Sequence[object]) -> Json:
        scoped = [{"scope": scope(), "logRecords": list(items)}]
        return {"resourceLogs": [{"resource": resource(self._run), "scopeLogs": scoped}]}

    def _traces(self, items: Sequence[object]) -> Json:
        return resource_spans(self._run, (one for one in items if isinstance(one, Span)))


_BODIES: Mapping[str, Callable[[OtlpBackend, Sequence[object]], Json]] = {
    "metrics": OtlpBackend._metrics,  # noqa: SLF001 (the same file)
    "logs": OtlpBackend._logs,  # noqa: SLF001
    "traces": OtlpBackend._traces,  # noqa: SLF001
}


def _address(signal: str, options: Mapping[str, object]) -> Address:
    """Return where a signal goes: what was asked for, else what OpenTelemetry's own variables say."""
    asked = str(options.get("endpoint") or options.get("url") or "")
    prefix = "OTEL_EXPORTER_OTLP"
    own = "" if asked else os.environ.get(f"{prefix}_{signal.upper()}_ENDPOINT", "")
    base = asked or os.environ.get(f"{prefix}_ENDPOINT") or "http://localhost:4318"
    headers = headers_of(os.environ.get(f"{prefix}_HEADERS"), "OTEL_EXPORTER_OTLP_HEADERS")
    headers |= headers_of(os.environ.get(f"{prefix}_{signal.upper()}_HEADERS"), f"{prefix}_{signal.upper()}_HEADERS")
    headers |= headers_of(_key(options.get("api_key")), "api_key") | headers_of(options.get("headers"), "headers")
    return Address(own or _appended(base, signal), headers, what="endpoint")


def _appended(base: str, signal: str) -> str:
    """Return a signal's address; one that names another signal already is told of this one instead."""
    stem, question, query = base.partition("?")
    stem = stem.rstrip("/")
    for other in SIGNALS:
        stem = stem.removesuffix(f"/v1/{other}")
    return f"{stem}/v1/{signal}{question}{query}"


def _key(key: object) -> object:
    """Return a key as headers: as OpenTelemetry's variable has it, or alone."""
    return key if not key or "=" in str(key).rstrip("=") else {"Authorization": f"Bearer {key}"}


def _partial(body: bytes, name: str) -> tuple[int, str]:
    """Return how many items the collector did not take, and why; a body that says nothing of it means none."""
    try:
        told = json.loads(body).get("partialSuccess") or {}
        return max(int(told.get(name) or 0), 0), str(told.get("errorMessage") or "")[:200]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return 0, ""


def _count(items: Sequence[object]) -> int:
    return sum(len(one) if isinstance(one, Points) else 1 for one in items)


def _time(event: Event) -> int:
    """Return when an event, or the last of its points, happened."""
    if isinstance(event, Points):
        return int(event.times[-1]) if len(event) else 0
    if isinstance(event, (RunInfo, Span)):
        return event.ended or event.started
    return event.time


def _each(asked: object) -> Iterable[object]:
    return asked if isinstance(asked, (list, tuple, set, frozenset)) else (asked,)
