"""The back ends an experiment can ask for by name: those of the table, and plugins.

A name is checked before anything begins: a misspelt one, or one whose client is not installed, raises at once.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

from tracer import sink
from tracer.errors import ConfigError, UsageError
from tracer.experiment.artifacts import ArtifactHandler, ArtifactResult, TraceletArtifact
from tracer.experiment.packages import BACKEND_PACKAGES, available_backends, is_available
from tracer.experiment.settings import TraceletSettings, near
from tracer.plugins import missing
from tracer.plugins.kinds import BackendPlugin, PluginMetadata, PluginState, PluginType
from tracer.plugins.lifecycle import PluginManager
from tracer.version import __version__

_SHOWN = {"mlflow": "MLflow", "wandb": "Weights & Biases", "clearml": "ClearML", "aim": "Aim"}


class _Mirror(BackendPlugin):
    """A back end of the table. Mirroring itself is the work of the back ends' room; see `mirrors_that_work`."""

    _name = ""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """Return what it says of itself."""
        shown = _SHOWN[cls._name]
        return PluginMetadata(cls._name, __version__, PluginType.BACKEND, f"Mirrors a run to {shown}.", "Tracer")

    def initialize(self, config: dict[str, Any]) -> None:
        """See that the client is installed, and say that nothing is sent yet."""
        check_client(self._name)
        self.config = dict(config)
        say_not_yet(self._name)

    def log_metric(self, name: str, value: Any, iteration: Any) -> None:  # noqa: ANN401, ARG002 -- as the base has it
        """Refuse: a value that goes nowhere without a word would be a lie."""
        raise UsageError(_not_yet(self._name))

    def get_status(self) -> dict[str, object]:
        """Say that nothing is mirrored."""
        return {"name": self._name, "mirrors": False, "client_installed": is_available(self._name)}


class MLflowBackend(_Mirror):
    """MLflow."""

    _name = "mlflow"


class WandbBackend(_Mirror):
    """Weights & Biases."""

    _name = "wandb"


class ClearMLBackend(_Mirror):
    """ClearML."""

    _name = "clearml"


class AimBackend(_Mirror):
    """Aim."""

    _name = "aim"


class _MirrorHandler(ArtifactHandler):
    """The artifacts of a back end of the table; see `_Mirror`."""

    _name = ""

    def __init__(self, backend: object = None) -> None:
        self.backend = backend

    def log_artifact(self, artifact: TraceletArtifact) -> ArtifactResult:  # noqa: ARG002 -- as the base has it
        """Refuse: see `_Mirror.log_metric`."""
        raise UsageError(_not_yet(self._name))


class MLflowArtifactHandler(_MirrorHandler):
    """Artifacts in MLflow."""

    _name = "mlflow"


class WANDBArtifactHandler(_MirrorHandler):
    """Artifacts in Weights & Biases."""

    _name = "wandb"


class ClearMLArtifactHandler(_MirrorHandler):
    """Artifacts in ClearML."""

    _name = "clearml"


class AiMArtifactHandler(_MirrorHandler):
    """Artifacts in Aim."""

    _name = "aim"


BACKENDS: dict[str, type[BackendPlugin]] = {
    "mlflow": MLflowBackend,
    "wandb": WandbBackend,
    "clearml": ClearMLBackend,
    "aim": AimBackend,
}

#: What each back end of the table can be told.
OPTIONS: dict[str, tuple[str, ...]] = {
    "mlflow": ("experiment_name", "run_name", "tracking_uri"),
    "wandb": ("project_name", "experiment_name", "entity", "tags", "job_type", "disable_stats", "quiet"),
    "clearml": (
        *("project_name", "task_name", "task_type", "tags"),
        *("auto_connect_arg_parser", "auto_connect_frameworks"),
    ),
    "aim": ("experiment_name", "run_name", "tags", "remote_uri", "repo_path"),
}
#: Setting → back end and option.
_FROM_SETTINGS = {
    "mlflow_tracking_uri": ("mlflow", "tracking_uri"),
    "mlflow_experiment_name": ("mlflow", "experiment_name"),
    "wandb_project": ("wandb", "project_name"),
    "wandb_entity": ("wandb", "entity"),
    "clearml_project": ("clearml", "project_name"),
    "clearml_task_name": ("clearml", "task_name"),
    "aim_repo": ("aim", "repo_path"),
    "aim_experiment": ("aim", "experiment_name"),
}


