"""What is known of a run, as JSON beside its values, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tracer import events
from tracer.transfer import RunInfo

_SECOND = 1_000_000
#: The texts that stand for what JSON has no number for.
WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def facts(info: RunInfo) -> dict[str, object]:
    """Return all that is known of a run."""
    return {
        "run": info.uid, "name": info.name, "project": info.project, "origin": info.origin, "status": info.status,
        "started": info.started, "ended": info.ended, "steps": info.steps, "group": info.group,
        "job_type": info.job_type, "notes": info.notes, "tags": list(info.tags), "labels": dict(info.labels),
        "params": dict(info.params), "summary": dict(info.summary), "environment": dict(info.environment),
        "git": dict(info.git),
    }  # fmt: skip


def told(info: RunInfo, said: Mapping[str, object]) -> RunInfo:
    """Return a run with what facts say of it; where they say nothing it stays as it is."""

    def text(*names: str) -> str | None:
        return next((str(said[name]) for name in names if isinstance(said.get(name), (str, int)) and said[name]), None)

    def mapping(*names: str) -> dict[str, Any]:
        return next((found for name in names if isinstance(found := said.get(name), dict) and found), {})

    started, ended = _moment(said, "started", "start_time"), _moment(said, "ended", "end_time")
    status, tags, steps = text("status"), said.get("tags"), said.get("steps")
    is_dated = "ended" in said or "end_time" in said
    return replace(
        info,
        name=(text("name", "run") if "name" in said or "run_id" in said else None) or info.name,
        project=text("project") or info.project,
        status=status if status in events.STATUSES else info.status,
        started=info.started if started is None else started, ended=ended if is_dated else info.ended,
        steps=max(steps, info.steps) if isinstance(steps, int) and not isinstance(steps, bool) else info.steps,
        group=text("group"), job_type=text("job_type"), notes=text("notes"),
        tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) else info.tags,
        labels={str(name): str(value) for name, value in mapping("labels").items()},
        params=mapping("params", "config") or info.params, summary=mapping("summary") or info.summary,
        environment=mapping("environment"), git=mapping("git"),
    )  # fmt: skip


def as_json(value: object, *, indent: int | None = None) -> str:
    """Return JSON that every reader opens: what is not finite is a text."""
    return json.dumps(_plain(value), allow_nan=False, ensure_ascii=True, default=str, indent=indent)


def finite(value: object) -> object:
    """Return a number for the text that stands for NaN or an infinity, anything else as it is."""
    return WORDS.get(value, value) if isinstance(value, str) else value


def seconds(time: int) -> str:
    """Return microseconds as seconds, exactly.

    Example:
        >>> seconds(1_767_225_600_000_001)
        '1767225600.000001'
    """
    whole, part = divmod(abs(time), _SECOND)
    return f"{'-' if time < 0 else ''}{whole}.{part:06d}"


def _moment(said: Mapping[str, object], whole: str, in_seconds: str) -> int | None:
    """Return a time in microseconds, of either way of saying it."""
    found = said.get(whole)
    if isinstance(found, int) and not isinstance(found, bool):
        return found
    found = said.get(in_seconds)
    is_number = isinstance(found, (int, float)) and not isinstance(found, bool) and math.isfinite(found)
    return round(found * _SECOND) if is_number else None  # type: ignore[operator]  # asked above


def _plain(value: object) -> object:
    """Return a value with NaN and ±Inf as texts, at any depth."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


__all__ = ["WORDS", "as_json", "facts", "finite", "seconds", "told"]
