"""Where a run stands in a folder of files: `<root>/<project>/<name>`, which belongs to that run alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os

from tracer.backends.files_appending import replace_text
from tracer.backends.names import NameMap
from tracer.transfer import RunInfo

#: Says whose folder it is.
OWNER = ".tracer.json"
_LONGEST = 120


def claimed(root: str, run: RunInfo) -> str:
    """Return the folder of a run, made and marked as its own; of two runs of one name the later one's is longer.

    Raises:
        OSError: It cannot be made.
    """
    names = NameMap(r"[\w. =+,@()-]", _LONGEST, refused=r"\.+|\s.*|.*\s|\.tracer.*")
    folder = os.path.join(os.path.abspath(root), names.sent(run.project or "default"), names.sent(run.name or "run"))
    told = hashlib.sha256(run.uid.encode("utf-8", "surrogatepass")).hexdigest()
    for candidate in (folder, f"{folder}-{told[:6]}", f"{folder}-{told}"):
        os.makedirs(candidate, exist_ok=True)
        owner = _owner(candidate)
        if owner is None and not _is_empty(candidate):
            continue
        if owner is None:
            replace_text(os.path.join(candidate, OWNER), json.dumps({"run": run.uid}))
        if owner in (None, run.uid):
            return candidate
    message = f"{folder} and the two names beside it belong to other runs; choose another folder"
    raise FileExistsError(17, message)


def owner_of(folder: str) -> str | None:
    """Return the id of the run whose folder it is, or None."""
    return _owner(folder)


def inside(folder: str, *parts: str) -> str:
    """Return a path inside a folder.

    Raises:
        ValueError: It would lie outside.
    """
    path = os.path.normpath(os.path.join(folder, *parts))
    if os.path.commonpath([os.path.abspath(folder), os.path.abspath(path)]) != os.path.abspath(folder):
        message = f"{os.path.join(*parts)!r} would lie outside of {folder}"
        raise ValueError(message)
    return path


def _owner(folder: str) -> str | None:
    """Return what the owner's file says."""
    with contextlib.suppress(OSError, ValueError), open(os.path.join(folder, OWNER), encoding="utf-8") as file:
        found = json.load(file)
        if isinstance(found, dict):
            return str(found.get("run"))
    return None


def _is_empty(folder: str) -> bool:
    """Tell whether nothing is in a folder."""
    with os.scandir(folder) as found:
        return next(found, None) is None


__all__ = ["OWNER", "claimed", "inside", "owner_of"]
