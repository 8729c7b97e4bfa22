"""What an Aim run keeps as files, and what it remembers of lines: copies under the repository, never outside it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any

from tracer.backends.aim_objects import LINES, RECORDS, read_line
from tracer.backends.base import Rejected
from tracer.backends.names import NameMap
from tracer.transfer import File, LogLine, Media

_names = NameMap(r"[A-Za-z0-9_. =-]", 120, r"\.\.?")


def keep(run: Any, file: File) -> None:  # noqa: ANN401 -- Aim's
    """Keep the parts of an artifact as `<name>/<part>`."""
    for part in file.parts:
        more = {"artifact": file.name, "version": file.version, "type": file.type, "digest": part.digest,
                "part": part.path, "size": part.size, "aliases": list(file.aliases), "time": file.time,
                "step": file.step, "metadata": dict(file.metadata)}  # fmt: skip
        _upload(run, part.local, f"{inside(file.name)}/{inside(part.path)}", more)


def keep_media(run: Any, event: Media, data: bytes) -> None:  # noqa: ANN401
    """Keep media that Aim has no object for as `media/<name>/<step>`."""
    suffix = event.suffix if event.data is not None or event.path is not None else ".json"
    place = "/".join(_names.sent(part) for part in event.name.split("/"))
    more = {"media": event.kind, "name": event.name, "step": event.step, "time": event.time, "rank": event.rank,
            "caption": event.caption, "suffix": event.suffix, "fields": dict(event.fields)}  # fmt: skip
    rank = f"rank{event.rank}/" if event.rank else ""
    with tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, "media")
        with open(local, "wb") as written:
            written.write(data)
        _upload(run, local, f"media/{rank}{place}/{event.step}{_names.sent(suffix)}", more)


def content(event: Media) -> bytes:
    """Return what is to be seen or heard: the file, the bytes, or the fields as JSON."""
    if event.data is not None:
        return event.data
    if event.path is not None:
        with open(event.path, "rb") as opened:
            return opened.read()
    return json.dumps(dict(event.fields), default=str).encode()


def inside(path: str) -> str:
    """Return a path that stays where it is put.

    Raises:
        Rejected: It leads out of its folder.
    """
    parts = PurePosixPath(path.replace("\\", "/")).parts
    if not parts or ".." in parts or parts[0].startswith("/") or "\0" in path or ":" in parts[0]:
        message = f"The path {path!r} leads out of its artifact; it is not sent. Rename the file."
        raise Rejected(message)
    return "/".join(parts)


def identity(event: LogLine) -> tuple[object, ...]:
    """Return what makes a line the same line when it comes again."""
    return event.kind, event.time, event.rank, event.body, event.name


def lines(run: Any, most: int) -> Iterator[tuple[object, ...]]:  # noqa: ANN401
    """Yield the identities of the last lines that a run keeps, for one that is resumed."""
    for (_, name), info in run._tracker.sequence_infos.items():  # noqa: SLF001
        if name not in (LINES, RECORDS) or not info.initialized:
            continue
        for at in range(max(0, info.count - most), info.count):
            try:
                found = info.val_view[at]
            except KeyError:
                continue
            yield identity(read_line(found, 0, 0))


def index(repo: Any, found: str) -> None:  # noqa: ANN401
    """Put a run into the index that `get_run` and queries ask; `aim up` does it by itself, and has it open then."""
    busy = import_module("aimrocks.errors").RocksIOError
    try:
        target = repo._get_index_tree("meta", 0).view(())  # noqa: SLF001
        source = repo.request_tree("meta", found, read_only=True, skip_read_optimization=True)
        source.subtree("meta").subtree("chunks").subtree(found).finalize(index=target)
    except busy:
        return


def _upload(run: Any, local: str, name: str, more: dict[str, object]) -> None:  # noqa: ANN401
    """Copy a file to where the repository keeps artifacts, and note it in the run."""
    uri = f"file://{os.path.join(run.repo.path, 'artifacts')}"
    if run.artifacts_uri is None:
        run.set_artifacts_uri(uri)
    artifact = import_module("aim.sdk.objects.artifact").Artifact(local, uri=run.artifacts_uri, name=name)
    artifact.upload(block=True)
    artifact.storage["path"] = name  # not where it lay on this machine
    artifact.storage["tracer"] = json.dumps(more, default=str)
    run.meta_run_tree.subtree("artifacts")[name] = artifact
