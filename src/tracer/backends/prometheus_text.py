"""The newest value of every series of a run, and how Prometheus reads it: text, format 0.0.4.

# HELP tracer_metric The newest value of a metric.
# TYPE tracer_metric gauge
tracer_metric{project="demo",run="first",metric="loss",rank="0"} 0.25
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from tracer.transfer import Points, RunInfo

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: So many series of one run are shown; a server that scrapes is brought down by names that never end.
SERIES = 10_000

_Labels = Mapping[str, str]


class Newest:
    """The newest values; a batch that comes twice changes nothing.

    The threads that answer scrapes read what the lane's thread writes, so both take the lock.
    """

    def __init__(self, limit: int = SERIES) -> None:
        self._limit, self._lock = limit, threading.Lock()
        #: (metric, rank) → time, value; those that were told last stand last.
        self._values: dict[tuple[str, int], tuple[int, float]] = {}
        self._steps: dict[int, int] = {}
        self._run = RunInfo("", "", "", started=0)
        self._points = self._dropped = self._time = 0

    def about(self, run: RunInfo) -> None:
        """Take what is known of the run."""
        with self._lock:
            self._run = run

    def status(self, status: str) -> None:
        """Say how the run ended."""
        with self._lock:
            self._run = replace(self._run, status=status)

    def take(self, series: Points) -> None:
        """Take points: of those of a time, and of all times, the last counts."""
        if not len(series):
            return
        key = (series.name, series.rank)
        time, value = int(series.times[-1]), float(series.values[-1])
        with self._lock:
            self._points += len(series)
            self._time = max(self._time, time)
            known = self._values.pop(key, None)
            self._values[key] = known if known is not None and known[0] > time else (time, value)
            if not series.name.startswith(("system/", "tracer/")):
                self._steps[series.rank] = max(self._steps.get(series.rank, -(2**63)), int(series.steps.max()))
            if len(self._values) > self._limit:
                del self._values[next(iter(self._values))]
                self._dropped += 1

    def text(self) -> bytes:
        """Return everything as Prometheus reads it."""
        with self._lock:
            return "".join(self._lines()).encode("utf-8", "replace")

    def _lines(self) -> Iterator[str]:
        run = self._run
        names = {"project": run.project, "run": run.name}
        system: list[tuple[_Labels, float]] = []
        metrics: list[tuple[_Labels, float]] = []
        for (name, rank), (_, value) in self._values.items():
            bare = name.removeprefix("system/")
            rows = metrics if bare == name else system
            rows.append(({**names, "metric": bare, "rank": str(rank)}, value))
        yield from family("tracer_metric", "gauge", "The newest value of a metric.", metrics)
        yield from family("tracer_system", "gauge", "The newest value of what the machine and process say.", system)
        steps = [({**names, "rank": str(rank)}, float(step)) for rank, step in self._steps.items()]
        yield from family("tracer_step", "gauge", "The highest step so far.", steps)
        told = {"run_id": run.uid, "group": run.group or "", "job_type": run.job_type or "", "status": run.status}
        yield from family("tracer_run_info", "gauge", "What is known of a run; always 1.", [({**names, **told}, 1.0)])
        for name, kind, about, value in (
            ("tracer_run_started_timestamp_seconds", "gauge", "When the run began.", run.started / 1e6),
            ("tracer_last_point_timestamp_seconds", "gauge", "When the newest point was logged.", self._time / 1e6),
            ("tracer_points_total", "counter", "Points that were taken.", float(self._points)),
            ("tracer_series", "gauge", "Series that are shown.", float(len(self._values))),
            ("tracer_series_dropped_total", "counter", "Series that made room for newer ones.", float(self._dropped)),
        ):
            yield from family(name, kind, about, [(names, value)])


def family(name: str, kind: str, about: str, rows: Sequence[tuple[_Labels, float]]) -> Iterator[str]:
    """Yield the lines of one family; one without values is left out."""
    if not rows:
        return
    yield f"# HELP {name} {about}\n# TYPE {name} {kind}\n"
    for labels, value in rows:
        told = ",".join(f'{label}="{escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{told}}} {number(value)}\n"


def escaped(text: str) -> str:
    """Return a label's value as it stands between quotes."""
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def number(value: float) -> str:
    """Return a value, with every digit that it has.

    Example:
        >>> number(float("inf")), number(0.1), number(3.0)
        ('+Inf', '0.1', '3.0')
    """
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
