"""What is recorded by looking at the program."""

from tracer.experiment.automagic import (
    AutomagicConfig,
    AutomagicInstrumentor,
    DatasetDetector,
    FileSystemArtifactDetector,
    FrameworkHookRegistry,
    HyperparameterDetector,
    ModelDetector,
    ResourceMonitor,
    TrainingMonitor,
    automagic,
    capture_hyperparams,
)
from tracer.experiment.frameworks import (
    LightningArtifactHook,
    LightningHook,
    PyTorchArtifactHook,
    PyTorchHook,
    SklearnHook,
    XGBoostHook,
)

__all__ = [
    "AutomagicConfig",
    "AutomagicInstrumentor",
    "DatasetDetector",
    "FileSystemArtifactDetector",
    "FrameworkHookRegistry",
    "HyperparameterDetector",
    "LightningArtifactHook",
    "LightningHook",
    "ModelDetector",
    "PyTorchArtifactHook",
    "PyTorchHook",
    "ResourceMonitor",
    "SklearnHook",
    "TrainingMonitor",
    "XGBoostHook",
    "automagic",
    "capture_hyperparams",
]
