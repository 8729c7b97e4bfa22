"""What W&B's records say of a run besides its history."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tracer import events
from tracer.backends import wandb_records as records
from tracer.backends.names import unescaped
from tracer.transfer import RunInfo

_MOST_KEYS = 100_000
_MOST_METADATA = 8 * 1024 * 1024
_OWN = "tracer."
_LATEST = 1 << 62


class Place(NamedTuple):
    """Where a row belongs: our step where it is ours, else W&B's."""

    step: int
    time: int
    rank: int


@dataclass(slots=True)
class Known:
    """What is known of one run, from one file or several."""

    paths: list[str] = field(default_factory=list)
    line_files: list[str] = field(default_factory=list)
    run_id: str = ""
    entity: str = ""
    project: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    notes: str = ""
    tags: list[str] = field(default_factory=list)
    started: int | None = None
    config: dict[str, object] = field(default_factory=dict)
    summary: dict[str, object] = field(default_factory=dict)
    git: dict[str, object] = field(default_factory=dict)
    environment: dict[str, object] = field(default_factory=dict)
    exit_code: int | None = None
    last_time: int | None = None
    last_step: int = 0
    step_metrics: set[str] = field(default_factory=set)
    malformed: int = 0
    sent: dict[str, str] = field(default_factory=dict)
    is_ours: bool = False
    #: How many numbers each name has.
    counts: dict[str, int] = field(default_factory=dict)
    has_texts: bool = False
    has_media: bool = False

    def origin(self) -> str:
        """Return the run's address there."""
        parts = [part for part in (self.entity, self.project) if part]
        return "wandb:" + "/".join([*parts, self.run_id])

    def original(self, name: str, rank: int) -> str:
        """Return what a metric was called before it was sent; another's names are as they are."""
        if not self.is_ours:
            return name
        name = name.removeprefix(f"rank{rank}/") if rank else name
        return self.sent.get(name) or unescaped(name)

    def place(self, row: records.Row) -> Place:
        """Return where a row belongs."""
        step = _whole(row.values.get("tracer_step"), row.step) if self.is_ours else row.step
        rank = _whole(row.values.get("tracer_rank"), 0) if self.is_ours else 0
        moment = _microseconds(row.values.get("_timestamp"))
        if moment is None:
            moment = (self.started or 0) + (_microseconds(row.values.get("_runtime")) or 0)
        return Place(step, moment, max(rank, 0))

    def info(self, origin: str) -> RunInfo:
        """Return the run as it travels."""
        own = {name.removeprefix(_OWN): value for name, value in self.config.items() if name.startswith(_OWN)}
        if not self.is_ours:
            own = {}
        params = {name: value for name, value in self.config.items() if not (self.is_ours and name.startswith(_OWN))}
        params.pop("_wandb", None)
        started = own.get("started") if isinstance(own.get("started"), int) else self.started
        ended = own.get("ended") if isinstance(own.get("ended"), int) else None
        if ended is None and self.exit_code is not None:
            ended = self.last_time
        return RunInfo(
            uid=str(own.get("uid") or self.run_id),
            project=str(own.get("project") or self.project or "default"),
            name=str(own.get("name") or self.name or self.run_id),
            started=int(started or 0),  # type: ignore[call-overload]
            status=self._status(own.get("status")),
            ended=ended,  # type: ignore[arg-type]
            steps=max(self.last_step, 0),
            group=self.group or None,
            job_type=self.job_type or None,
            notes=self.notes or None,
            tags=tuple(self.tags),
            labels={name: str(value) for name, value in _mapping(own.get("labels")).items()},
            params=params,
            summary=_mapping(own.get("summary")) if self.is_ours else _plain(self.summary),
            environment=_mapping(own.get("environment")) or self.environment,
            git=_mapping(own.get("git")) or self.git,
            origin=origin,
        )

    def _status(self, told: object) -> str:
        """Return how the run ended; one without an end was killed."""
        if told in events.STATUSES and (told != events.RUNNING or self.exit_code is not None):
            return str(told)
        if self.exit_code is None:
            return events.CRASHED
        return events.COMPLETED if self.exit_code == 0 else events.FAILED


def learn(known: Known, number: int, data: bytes) -> None:
    """Take in one record."""
    if number == records.RUN:
        _learn_run(known, data)
    elif number == records.CONFIG and len(known.config) < _MOST_KEYS:
        records.update(known.config, data)
        _learn_ours(known)
    elif number == records.SUMMARY and len(known.summary) < _MOST_KEYS:
        records.update(known.summary, data)
    elif number == records.HISTORY:
        _learn_row(known, records.history(data))
    elif number == records.EXIT:
        known.exit_code = next((records.signed(told) for inner, _, told in records.fields(data) if inner == 1), 0)
    elif number == records.METRIC:
        step_metric = next((records.text(told) for inner, _, told in records.fields(data) if inner == _STEP_METRIC), "")
        if step_metric not in {"", "tracer_step", "_step"} and len(known.step_metrics) < _MOST_KEYS:
            known.step_metrics.add(step_metric[:200])


