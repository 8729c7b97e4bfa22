"""The folder of a run as `StorageBackend` makes it; `runfile` owns what stands in `run.json`."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping

from tracer import runfile
from tracer.errors import StoreError


def new_facts(uid: str, project: str, name: str, started: int, config: Mapping[str, object]) -> dict[str, object]:
    """Return the content of `run.json` of a run that begins in this process."""
    facts = runfile.new_facts(uid, project, name, {})
    return {**facts, "started": started, "config": dict(config), "user": _user()}


def create_run_folder(base: str | os.PathLike[str], facts: Mapping[str, object]) -> str:
    """Make the folder of a run with its `run.json` and return its path.

    Raises:
        ValueError: Another run has the id already.
        StoreError: The disk does not take it.
    """
    uid = str(facts["id"])
    folder = os.path.join(os.fspath(base), "runs", runfile.folder_name(uid))
    try:
        os.makedirs(os.path.join(folder, "journal"), exist_ok=True)
        made = runfile.create(folder, facts)  # of two processes that make the same run, one is first
    except OSError as error:
        message = (
            f"The run folder {folder} cannot be made ({error.strerror}). Free space or mend the rights of the store."
        )
        raise StoreError(message) from error
    if not made:
        message = f"A run with the id {uid!r} exists already in {folder}. Choose another id, or pass resume=True."
        raise ValueError(message)
    return folder


def finish_run(folder: str, end: Mapping[str, object]) -> None:
    """Write into `run.json` how the run ended; the end record in the journal says the same."""
    facts = runfile.read(folder)
    try:
        runfile.replace(folder, {**facts, **end})
    except OSError as error:
        message = (
            f"The end of the run cannot be written into {folder} ({error.strerror}). Free space and finish it again."
        )
        raise StoreError(message) from error


def _user() -> str:
    """Return who is working, if the system knows."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return ""


__all__ = ["create_run_folder", "finish_run", "new_facts"]
