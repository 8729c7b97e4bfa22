"""Whether two sides say the same of a run: parameters, tags, status, times; peers write the same value differently."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping

from tracer import events
from tracer.migration import losses as kinds
from tracer.migration.reports import Difference
from tracer.transfer import RunInfo

#: Peers round times to milliseconds or seconds; a real difference is larger.
_ROUNDING_US = 1_000_000
_SHOWN = 60


def differences(here: RunInfo, there: RunInfo) -> Iterator[tuple[str, Difference]]:
    """Yield what is not the same, each with the subject that a reason has to speak of.

    What the other side has more of is no difference: many peers add their own.
    """
    yield from _missing(kinds.PARAMS, "params", here.params, there.params)
    yield from _missing(kinds.SUMMARY, "summary", here.summary, there.summary)
    absent = [tag for tag in here.tags if tag not in there.tags]
    if absent:
        yield kinds.TAGS, Difference("tags", "tags", ", ".join(here.tags), ", ".join(there.tags))
    yield from _missing(kinds.TAGS, "labels", here.labels, there.labels)
    for subject, what, ours, theirs in (
        (kinds.NAMES, "name", here.name, there.name),
        (kinds.NAMES, "project", here.project, there.project),
        (kinds.NOTES, "notes", here.notes or "", there.notes or ""),
        (kinds.GROUP, "group", here.group or "", there.group or ""),
        (kinds.GROUP, "job_type", here.job_type or "", there.job_type or ""),
        (kinds.STATUS, "status", _ended(here.status), _ended(there.status)),
    ):
        if ours != theirs:
            yield subject, Difference("facts", what, _short(ours), _short(theirs))
    for what, began, seen in (("started", here.started, there.started), ("ended", here.ended, there.ended)):
        if began is not None and (seen is None or abs(began - seen) >= _ROUNDING_US):
            yield kinds.TIMES, Difference("times", what, str(began), str(seen))


def same(ours: object, theirs: object) -> bool:
    """Tell whether two values of a parameter are one: as numbers, as JSON, or as text.

    Example:
        >>> same(1e-3, "0.001"), same([1, 2], "[1, 2]"), same(None, "None"), same(1, 2)
        (True, True, True, False)
    """
    if type(ours) is type(theirs) and ours == theirs:
        return True
    a, b = _read(ours), _read(theirs)
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    return a == b or str(ours) == str(theirs)


def flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested parameters by their path, parted by `/`.

    Example:
        >>> flat({"model": {"width": 2}, "lr.x": 1})
        {'model/width': 2, 'lr/x': 1}
    """
    found: dict[str, object] = {}
    for key, value in values.items():
        name = prefix + str(key).replace(".", "/")
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{name}/")
        else:
            found[name] = value
    return found


def _missing(
    subject: str, what: str, ours: Mapping[str, object], theirs: Mapping[str, object]
) -> Iterator[tuple[str, Difference]]:
    """Yield the values that the other side does not have, or has otherwise."""
    a, b = flat(ours), flat(theirs)
    for name, value in a.items():
        if name not in b:
            whole = _whole(name, theirs)
            if whole is not None and same(_looked_up(ours, name), whole):
                continue
            yield subject, Difference(what, name, _short(value), "absent")
        elif not same(value, b[name]):
            yield subject, Difference(what, name, _short(value), _short(b[name]))


def _whole(name: str, theirs: Mapping[str, object]) -> object | None:
    """Return what the other side keeps whole under the first part of a path."""
    return theirs.get(name.partition("/")[0])


def _looked_up(ours: Mapping[str, object], name: str) -> object:
    """Return what we keep under the first part of a path."""
    return ours.get(name.partition("/")[0])


def _ended(status: str) -> str:
    """Return how a run ended; a crash is a failure where a peer has one word for both."""
    return events.FAILED if status == events.CRASHED else status


def _read(value: object) -> object:
    """Return a value as it would come back out of JSON, or out of text."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError, RecursionError):
            return _read_number(json.loads(value))
        words = {"None": None, "True": True, "False": False}
        if value in words:
            return words[value]
        with contextlib.suppress(ValueError):
            return float(value)
        return value
    with contextlib.suppress(TypeError, ValueError):
        return _read_number(json.loads(json.dumps(value, default=str)))
    return str(value)


def _read_number(value: object) -> object:
    """Return a number as a float, so that 1 and 1.0 are one."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53 else value


def _short(value: object) -> str:
    """Return a value for a line of the report."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


__all__ = ["differences", "flat", "same"]
