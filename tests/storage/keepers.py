"""Runs that keep artifacts, and what lies on the disk then; shared by several files of tests."""

from __future__ import annotations

import os
from pathlib import Path

from programs import CALMLY

import tracer
from tracer.run import Run
from tracer.storage import Store

STORE = Path(".tracer")


def begin(name: str = "first", project: str = "gpt", **settings: object) -> Run:
    """Begin a run that only records."""
    calm = {**CALMLY, "track_code": False, "track_arguments": False}
    return tracer.init(project=project, run_name=name, **{**calm, **settings})  # type: ignore[arg-type]


def contents(run: Run) -> list[Path]:
    """Return the files of contents that a run keeps."""
    return sorted(path for path in Path(run.folder, "artifacts").iterdir() if len(path.name) == 64)


def references(uid: str | None = None, project: str | None = None) -> list[str]:
    """Return the versions that are listed."""
    with Store.open(STORE) as store:
        return [artifact.reference for artifact in store.artifacts(uid, project=project)]


def disk_bytes(folder: Path) -> int:
    """Return what a folder takes as `du` counts it: a file with two names once."""
    found = {(state.st_dev, state.st_ino): state.st_blocks * 512 for state in map(os.lstat, folder.rglob("*"))}
    return sum(found.values())