class Chosen:
    """The back ends that an experiment asked for: names of the table, and plugins with what knows them."""

    __slots__ = ("mirrors", "plugins", "registry")

    def __init__(self, mirrors: list[str], plugins: list[str], registry: PluginManager) -> None:
        self.mirrors, self.plugins, self.registry = mirrors, plugins, registry


def choose(asked: Iterable[object]) -> Chosen:
    """Return the back ends that are meant, each once.

    Args:
        asked: Names, plugin classes, and objects of such.

    Raises:
        ConfigError: A name is not known.
        MissingDependency: Its client is not installed.
        TypeError: It is no back end.
        ValueError: Plugins need each other in a circle.
    """
    chosen = Chosen([], [], PluginManager())
    for one in asked:
        if not isinstance(one, str):
            chosen.plugins.append(chosen.registry.add(one))
        elif one.lower() in BACKENDS:
            check_client(one.lower())
            chosen.mirrors.append(one.lower())
        else:
            chosen.plugins.append(_plugin(one, chosen.registry))
    chosen.mirrors, chosen.plugins = list(dict.fromkeys(chosen.mirrors)), list(dict.fromkeys(chosen.plugins))
    chosen.registry.resolve_dependencies(chosen.plugins)
    return chosen


def mirror_options(name: str, settings: TraceletSettings, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a back end of the table is told: by `backend_options`, else by its own settings.

    Args:
        name: The back end.
        settings: The settings.
        given: `backend_options`.

    Raises:
        ConfigError: It has no such option.
    """
    own = given.get(name, {})
    for option in own:
        if option not in OPTIONS[name]:
            message = f"backend_options: {_SHOWN[name]} has no option {option!r}. {near(option, OPTIONS[name])}"
            raise ConfigError(message)
    of_settings = {
        option: getattr(settings, setting)
        for setting, (backend, option) in _FROM_SETTINGS.items()
        if backend == name and getattr(settings, setting) is not None
    }
    return {**of_settings, **own}


def _plugin(name: str, registry: PluginManager) -> str:
    """Return the name of a plugin back end that was found, or say what comes near."""
    if name not in registry.plugins:
        registry.discover_plugins()
    info = registry.plugins.get(name)
    if info is None or (info.metadata.type is not PluginType.BACKEND and info.state is not PluginState.ERROR):
        found = [one.metadata.name for one in registry.get_plugins_by_type(PluginType.BACKEND)]
        known = sorted({*BACKENDS, *found})
        hint = near(name, known)
        listed = "" if hint.startswith("Known") else f" Known: {', '.join(known)}."
        message = f"backend={name!r} is not a known back end. {hint}{listed}"
        raise ConfigError(message)
    return name


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
    registry = PluginManager()
    return registry.class_of(_plugin(name, registry))


def check_client(name: str) -> None:
    """See that the client of a back end of the table is installed; it is looked for, not imported.

    Raises:
        MissingDependency: It is not; the message names the command that brings it.
    """
    if not is_available(name):
        raise missing(BACKEND_PACKAGES[name][0], extra="", purpose=f"The back end {_SHOWN[name]}")


def say_not_yet(name: str) -> None:
    """Say plainly that a back end is not served yet."""
    sink.say(f"tracer: {_not_yet(name)}")


def _not_yet(name: str) -> str:
    """Return what is said about a back end that is not served yet."""
    return f"nothing is sent to {_SHOWN[name]} yet: this version has no mirror for it. Everything is recorded locally."


def mirrors_that_work() -> Mapping[str, type[BackendPlugin]]:
    """Return the back ends of the table that are really served: the one place where the back ends' room goes in."""
    return {}


__all__ = [
    "BACKENDS",
    "OPTIONS",
    "AiMArtifactHandler",
    "AimBackend",
    "Chosen",
    "ClearMLArtifactHandler",
    "ClearMLBackend",
    "MLflowArtifactHandler",
    "MLflowBackend",
    "WANDBArtifactHandler",
    "WandbBackend",
    "available_backends",
    "check_client",
    "choose",
    "get_backend",
    "mirror_options",
    "mirrors_that_work",
    "say_not_yet",
]
