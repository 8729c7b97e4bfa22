"""The back ends by class."""

from tracer.experiment.backends import (
    AiMArtifactHandler,
    AimBackend,
    ClearMLArtifactHandler,
    ClearMLBackend,
    MLflowArtifactHandler,
    MLflowBackend,
    WANDBArtifactHandler,
    WandbBackend,
    available_backends,
    get_backend,
)

__all__ = [
    "AiMArtifactHandler",
    "AimBackend",
    "ClearMLArtifactHandler",
    "ClearMLBackend",
    "MLflowArtifactHandler",
    "MLflowBackend",
    "WANDBArtifactHandler",
    "WandbBackend",
    "available_backends",
    "get_backend",
]
