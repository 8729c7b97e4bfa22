"""The newest values of a run to Prometheus: on a page that it scrapes, or to a push gateway that it scrapes later."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar
from urllib.parse import quote, urlsplit, urlunsplit

from tracer import transfer
from tracer.backends import posting
from tracer.backends.base import Backend, Limits, RemoteIds, Unreachable
from tracer.backends.posting import Address
from tracer.backends.prometheus_serving import Serving
from tracer.backends.prometheus_text import CONTENT_TYPE, SERIES, Newest
from tracer.errors import ConfigError
from tracer.events import RUNNING
from tracer.transfer import Event, Points, RunInfo

#: The port that OpenTelemetry's exporters for Prometheus have, and Prometheus' own list gives to them.
PORT = 9464
_PLAIN = re.compile(r"[A-Za-z0-9_.~-]+")


class PrometheusBackend(Backend):
    """One run, as Prometheus sees it: its newest values.

    Options: `port` of the page (9464; 0 for a free one; not opened when only a `gateway` is named) and the `host` that
    it listens on (127.0.0.1); `gateway`, the address of a push gateway, with `job` and `headers`; `series`, how many
    are shown; `timeout_s`.
    """

    name: ClassVar[str] = "prometheus"
    kinds: ClassVar[frozenset[str]] = frozenset({transfer.POINTS, transfer.LAYER, transfer.FACTS})
    limits: ClassVar[Limits] = Limits(
        batch=10_000,
        repeatable=True,
        losses={
            "all values but the newest": "not sent: Prometheus makes its own series of what it scrapes",
            "steps and times of values": "the highest step is `tracer_step`; a value has the time of its scrape",
            "series beyond 10,000": "those told longest ago are left out and counted; `series` moves the limit",
            "parameters, summaries, text, logs, media, artifacts and spans": "not sent",
        },
    )

    def __init__(self, options: Mapping[str, object]) -> None:
        super().__init__(options)
        gateway = str(options.get("gateway") or options.get("url") or "")
        self._port = _whole(options, "port", -1 if gateway else PORT)
        self._host = str(options.get("host") or "127.0.0.1")
        self._gateway, self._job = gateway, str(options.get("job") or "tracer")
        self._headers = posting.headers_of(options.get("headers"), "headers")
        if gateway:
            Address(gateway, self._headers, what="gateway")  # a mistake is said now, not when the run begins
        self._timeout_s = float(str(options.get("timeout_s") or posting.TIMEOUT_S))
        self._newest = Newest(_whole(options, "series", SERIES))
        self._serving: Serving | None = None
        self._group: Address | None = None

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Open the page, and say to the gateway that the run is there."""
        del remote
        self._newest.about(run)
        if self._serving is None and self._port >= 0:
            try:
                self._serving = Serving(self._host, self._port, self._newest.text)
            except OSError as error:
                message = (
                    f"Port {self._port} of {self._host} cannot be opened for Prometheus: {error.strerror}. "
                    "Another run may hold it; name another with the option `port`, or 0 for a free one."
                )
                raise Unreachable(message) from None
        if self._gateway:
            self._group = Address(grouped(self._gateway, self._job, run.uid), self._headers, what="gateway")
            self._push("the beginning of the run", 0)
        return {"run": run.uid}

    def write(self, events: Sequence[Event]) -> None:
        """Take the newest values, and push them."""
        for event in events:
            if isinstance(event, RunInfo):
                self._newest.about(event)
            elif isinstance(event, Points):
                self._newest.take(event)
        if events:
            points = sum(len(event) for event in events if isinstance(event, Points))
            self._push(f"{points} points", points)

    def close(self, status: str, ended: int | None) -> None:
        """Close the page, so that the series end; what a gateway has is its last and stays there, with the status."""
        del ended
        if self._group is not None and status != RUNNING:
            self._newest.status(status)
        serving, self._serving = self._serving, None
        try:
            self._push("the end of the run", 0)
        finally:
            if serving is not None:
                serving.close()

    def url(self) -> str | None:
        """Return where the values are seen."""
        if self._serving is not None:
            return f"http://{self._host}:{self._serving.port}/metrics"
        return self._group.shown if self._group is not None else None

    def _push(self, what: str, points: int) -> None:
        """Replace what the gateway has of this run."""
        if self._group is None:
            return
        headers = {"Content-Type": CONTENT_TYPE}
        answer = self._group.send(self._newest.text(), headers, method="PUT", timeout_s=self._timeout_s)
        posting.judge(answer, self._group, what, points)


def grouped(gateway: str, job: str, run: str) -> str:
    """Return the address of one run in a gateway; text that a path cannot hold travels in base64, as gateways have it.

    Example:
        >>> grouped("http://gateway:9091/", "night/7", "r1")
        'http://gateway:9091/metrics/job@base64/bmlnaHQvNw/instance/r1'
    """
    parts = urlsplit(gateway)
    path = "".join(f"/{_segment(name, value)}" for name, value in (("job", job), ("instance", run)))
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/metrics{path}"))


def _segment(name: str, value: str) -> str:
    if _PLAIN.fullmatch(value) and value not in {".", ".."}:
        return f"{name}/{quote(value)}"
    told = base64.urlsafe_b64encode(value.encode("utf-8", "replace")).decode("ascii").rstrip("=")
    return f"{name}@base64/{told or '='}"


def _whole(options: Mapping[str, object], name: str, default: int) -> int:
    """Return a whole number among the options."""
    told = options.get(name)
    if told is None or told == "":
        return default
    try:
        return int(str(told))
    except ValueError:
        message = f"The option {name}={told!r} of Prometheus is no whole number."
        raise ConfigError(message) from None
