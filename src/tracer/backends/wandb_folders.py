"""Where W&B keeps runs on a disk: `wandb/offline-run-<when>-<id>/run-<id>.wandb`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

_FOLDER = re.compile(r"(?:offline-)?run-\d{8}_\d{6}-.+")
_MOST_FOLDERS = 100_000


def log_files(folder: str, run_id: str | None = None) -> list[str]:
    """Return the `.wandb` files below a folder, oldest first; links are not followed.

    Args:
        folder: A file, a run's folder, a `wandb/` folder, or the folder that holds it.
        run_id: Only those of one run.
    """
    if os.path.isfile(folder):
        return [folder]
    found = sorted(_of_folder(folder)) or sorted(
        path for name in _runs(folder) for path in _of_folder(os.path.join(folder, name))
    )
    if not found and os.path.isdir(inner := os.path.join(folder, "wandb")) and not os.path.islink(inner):
        return log_files(inner, run_id)
    found.sort(key=_age)
    return [path for path in found if run_id is None or os.path.basename(path) == f"run-{run_id}.wandb"]


def _runs(folder: str) -> Iterator[str]:
    """Yield the names of folders of runs."""
    try:
        with os.scandir(folder) as entries:
            for count, entry in enumerate(entries):
                if count >= _MOST_FOLDERS:
                    return
                if _FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                    yield entry.name
    except OSError:
        return


def _of_folder(folder: str) -> Iterator[str]:
    """Yield the `.wandb` files that stand in a folder itself."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".wandb") and entry.is_file(follow_symlinks=False):
                    yield entry.path
    except OSError:
        return


def _age(path: str) -> tuple[str, int, str]:
    """Return what sorts files by when their run was started: the time in the folder's name, and W&B's counter."""
    name = os.path.basename(os.path.dirname(path))
    found = re.search(r"run-(\d{8}_\d{6})", name)
    run_id = os.path.basename(path).removeprefix("run-").removesuffix(".wandb")
    counter = name.rpartition(f"-{run_id}-")[2]
    return (found[1] if found else ""), int(counter) if counter.isdigit() and f"-{run_id}-" in name else 0, path
