"""What a peer cannot hold, and how much of that a run has: counted before a move, named as reasons after it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tracer.backends.base import Backend, Limits
from tracer.migration.reports import Loss
from tracer.transfer import FILE, HISTOGRAM, LAYER, LOG, MEDIA, POINTS, SPAN, TEXT, Event, File, Points, RunInfo

#: What is counted, each with the words by which the tables of limits speak of it.
NAN, INFINITE, NEGATIVE_ZERO, RANK, STEP, PRECISION = "NaN", "±Inf", "-0.0", "rank", "step", "precision"
NAMES, TIMES, PARAMS, TAGS, NOTES, SUMMARY, STATUS, GROUP = (
    "names", "times", "params", "tags", "notes", "summary", "status", "group",
)  # fmt: skip
NEVER, NEGATIVE_STEP, HUGE, ODD_NAMES, VERSIONS = "never", "negative step", "huge", "odd names", "versions"
#: What a table speaks of narrowly; the first that fits is meant, and nothing else.
_NARROW: Mapping[str, str] = {
    NEGATIVE_STEP: r"negative step",
    HUGE: r"beyond (64|53) bits|beyond 2",
    VERSIONS: r"earlier versions|older versions",
    ODD_NAMES: r"names with|long names|names longer|characters",
    PRECISION: r"64 bits|float32|precision",
    # A whole run has one value for each step, comes once, and is told to no server whose options are strange.
    NEVER: r"of one step|equal values|chang(e|ed)\b.*(after|batch)|backwards|lost|`remote_uri`|acknowledg",
}
_WORDS: Mapping[str, str] = {
    NAN: r"\bnan\b|non-?finite|not finite",
    INFINITE: r"\binf|infinit|non-?finite|not finite",
    NEGATIVE_ZERO: r"[-\u2212]0\b|negative zero|minus zero",
    RANK: r"\branks?\b",
    STEP: r"\bsteps?\b",
    PRECISION: r"float32|precision|rounded|digits",
    TEXT: r"\btexts?\b",
    LOG: r"\blogs?\b|\blines?\b|output|console",
    HISTOGRAM: r"histogram",
    MEDIA: r"media|image|picture|audio|video|html|\btables?\b",
    FILE: r"\bfiles?\b|artifact",
    SPAN: r"\bspans?\b|\btraces?\b",
    LAYER: r"\blayers?\b",
    PARAMS: r"param|config",
    TAGS: r"\btags?\b|labels?\b",
    NOTES: r"\bnotes?\b",
    SUMMARY: r"summar",
    STATUS: r"status|crashed|failed",
    GROUP: r"\bgroups?\b|job.?type",
    NAMES: r"\bnames?\b",
    TIMES: r"\btimes?\b|millisecond|microsecond|\bdates?\b|started|ended",
}
_SHOWN = {
    TEXT: "text", LOG: "log lines", MEDIA: "media", HISTOGRAM: "histograms", FILE: "artifacts", SPAN: "spans",
    LAYER: "statistics of layers",
}  # fmt: skip
_SAFE_STEP = 1 << 53
_PLAIN = re.compile(r"[A-Za-z0-9_./ -]{1,200}")


@dataclass(slots=True)
class Census:
    """How much of what a run has."""

    counts: Counter[str] = field(default_factory=Counter)
    series: set[tuple[str, int]] = field(default_factory=set)
    _files: set[str] = field(default_factory=set)

    @property
    def points(self) -> int:
        """Return how many points there are."""
        return self.counts[POINTS]

    @property
    def artifacts(self) -> int:
        """Return how many artifacts there are."""
        return self.counts[FILE]

    def add(self, event: Event) -> None:
        """Count an event."""
        if not isinstance(event, Points):
            self._add_other(event)
            return
        values = event.values
        if (event.name, event.rank) not in self.series:
            self.counts[NAMES] += 1
            self.counts[ODD_NAMES] += _PLAIN.fullmatch(event.name) is None
        self.series.add((event.name, event.rank))
        self.counts[event.KIND] += len(event)
        self.counts[NAN] += int(np.isnan(values).sum())
        self.counts[INFINITE] += int(np.isinf(values).sum())
        self.counts[NEGATIVE_ZERO] += int(((values == 0) & np.signbit(values)).sum())
        self.counts[RANK] += len(event) if event.rank else 0
        negative, huge = event.steps < 0, np.abs(event.steps) > _SAFE_STEP
        self.counts[NEGATIVE_STEP] += int(negative.sum())
        self.counts[HUGE] += int(huge.sum())
        self.counts[STEP] += int((negative | huge).sum())
        with np.errstate(over="ignore", invalid="ignore"):
            inexact = np.isfinite(values) & (values.astype(np.float32).astype(np.float64) != values)
        self.counts[PRECISION] += int(inexact.sum())

    def _add_other(self, event: Event) -> None:
        """Count what is no series."""
        self.counts[event.KIND] += 1
        self.counts[NEGATIVE_STEP] += (getattr(event, "step", None) or 0) < 0
        if isinstance(event, File):
            self.counts[VERSIONS] += event.name in self._files
            self._files.add(event.name)

    def add_facts(self, info: RunInfo) -> None:
        """Count what is known of a run."""
        self.counts[PARAMS] += len(info.params)
        whole = [value for value in info.params.values() if isinstance(value, int)]
        self.counts[HUGE] += sum(abs(value) > _SAFE_STEP for value in whole)
        self.counts[TAGS] += len(info.tags) + len(info.labels)
        self.counts[NOTES] += bool(info.notes)
        self.counts[SUMMARY] += len(info.summary)
        self.counts[STATUS] += info.status != "completed"
        self.counts[GROUP] += bool(info.group) + bool(info.job_type)

    def merge(self, other: Census) -> None:
        """Add what another run has."""
        self.counts.update(other.counts)


def losses(backend: type[Backend] | Backend, census: Census) -> list[Loss]:
    """Return what of a run this peer cannot hold: what its limits say, and kinds it does not know."""
    found: list[Loss] = []
    for what, reason in backend.limits.losses.items():
        count = max((census.counts[subject] for subject in subjects_of(what)), default=census.points)
        if count:
            found.append(Loss(what, count, reason))
    told = {subject for what in backend.limits.losses for subject in subjects_of(what)}
    takes_files = FILE in backend.kinds
    for kind, shown in _SHOWN.items():
        if kind in backend.kinds or kind in told or not census.counts[kind]:
            continue
        reason = "has no place there; kept in the artifact tracer/leftover.jsonl" if takes_files else "stays here"
        found.append(Loss(shown, census.counts[kind], "stays here" if kind == LAYER else reason))
    return found


def reason(limits: Limits, subjects: Iterable[str]) -> str | None:
    """Return why something of these subjects cannot be the same there; None where nothing says so."""
    wanted = set(subjects)
    if STEP in wanted:
        wanted |= {NEGATIVE_STEP, HUGE}
    if NAMES in wanted:
        wanted.add(ODD_NAMES)
    for what, why in limits.losses.items():
        if wanted & subjects_of(what):
            return f"{what}: {why}"
    return None


def subjects_of(what: str) -> set[str]:
    """Return what a line of the table of limits speaks of.

    Example:
        >>> sorted(subjects_of("NaN and ±Inf"))
        ['NaN', '±Inf']
    """
    for subject, words in _NARROW.items():
        if re.search(words, what, re.IGNORECASE):
            return {subject}
    return {subject for subject, words in _WORDS.items() if re.search(words, what, re.IGNORECASE)}


__all__ = ["Census", "losses", "reason", "subjects_of"]
