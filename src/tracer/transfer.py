"""What travels between a run of ours and another tracker: plain values, in the order in which they happened.

The store turns a run into a stream of these, and a stream of these into a run; a back end takes them or yields them.
So neither knows the other. Times are whole microseconds since 1970 UTC; arrays are numpy's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tracer import events

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Integers = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

#: The kinds of events, as rules and back ends name them.
POINTS, TEXT, LOG, MEDIA, HISTOGRAM, FILE, FACTS, SPAN, LAYER = (
    "points", "text", "log", "media", "histogram", "file", "facts", "span", "layer",
)  # fmt: skip
KINDS = (POINTS, TEXT, LOG, MEDIA, HISTOGRAM, FILE, FACTS, SPAN, LAYER)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What is known of a run besides what happened in it; also the event that tells a change of it (`FACTS`)."""

    uid: str
    project: str
    name: str
    started: int
    status: str = events.COMPLETED
    ended: int | None = None
    steps: int = 0
    group: str | None = None
    job_type: str | None = None
    notes: str | None = None
    tags: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, object] = field(default_factory=dict)
    summary: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)
    git: Mapping[str, object] = field(default_factory=dict)
    #: Where an imported run comes from, as `mlflow:<its id there>`; empty for a run that was recorded here.
    origin: str = ""

    KIND = FACTS


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Values of one metric of one rank, in the order in which they were logged; the last of a step is the one kept."""

    name: str
    steps: Integers
    times: Integers
    values: Floats
    rank: int = 0

    #: `LAYER` for the statistics of a model's layers, which only a rule sends anywhere.
    KIND = POINTS

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True, slots=True, eq=False)
class LayerPoints(Points):
    """One statistic of one layer, as a metric: `gradients/<layer>/norm`."""

    KIND = LAYER


@dataclass(frozen=True, slots=True)
class Text:
    """A metric's value that is text."""

    name: str
    step: int
    time: int
    body: str
    rank: int = 0

    KIND = TEXT


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of output, a record of `logging`, or an event with a name."""

    kind: str
    time: int
    body: str | None = None
    name: str | None = None
    level: str | None = None
    step: int | None = None
    fields: Mapping[str, object] = field(default_factory=dict)
    rank: int = 0

    KIND = LOG


@dataclass(frozen=True, slots=True)
class Media:
    """Something to look at or listen to; the bytes are a file's or stand here, small data in `fields`."""

    name: str
    kind: str
    step: int
    time: int
    path: str | None = None
    data: bytes | None = None
    suffix: str = ""
    caption: str | None = None
    fields: Mapping[str, object] = field(default_factory=dict)
    rank: int = 0

    KIND = MEDIA


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values lie between neighbouring edges; one edge more than counts."""

    name: str
    step: int
    time: int
    edges: tuple[float, ...]
    counts: tuple[float, ...]
    rank: int = 0

    KIND = HISTOGRAM


@dataclass(frozen=True, slots=True)
class Part:
    """One file of an artifact."""

    path: str
    local: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class File:
    """One version of an artifact: its files, by their path inside it."""

    name: str
    type: str
    version: str
    parts: tuple[Part, ...]
    time: int = 0
    step: int | None = None
    aliases: tuple[str, ...] = ()
    metadata: Mapping[str, object] = field(default_factory=dict)

    KIND = FILE


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of work with a beginning and an end; ids are lower-case hexadecimal (32 and 16 digits)."""

    name: str
    trace: str
    id: str
    started: int
    ended: int
    parent: str | None = None
    kind: str = "internal"
    status: str = "unset"
    message: str | None = None
    attributes: Mapping[str, object] = field(default_factory=dict)
    step: int | None = None
    rank: int = 0

    KIND = SPAN


Event = RunInfo | Points | Text | LogLine | Media | Histogram | File | Span


