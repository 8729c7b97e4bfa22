"""An experiment's artifacts in our own store: kept by `Run.log_artifact`, found again by `Store`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tracer.experiment.artifacts import ArtifactResult, ArtifactType, TraceletArtifact
    from tracer.run import Run
    from tracer.storage.artifacts import Artifact

import os

from tracer.errors import UsageError

#: The place that holds every artifact.
LOCAL = "local"
_FACTS = "tracelet"


def keep(run: Run, artifact: TraceletArtifact | str, name: str | None = None) -> dict[str, ArtifactResult]:
    """Keep an artifact, or a file or folder by its path.

    Args:
        run: The run it belongs to.
        artifact: The artifact, or a path.
        name: Name of a file's artifact; the file's own when absent.

    Returns:
        Place → what became of it there.
    """
    import tempfile

    from tracer.experiment.artifacts import TraceletArtifact

    if not isinstance(artifact, TraceletArtifact):
        return {LOCAL: _result(run.log_artifact(os.fspath(artifact), name))}
    with tempfile.TemporaryDirectory(prefix=".artifact-", dir=run.folder) as staged:
        folder = os.path.realpath(staged)
        artifact.write_into(folder)
        found = [os.path.join(at, one) for at, _, names in os.walk(folder) for one in names]
        what: str | bytes = folder
        if not found:
            what = b""  # it refers to what lies elsewhere, and holds nothing itself
        kept = run.log_artifact(
            what,
            artifact.name,
            artifact.type.value,
            metadata={**artifact.facts(), _FACTS: artifact.to_dict()},
            description=artifact.description,
        )
    return {LOCAL: _result(kept)}


def read(run: Run, name: str, version: str = "latest", backend: str | None = None) -> TraceletArtifact:
    """Return an artifact that was kept; a run that goes on notes that it uses it.

    Args:
        run: The run that asks.
        name: Its name.
        version: `latest`, a number as `v0`, or an alias.
        backend: Where it is kept.

    Raises:
        StoreError: There is none of that name or version.
        UsageError: The place holds no artifacts.
    """
    _check(backend)
    reference = f"{name}:{version}"
    if not run.recorder.closed:
        return _shown(run.use_artifact(reference))
    from tracer.storage import Store

    with Store.open(run.config.storage_path) as store:
        return _shown(store.artifact(reference, project=run.config.project_name))


def listed(run: Run, type_filter: ArtifactType | None = None, backend: str | None = None) -> list[TraceletArtifact]:
    """Return the artifacts that a run made.

    Args:
        run: The run.
        type_filter: Only this type.
        backend: Where they are kept.

    Raises:
        UsageError: The place holds no artifacts.
    """
    _check(backend)
    from tracer.experiment.artifacts import ArtifactType
    from tracer.storage import Store

    wanted = ArtifactType(type_filter).value if type_filter is not None else None
    with Store.open(run.config.storage_path) as store:
        return [_shown(one) for one in store.artifacts(run.run_id, type=wanted)]


def _check(backend: str | None) -> None:
    """See that artifacts are kept in a place."""
    if backend not in (None, LOCAL):
        message = f"backend={backend!r} holds no artifacts that could be read back; {LOCAL!r} has all of them."
        raise UsageError(message)


def _result(kept: Artifact) -> ArtifactResult:
    """Return what became of an artifact."""
    from tracer.experiment.artifacts import ArtifactResult

    about = {"digest": kept.digest, "run": kept.run, "type": kept.type, "reference": kept.reference}
    uri = kept.record.uri or f"tracer://{kept.run}/{kept.reference}"
    return ArtifactResult(f"v{kept.version}", uri, kept.bytes or 0, LOCAL, about)


def _shown(kept: Artifact) -> TraceletArtifact:
    """Return an artifact of the store as the documents speak of it."""
    from tracer.experiment.artifacts import ArtifactReference, ArtifactType, TraceletArtifact

    known = {one.value for one in ArtifactType}
    kind = ArtifactType(kept.type) if kept.type in known else ArtifactType.CUSTOM
    metadata = {name: value for name, value in kept.metadata.items() if name != _FACTS}
    shown = TraceletArtifact(kept.name, kind, kept.record.description, metadata)
    shown.version, shown.aliases = f"v{kept.version}", list(kept.aliases)
    shown.created_at = kept.record.created / 1e6
    for path, local in kept.files().items() if _has_files(kept) else ():
        shown.add_file(str(local), path)
    shown.references = [
        ArtifactReference(one["uri"], None, one.get("size_bytes")) for one in metadata.get("references", ())
    ]
    return shown


def _has_files(kept: Artifact) -> bool:
    """Tell whether an artifact holds something itself, and does not only refer to what lies elsewhere."""
    told = kept.metadata.get(_FACTS)
    return told is None or any(told[part] for part in ("files", "objects", "model"))


__all__ = ["LOCAL", "keep", "listed", "read"]
