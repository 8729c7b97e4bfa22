"""Contents of artifacts and media compared with what names them, for `tracer fsck`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tracer.errors import StoreError
from tracer.storage.artifact_contents import FOLDER, Cellar, content_path, damage, half_written, is_digest
from tracer.storage.artifact_records import OUTPUT, entries_of, read_records
from tracer.storage.folder import read_facts
from tracer.storage.liveness import look
from tracer.storage.media import media
from tracer.storage.values import Problem

if TYPE_CHECKING:
    from tracer.storage.ground import Ground

_CONTENT = "`tracer fsck --repair` takes it from another run that has it; else log it again, or restore a copy."
_RECORD = "Bring it back from a copy of the run's folder, or remove it: the version is then no longer listed."
_PART = "A program was killed while it kept something; `tracer fsck --repair` removes it."


def problems_of(store: Ground, uid: str, run_folder: str) -> Iterator[Problem]:
    """Yield what is wrong with the artifacts and media of a run."""
    damaged_records: list[str] = []
    named: dict[str, str] = {}
    for record in read_records(run_folder, damaged_records):
        if record.direction == OUTPUT and record.uri is None and record.digest is not None:
            about = f"{record.name}:v{record.version}"
            named[record.digest] = about
            with contextlib.suppress(StoreError):  # a list of files that is damaged is found below
                named.update({entry.digest or "": about for entry in entries_of(run_folder, record)})
    for one in damaged_records:
        path, _, fact = one.partition(": ")
        yield Problem(path, fact, _RECORD)
    with contextlib.suppress(StoreError):
        named.update({row.digest: f"{row.kind} {row.name!r}" for row in media(store, uid) if row.digest})
    for digest in sorted(named.keys() | _kept(run_folder)):
        with contextlib.suppress(StoreError):
            path = content_path(run_folder, digest)
            fact = damage(path, digest)
            if fact:
                about = f" ({named[digest]})" if digest in named else ""
                yield Problem(path, f"{fact}{about}", _CONTENT)
    if not _is_live(run_folder):
        for path in half_written(run_folder):
            yield Problem(path, "it was never finished", _PART)


def mend(run_folder: str, problems: list[Problem]) -> None:
    """Remove what was never finished, and put equal contents of other runs in the place of damaged ones."""
    unfinished = set(half_written(run_folder))
    folder = os.path.join(run_folder, FOLDER)
    for problem in problems:
        if problem.path in unfinished:
            with contextlib.suppress(OSError):
                os.unlink(problem.path)
        elif os.path.dirname(problem.path) == folder and is_digest(os.path.basename(problem.path)):
            Cellar(run_folder).take_equal(os.path.basename(problem.path))


def _kept(run_folder: str) -> set[str]:
    """Return the digests that a run keeps a file of."""
    try:
        return {name for name in os.listdir(os.path.join(run_folder, FOLDER)) if is_digest(name)}
    except OSError:
        return set()


def _is_live(run_folder: str) -> bool:
    """Tell whether somebody may be writing into a run."""
    try:
        return look(run_folder, read_facts(run_folder)).is_alive
    except StoreError:
        return False


__all__ = ["mend", "problems_of"]
