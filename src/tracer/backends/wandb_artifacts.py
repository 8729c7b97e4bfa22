"""An artifact of ours as one of W&B's."""

from __future__ import annotations

import re
from typing import Any

from tracer.backends.base import Rejected
from tracer.backends.names import NameMap
from tracer.transfer import File

_NAMES = r"[A-Za-z0-9_.-]"
_LONGEST = 128


def artifact(file: File) -> tuple[Any, list[str]]:
    """Return W&B's artifact and its aliases; the bytes stay where they are until W&B uploads them.

    Raises:
        Rejected: A part would lie outside the artifact.
    """
    import wandb

    names = NameMap(_NAMES, _LONGEST, r"\.+")
    own = {"name": file.name, "version": file.version, "step": file.step, "time": file.time}
    digests = {part.path: part.digest for part in file.parts}
    made = wandb.Artifact(
        names.sent(file.name),
        names.sent(f"tracer-{file.type}" if _is_reserved(file.type) else file.type or "artifact"),
        metadata={**file.metadata, "tracer": own | {"type": file.type, "digests": digests}},
    )
    for part in file.parts:
        if not is_inside(part.path):
            message = f"The part {part.path!r} of the artifact {file.name!r} lies outside it; it was not sent."
            raise Rejected(message)
        made.add_file(part.local, name=part.path, policy="immutable", skip_cache=True)
    return made, [alias for alias in file.aliases if re.fullmatch(r"[^/:]+", alias) and not _is_counted(alias)]


def is_inside(path: str) -> bool:
    """Tell whether a relative path stays in its folder.

    Example:
        >>> is_inside("a/b.bin"), is_inside("../b"), is_inside("/etc/passwd")
        (True, False, False)
    """
    parts = re.split(r"[/\\]", path)
    return (
        bool(path) and "\0" not in path and all(part not in {"", ".", ".."} for part in parts) and ":" not in parts[0]
    )


def _is_reserved(kind: str) -> bool:
    """Tell whether W&B keeps a type of artifact to itself."""
    return kind == "job" or kind.startswith("wandb-")


def _is_counted(alias: str) -> bool:
    """Tell whether an alias looks like a version that W&B counts itself."""
    return alias == "latest" or re.fullmatch(r"v\d+", alias) is not None
