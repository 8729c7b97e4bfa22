"""The Tracelet documents' frameworks and hooks: names for what `tracer.capture` listens to."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tracer.experiment.experiments import Experiment

from tracer.errors import UsageError
from tracer.experiment import current, listening
from tracer.plugins.interfaces import FrameworkInterface


class FrameworkHook(FrameworkInterface):
    """Listens to some frameworks; an experiment does so by itself, unless its settings say otherwise."""

    #: Names in `tracer.capture.frameworks`.
    listens_to: tuple[str, ...] = ()

    def __init__(self, experiment: Experiment | None = None) -> None:
        self.experiment = experiment

    def initialize(self, experiment: object) -> None:
        """Get to know the experiment; the active one when there is none."""
        self.experiment = experiment  # type: ignore[assignment]  # any object with the methods of one

    def start_tracking(self) -> None:
        """Begin to listen."""
        listening.begin(self.listens_to)

    def stop_tracking(self) -> None:
        """Listen no more."""
        listening.end(self.listens_to)

    apply_hooks = install = start_tracking
    remove_hooks = uninstall = stop_tracking

    @property
    def is_active(self) -> bool:
        """Whether it is listened to."""
        return all(listening.is_on(name) for name in self.listens_to)

    def log_metric(self, name: str, value: object, iteration: int | None = None) -> None:
        """Record a value in the experiment.

        Raises:
            UsageError: There is no experiment.
        """
        experiment = self.experiment or current.active()
        if experiment is None:
            message = f"No experiment is active, so {name!r} has no place. Call start_logging() first."
            raise UsageError(message)
        experiment.log_metric(name, value, iteration)


class PyTorchFramework(FrameworkHook):
    """PyTorch loops and TensorBoard writers."""

    listens_to = ("tensorboard", "pytorch")


class LightningFramework(FrameworkHook):
    """Lightning, under both package names."""

    listens_to = ("lightning",)


class PyTorchHook(FrameworkHook):
    """Optimizers of PyTorch, which count the steps, and TensorBoard writers."""

    listens_to = ("tensorboard", "pytorch")


class LightningHook(FrameworkHook):
    """Lightning trainers."""

    listens_to = ("lightning",)


class SklearnHook(FrameworkHook):
    """`fit` of scikit-learn's estimators."""

    listens_to = ("sklearn",)


class XGBoostHook(FrameworkHook):
    """Rounds of XGBoost: metrics, not only parameters."""

    listens_to = ("xgboost",)


class KerasHook(FrameworkHook):
    """`fit` of Keras' models."""

    listens_to = ("keras",)


class LightningArtifactHook(LightningHook):
    """Checkpoints that Lightning saves; `track_checkpoints` notes them."""


class PyTorchArtifactHook(PyTorchHook):
    """Files that a PyTorch program saves; the folders of `artifact_watch_dirs` keep them."""


__all__ = [
    "FrameworkHook",
    "KerasHook",
    "LightningArtifactHook",
    "LightningFramework",
    "LightningHook",
    "PyTorchArtifactHook",
    "PyTorchFramework",
    "PyTorchHook",
    "SklearnHook",
    "XGBoostHook",
]