def sha256(path: str) -> str:
    """Return the digest of a file, as parts of artifacts have it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rows(points: Iterable[Points]) -> Iterator[tuple[int, int, int, dict[str, float]]]:
    """Yield `step, time, rank, values`: what was logged together, as peers that think in rows want it.

    The rows come in the order of time; of one series they stay in its own order.

    Example:
        >>> import numpy as np
        >>> one = Points("a", np.array([1]), np.array([5]), np.array([0.5]))
        >>> two = Points("b", np.array([1]), np.array([5]), np.array([2.0]))
        >>> list(rows([one, two]))
        [(1, 5, 0, {'a': 0.5, 'b': 2.0})]
    """
    found: list[tuple[int, int, int, int, dict[str, float]]] = []
    at: dict[tuple[int, int, int, int], dict[str, float]] = {}
    seen: dict[tuple[str, int, int, int], int] = {}
    for series in points:
        triples = zip(series.steps.tolist(), series.times.tolist(), series.values.tolist(), strict=True)
        for step, time, value in triples:
            # The same metric twice at one step and time is two rows.
            turn = seen.get((series.name, series.rank, step, time), 0)
            seen[series.name, series.rank, step, time] = turn + 1
            key = (time, step, series.rank, turn)
            row = at.get(key)
            if row is None:
                row = at[key] = {}
                found.append((*key, row))
            row[series.name] = value
    found.sort(key=lambda one: one[0])
    for time, step, rank, _, row in found:
        yield step, time, rank, row


def digest(points: Iterable[Points]) -> str:
    """Return what two sides of a move must agree on: steps and values of one series, bit for bit.

    The last value of a step counts, sorted by step; every NaN is one NaN. Times are left out: peers round them.

    Example:
        >>> import numpy as np
        >>> late = Points("a", np.array([1, 1]), np.array([5, 6]), np.array([0.5, 2.0]))
        >>> plain = Points("a", np.array([1]), np.array([0]), np.array([2.0]))
        >>> digest([late]) == digest([plain])
        True
    """
    steps, _, values = settled(points)
    return hashlib.sha256(steps.astype("<i8").tobytes() + values.astype("<f8").tobytes()).hexdigest()


def settled(points: Iterable[Points]) -> tuple[Integers, Integers, Floats]:
    """Return steps, times and values of one series: sorted by step, the last value of each, NaN as one NaN."""
    import numpy as np

    chunks = list(points)
    if not chunks:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64)
    steps = np.concatenate([np.asarray(chunk.steps, np.int64) for chunk in chunks])
    times = np.concatenate([np.asarray(chunk.times, np.int64) for chunk in chunks])
    values = np.concatenate([np.asarray(chunk.values, np.float64) for chunk in chunks])
    order = np.argsort(steps, kind="stable")
    steps, times, values = steps[order], times[order], values[order]
    last = np.append(steps[1:] != steps[:-1], True) if len(steps) else np.empty(0, bool)
    values = np.where(np.isnan(values), np.nan, values)
    return steps[last], times[last], values[last]


def run_info(facts: Mapping[str, object]) -> RunInfo:
    """Return what `run.json` says of a run, as it travels."""

    def mapping(name: str) -> Mapping[str, object]:
        found = facts.get(name)
        return found if isinstance(found, dict) else {}

    def text(name: str) -> str | None:
        found = facts.get(name)
        return None if found is None else str(found)

    def whole(name: str) -> int | None:
        found = facts.get(name)
        return int(found) if isinstance(found, (int, float)) else None

    tags = facts.get("tags")
    return RunInfo(
        uid=str(facts.get("id", "")),
        project=str(facts.get("project", "default")),
        name=str(facts.get("name", "")),
        started=whole("started") or 0,
        status=str(facts.get("status", events.RUNNING)),
        ended=whole("ended"),
        steps=whole("steps") or 0,
        group=text("group"),
        job_type=text("job_type"),
        notes=text("notes"),
        tags=tuple(str(tag) for tag in tags) if isinstance(tags, (list, tuple)) else (),
        labels={name: str(value) for name, value in mapping("labels").items()},
        params=mapping("config"),
        summary=mapping("summary"),
        environment=mapping("environment"),
        git=mapping("git"),
        origin=text("origin") or "",
    )
