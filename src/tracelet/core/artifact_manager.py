"""Artifacts in several places."""

from tracer.experiment.artifacts import ArtifactManager

__all__ = ["ArtifactManager"]
