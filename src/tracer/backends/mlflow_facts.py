"""What is known of a run, as MLflow has places for it: parameters, tags, a note, and one file with the exact rest.

Parameters and tags of MLflow are text, and a parameter never changes. So `tracer/run.json` holds all of it with types,
and an import reads that first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tracer import events
from tracer.backends.names import NameMap
from tracer.transfer import RunInfo

#: What MLflow takes in a name: `_validate_metric_name` of its client, measured; paths that are not normal are refused.
ALLOWED = r"[\w\-. :/]"
REFUSED = r"(?s)(?:.*/)?\.{1,2}(?:/.*)?|/.*|.*/|.*//.*"
LONGEST = 250
LONGEST_PARAM, LONGEST_TAG = 6000, 8000

#: Ours → MLflow's; `tracer.status` keeps the word.
STATUSES = {
    events.RUNNING: "RUNNING",
    events.COMPLETED: "FINISHED",
    events.FAILED: "FAILED",
    events.CRASHED: "KILLED",
}
RUN_ID, STATUS, TAGS = "tracer.run_id", "tracer.status", "tracer.tags"
RUN_FILE, NAMES_FILE = "tracer/run.json", "tracer/names.json"
_OURS = ("mlflow.", "tracer.")
_CUT = " [cut: tracer/run.json has the whole]"


def names() -> NameMap:
    """Return the names of one run as MLflow takes them."""
    return NameMap(ALLOWED, LONGEST, REFUSED)


def flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield parameters as text, a nested one by its path.

    Example:
        >>> list(flat({"lr": 0.1, "optimizer": {"name": "adam", "betas": [0.9, 0.99]}}))
        [('lr', '0.1'), ('optimizer.name', 'adam'), ('optimizer.betas', '[0.9, 0.99]')]
    """
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", as_text(value)


def as_text(value: object) -> str:
    """Return a value as MLflow's own users write it: `str` of a number or text, JSON of the rest."""
    if isinstance(value, (str, int, float, bool)) or value is None:
        return str(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def cut(text: str, longest: int) -> str:
    """Return a text that is short enough, and says so where it was cut."""
    return text if len(text) <= longest else text[: longest - len(_CUT)] + _CUT


def tags(run: RunInfo, sent: NameMap) -> dict[str, str]:
    """Return the tags of a run; one of ours without a value becomes `true`, so that MLflow can search for it."""
    found = {RUN_ID: run.uid, STATUS: run.status, TAGS: json.dumps(list(run.tags), ensure_ascii=False)}
    optional: dict[str, object] = {
        "tracer.project": run.project,
        "tracer.group": run.group,
        "tracer.job_type": run.job_type,
        "tracer.origin": run.origin,
        "mlflow.note.content": run.notes,
        "mlflow.source.git.commit": run.git.get("commit_hash"),
        "mlflow.source.git.branch": run.git.get("branch"),
        "mlflow.source.name": _script(run),
        "mlflow.source.type": "LOCAL",
    }
    found |= {name: str(value) for name, value in optional.items() if value}
    if run.summary:
        found["tracer.summary"] = json.dumps(dict(run.summary), ensure_ascii=False, default=str)
    for tag in run.tags:
        if tag and not tag.startswith(_OURS):
            found.setdefault(sent.sent(tag), "true")
    for name, value in run.labels.items():
        if name and not name.startswith(_OURS):
            found[sent.sent(name)] = value
    return {name: cut(value, LONGEST_TAG) for name, value in found.items()}


def params(run: RunInfo, sent: NameMap, known: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the parameters that are new, and tags for those that MLflow has otherwise or cannot hold whole.

    Args:
        run: The run.
        sent: Its names.
        known: What MLflow has already.
    """
    new: dict[str, str] = {}
    told: dict[str, str] = {}
    for name, text in flat(run.params):
        key, value = sent.sent(name), cut(text, LONGEST_PARAM)
        if known.get(key, value) != value or value != text:
            told[sent.sent(f"tracer.param.{name}")] = cut(text, LONGEST_TAG)
        if key not in known:
            new[key] = value
    return new, told


def whole(run: RunInfo) -> bytes:
    """Return the file that holds what a run is, with types."""
    held: dict[str, Any] = {
        "id": run.uid, "project": run.project, "name": run.name, "status": run.status, "started": run.started,
        "ended": run.ended, "steps": run.steps, "group": run.group, "job_type": run.job_type, "notes": run.notes,
        "tags": list(run.tags), "labels": dict(run.labels), "config": dict(run.params), "summary": dict(run.summary),
        "environment": dict(run.environment), "git": dict(run.git), "origin": run.origin,
    }  # fmt: skip
    return json.dumps(held, ensure_ascii=False, indent=1, default=str).encode("utf-8", "replace")


def _script(run: RunInfo) -> str | None:
    """Return what was started."""
    command = run.environment.get("command")
    argv = command.get("argv") if isinstance(command, Mapping) else None
    return str(argv[0]) if isinstance(argv, list) and argv else None
