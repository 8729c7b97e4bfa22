"""Artifacts in a back end that a program holds by hand: kept there, and read back from there."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracer.experiment.peers import Peer
    from tracer.transfer import File

import contextlib
import os
import shutil
import tempfile

from tracer import clock
from tracer.backends import table
from tracer.errors import StoreError, UsageError
from tracer.experiment.artifacts import ArtifactHandler, ArtifactResult, ArtifactType, TraceletArtifact, inside
from tracer.experiment.peers import parts_of

_FACTS = "tracelet"


class PeerHandler(ArtifactHandler):
    """The artifacts of one run in one peer.

    Args:
        backend: The back end, started.
    """

    _name = ""
    #: The peer refers to the files until it has uploaded them, so they are kept beside its own.
    _refers = False

    def __init__(self, backend: Peer | None = None) -> None:
        self.backend = backend
        self._versions: dict[str, int] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="tracer-fetched-")

    def log_artifact(self, artifact: TraceletArtifact) -> ArtifactResult:
        """Keep an artifact; the same name again is its next version.

        Raises:
            UsageError: The back end is not started.
        """
        from tracer.transfer import File

        peer = self._started()
        number = self._versions.get(artifact.name, -1) + 1
        metadata = {**artifact.facts(), _FACTS: artifact.to_dict()}
        with self._stage() as staged:
            artifact.write_into(staged)
            parts = tuple(parts_of(staged))
            kind = artifact.type.value
            peer.take(File(artifact.name, kind, f"v{number}", parts, clock.now_us(), metadata=metadata))
        self._versions[artifact.name] = number
        uri = f"{self._name}:{next(iter(peer.remote.values()), '')}/{artifact.name}"
        return ArtifactResult(f"v{number}", uri, sum(part.size for part in parts), self._name, metadata)

    def get_artifact(self, name: str, version: str = "latest") -> TraceletArtifact:
        """Return an artifact that was kept, its files fetched from the peer.

        Raises:
            StoreError: There is none of that name or version.
        """
        found = [file for file in self._files() if file.name == name]
        chosen = [file for file in found if version in ("latest", file.version, *file.aliases)]
        if not chosen:
            there = ", ".join(file.version for file in found) or "none of that name"
            message = f"{table.entry(self._name).shown} holds no artifact {name}:{version}. There is: {there}."
            raise StoreError(message)
        return _shown(chosen[-1])

    def list_artifacts(self, type_filter: ArtifactType | None = None) -> list[TraceletArtifact]:
        """Return the artifacts that were kept."""
        return [_shown(file) for file in self._files() if type_filter is None or file.type == type_filter.value]

    @contextlib.contextmanager
    def _stage(self) -> Iterator[str]:
        """Give a folder for the files of an artifact."""
        if self._refers:
            beside = os.path.join(self._started().readable().partition("#")[0], "artifacts")
            os.makedirs(beside, exist_ok=True)
            yield tempfile.mkdtemp(dir=beside)
            return
        with tempfile.TemporaryDirectory(prefix="tracer-artifact-") as staged:
            yield staged

    def _started(self) -> Peer:
        """Return the back end, or say that there is none."""
        if self.backend is None:
            message = f"{type(self).__name__} has no back end. Pass one that is started."
            raise UsageError(message)
        return self.backend

    def _files(self) -> Iterator[File]:
        """Yield what stands in the peer for this run."""
        from tracer.transfer import File

        peer = self._started()
        source = table.source(self._name, peer.readable(), {"files_only": True})
        named = tuple(value for value in (*peer.remote.values(), peer.run.uid) if value)
        for run in source.runs():
            if run.origin.endswith(named):
                yield from (self._fetched(event) for event in source.events(run) if isinstance(event, File))

    def _fetched(self, file: File) -> File:
        """Keep the files of an artifact as long as the handler: a source's own are gone when it has ended."""
        from dataclasses import replace

        folder = os.path.join(self._folder.name, f"{len(os.listdir(self._folder.name))}")
        parts = []
        for part in file.parts:
            local = inside(folder, part.path)
            os.makedirs(os.path.dirname(local), exist_ok=True)
            shutil.copyfile(part.local, local)
            parts.append(replace(part, local=local))
        return replace(file, parts=tuple(parts))


class MLflowArtifactHandler(PeerHandler):
    """Artifacts in MLflow."""

    _name = "mlflow"


class WANDBArtifactHandler(PeerHandler):
    """Artifacts in Weights & Biases."""

    _name = "wandb"
    _refers = True


class ClearMLArtifactHandler(PeerHandler):
    """Artifacts in ClearML."""

    _name = "clearml"


class AiMArtifactHandler(PeerHandler):
    """Artifacts in Aim."""

    _name = "aim"


def _shown(file: File) -> TraceletArtifact:
    """Return an artifact as the documents speak of it."""
    known = {one.value for one in ArtifactType}
    kind = ArtifactType(file.type) if file.type in known else ArtifactType.CUSTOM
    metadata = {name: value for name, value in file.metadata.items() if name != _FACTS}
    shown = TraceletArtifact(file.name, kind, None, metadata)
    shown.version, shown.aliases, shown.created_at = file.version, list(file.aliases), file.time / 1e6
    for part in file.parts:
        shown.add_file(part.local, part.path)
    return shown


__all__ = [
    "AiMArtifactHandler",
    "ClearMLArtifactHandler",
    "MLflowArtifactHandler",
    "PeerHandler",
    "WANDBArtifactHandler",
]
