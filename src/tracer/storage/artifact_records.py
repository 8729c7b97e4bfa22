"""What is known of one version of an artifact: a small JSON file in the run's folder, which appears by rename.

    runs/<run>/artifacts/index/<name's digest>-v<version>.json       a version that the run made
    runs/<run>/artifacts/index/used-<digest>.json                    a version that the run used
    versions/<digest of project and name>/v<version>                 taken numbers of versions, for the whole store

The file comes after the bytes it names are synced, so what is listed is whole. Numbers count per project and name:
whoever creates the file of a number first has it, also across machines. Where `versions/` is not there, a look at all
runs makes it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from tracer.errors import SchemaTooNew, StoreError
from tracer.storage.artifact_contents import FOLDER, PART, content_path, hash_file, is_digest, open_regular
from tracer.storage.artifact_names import checked_entry
from tracer.storage.folder import sync_folder

FORMAT = 1
OUTPUT, INPUT = "output", "input"
FILE, TREE = "file", "folder"
INDEX = "index"
_VERSIONS = "versions"
#: Larger records or lists of files are not what we wrote.
_LARGEST_RECORD, _LARGEST_LIST = 16 * 1024 * 1024, 512 * 1024 * 1024
_NUMBER = re.compile(r"v(\d{1,9})")
_KEY = re.compile(r"[0-9a-f]{32}")


class Entry(NamedTuple):
    """One file of an artifact: its path within it, its SHA-256 (None where nobody hashed it), its size."""

    path: str
    digest: str | None
    bytes: int


@dataclass(frozen=True, slots=True)
class Record:
    """One version of an artifact as its file holds it."""

    project: str
    name: str
    version: int
    type: str
    direction: str
    form: str
    digest: str | None
    bytes: int | None
    created: int
    step: int | None = None
    description: str | None = None
    origin: str = "user"
    #: Where the files lie that were not copied.
    uri: str | None = None
    modified: int | None = None
    #: The run that made what this run used.
    maker: str | None = None
    file: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    #: Alias → when it was given: of several versions, the one it was given last has it.
    aliases: Mapping[str, int] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """The name of the record's file."""
        if self.direction == INPUT:
            about = json.dumps([self.project, self.name, self.version, self.digest, self.maker])
            return f"used-{hashlib.sha256(about.encode()).hexdigest()[:32]}.json"
        return f"{_key(self.project, self.name)}-v{self.version}.json"

    def text(self) -> str:
        """Return what the file holds."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, default=str)


def record_of(text: str | bytes) -> Record:
    """Return the record that a file holds.

    Raises:
        StoreError: It is none.
        SchemaTooNew: A newer Tracer wrote it.
    """
    try:
        said = json.loads(text)
        if said.pop("format") > FORMAT:
            message = f"A record of an artifact has a format that this Tracer does not know ({FORMAT} is the last)."
            raise SchemaTooNew(message)
        record = Record(**{key: value for key, value in said.items() if key in Record.__slots__})
        _check(record)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        message = f"A record of an artifact is damaged ({error})."
        raise StoreError(message) from error
    return record


def write_record(run_folder: str, record: Record) -> None:
    """Write a record so that it is found whole or not at all; one of the same name is replaced."""
    folder = os.path.join(run_folder, FOLDER, INDEX)
    is_new = not os.path.isdir(folder)
    os.makedirs(folder, exist_ok=True)
    part = os.path.join(folder, f"{PART}{os.getpid()}-{os.urandom(6).hex()}")
    try:
        with open(part, "x", encoding="utf-8") as file:
            file.write(record.text())
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, os.path.join(folder, record.file_name))
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
    sync_folder(folder)
    if is_new:
        sync_folder(os.path.dirname(folder))
        sync_folder(run_folder)


def read_records(run_folder: str, problems: list[str] | None = None) -> list[Record]:
    """Return the records of a run, sorted by name and version; of one that is damaged `problems` gets a sentence."""
    folder = os.path.join(run_folder, FOLDER, INDEX)
    found: list[Record] = []
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    for name in names:
        if name.startswith(".") or not name.endswith(".json"):
            continue
        path = os.path.join(folder, name)
        try:
            with open_regular(path) as file:
                record = record_of(file.read(_LARGEST_RECORD))
        except FileNotFoundError:
            continue
        except (StoreError, OSError) as error:
            if problems is not None:
                problems.append(f"{path}: {error}")
            continue
        found.append(record)
    return sorted(found, key=lambda one: (one.direction, one.name, one.version))


def list_of_files(entries: list[Entry]) -> bytes:
    """Return the list of a folder's files: its digest is the digest of the artifact."""
    listed = [list(entry) for entry in sorted(entries)]
    return json.dumps({"format": FORMAT, "files": listed}, separators=(",", ":")).encode()


