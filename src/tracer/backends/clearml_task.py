"""What ClearML knows of a task besides its events: names, tags, parameters, and all of it once more as JSON."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from tracer.backends.base import Rejected
from tracer.transfer import File, Part, RunInfo, sha256

#: The configuration object in which everything stands that ClearML has no field for.
OURS = "tracer"
_TYPES = ("training", "testing", "inference", "data_processing", "application", "monitor", "controller", "optimizer",
          "service", "qc", "custom")  # fmt: skip


def described(info: RunInfo, options: Mapping[str, object], changed: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a task, as `tasks.create` and `tasks.edit` take them."""
    asked = options.get("tags")
    more = asked if isinstance(asked, (list, tuple)) else [asked] if asked else []
    kind = str(options.get("task_type") or "training")
    if kind not in _TYPES:
        message = f"task_type={kind!r} is none that ClearML knows. Known: {', '.join(_TYPES)}."
        raise Rejected(message)
    facts = {**asdict(info), "names": {sent: name for name, sent in changed.items()}}
    return {
        "name": str(options.get("task_name") or info.name),
        "type": kind,
        "tags": list(dict.fromkeys(str(tag) for tag in (*info.tags, *more))),
        "comment": info.notes or "",
        "hyperparams": {"General": {name: _param(name, value) for name, value in flat(info.params) if name}},
        "configuration": {
            OURS: {
                "name": OURS,
                "type": "json",
                "description": "What Tracer knows of the run",
                "value": json.dumps(facts, default=str),
            }
        },
    }


def flat(params: Mapping[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    """Yield parameters by their path, `a/b` for what is nested."""
    for name, value in params.items():
        path = f"{before}{name}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{path}/")
        else:
            yield path, value


def artifact(file: File, part: Part, url: str) -> dict[str, Any]:
    """Return one part of an artifact as ClearML lists it."""
    told = {"artifact": file.name, "part": part.path, "version": file.version, "type": file.type,
            "digest": part.digest, "aliases": json.dumps(file.aliases), "time": file.time,
            "step": "" if file.step is None else file.step,
            "metadata": json.dumps(dict(file.metadata), default=str)}  # fmt: skip
    return {
        "key": f"{file.name}/{part.path}",
        "type": "custom",
        "mode": "output",
        "uri": url,
        "content_size": part.size,
        "hash": sha256(part.local),
        "timestamp": file.time // 1_000_000,
        "type_data": {"content_type": "application/octet-stream", "preview": f"{part.path} - {part.size} bytes\n"},
        "display_data": [[name, str(value)] for name, value in told.items()],
    }


def segment(name: str, most: int = 100) -> str:
    """Return a name that is one harmless part of a path; two names never become one.

    Example:
        >>> segment("a b"), segment("../x")
        ('a b', '.._x-44f4c25c')
    """
    kept = re.sub(r"[^A-Za-z0-9_. =-]", "_", name).strip()
    if kept == name and name not in (".", "..") and len(name) <= most:
        return name
    told = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{kept[:most]}-{told}"


def inside(path: str) -> str:
    """Return a path of an artifact that stays in it.

    Raises:
        Rejected: It leads out.
    """
    parts = path.replace("\\", "/").split("/")
    if "\0" in path or os.path.isabs(path) or ":" in parts[0] or any(part in ("", ".", "..") for part in parts):
        message = f"The path {path!r} leads out of its artifact; it is not sent. Rename the file."
        raise Rejected(message)
    return "/".join(parts)


def _param(name: str, value: object) -> dict[str, str]:
    """Return one parameter."""
    told = value if isinstance(value, str) else "" if value is None else json.dumps(value, default=str)
    return {"section": "General", "name": name, "value": told, "type": type(value).__name__, "description": ""}
