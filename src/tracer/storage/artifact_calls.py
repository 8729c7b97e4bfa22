"""What a program calls: an artifact that a run made, an artifact that it uses."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from tracer import clock
from tracer.errors import StoreError
from tracer.sink import Guard
from tracer.storage.artifact_contents import FOLDER, Progress
from tracer.storage.artifact_keeping import Wanted
from tracer.storage.artifact_names import LATEST, checked_aliases, checked_name, file_name
from tracer.storage.artifact_records import INDEX, INPUT, Record, taken_versions, write_record
from tracer.storage.artifacts import Artifact, find

if TYPE_CHECKING:
    from tracer.storage.content_writer import ContentWriter

#: What `log_artifact` takes: a path, bytes, or tensors by name.
#: Larger files of a watched folder are not copied.
_LARGEST_COPY = 100 * 1024 * 1024
_KEPT: tuple[Any, ...] = (bytes, bytearray, memoryview, Mapping)
What = str | os.PathLike[str] | bytes | bytearray | memoryview | Mapping[str, Any]


def wanted_of(  # noqa: PLR0913 -- a keyword for each thing that can be said of an artifact
    what: What,
    *,
    project: str,
    name: str | None,
    type: str | None,  # noqa: A002 -- what users call it
    step: int,
    metadata: Mapping[str, object] | None,
    aliases: str | Sequence[str],
    description: str | None,
    copy: bool,
) -> Wanted:
    """Return what is to be kept, or say at once why it cannot be.

    Raises:
        TypeError: It is nothing that can be kept.
        ValueError: A name, an alias or the path cannot be meant.
    """
    said: dict[str, Any] = {
        "project": project, "type": type, "step": step, "description": description, "aliases": checked_aliases(aliases),
        "metadata": json.loads(json.dumps(dict(metadata or {}), default=str)),
    }  # fmt: skip
    if isinstance(what, (str, os.PathLike)):
        path = os.fspath(what)
        if not os.path.exists(path):
            message = f"There is no file or folder {path!r}, so it cannot be kept. Write it first, or mend the path."
            raise ValueError(message)
        own = os.path.basename(os.path.abspath(path)).replace(":", "_")
        return Wanted(checked_name(name or own), path=path, copy=copy, **said)
    if not isinstance(what, _KEPT):
        kind = what.__class__.__name__
        message = f"A value of type {kind} cannot be kept. Give a path, bytes, or a dictionary of tensors or arrays."
        raise TypeError(message)
    if name is None or not copy:
        message = "Bytes and tensors need name=... and are always copied. Give a name, and leave copy=False out."
        raise ValueError(message)
    if isinstance(what, Mapping):
        from tracer.storage.tensor_files import SUFFIX, pack

        ending = "" if name.endswith(SUFFIX) else SUFFIX
        said["type"] = type or "weights"
        return Wanted(checked_name(name), data=pack(what), file=file_name(name) + ending, **said)
    return Wanted(checked_name(name), data=bytes(what), file=file_name(name), **said)


def log_artifact(
    contents: ContentWriter, about: tuple[str, str], wanted: Wanted, progress: Progress | None = None
) -> Future[Artifact]:
    """Have an artifact kept, and return what will hold it.

    Args:
        contents: What keeps it, on a thread of its own.
        about: The run's id and name.
        wanted: What is to be kept.
        progress: Called on that thread with bytes done and bytes in all.
    """
    promised: Future[Artifact] = Future()

    def pass_on(kept: Future[Record]) -> None:
        error = kept.exception()
        if error is None:
            promised.set_result(_handle(contents.folder, about, kept.result()))
        elif isinstance(error, OSError):
            where = error.filename or contents.folder
            why = error.strerror or error
            message = f"{where} cannot be kept ({why}). Free space or mend the rights, then try again."
            promised.set_exception(StoreError(message))
        else:
            promised.set_exception(error)

    promised.set_running_or_notify_cancel()
    contents.keep(wanted, progress).add_done_callback(pass_on)
    return promised


def keep_found(contents: ContentWriter, path: str, name: str, step: int, guard: Guard) -> None:
    """Have a file kept that appeared in a watched folder; a large one is noted where it lies."""

    def look(kept: Future[Record]) -> None:
        with guard(f"keeping {path}"):
            kept.result()

    with guard(f"keeping {path}"):
        is_small = os.path.getsize(path) <= _LARGEST_COPY
        name = checked_name(name.replace(":", "_"))
        contents.keep(Wanted(name, path=path, step=step, copy=is_small)).add_done_callback(look)


def use_artifact(contents: ContentWriter, project: str, text: str) -> Artifact:
    """Find a version, and note that the run uses it.

    Args:
        contents: What belongs to the run.
        project: The run's project: where a name is looked for first.
        text: See `artifacts.find`.

    Raises:
        ArtifactNotFound: None answers to that, or several do.
        ValueError: It cannot be read.
    """
    from tracer.storage.store import Store

    base = os.path.dirname(os.path.dirname(os.path.abspath(contents.folder)))
    with Store.open(base) as store:
        found = find(store, text, project=project)
    made = found.record
    used = Record(
        project=made.project, name=made.name, version=made.version, type=made.type, direction=INPUT, form=made.form,
        digest=made.digest, bytes=made.bytes, created=clock.now_us(), origin=made.origin, uri=made.uri,
        maker=found.run, file=made.file,
    )  # fmt: skip
    if not os.path.exists(os.path.join(contents.folder, FOLDER, INDEX, used.file_name)):
        write_record(contents.folder, used)
        contents.note(found.reference, used)
    return found


def _handle(folder: str, about: tuple[str, str], record: Record) -> Artifact:
    """Return what was kept just now; as the last of its name it is `latest`."""
    uid, name = about
    base = os.path.dirname(os.path.dirname(os.path.abspath(folder)))
    is_last = record.version >= max(taken_versions(base, record.project, record.name), default=-1)
    aliases = ((LATEST,) if is_last else ()) + tuple(sorted(record.aliases))
    return Artifact(uid, name, record, aliases, base, os.path.basename(folder))


__all__ = ["What", "keep_found", "log_artifact", "use_artifact", "wanted_of"]
