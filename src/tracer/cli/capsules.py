"""Which capsules a run has, and which one a command means; nothing here loads torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tracer.errors import CapsuleError, CommandError
from tracer.render.formats import clean

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.storage.values import RunRow

SUFFIX = ".trc"
FOLDER = "capsules"
_USAGE, _CANNOT_LOAD = 2, 3


def capsule_of(name: str, step: int | None, storage: str) -> str:
    """Return the path of the capsule that is meant: a file, or that of a run and a step.

    Raises:
        CommandError: There is none, or several.
    """
    if os.path.isfile(name):
        return name
    if name.endswith(SUFFIX):
        message = f"There is no capsule {name!r}. `tracer capsule list RUN` shows those of a run."
        raise CommandError(message, exit_code=_CANNOT_LOAD)
    from tracer.storage.store import Store

    with Store.open(storage) as store:
        run = store.run(name)
        paths = capsules_of(store, run)
    if step is not None:
        chosen = [path for path in paths if os.path.basename(path).startswith(f"step-{step}-")]
        if not chosen:
            message = f"Run {clean(run.name)!r} has no capsule of step {step}. It has: {_names(paths)}."
            raise CommandError(message, exit_code=_USAGE)
        return chosen[0]
    if len(paths) != 1:
        message = (
            f"Run {clean(run.name)!r} has {len(paths)} capsules; say which with --step: {_names(paths)}."
            if paths
            else f"Run {clean(run.name)!r} has no capsules. One is written when a step goes wrong, or on "
            f"`tracer capsule now {clean(run.name)}`."
        )
        raise CommandError(message, exit_code=_USAGE)
    return paths[0]


def capsules_of(store: Store, run: RunRow) -> list[str]:
    """Return the capsules of a run, the earliest step first."""
    folder = os.path.join(store.run_folder(run), FOLDER)
    try:
        names = [name for name in os.listdir(folder) if name.endswith(SUFFIX) and not name.startswith(".")]
    except OSError:
        return []
    return [os.path.join(folder, name) for name in sorted(names, key=_order)]


def manifest_of(path: str) -> dict[str, Any]:
    """Return what a capsule says of itself.

    Raises:
        CommandError: It cannot be read.
    """
    from tracer.flight.archive import Archive

    try:
        archive = Archive(path)
    except CapsuleError as error:
        raise CommandError(str(error), exit_code=_CANNOT_LOAD) from error
    archive.close()
    return archive.manifest


def _order(name: str) -> tuple[int, str]:
    """Return where a capsule stands: by its step, then by name."""
    number = name.split("-")[1] if name.count("-") > 1 else ""
    return (int(number) if number.isdigit() else -1, name)


def _names(paths: list[str]) -> str:
    """Return the files' names."""
    return ", ".join(clean(os.path.basename(path)) for path in paths) or "none"


__all__ = ["FOLDER", "SUFFIX", "capsule_of", "capsules_of", "manifest_of"]
