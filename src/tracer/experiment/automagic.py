"""Automagic, as the Tracelet documents call it: hyper-parameters, models and data sets recorded by looking at them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Self

    from tracer.experiment.experiments import Experiment

import os

from tracer import clock
from tracer.errors import UsageError
from tracer.experiment import listening
from tracer.experiment.artifacts import ArtifactType, TraceletArtifact
from tracer.experiment.collectors import SystemMetricsCollector
from tracer.experiment.detectors import DatasetDetector, HyperparameterDetector, ModelDetector, calling_frame
from tracer.experiment.frameworks import (
    FrameworkHook,
    KerasHook,
    LightningHook,
    PyTorchHook,
    SklearnHook,
    XGBoostHook,
)

_FRAMEWORKS = ("pytorch", "lightning", "sklearn", "keras", "xgboost")


class AutomagicConfig:
    """What automagic looks at.

    Args:
        detect_function_args: The arguments and variables of the function that asks.
        detect_class_attributes: The attributes of its `self`.
        detect_argparse: The arguments that the program parsed.
        detect_config_files: Configuration files it is given.
        track_model_architecture: Size and layers of models.
        track_model_checkpoints: Checkpoints that frameworks save.
        track_model_gradients: Statistics of gradients, as `Run.watch` takes them.
        track_dataset_info: Size and shape of data sets.
        track_data_samples: Accepted; `Run.log_samples` keeps rows.
        monitor_training_loop: Steps and epochs.
        monitor_loss_curves: Losses.
        monitor_learning_rate: Learning rates.
        epoch_detection_threshold_seconds: A pause of so long between two steps begins an epoch.
        monitor_gpu_memory: Memory of GPUs.
        monitor_cpu_usage: Load of the processor.
        track_git_info: Commit and diff.
        track_file_hashes: SHA-256 of files that are kept, which artifacts always have.
        frameworks: The frameworks that are listened to.
    """

    def __init__(  # noqa: PLR0913, PLR0917 -- the documents' fields
        self,
        detect_function_args: bool = True,  # noqa: FBT001, FBT002 -- the documents' order; here and below
        detect_class_attributes: bool = True,  # noqa: FBT001, FBT002
        detect_argparse: bool = True,  # noqa: FBT001, FBT002
        detect_config_files: bool = True,  # noqa: FBT001, FBT002
        track_model_architecture: bool = True,  # noqa: FBT001, FBT002
        track_model_checkpoints: bool = True,  # noqa: FBT001, FBT002
        track_model_gradients: bool = False,  # noqa: FBT001, FBT002
        track_dataset_info: bool = True,  # noqa: FBT001, FBT002
        track_data_samples: bool = False,  # noqa: FBT001, FBT002
        monitor_training_loop: bool = True,  # noqa: FBT001, FBT002
        monitor_loss_curves: bool = True,  # noqa: FBT001, FBT002
        monitor_learning_rate: bool = True,  # noqa: FBT001, FBT002
        epoch_detection_threshold_seconds: float = 30.0,
        monitor_gpu_memory: bool = True,  # noqa: FBT001, FBT002
        monitor_cpu_usage: bool = True,  # noqa: FBT001, FBT002
        track_git_info: bool = True,  # noqa: FBT001, FBT002
        track_file_hashes: bool = True,  # noqa: FBT001, FBT002
        frameworks: Iterable[str] | None = None,
    ) -> None:
        self.detect_function_args, self.detect_class_attributes = detect_function_args, detect_class_attributes
        self.detect_argparse, self.detect_config_files = detect_argparse, detect_config_files
        self.track_model_architecture = track_model_architecture
        self.track_model_checkpoints = track_model_checkpoints
        self.track_model_gradients = track_model_gradients
        self.track_dataset_info, self.track_data_samples = track_dataset_info, track_data_samples
        self.monitor_training_loop, self.monitor_loss_curves = monitor_training_loop, monitor_loss_curves
        self.monitor_learning_rate = monitor_learning_rate
        self.epoch_detection_threshold_seconds = epoch_detection_threshold_seconds
        self.monitor_gpu_memory, self.monitor_cpu_usage = monitor_gpu_memory, monitor_cpu_usage
        self.track_git_info, self.track_file_hashes = track_git_info, track_file_hashes
        self.frameworks = set(_FRAMEWORKS if frameworks is None else frameworks)


class FrameworkHookRegistry:
    """The hooks of the frameworks, by name."""

    def __init__(self) -> None:
        self.hooks: dict[str, FrameworkHook] = {
            "pytorch": PyTorchHook(),
            "lightning": LightningHook(),
            "sklearn": SklearnHook(),
            "keras": KerasHook(),
            "xgboost": XGBoostHook(),
        }

    def register_hook(self, framework: str, hook: FrameworkHook) -> None:
        """Add a hook, or replace one."""
        self.hooks[framework] = hook

    def get_hook(self, framework: str) -> FrameworkHook | None:
        """Return the hook of a framework, or None."""
        return self.hooks.get(framework)

    def install_hooks(self, frameworks: Iterable[str] | None = None) -> list[str]:
        """Listen to frameworks; return those there is a hook for."""
        names = [name for name in (self.hooks if frameworks is None else frameworks) if name in self.hooks]
        for name in names:
            self.hooks[name].start_tracking()
        return names

    def remove_hooks(self) -> None:
        """Listen to none of them."""
        listening.end({one for hook in self.hooks.values() for one in hook.listens_to})


class AutomagicInstrumentor:
    """Records what it finds in the experiments that it is attached to.

    Args:
        config: What it looks at.
    """

    _instance: AutomagicInstrumentor | None = None

    def __init__(self, config: AutomagicConfig | None = None) -> None:
        self.config = config or AutomagicConfig()
        self.hook_registry = FrameworkHookRegistry()
        self.experiments: dict[str, Experiment] = {}

    @classmethod
    def get_instance(cls, config: AutomagicConfig | None = None) -> AutomagicInstrumentor:
        """Return the one of this process; a config replaces the one it has."""
        if cls._instance is None:
            cls._instance = cls(config)
        elif config is not None:
            cls._instance.config = config
        return cls._instance

    def attach_experiment(self, experiment: Experiment) -> None:
        """Record in an experiment, and listen to the frameworks of the config."""
        self.experiments[experiment.id] = experiment
        self.hook_registry.install_hooks(sorted(self.config.frameworks))

    def detach_experiment(self, experiment: Experiment | str) -> None:
        """Record no more in an experiment."""
        self.experiments.pop(experiment if isinstance(experiment, str) else experiment.id, None)

    def capture_hyperparameters(self, experiment: Experiment, frame: Any = None) -> dict[str, object]:  # noqa: ANN401
        """Record the values of the function that calls this."""
        detector = HyperparameterDetector(self.config.detect_class_attributes)
        found = detector.extract_from_frame(frame or calling_frame()) if self.config.detect_function_args else {}
        experiment.log_params(found)
        return found

    def capture_model_info(self, model: object, experiment: Experiment) -> dict[str, object]:
        """Record what a model is made of."""
        found = experiment.capture_model(model) if self.config.track_model_architecture else {}
        if self.config.track_model_gradients:
            experiment.run.watch(model)
        return found

    def capture_dataset_info(self, dataset: object, experiment: Experiment) -> dict[str, object]:
        """Record what is known of a data set."""
        return experiment.capture_dataset(dataset) if self.config.track_dataset_info else {}

    def cleanup(self) -> None:
        """Let go of all experiments, and listen to nothing."""
        self.experiments.clear()
        self.hook_registry.remove_hooks()
        AutomagicInstrumentor._instance = None


class TrainingMonitor:
    """Counts steps, and epochs by the pauses between them.

    Args:
        experiment: Where `log` records.
        epoch_threshold_s: A pause of so long begins an epoch.
    """

    def __init__(self, experiment: Experiment | None = None, epoch_threshold_s: float = 30.0) -> None:
        self.experiment, self.epoch_threshold_s = experiment, epoch_threshold_s
        self.steps, self.epochs = 0, 0
        self._last: float | None = None

    def step(self, **values: object) -> None:
        """Note the end of a step, and record values that belong to it."""
        now = clock.monotonic()
        if self._last is None or now - self._last >= self.epoch_threshold_s:
            self.epochs += 1
        self._last = now
        self.steps += 1
        if self.experiment is not None and values:
            self.experiment.run.log(values, step=self.steps)

    def get_status(self) -> dict[str, int]:
        """Return how far the training is."""
        return {"steps": self.steps, "epochs": self.epochs}


class ResourceMonitor(SystemMetricsCollector):
    """What the machine gives: `SystemMetricsCollector` under the name that automagic has for it."""


class FileSystemArtifactDetector:
    """Finds files that appear in folders and hands them to an artifact manager or an experiment.

    Args:
        artifact_manager: An `ArtifactManager`, or an experiment.
        watch_dirs: The folders.

    Example:
        >>> FileSystemArtifactDetector(get_active_experiment(), ["outputs"]).scan()  # doctest: +SKIP
        ['outputs/model.pt']
    """

    def __init__(self, artifact_manager: Any, watch_dirs: Sequence[str]) -> None:  # noqa: ANN401 -- either of two
        if not callable(getattr(artifact_manager, "log_artifact", None)):
            message = f"{artifact_manager!r} has no log_artifact(). Give an ArtifactManager or an experiment."
            raise UsageError(message)
        self.artifact_manager, self.watch_dirs = artifact_manager, [os.fspath(folder) for folder in watch_dirs]
        self._known = self._files()

    def scan(self) -> list[str]:
        """Hand on the files that are new or changed since the scan before, and return their paths."""
        now = self._files()
        found = sorted(path for path, state in now.items() if self._known.get(path) != state)
        self._known = now
        for path in found:
            self.artifact_manager.log_artifact(TraceletArtifact(os.path.basename(path), _type_of(path)).add_file(path))
        return found

    def _files(self) -> Mapping[str, tuple[int, int]]:
        """Return the files of the folders with size and time."""
        found: dict[str, tuple[int, int]] = {}
        for folder in self.watch_dirs:
            for at, _, names in os.walk(folder):
                for name in names:
                    path = os.path.join(at, name)
                    if os.path.isfile(path) and not name.startswith("."):
                        state = os.stat(path)
                        found[path] = (state.st_size, state.st_mtime_ns)
        return found

    def __enter__(self) -> Self:
        """Know what is there."""
        self._known = self._files()
        return self

    def __exit__(self, *_: object) -> None:
        """Hand on what appeared."""
        self.scan()


def automagic(experiment: Experiment, config: AutomagicConfig | None = None) -> AutomagicInstrumentor:
    """Listen to the frameworks for an experiment, and record the values of the function that calls this.

    Args:
        experiment: The experiment.
        config: What is looked at.

    Returns:
        What looks at models and data sets: `capture_model_info`, `capture_dataset_info`.
    """
    found = AutomagicInstrumentor.get_instance(config)
    found.attach_experiment(experiment)
    found.capture_hyperparameters(experiment)
    return found


def capture_hyperparams(experiment: Experiment) -> dict[str, object]:
    """Record the values of the function that calls this, as parameters of an experiment."""
    return experiment.capture_hyperparams()


def _type_of(path: str) -> ArtifactType:
    """Return what a file is, by its ending."""
    ending = os.path.splitext(path)[1].lower()
    return next((kind for kind, endings in _ENDINGS.items() if ending in endings), ArtifactType.CUSTOM)


_ENDINGS = {
    ArtifactType.CHECKPOINT: (".ckpt",),
    ArtifactType.MODEL: (".pt", ".pth", ".safetensors", ".onnx", ".h5", ".keras", ".joblib", ".pkl"),
    ArtifactType.IMAGE: (".png", ".jpg", ".jpeg", ".gif"),
    ArtifactType.DATASET: (".csv", ".parquet", ".npz", ".npy", ".jsonl"),
    ArtifactType.CONFIG: (".yaml", ".yml", ".json", ".toml"),
    ArtifactType.CODE: (".py", ".ipynb"),
    ArtifactType.REPORT: (".html", ".md", ".pdf"),
}

__all__ = [
    "AutomagicConfig",
    "AutomagicInstrumentor",
    "DatasetDetector",
    "FileSystemArtifactDetector",
    "FrameworkHookRegistry",
    "HyperparameterDetector",
    "ModelDetector",
    "ResourceMonitor",
    "TrainingMonitor",
    "automagic",
    "capture_hyperparams",
]
