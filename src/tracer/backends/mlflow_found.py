"""What MLflow says of a run, wherever it was read, and what that is in our words; text of strangers, never trusted."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tracer import events
from tracer.backends import mlflow_facts as facts
from tracer.backends.mlflow_nonfinite import Special
from tracer.backends.names import unescaped
from tracer.transfer import Points, RunInfo

if TYPE_CHECKING:
    from tracer.transfer import Floats, Integers

_STATUSES = {"FINISHED": events.COMPLETED, "FAILED": events.FAILED, "KILLED": events.CRASHED}
_LARGEST = 2**63
_LATEST = _LARGEST // 1000 - 1
_PARENT = "mlflow.parentRunId"


@dataclass(frozen=True, slots=True)
class Model:
    """A model that MLflow keeps beside the run that made it."""

    id: str
    name: str
    location: str


@dataclass(frozen=True, slots=True)
class Found:
    """One run, as MLflow has it; times in milliseconds."""

    id: str
    experiment: str
    name: str
    status: str
    started: int
    ended: int | None
    artifacts: str
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    models: tuple[Model, ...] = ()

    @property
    def is_ours(self) -> bool:
        """Whether we wrote it."""
        return facts.RUN_ID in self.tags


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """All values of one metric, in the order in which they were stored; times in milliseconds."""

    name: str
    steps: Integers
    times: Integers
    values: Floats


def info(found: Found, whole: Mapping[str, Any]) -> RunInfo:
    """Return a run in our words.

    Args:
        found: The run.
        whole: What our own `tracer/run.json` says; empty where there is none.
    """
    tags, ours = _list(found.tags.get(facts.TAGS)), found.is_ours
    git = {
        name: found.tags[tag]
        for name, tag in (("commit_hash", "mlflow.source.git.commit"), ("branch", "mlflow.source.git.branch"))
        if tag in found.tags
    }
    told = found.tags.get(facts.STATUS, "")
    status = _STATUSES.get(found.status, events.RUNNING)
    config, summary = _dict(whole.get("config")), _dict(whole.get("summary"))
    return RunInfo(
        uid=found.id,
        project=found.tags.get("tracer.project") or found.experiment,
        name=found.name,
        started=found.started * 1000,
        ended=None if found.ended is None else found.ended * 1000,
        status=told if told in events.STATUSES and facts.STATUSES[told] == found.status else status,
        group=found.tags.get("tracer.group"),
        job_type=found.tags.get("tracer.job_type"),
        notes=found.tags.get("mlflow.note.content"),
        tags=tuple(tags),
        labels=_labels(found, {facts.names().sent(tag) for tag in tags}),
        params=config or {unescaped(name) if ours else name: typed(text) for name, text in found.params.items()},
        summary=summary,
        environment=_dict(whole.get("environment")),
        git=_dict(whole.get("git")) or git,
        origin=found.tags.get("tracer.origin")
        or (f"tracer:{found.tags[facts.RUN_ID]}" if ours else f"mlflow:{found.id}"),
    )


def _labels(found: Found, plain: set[str]) -> dict[str, str]:
    """Return the tags that only MLflow's user gave a meaning, and the run that this one is nested in."""
    kept = {
        unescaped(name) if found.is_ours else name: value
        for name, value in found.tags.items()
        if not name.startswith(("mlflow.", "tracer.")) and name not in plain
    }
    return kept | ({"parent": found.tags[_PARENT]} if _PARENT in found.tags else {})


def points(found: Found, series: Iterable[Series], renamed: Mapping[str, str], notes: list[str]) -> Iterable[Points]:
    """Yield the values of a run's metrics as ours: infinite ones restored, those without steps numbered.

    Args:
        found: The run.
        series: Its metrics.
        renamed: MLflow's names → ours, where a name says not itself what it was.
        notes: Where it is said what was changed.
    """
    import numpy as np

    special = Special(*(found.tags.get(tag, "") for tag in Special.TAGS))
    unnumbered, large = [], []
    for one in series:
        order = np.argsort(one.times, kind="stable")
        steps, times = one.steps[order], one.times[order]
        values = special.restored(one.name, steps, one.values[order])
        if len(steps) > 1 and (steps == steps[0]).all() and not found.is_ours:
            steps = np.arange(len(steps), dtype=np.int64)
            unnumbered.append(one.name)
        if not found.is_ours and (np.abs(values) == np.finfo(np.float64).max).any():
            large.append(one.name)
        rank, name = with_rank(renamed.get(one.name) or unescaped(one.name)) if found.is_ours else (0, one.name)
        yield Points(name, steps, np.clip(times, -_LATEST, _LATEST) * 1000, values, rank)
    if unnumbered:
        notes.append(f"{found.name}: logged without a step, numbered by time: {_some(unnumbered)}.")
    if large:
        notes.append(f"{found.name}: ±1.797e308 is kept as it stands; MLflow writes ±Inf so: {_some(large)}.")


def typed(text: str) -> object:
    """Return what a parameter was before MLflow made text of it, where that is certain.

    Example:
        >>> [typed(text) for text in ("0.1", "64", "064", "True", "None", "adam", "1e-3")]
        [0.1, 64, '064', True, None, 'adam', 0.001]
    """
    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]
    if len(text) > 40 or not text[:1].strip("+") or text[-1:].isspace() or "_" in text:  # noqa: PLR2004 -- no number
        return text
    try:
        whole = int(text)
    except ValueError:
        try:
            number = float(text)
        except ValueError:
            return text
        return number if math.isfinite(number) or text in ("nan", "inf", "-inf") else text
    return whole if str(whole) == text and abs(whole) < _LARGEST else text


def parsed(data: bytes) -> dict[str, Any]:
    """Return a JSON object of a stranger; empty where it is none."""
    try:
        return _dict(json.loads(data))
    except (ValueError, RecursionError):
        return {}


def with_rank(name: str) -> tuple[int, str]:
    """Return the rank that a name of ours tells, and the name without it."""
    first, slash, rest = name.partition("/")
    digits = first.removeprefix("rank")
    if slash and rest and first != digits and digits.isascii() and digits.isdigit() and len(digits) < 7:  # noqa: PLR2004
        return int(digits), rest
    return 0, name


def _dict(value: object) -> dict[str, Any]:
    """Return a value that should be a dictionary."""
    return value if isinstance(value, dict) else {}


def _list(text: str | None) -> list[str]:
    """Return the list in a tag of ours."""
    try:
        held = json.loads(text or "[]")
    except (ValueError, RecursionError):
        return []
    return [str(one) for one in held] if isinstance(held, list) else []


def _some(names: list[str]) -> str:
    """Return a few names of many."""
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"  # noqa: PLR2004
