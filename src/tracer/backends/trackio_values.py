"""Our values as trackio keeps them in its rows and configurations, and back."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping

from tracer.transfer import Histogram, RunInfo

#: step, time as trackio writes it, name → value
Row = tuple[int, str, dict[str, object]]
#: What trackio writes for numbers that JSON does not have.
WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
#: The place in a configuration for what trackio knows no place for.
OURS = "_Tracer"
_RANKED = re.compile(r"rank(\d{1,6})/(.*)", re.DOTALL)
_DEEPEST = 16
_LARGEST = 2**63


def name_of(name: str, rank: int) -> str:
    """Return a metric's name with its rank, as one name; rank 0 is the plain one."""
    if rank:
        return f"rank{rank}/{name}"
    # A name of rank 0 that looks like one of another rank says its own.
    return f"rank0/{name}" if _RANKED.fullmatch(name) else name


def parted(name: str) -> tuple[str, int]:
    """Return the metric and rank behind such a name.

    Example:
        >>> parted(name_of("loss", 3)), parted(name_of("rank3/loss", 0))
        (('loss', 3), ('rank3/loss', 0))
    """
    found = _RANKED.fullmatch(name)
    return (found[2], int(found[1])) if found else (name, 0)


def plain(value: object, depth: int = 0) -> object:
    """Return a value as trackio's JSON has it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, int) and not isinstance(value, bool) and not -_LARGEST <= value < _LARGEST:
        return str(value)  # its encoder has 64 bits
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {_text(str(name)): plain(one, depth + 1) for name, one in value.items()}
    if depth < _DEEPEST and isinstance(value, (list, tuple)):
        return [plain(one, depth + 1) for one in value]
    return _text(str(value))


def text_of(body: str) -> dict[str, object]:
    """Return text as trackio's own kind of value: a bare string could be taken for a number."""
    return {"_type": "trackio.markdown", "_value": _text(body)}


def histogram_of(event: Histogram) -> dict[str, object]:
    """Return a histogram as trackio's own kind of value."""
    return {"_type": "trackio.histogram", "bins": plain(event.edges), "values": plain(event.counts)}


def table_of(data: bytes) -> dict[str, object] | None:
    """Return a table as trackio's own kind of value, its rows by column; None for what is no table."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if isinstance(told, dict) and isinstance(told.get("columns"), list) and isinstance(told.get("data"), list):
        columns = [str(name) for name in told["columns"]]
        told = [dict(zip(columns, row, strict=False)) for row in told["data"] if isinstance(row, list)]
    elif isinstance(told, dict):
        told = [told]
    if not isinstance(told, list) or not all(isinstance(row, dict) for row in told):
        return None
    return {"_type": "trackio.table", "_value": plain(told)}


def config_of(run: RunInfo, names: Mapping[str, str]) -> dict[str, object]:
    """Return a run's configuration: its parameters, what trackio itself keeps there, and what it has no place for.

    Args:
        run: What is known.
        names: The names that trackio would not take: as they are there → as they were.
    """
    ours = {
        "id": run.uid, "project": run.project, "name": run.name, "started": run.started, "status": run.status,
        "ended": run.ended, "steps": run.steps, "job_type": run.job_type, "notes": run.notes, "tags": list(run.tags),
        "labels": run.labels, "summary": run.summary, "environment": run.environment, "git": run.git,
        "origin": run.origin, "names": names,
    }  # fmt: skip
    params = {(f"_x5f_{name[1:]}" if name.startswith("_") else name): told for name, told in run.params.items()}
    created = {"_Group": run.group, "_Username": None}
    kept = plain({**params, **created, OURS: {name: told for name, told in ours.items() if told not in (None, "", {})}})
    return kept if isinstance(kept, dict) else {}


def default_folder() -> str:
    """Return the folder that trackio uses where none is named."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(os.environ.get("HF_HOME") or os.path.join(cache, "huggingface"), "trackio")


def _text(told: str) -> str:
    """Return text that UTF-8 can say."""
    return told.encode("utf-8", "replace").decode("utf-8")
