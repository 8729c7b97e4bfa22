"""The frameworks that are listened to."""

from tracer.experiment.frameworks import LightningFramework, PyTorchFramework

__all__ = ["LightningFramework", "PyTorchFramework"]
