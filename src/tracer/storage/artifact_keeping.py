"""What is given as an artifact → contents in the run's folder, a number, and at last the record that names them.

In this order, so that a death at any moment leaves bytes that nobody lists or a number that nobody has, and never half
an artifact. What is logged again unchanged is the same version; aliases that are new are added to it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tracer import clock
from tracer.storage import artifact_records as records
from tracer.storage.artifact_contents import Cellar, Progress, hash_file
from tracer.storage.artifact_names import checked_entry, type_of_file, type_of_folder
from tracer.storage.artifact_records import FILE, OUTPUT, TREE, Entry, Record


class Hurry(Exception):
    """The program ends: what is not hashed yet is noted without a digest."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants kept; `data` are the bytes of a file that does not exist, else `path` is one, or a folder."""

    name: str
    path: str = ""
    data: bytes | None = None
    file: str = ""
    type: str | None = None
    step: int | None = None
    description: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    aliases: Sequence[str] = ()
    copy: bool = True
    origin: str = "user"
    #: Where versions are counted; as `run.json` says when empty.
    project: str = ""
    #: What cannot be kept of a folder is an error; else it is left out.
    strict: bool = True


@dataclass(slots=True)
class _Kept:
    """What became of the bytes."""

    form: str
    digest: str | None
    bytes: int | None
    file: str = ""
    modified: int | None = None
    type: str = "file"


def keep(run_folder: str, project: str, wanted: Wanted, progress: Progress | None = None) -> Record:
    """Keep an artifact of a run and return its record.

    Args:
        run_folder: The run's folder.
        project: The run's project: versions are counted in it.
        wanted: What is to be kept.
        progress: Called with bytes done and bytes in all; `Hurry` from it ends the hashing of what is not copied.

    Raises:
        ValueError: The folder holds what cannot be kept.
        OSError: It cannot be read, or the disk does not take it.
    """
    if wanted.data is None and not wanted.copy:
        kept = _noted(run_folder, wanted, progress)
    elif wanted.data is not None:
        digest = Cellar(run_folder).keep_bytes(wanted.data)
        kept = _Kept(FILE, digest, len(wanted.data), wanted.file, type=type_of_file(wanted.file))
    else:
        kept = _copied(run_folder, wanted, progress)
    uri = os.path.abspath(wanted.path) if wanted.data is None and not wanted.copy else None
    now = clock.now_us()
    given = dict.fromkeys(wanted.aliases, now)
    before = records.newest(run_folder, project, wanted.name)
    if before is not None and _is_same(before, kept, uri):
        if given:
            before = records.with_aliases(before, given)
            records.write_record(run_folder, before)
        return before
    base = os.path.dirname(os.path.dirname(os.path.abspath(run_folder)))
    record = Record(
        project=project, name=wanted.name, version=records.take_version(base, project, wanted.name),
        type=wanted.type or kept.type, direction=OUTPUT, form=kept.form, digest=kept.digest, bytes=kept.bytes,
        created=now, step=wanted.step, description=wanted.description, origin=wanted.origin, uri=uri,
        modified=kept.modified, file=kept.file, metadata=dict(wanted.metadata), aliases=given,
    )  # fmt: skip
    records.write_record(run_folder, record)
    return record


def _copied(run_folder: str, wanted: Wanted, progress: Progress | None) -> _Kept:
    """Copy a file or a folder into the run."""
    cellar = Cellar(run_folder)
    if not os.path.isdir(wanted.path):
        name = os.path.basename(os.path.abspath(wanted.path))
        digest, size = cellar.keep_file(wanted.path, progress)
        return _Kept(FILE, digest, size, checked_entry(name), type=type_of_file(name))
    files = list(_files(wanted.path, strict=wanted.strict))
    tell = _summed(progress, sum(size for _, _, size in files))
    entries = [Entry(inside, *cellar.keep_file(path, tell(size))) for inside, path, size in files]
    return _tree(cellar, wanted, entries)


def _noted(run_folder: str, wanted: Wanted, progress: Progress | None) -> _Kept:
    """Hash a file or a folder where it lies, and copy nothing."""
    path = wanted.path
    name = os.path.basename(os.path.abspath(path))
    try:
        if os.path.isdir(path):
            files = list(_files(path, strict=wanted.strict))
            total = sum(size for _, _, size in files)
            kind = type_of_folder(path, (inside for inside, _, _ in files))
            try:
                tell = _summed(progress, total)
                entries = [Entry(inside, *hash_file(one, tell(size), follow=True)) for inside, one, size in files]
            except Hurry:
                return _Kept(TREE, None, total, type=kind)
            return _tree(Cellar(run_folder), wanted, entries)
        state = os.stat(path)
        try:
            digest, size = hash_file(path, progress, follow=True)
        except Hurry:
            return _Kept(FILE, None, state.st_size, name, state.st_mtime_ns, type_of_file(name))
    except FileNotFoundError:
        if wanted.strict:
            raise
        return _Kept(FILE, None, None, name, None, type_of_file(name))  # a framework removed it meanwhile
    return _Kept(FILE, digest, size, name, state.st_mtime_ns, type_of_file(name))


def _tree(cellar: Cellar, wanted: Wanted, entries: list[Entry]) -> _Kept:
    """Keep the list of a folder's files: its digest is the folder's."""
    digest = cellar.keep_bytes(records.list_of_files(entries))
    kind = type_of_folder(os.path.abspath(wanted.path), (entry.path for entry in entries))
    return _Kept(TREE, digest, sum(entry.bytes for entry in entries), type=kind)


def _files(root: str, *, strict: bool) -> Iterator[tuple[str, str, int]]:
    """Yield the files of a folder: path within it, path, size; a link may lead to a file of the folder only."""
    real = os.path.realpath(root)
    found = 0
    for place, folders, names in os.walk(root, onerror=_raise if strict else None):
        folders.sort()
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in sorted([*names, *links]):
            path = os.path.join(place, name)
            why = _refusal(path, real)
            if not why:
                found += 1
                yield checked_entry(os.path.relpath(path, root)), path, os.stat(path).st_size
            elif strict:
                message = f"{path!r} cannot be part of an artifact: {why}. Copy what it means into the folder."
                raise ValueError(message)
    if not found and strict:
        message = f"The folder {root!r} holds no file, so there is nothing to keep."
        raise ValueError(message)


def _refusal(path: str, root: str) -> str:
    """Say why something in a folder cannot be kept, or return an empty text."""
    target = os.path.realpath(path)
    if os.path.islink(path) and os.path.commonpath([target, root]) != root:
        return "it is a link that leads out of the folder"
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return "it is a link that leads nowhere"
    if stat.S_ISDIR(mode):
        return "it is a link to a folder"
    return "" if stat.S_ISREG(mode) else "it is no ordinary file"


def _summed(progress: Progress | None, total: int) -> Callable[[int], Progress | None]:
    """Return what makes one file's progress that of all."""
    before = 0

    def tell(size: int) -> Progress | None:
        nonlocal before
        start, before = before, before + size
        return None if progress is None else lambda done, _: progress(start + done, total)

    return tell


def _is_same(before: Record, kept: _Kept, uri: str | None) -> bool:
    """Tell whether the last version of a name is what is logged again."""
    same = (before.form, before.digest, before.file, before.uri) == (kept.form, kept.digest, kept.file, uri)
    return same and (kept.digest is not None or (before.bytes, before.modified) == (kept.bytes, kept.modified))


def _raise(error: OSError) -> None:
    """Let a folder that cannot be read be an error."""
    raise error


__all__ = ["Hurry", "Wanted", "keep"]
