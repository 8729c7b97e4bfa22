"""Names, parameters and points as SageMaker takes them."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from tracer.backends.names import NameMap, ranked
from tracer.transfer import Points, RunInfo

#: AWS's limits.
METRICS_PER_REQUEST = 10
MOST_PARAMETERS = 300
MOST_ARTIFACTS = 60
LONGEST_NAME = 120
LONGEST_PARAMETER_NAME = 320
LONGEST_TEXT = 2500
LONGEST_METRIC_NAME = 255
_LAST_STEP = 2**31 - 1
#: Beyond it a float does not hold every whole number.
_EXACT = 2**53


def entity_name(text: str, *, lower: bool = False) -> str:
    """Return a name of letters, digits and dashes; one that had to be changed ends in a digest of what it was.

    Example:
        >>> entity_name("my-project")
        'my-project'
        >>> entity_name("my project/2")
        'my-project-2-e326dc69'
    """
    plain = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")
    plain = plain.lower() if lower else plain
    if plain == text and len(text) <= LONGEST_NAME:
        return text
    told = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain[: LONGEST_NAME - 9].strip('-')}-{told}".lstrip("-")


def parameters(run: RunInfo, names: NameMap, extra: Mapping[str, str]) -> dict[str, dict[str, object]]:
    """Return a component's parameters: what describes the run first, then its own, as many as AWS takes."""
    own: dict[str, object] = {"tracer.uid": run.uid, "tracer.project": run.project, "tracer.name": run.name}
    own |= {"tracer.origin": run.origin, "tracer.group": run.group, "tracer.job_type": run.job_type}
    own |= {"tracer.notes": run.notes, "tracer.tags": list(run.tags) or None, "tracer.labels": dict(run.labels) or None}
    own |= {"tracer.git": dict(run.git) or None, "tracer.summary": dict(run.summary) or None, **extra}
    found = {name: value for name, value in own.items() if value not in (None, "")}
    room = MOST_PARAMETERS - len(own) - 2
    found |= {names.sent(name): value for name, value in list(run.params.items())[:room]}
    if len(run.params) > room:
        found["tracer.parameters_left_out"] = len(run.params) - room
    return {name: _parameter(value) for name, value in found.items()}


def _parameter(value: object) -> dict[str, object]:
    """Return one parameter: a number that a float holds exactly, or text, cut to AWS's length."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        if isinstance(value, float) or abs(value) <= _EXACT:
            return {"NumberValue": float(value)}
        return {"StringValue": str(value)}
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return {"StringValue": text[:LONGEST_TEXT]}


def when(time: int) -> datetime:
    """Return a time as boto3 takes it."""
    return datetime.fromtimestamp(time // 1_000_000, UTC).replace(microsecond=time % 1_000_000)


def requests(
    points: Iterable[Points], names: NameMap, leave_out: Callable[[str, int, str], None]
) -> Iterator[list[dict[str, object]]]:
    """Yield the metrics of each request, at most 10; what SageMaker has no place for is told `leave_out`."""
    batch: list[dict[str, object]] = []
    for series in points:
        shown = names.sent(ranked(series.name, series.rank))
        for step, time, value in zip(series.steps.tolist(), series.times.tolist(), series.values.tolist(), strict=True):
            if not math.isfinite(value) or not 0 <= step <= _LAST_STEP:
                leave_out(series.name, step, "step out of range" if math.isfinite(value) else str(value))
                continue
            batch.append({"MetricName": shown, "Timestamp": when(time), "Step": step, "Value": value})
            if len(batch) == METRICS_PER_REQUEST:
                yield batch
                batch = []
    if batch:
        yield batch


def errors(answer: Mapping[str, object], sent: Sequence[Mapping[str, object]]) -> dict[str, int]:
    """Return the codes of the metrics that a request was told are not taken, and how many of each."""
    found: dict[str, int] = {}
    told = answer.get("Errors")
    for one in told if isinstance(told, list) else []:
        code = str(one.get("Code"))
        found[code] = min(found.get(code, 0) + 1, len(sent))
    return found
