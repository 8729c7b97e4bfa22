"""Tracelet's names for Tracer: `start_logging`, and the rest of what its documents promise. Re-exports only."""

from tracelet.automagic import automagic, capture_hyperparams
from tracer.errors import ConfigError as ConfigurationError
from tracer.experiment import (
    Experiment,
    ExperimentConfig,
    TraceletSettings,
    configure,
    get_active_experiment,
    start_logging,
    stop_logging,
)
from tracer.experiment.artifacts import ArtifactType, TraceletArtifact
from tracer.experiment.backends import get_backend
from tracer.experiment.collectors import GitCollector, SystemMetricsCollector
from tracer.experiment.frameworks import LightningFramework, PyTorchFramework
from tracer.experiment.packages import available_backends, available_frameworks, is_available
from tracer.version import __version__

get_available_backends = available_backends
get_available_frameworks = available_frameworks

__all__ = [
    "ArtifactType",
    "ConfigurationError",
    "Experiment",
    "ExperimentConfig",
    "GitCollector",
    "LightningFramework",
    "PyTorchFramework",
    "SystemMetricsCollector",
    "TraceletArtifact",
    "TraceletSettings",
    "__version__",
    "automagic",
    "available_backends",
    "available_frameworks",
    "capture_hyperparams",
    "configure",
    "get_active_experiment",
    "get_available_backends",
    "get_available_frameworks",
    "get_backend",
    "is_available",
    "start_logging",
    "stop_logging",
]
