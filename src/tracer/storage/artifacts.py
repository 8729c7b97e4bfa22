"""Artifacts as people meet them: versions with a name, found by a reference, and their files.

Versions are counted per project and name. `latest` is the version with the highest number, any other alias belongs to
the version it was given to last; so aliases move without anything being rewritten, and when a run is deleted they fall
back to what remains.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracer.errors import StoreError
from tracer.storage import artifact_copies
from tracer.storage.artifact_catalog import Row, all_records
from tracer.storage.artifact_contents import Progress, content_path, damage
from tracer.storage.artifact_names import LATEST, Reference, file_name, parse
from tracer.storage.artifact_records import FILE, INPUT, OUTPUT, Entry, Record, entries_of

if TYPE_CHECKING:
    from tracer.storage.ground import Ground

_NAMES_OF_RUN = (
    "AND (a.project, a.name) IN (SELECT b.project, b.name FROM artifact b JOIN run q ON q.id = b.run WHERE q.uid = ?)"
)
_MOST_NAMED, _SHORTEST_DIGEST = 5, 8


class ArtifactNotFound(StoreError):
    """No artifact answers to a reference, or several do."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One version of an artifact: what is known of it, and its files.

    Example:
        >>> artifact = run.use_artifact("model:latest")  # doctest: +SKIP
        >>> state = torch.load(artifact.path)  # doctest: +SKIP
    """

    run: str
    run_name: str
    record: Record
    aliases: tuple[str, ...]
    base: str
    folder: str

    @property
    def name(self) -> str:
        """Its name."""
        return self.record.name

    @property
    def version(self) -> int:
        """Its number: 0, 1, 2 … within the project and the name."""
        return self.record.version

    @property
    def project(self) -> str:
        """The project of the run that made it."""
        return self.record.project

    @property
    def type(self) -> str:
        """What it is: `checkpoint`, `model`, `dataset`, `image` and so on."""
        return self.record.type

    @property
    def digest(self) -> str | None:
        """The SHA-256 of the file, or of the list of a folder's files; None where it was not hashed."""
        return self.record.digest

    @property
    def bytes(self) -> int | None:
        """How many bytes its files have."""
        return self.record.bytes

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What was said of it."""
        return self.record.metadata

    @property
    def is_reference(self) -> bool:
        """Whether its files were not copied, but lie where the program wrote them."""
        return self.record.uri is not None

    @property
    def reference(self) -> str:
        """What finds it again: `name:v3`."""
        return f"{self.name}:v{self.version}"

    @property
    def entries(self) -> list[Entry]:
        """Its files: path, digest, size."""
        return entries_of(self.run_folder, self.record)

    @property
    def run_folder(self) -> str:
        """The folder of the run that made it."""
        return os.path.join(self.base, "runs", self.folder)

    @property
    def path(self) -> Path:
        """The file, or the folder with its files, under its own name and to be read only; verified before.

        Raises:
            StoreError: A file is missing or damaged.
        """
        self.verify()
        if self.record.uri is not None:
            return Path(self.record.uri)
        stem = self.record.file_name.removesuffix(".json")
        sources = self.sources()
        try:
            folder = artifact_copies.check_out(self.base, self.folder, stem, sources)
        except OSError as error:  # a store that nobody may write
            if self.record.form == FILE:
                return Path(sources[0][1])
            message = f"{self.base} cannot be written ({error.strerror}). Copy the files out: `download(to)`."
            raise StoreError(message) from error
        return Path(folder, self.record.file) if self.record.form == FILE else Path(folder)

    def files(self) -> dict[str, Path]:
        """Return its files, path within the artifact → where the bytes lie; verified before.

        Raises:
            StoreError: A file is missing or damaged.
        """
        self.verify()
        return {entry.path: Path(source) for entry, source in self.sources()}

    def arrays(self) -> dict[str, Any]:
        """Return the tensors of its file as numpy arrays; files of safetensors, `.npz` and `.npy` have such.

        Raises:
            StoreError: It is damaged, or no file of tensors.
        """
        from tracer.storage.artifact_contents import open_regular
        from tracer.storage.tensor_files import tensors_of

        ((name, path),) = self.files().items()
        with open_regular(os.fspath(path)) as file:
            return {one: tensor.read() for one, tensor in tensors_of(file, name).items()}

    def download(
        self, to: str | os.PathLike[str] | None = None, *, overwrite: bool = False, progress: Progress | None = None
    ) -> Path:
        """Copy its files into a folder; each appears whole, after its SHA-256 was compared.

        Args:
            to: The folder; by default the working directory for a file, and one named like it for a folder.
            overwrite: Replace files that are there.
            progress: Called with bytes done and bytes in all.

        Returns:
            The file, or the folder.

        Raises:
            StoreError: Something is in the way, damaged, or cannot be written.
        """
        folder = os.fspath(to) if to is not None else self.default_target
        if self.record.digest is None:
            self.verify()
        copies = artifact_copies.copy_out(self.sources(), folder, overwrite=overwrite, progress=progress)
        return Path(copies[0]) if self.record.form == FILE else Path(folder)

    @property
    def default_target(self) -> str:
        """The folder that `download` writes into when none is named."""
        return "." if self.record.form == FILE else file_name(self.name)

    def verify(self, progress: Progress | None = None) -> None:
        """Read all files and compare them with their SHA-256.

        Raises:
            StoreError: One is missing or damaged.
        """
        wrong = self.problems(progress)
        if wrong:
            more = f" {len(wrong) - 1} more of its files are not as they were." if len(wrong) > 1 else ""
            message = f"{self.reference} of run {self.run_name!r} is not as it was kept: {wrong[0]}.{more}"
            raise StoreError(message)

    def problems(self, progress: Progress | None = None) -> list[str]:
        """Return what is wrong with its files, in words."""
        if self.record.uri is not None and self.record.digest is None:
            return self._unhashed()
        sources = self.sources()
        total, done = sum(entry.bytes for entry, _ in sources), 0
        wrong: list[str] = []
        for entry, source in sources:
            path = os.path.realpath(source) if self.is_reference else source
            fact = damage(path, entry.digest or "", entry.bytes)
            if fact:
                wrong.append(f"{source}: {fact}")
            done += entry.bytes
            if progress is not None:
                progress(done, total)
        return wrong

    def sources(self) -> list[artifact_copies.Source]:
        """Return its files, and where their bytes lie."""
        uri = self.record.uri
        if uri is None:
            return [(entry, content_path(self.run_folder, entry.digest)) for entry in self.entries]
        if self.record.form == FILE:
            return [(entry, uri) for entry in self.entries]
        return [(entry, os.path.join(uri, *entry.path.split("/"))) for entry in self.entries]

    def _unhashed(self) -> list[str]:
        """Compare what was noted of a file that nobody hashed: size and time of the last change."""
        uri = str(self.record.uri)
        try:
            state = os.stat(uri)
        except OSError as error:
            return [f"{uri}: {error.strerror}"]
        if self.record.form == FILE and (state.st_size, state.st_mtime_ns) != (self.record.bytes, self.record.modified):
            return [f"{uri}: it was changed since it was noted"]
        return []


def artifacts(
    store: Ground,
    *,
    run: str | None = None,
    project: str | None = None,
    name: str | None = None,
    type: str | None = None,  # noqa: A002 -- what users call it
    direction: str = OUTPUT,
) -> list[Artifact]:
    """Return versions of artifacts, sorted by project, name and number; see `Store.artifacts`."""
    # Whose aliases they are takes all versions of a name.
    if run is not None:
        rows = all_records(store, _NAMES_OF_RUN, (run,))
    elif name is not None:
        rows = all_records(store, "AND a.name = ?", (name,))
    else:
        rows = all_records(store)
    return _artifacts(store, rows, run=run, project=project, name=name, type=type, direction=direction)


def _artifacts(
    store: Ground,
    rows: Sequence[Row],
    *,
    run: str | None = None,
    project: str | None = None,
    name: str | None = None,
    type: str | None = None,  # noqa: A002 -- what users call it
    direction: str = OUTPUT,
) -> list[Artifact]:
    """Return those versions among some records that are wanted, with their aliases."""
    given = _aliases(one.record for one in rows if one.record.direction == OUTPUT)
    found = [
        Artifact(one.uid, one.run, one.record, given.get(_key(one.record), ()), store.base, one.folder)
        for one in rows
        if one.record.direction == direction
        and (run is None or one.uid == run)
        and (project is None or one.record.project == project)
        and (name is None or one.record.name == name)
        and (type is None or one.record.type == type)
    ]
    return sorted(found, key=lambda one: (one.project, one.name, one.version, one.record.created))


def find(store: Ground, text: str, *, project: str | None = None) -> Artifact:
    """Return the version that a reference or a digest means.

    Args:
        store: The store.
        text: `name`, `name:v3`, `name:alias`, with `project/` or `run/` before it where needed, or a SHA-256 or its
            beginning.
        project: Where a name is looked for first.

    Raises:
        ArtifactNotFound: None answers to that, or several do.
        ValueError: It cannot be read.
    """
    reference = parse(text)
    parts = reference.name.split("/")
    names = ["/".join(parts[at:]) for at in range(len(parts))]
    rows = all_records(store, f"AND a.name IN ({', '.join('?' * len(names))})", names)
    named = _named(_artifacts(store, rows), reference.name, project)
    if not named:
        everything = artifacts(store)
        digest = text.removeprefix("sha256:")
        same = [one for one in everything if (one.digest or "").startswith(digest)]
        if len(digest) >= _SHORTEST_DIGEST and same and len({one.digest for one in same}) == 1:
            return max(same, key=lambda one: one.record.created)
        raise ArtifactNotFound(_unknown(text, reference, everything))
    projects = {one.project for one in named}
    if len(projects) > 1:
        listed = ", ".join(f"{one}/{reference}" for one in sorted(projects)[:_MOST_NAMED])
        message = f"Several projects have an artifact {reference.name!r}. Say which: {listed}."
        raise ArtifactNotFound(message)
    return _version(named, reference)


def users(store: Ground, artifact: Artifact) -> list[Artifact]:
    """Return the notes of runs that used a version, the first user first."""
    wanted = (artifact.project, artifact.name, artifact.version, artifact.digest)
    used = artifacts(store, name=artifact.name, direction=INPUT)
    found = [one for one in used if (one.project, one.name, one.version, one.digest) == wanted]
    return sorted(found, key=lambda one: one.record.created)


def _named(everything: Sequence[Artifact], name: str, project: str | None) -> list[Artifact]:
    """Return the versions of a name: in the project that is asked first, else anywhere, else with a prefix."""
    same = [one for one in everything if one.name == name]
    own = [one for one in same if one.project == project]
    if same:
        return own or same
    parts = name.split("/")
    for at in range(1, len(parts)):
        before, after = "/".join(parts[:at]), "/".join(parts[at:])
        same = [one for one in everything if one.name == after]
        found = [one for one in same if one.project == before]
        found = found or [one for one in same if before in (one.run, one.run_name)]
        if found:
            return found
    return []


def _version(named: Sequence[Artifact], reference: Reference) -> Artifact:
    """Return the one that is meant of the versions of a name."""
    if reference.version is not None:
        found = [one for one in named if one.version == reference.version]
    elif reference.alias is not None:
        found = [one for one in named if reference.alias in one.aliases]
    else:
        last = max(one.version for one in named)
        found = [one for one in named if one.version == last]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(f"{one.run}/{one.reference}" for one in found[:_MOST_NAMED])
        message = f"Several runs made {reference}, since one was copied in. Say which: {listed}."
        raise ArtifactNotFound(message)
    versions = sorted({one.version for one in named})
    aliases = sorted({alias for one in named for alias in one.aliases})
    known = ", ".join([*(f"v{one}" for one in versions[-_MOST_NAMED:]), *aliases])
    message = f"There is no {str(reference)!r}. Of {reference.name!r} there are: {known}."
    raise ArtifactNotFound(message)


def _unknown(text: str, reference: Reference, everything: Sequence[Artifact]) -> str:
    """Say that nothing answers, and what is near."""
    names = sorted({one.name for one in everything})
    near = difflib.get_close_matches(reference.name, names, n=3, cutoff=0.5)
    hint = f"Near: {', '.join(near)}." if near else "`tracer artifacts list` shows those there are."
    return f"There is no artifact {text!r}. {hint}"


def _aliases(records: Iterable[Record]) -> dict[tuple[str, str, int, int], tuple[str, ...]]:
    """Return which aliases each version has now."""
    holders: dict[tuple[str, str, str], tuple[tuple[int, int], Record]] = {}
    for record in records:
        given = {**{alias: (when, record.version) for alias, when in record.aliases.items()}}
        given[LATEST] = (record.version, record.created)
        for alias, rank in given.items():
            key = (record.project, record.name, alias)
            if key not in holders or rank > holders[key][0]:
                holders[key] = (rank, record)
    found: dict[tuple[str, str, int, int], list[str]] = {}
    for (_, _, alias), (_, record) in sorted(holders.items()):
        found.setdefault(_key(record), []).append(alias)
    return {key: tuple(sorted(names, key=lambda one: (one != LATEST, one))) for key, names in found.items()}


def _key(record: Record) -> tuple[str, str, int, int]:
    """Return what tells a version from all others."""
    return record.project, record.name, record.version, record.created


__all__ = ["Artifact", "ArtifactNotFound", "artifacts", "find", "users"]