def entries_of(run_folder: str, record: Record) -> list[Entry]:
    """Return the files of a version, after the list was compared with its digest.

    Raises:
        StoreError: The list is missing, damaged, or names a file that leads out of a folder.
    """
    if record.form == FILE:
        return [_entry([record.file or "file", record.digest, record.bytes or 0], record)]
    if record.digest is None:
        return []
    path = content_path(run_folder, record.digest)
    try:
        digest, size = hash_file(path)
        if digest != record.digest or size > _LARGEST_LIST:
            message = f"The list of files {path} of {record.name}:v{record.version} is damaged."
            raise StoreError(message)
        with open_regular(path) as file:
            listed = json.loads(file.read())["files"]
        entries = [_entry(one, record) for one in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = getattr(error, "strerror", None) or error
        message = f"The list of files {path} of {record.name}:v{record.version} cannot be read ({why})."
        raise StoreError(message) from error
    if len({entry.path for entry in entries}) < len(entries):
        message = f"The list of files {path} of {record.name}:v{record.version} names a file twice."
        raise StoreError(message)
    return entries


def newest(run_folder: str, project: str, name: str) -> Record | None:
    """Return the last version of a name that a run made, or None."""
    made = [one for one in _of_name(run_folder, project, name) if one.direction == OUTPUT]
    return max(made, key=lambda one: one.version, default=None)


def with_aliases(record: Record, aliases: Mapping[str, int]) -> Record:
    """Return a record with aliases that were given just now."""
    return replace(record, aliases={**record.aliases, **aliases})


def take_version(base: str, project: str, name: str) -> int:
    """Take the next number of a name for good; two processes never get the same."""
    folder = _numbers_of(base, project, name)
    number = max(taken_versions(base, project, name), default=-1) + 1
    while not _create(os.path.join(folder, f"v{number}")):
        number += 1
    sync_folder(folder)
    return number


def claim_version(base: str, project: str, name: str, number: int) -> bool:
    """Take a certain number of a name, if nobody has it; tell whether it is ours now."""
    folder = _numbers_of(base, project, name)
    is_ours = _create(os.path.join(folder, f"v{number}"))
    sync_folder(folder)
    return is_ours


def taken_versions(base: str, project: str, name: str) -> list[int]:
    """Return the numbers of a name that were taken."""
    try:
        names = os.listdir(os.path.join(base, _VERSIONS, _key(project, name)))
    except FileNotFoundError:
        return []
    return [int(found[1]) for one in names if (found := _NUMBER.fullmatch(one))]


def _numbers_of(base: str, project: str, name: str) -> str:
    """Return the folder of the numbers that were taken of a name."""
    folder = os.path.join(base, _VERSIONS, _key(project, name))
    os.makedirs(folder, exist_ok=True)
    known = os.path.join(base, _VERSIONS, "known")
    if not os.path.exists(known):  # the first artifact of the store, or the folder was lost: the runs know
        _learn(base)
        _create(known)
    return folder


def _learn(base: str) -> None:
    """Take the numbers that the runs of a store and of its trash have."""
    for place in ("runs", "trash"):
        with contextlib.suppress(OSError):
            for run in os.listdir(os.path.join(base, place)):
                with contextlib.suppress(OSError):
                    for one in os.listdir(os.path.join(base, place, run, FOLDER, INDEX)):
                        key, _, number = one.removesuffix(".json").rpartition("-")
                        if _KEY.fullmatch(key) and _NUMBER.fullmatch(number):
                            os.makedirs(os.path.join(base, _VERSIONS, key), exist_ok=True)
                            _create(os.path.join(base, _VERSIONS, key, number))


def _of_name(run_folder: str, project: str, name: str) -> list[Record]:
    """Return the records of one name, without reading those of others."""
    before = f"{_key(project, name)}-v"
    folder = os.path.join(run_folder, FOLDER, INDEX)
    found: list[Record] = []
    with contextlib.suppress(OSError):
        for one in os.listdir(folder):
            if one.startswith(before):
                with contextlib.suppress(OSError, StoreError), open_regular(os.path.join(folder, one)) as file:
                    found.append(record_of(file.read(_LARGEST_RECORD)))
    return found


def _create(path: str) -> bool:
    """Create an empty file; tell whether nobody had."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    except FileExistsError:
        return False
    return True


def _key(project: str, name: str) -> str:
    """Return what stands for a project and a name where only safe file names may."""
    return hashlib.sha256(f"{project}\0{name}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _entry(listed: Any, record: Record) -> Entry:  # noqa: ANN401 -- JSON
    """Return one file of a list, or refuse it."""
    path, digest, size = listed
    if not isinstance(path, str) or not isinstance(size, int) or not (digest is None or is_digest(digest)):
        message = f"{record.name}:v{record.version} lists {str(listed)[:100]!r}, which is no file."
        raise StoreError(message)
    try:
        return Entry(checked_entry(path), digest, size)
    except ValueError as error:
        raise StoreError(str(error)) from error


def _check(record: Record) -> None:
    """See that a record's values have their types."""
    texts: tuple[object, ...] = (
        record.project,
        record.name,
        record.type,
        record.direction,
        record.form,
        record.file,
        record.origin,
    )
    whole: tuple[object, ...] = (record.version, record.created)
    if not all(isinstance(one, str) for one in texts) or not all(isinstance(one, int) for one in whole):
        message = "a value has another type than it should"
        raise TypeError(message)
    if record.digest is not None and not is_digest(record.digest):
        message = f"{record.digest!r} is no SHA-256"
        raise ValueError(message)
    objects: tuple[object, ...] = (record.metadata, record.aliases)
    if not all(isinstance(one, dict) for one in objects) or not all(isinstance(one, int) for one in _numbers(record)):
        message = "metadata and aliases are objects, sizes and times whole numbers"
        raise TypeError(message)


def _numbers(record: Record) -> Iterator[object]:
    """Yield what must be a whole number where it is there."""
    yield from (one for one in (record.bytes, record.step, record.modified) if one is not None)
    yield from record.aliases.values()


__all__ = [
    "FILE", "INDEX", "INPUT", "OUTPUT", "TREE", "Entry", "Record", "claim_version", "entries_of", "list_of_files",
    "newest", "read_records", "record_of", "take_version", "taken_versions", "with_aliases", "write_record",
]  # fmt: skip
