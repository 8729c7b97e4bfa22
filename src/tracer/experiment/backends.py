"""The back ends an experiment can ask for by name: those of the table, and plugins.

A name is checked before anything begins: a misspelt one, or one whose client is not installed, raises at once.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

from tracer.backends import table
from tracer.experiment.packages import available_backends
from tracer.experiment.peer_artifacts import (
    AiMArtifactHandler,
    ClearMLArtifactHandler,
    MLflowArtifactHandler,
    WANDBArtifactHandler,
)
from tracer.experiment.peers import AimBackend, ClearMLBackend, MLflowBackend, WandbBackend
from tracer.experiment.settings import TraceletSettings
from tracer.plugins.kinds import BackendPlugin
from tracer.plugins.lifecycle import PluginManager

#: The documents' four, as classes to hold by hand; every other name of the table can be asked for as well.
BACKENDS: dict[str, type[BackendPlugin]] = {
    "mlflow": MLflowBackend,
    "wandb": WandbBackend,
    "clearml": ClearMLBackend,
    "aim": AimBackend,
}
#: Setting → back end and option.
_FROM_SETTINGS = {
    "mlflow_tracking_uri": ("mlflow", "tracking_uri"),
    "mlflow_experiment_name": ("mlflow", "experiment_name"),
    "wandb_project": ("wandb", "project_name"),
    "wandb_entity": ("wandb", "entity"),
    "wandb_api_key": ("wandb", "api_key"),
    "clearml_project": ("clearml", "project_name"),
    "clearml_task_name": ("clearml", "task_name"),
    "aim_repo": ("aim", "repo_path"),
    "aim_experiment": ("aim", "experiment_name"),
}


def mirror_options(name: str, settings: TraceletSettings, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a back end of the table is told: by `backend_options`, else by its own settings.

    Args:
        name: The back end.
        settings: The settings.
        given: `backend_options`.

    Raises:
        ConfigError: It has no such option.
    """
    own = table.merged(name, given.get(name, {}))
    of_settings = {
        option: getattr(settings, setting)
        for setting, (backend, option) in _FROM_SETTINGS.items()
        if backend == name and getattr(settings, setting) is not None
    }
    return {**of_settings, **own}


def get_backend(name: str) -> type:
    """Return the class of a back end.

    Args:
        name: A name of the table, or of a plugin.

    Raises:
        ConfigError: It is not known.

    Example:
        >>> get_backend("mlflow").get_metadata().name
        'mlflow'
    """
    if name.lower() in BACKENDS:
        return BACKENDS[name.lower()]
    from tracer.mirroring.asking import plugin_named

    registry = PluginManager()
    return registry.class_of(plugin_named(name, registry))


__all__ = [
    "BACKENDS",
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
    "mirror_options",
]
