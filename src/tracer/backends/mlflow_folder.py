"""MLflow's file store (`mlruns`), which newer versions of MLflow refuse to open: its files are read as they lie.

<folder>/<experiment>/meta.yaml               name, lifecycle_stage
<folder>/<experiment>/<run>/meta.yaml         run_name, status, start_time, end_time, lifecycle_stage
<folder>/<experiment>/<run>/params/<name>     the value
<folder>/<experiment>/<run>/tags/<name>       the value
<folder>/<experiment>/<run>/metrics/<name>    lines of `time value step`
<folder>/<experiment>/<run>/artifacts/
<folder>/.trash/<experiment>/                 deleted
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from tracer.backends.base import Unreachable
from tracer.backends.mlflow_found import Found, Model, Series

_META = "meta.yaml"
_STATUSES = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_LARGEST_TEXT = 1 << 20
_LINES = 100_000
_FIELDS = 2
_LARGEST = 2**63


class Folder:
    """A file store.

    Args:
        path: Its folder.
        notes: Where it is said what could not be read.

    Raises:
        Unreachable: It is not there.
    """

    def __init__(self, path: str, notes: list[str]) -> None:
        self.path, self._notes = os.path.realpath(path), notes
        self._where: dict[str, str] = {}
        if not os.path.isdir(self.path):
            message = f"There is no folder {path!r}. Name the folder mlruns, a database or a server's address."
            raise Unreachable(message)

    def runs(self, *, deleted: bool) -> Iterator[Found]:
        """Yield the runs."""
        roots = [self.path, os.path.join(self.path, ".trash")] if deleted else [self.path]
        for experiment in (folder for root in roots for folder in _folders(root)):
            said = _meta(experiment)
            if not said or (said.get("lifecycle_stage") == "deleted" and not deleted):
                continue
            models = _models(experiment)
            for folder in _folders(experiment):
                held = _meta(folder)
                if ("run_id" in held or "run_uuid" in held) and (deleted or not _is_deleted(held)):
                    yield self._found(folder, held, str(said.get("name", "default")), models)

    def series(self, found: Found) -> Iterator[Series]:
        """Yield the metrics of a run."""
        import numpy as np

        top = os.path.join(self._where[found.id], "metrics")
        for name, path in _files(top):
            chunks, skipped = [], 0
            with open(path, encoding="utf-8", errors="replace") as lines:
                while rows := lines.readlines(_LINES * 16):
                    kept = [row for row in map(_row, rows) if row is not None]
                    skipped += len(rows) - len(kept)
                    if kept:
                        steps, times, values = zip(*kept, strict=True)
                        chunks.append(
                            (np.array(steps, np.int64), np.array(times, np.int64), np.array(values, np.float64))
                        )
            if skipped:
                self._notes.append(f"{found.name}: {skipped} lines of the metric {name!r} cannot be read; left out.")
            if chunks:
                columns = [np.concatenate(column) for column in zip(*chunks, strict=True)]
                yield Series(name, columns[0], columns[1], columns[2])

    def artifacts(self, found: Found) -> str:
        """Return the folder of a run's artifacts inside the store."""
        return os.path.join(self._where[found.id], "artifacts")

    def _found(self, folder: str, held: dict[str, Any], experiment: str, models: dict[str, list[Model]]) -> Found:
        """Return what a run's folder says."""
        uid = os.path.basename(folder)
        self._where[uid] = folder
        tags = {name: _text(path) for name, path in _files(os.path.join(folder, "tags"))}
        status = held.get("status")
        return Found(
            id=uid,
            experiment=experiment,
            name=str(tags.get("mlflow.runName") or held.get("run_name") or uid),
            status=_STATUSES.get(status, str(status)) if isinstance(status, int) else str(status),
            started=_whole(held.get("start_time")) or 0,
            ended=_whole(held.get("end_time")),
            artifacts=str(held.get("artifact_uri") or ""),
            params={name: _text(path) for name, path in _files(os.path.join(folder, "params"))},
            tags=tags,
            models=tuple(models.get(uid, ())),
        )


def _row(line: str) -> tuple[int, int, float] | None:
    """Return `step, time, value` of a line; None where it holds none."""
    parts = line.split()
    try:
        step = int(parts[2]) if len(parts) > _FIELDS else 0
        time, value = int(parts[0]), float(parts[1])
    except (ValueError, IndexError):
        return None
    return (step, time, value) if abs(step) < _LARGEST and abs(time) < _LARGEST else None


def _meta(folder: str) -> dict[str, Any]:
    """Return what `meta.yaml` of a folder says; empty where there is none."""
    import yaml

    path = os.path.join(folder, _META)
    with contextlib.suppress(OSError, yaml.YAMLError, ValueError, RecursionError):
        if os.path.getsize(path) <= _LARGEST_TEXT:
            with open(path, encoding="utf-8", errors="replace") as file:
                said = yaml.safe_load(file)
            return said if isinstance(said, dict) else {}
    return {}


def _models(experiment: str) -> dict[str, list[Model]]:
    """Return the models of an experiment by the run that made each."""
    found: dict[str, list[Model]] = {}
    for folder in _folders(os.path.join(experiment, "models")):
        said = _meta(folder)
        if said and said.get("lifecycle_stage") != "deleted":
            name = str(said.get("name") or os.path.basename(folder))
            made = Model(os.path.basename(folder), name, os.path.join(folder, "artifacts"))
            found.setdefault(str(said.get("source_run_id")), []).append(made)
    return found


def _folders(top: str) -> list[str]:
    """Return the folders in a folder; none that is a link elsewhere."""
    try:
        with os.scandir(top) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []
    return [os.path.join(top, name) for name in names if not name.startswith(".")]


def _files(top: str) -> Iterator[tuple[str, str]]:
    """Yield the files below a folder by their path inside it; a name with slashes is a path there."""
    for folder, inner, names in os.walk(top):
        inner.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not os.path.islink(path) and os.path.isfile(path):
                yield os.path.relpath(path, top).replace(os.sep, "/"), path


def _text(path: str) -> str:
    """Return the value in a file."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(_LARGEST_TEXT)


def _is_deleted(held: dict[str, Any]) -> bool:
    """Tell whether a run is in the trash."""
    return held.get("lifecycle_stage") == "deleted"


def _whole(value: object) -> int | None:
    """Return a whole number, where it is one."""
    return value if isinstance(value, int) and abs(value) < 2**53 else None
