"""Artifacts."""

from tracer.experiment.artifacts import (
    LARGE_FILE_THRESHOLD,
    ArtifactFile,
    ArtifactHandler,
    ArtifactObject,
    ArtifactReference,
    ArtifactResult,
    ArtifactType,
    ModelInfo,
    TraceletArtifact,
)

__all__ = [
    "LARGE_FILE_THRESHOLD",
    "ArtifactFile",
    "ArtifactHandler",
    "ArtifactObject",
    "ArtifactReference",
    "ArtifactResult",
    "ArtifactType",
    "ModelInfo",
    "TraceletArtifact",
]