_STEP_METRIC = 4


def _learn_row(known: Known, row: records.Row) -> None:
    """Take in how far a run has got, and what its rows hold."""
    place, counts = known.place(row), known.counts
    known.last_time = max(place.time, known.last_time or place.time)
    known.last_step = max(place.step, known.last_step)
    for name, told in row.values.items():
        if records.number(told) is not None:
            if name in counts or len(counts) < _MOST_KEYS:
                counts[name] = counts.get(name, 0) + 1
        elif told.startswith('"'):
            known.has_texts = True
        else:
            known.has_media = True


_TEXTS = {1: "run_id", 2: "entity", 3: "project", 6: "group", 7: "job_type", 8: "name", 9: "notes"}
_CONFIG, _SUMMARY, _TAG, _STARTED, _GIT = 4, 5, 10, 17, 21


def _learn_run(known: Known, data: bytes) -> None:
    """Take in a run record: each is the whole of what it says."""
    tags: list[str] = []
    for number, _, value in records.fields(data):
        if number in _TEXTS:
            setattr(known, _TEXTS[number], records.text(value))
        elif number == _CONFIG:
            records.update(known.config, records.message(value))
        elif number == _SUMMARY:
            records.update(known.summary, records.message(value))
        elif number == _TAG and len(tags) < _MOST_KEYS:
            tags.append(records.text(value))
        elif number == _STARTED:
            known.started = records.timestamp(value)
        elif number == _GIT:
            for inner, _, told in records.fields(records.message(value)):
                known.git["remote" if inner == 1 else "commit"] = records.text(told)
    known.tags = tags or known.tags
    _learn_ours(known)


def _learn_ours(known: Known) -> None:
    """See whether we wrote the run, and what its names were."""
    known.is_ours = "tracer.uid" in known.config
    for name, sent in _mapping(known.config.get("tracer.names")).items():
        known.sent[str(sent)] = name


def learn_metadata(known: Known, folder: str) -> None:
    """Take in `wandb-metadata.json`, which says where the run ran."""
    path = os.path.join(folder, "wandb-metadata.json")
    if os.path.islink(path):
        return
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = json.loads(file.read(_MOST_METADATA))
    except (OSError, ValueError, RecursionError):
        return
    wanted = ("os", "python", "host", "executable", "program", "args", "gpu", "gpu_count", "cpu_count", "cuda")
    known.environment |= {name: found[name] for name in wanted if name in _mapping(found)}
    git = _mapping(_mapping(found).get("git"))
    known.git = known.git or {name: git[name] for name in ("remote", "commit") if name in git}


def merged(parts: Sequence[Known], paths: Sequence[str]) -> Known:
    """Return one run of its parts, oldest first: a later one knows better."""
    whole = parts[0]
    for part in parts[1:]:
        for name in ("name", "group", "job_type", "notes", "tags", "git", "environment"):
            setattr(whole, name, getattr(part, name) or getattr(whole, name))
        whole.config |= part.config
        whole.summary |= part.summary
        whole.exit_code = part.exit_code
        whole.last_time = max((one for one in (whole.last_time, part.last_time) if one is not None), default=None)
        whole.last_step = max(whole.last_step, part.last_step)
        whole.step_metrics |= part.step_metrics
        whole.sent |= part.sent
        whole.is_ours = whole.is_ours or part.is_ours
        whole.counts = {
            name: whole.counts.get(name, 0) + part.counts.get(name, 0) for name in {**whole.counts, **part.counts}
        }
        whole.has_texts = whole.has_texts or part.has_texts
        whole.has_media = whole.has_media or part.has_media
        # The last `output.log` of ours begins with what the earlier ones said.
        whole.line_files = part.line_files or whole.line_files if part.is_ours else whole.line_files + part.line_files
    whole.paths = list(paths)
    return whole


def _plain(summary: Mapping[str, object]) -> dict[str, object]:
    """Return a summary without W&B's own entries and without what it says of media."""
    return {
        name: value
        for name, value in summary.items()
        if not name.startswith("_") and not (isinstance(value, dict) and "_type" in value)
    }


def _mapping(value: object) -> Mapping[str, object]:
    """Return a dictionary, empty where it is none."""
    return value if isinstance(value, dict) else {}


def _whole(told: str | None, otherwise: int) -> int:
    """Return a whole number of 64 bits."""
    if told is None or not re.fullmatch(r"-?\d{1,19}", told):
        return otherwise
    return max(-(1 << 63), min(int(told), (1 << 63) - 1))


def _microseconds(told: str | None) -> int | None:
    """Return seconds as whole microseconds."""
    try:
        found = round(float(told or "") * 1e6)
    except (ValueError, OverflowError):
        return None
    return found if abs(found) < _LATEST else None
