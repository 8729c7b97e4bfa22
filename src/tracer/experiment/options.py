"""What `start_logging` and `Experiment` are told, in one form, and what of it is a setting of the run."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from tracer.config import Config

from tracer.backends import table
from tracer.capture.frameworks import FRAMEWORKS
from tracer.config import SETTINGS
from tracer.errors import ConfigError
from tracer.experiment.backends import mirror_options
from tracer.experiment.settings import ALIASES, ROWS, SECRET, TraceletSettings, known_fields, near

#: The names of `Config`; a program may give them too.
_OF_RUN = {name for row in SETTINGS for name in (row.name, row.file_key)}
#: Field → setting of the run.
_FOR_RUN = {
    "project": "project_name",
    "experiment_name": "run_name",
    "metrics_interval": "system_interval_s",
    "track_system": "track_system_metrics",
    "track_git": "track_git",
    "track_env": "track_environment",
    "track_args": "track_arguments",
    "track_checkpoints": "track_checkpoints",
}
_CONFIG_FIELDS: dict[str, object] = {
    "track_metrics": True,
    "track_environment": True,
    "track_args": True,
    "track_stdout": True,
    "track_checkpoints": True,
    "track_system_metrics": True,
    "track_git": True,
    "enable_automagic": False,
    "automagic_frameworks": None,
    "enable_artifacts": False,
    "automagic_artifacts": False,
    "artifact_watch_dirs": None,
    "watch_filesystem": False,
}
_DEFAULT_WATCHED = "outputs"
#: What the documents mean by one name.
_TOGETHER = {"pytorch": ("pytorch", "tensorboard")}
_OF_CAPTURE = ("track_metrics", "track_tensorboard", "track_lightning", "automagic_frameworks")


class ExperimentConfig:
    """What an experiment collects, as the Tracelet documents name it.

    Once the experiment runs it answers to the names of `Config` too: `experiment.config.project_name`.

    Args:
        track_metrics: Listen to frameworks; what the program logs itself is always recorded.
        track_environment: Record Python, packages and platform.
        track_args: Record the arguments that the program parsed.
        track_stdout: Keep what the program prints.
        track_checkpoints: Note the checkpoints that a framework saves.
        track_system_metrics: Record CPU, memory, disk and GPU in the background.
        track_git: Record commit, branch and the uncommitted diff.
        enable_automagic: Also record the values of the function that starts the experiment.
        automagic_frameworks: The only frameworks that are listened to.
        enable_artifacts: Accepted; artifacts can always be logged.
        automagic_artifacts: Keep files that appear in the watched folders.
        artifact_watch_dirs: Those folders; `outputs` when absent.
        watch_filesystem: The same as `automagic_artifacts`.

    Example:
        >>> ExperimentConfig(track_git=False).track_git
        False
    """

    def __init__(  # noqa: PLR0913, PLR0917 -- the documents' fields
        self,
        track_metrics: bool = True,  # noqa: FBT001, FBT002 -- the documents' order; here and below
        track_environment: bool = True,  # noqa: FBT001, FBT002
        track_args: bool = True,  # noqa: FBT001, FBT002
        track_stdout: bool = True,  # noqa: FBT001, FBT002
        track_checkpoints: bool = True,  # noqa: FBT001, FBT002
        track_system_metrics: bool = True,  # noqa: FBT001, FBT002
        track_git: bool = True,  # noqa: FBT001, FBT002
        enable_automagic: bool = False,  # noqa: FBT001, FBT002
        automagic_frameworks: Iterable[str] | None = None,
        enable_artifacts: bool = False,  # noqa: FBT001, FBT002
        automagic_artifacts: bool = False,  # noqa: FBT001, FBT002
        artifact_watch_dirs: Sequence[str] | None = None,
        watch_filesystem: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        self.track_metrics, self.track_environment, self.track_args = track_metrics, track_environment, track_args
        self.track_stdout, self.track_checkpoints = track_stdout, track_checkpoints
        self.track_system_metrics, self.track_git = track_system_metrics, track_git
        self.enable_automagic, self.automagic_frameworks = enable_automagic, automagic_frameworks
        self.enable_artifacts, self.automagic_artifacts = enable_artifacts, automagic_artifacts
        self.artifact_watch_dirs, self.watch_filesystem = artifact_watch_dirs, watch_filesystem
        self._of_run: Config | None = None

    @classmethod
    def of(cls, settings: TraceletSettings) -> ExperimentConfig:
        """Return what settings say of an experiment."""
        named = {alias: field for alias, field in ALIASES.items() if alias in _CONFIG_FIELDS}
        return cls(**{name: getattr(settings, named.get(name, name)) for name in _CONFIG_FIELDS})

    def to_dict(self) -> dict[str, object]:
        """Return every field."""
        return {name: getattr(self, name) for name in _CONFIG_FIELDS}

    def answer_for(self, config: Config) -> None:
        """Answer to the names of a run's settings too."""
        self._of_run = config

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever the run's setting is
        """Answer with a setting of the run."""
        config = self.__dict__.get("_of_run")
        if config is None or name.startswith("_"):
            message = f"ExperimentConfig has no field {name!r}. {near(name, _CONFIG_FIELDS)}"
            raise AttributeError(message)
        return getattr(config, name)

    def __eq__(self, other: object) -> bool:
        """Compare by value."""
        return isinstance(other, ExperimentConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # fields can be set

    def __repr__(self) -> str:
        """Show what differs from the defaults."""
        changed = {name: value for name, value in self.to_dict().items() if value != _CONFIG_FIELDS[name]}
        return f"ExperimentConfig({', '.join(f'{name}={value!r}' for name, value in changed.items())})"


class Options:
    """What was told of an experiment, complete.

    Args:
        settings: The documents' settings.
        of_run: Settings of the run that were given by their own names.
        backend: Names, classes and objects of back ends that were asked for.
        backend_options: Options for them: what was given and is no setting of ours.
    """

    __slots__ = ("backend", "backend_options", "of_run", "settings")

    def __init__(
        self,
        settings: TraceletSettings,
        of_run: Mapping[str, object],
        backend: Sequence[object],
        backend_options: Mapping[str, object],
    ) -> None:
        self.settings, self.of_run, self.backend = settings, dict(of_run), list(backend)
        self.backend_options = dict(backend_options)

    def for_init(self) -> dict[str, Any]:
        """Return the settings for `tracer.init`: what somebody chose, and what an experiment does unasked."""
        settings = self.settings
        chosen = {_FOR_RUN[name]: getattr(settings, name) for name in _FOR_RUN if name in settings.given}
        folders = list(settings.artifact_watch_dirs or ())
        if (settings.watch_filesystem or settings.automagic_artifacts) and not folders:
            folders = [_DEFAULT_WATCHED]
        if folders:
            chosen["artifact_folders"] = folders
        if "track_stdout" in settings.given or not _is_set("track_output"):
            chosen["track_output"] = "wrap" if settings.track_stdout else "off"
        if self._says_what_to_capture() or not _is_set("capture"):
            chosen["capture"] = self._capture()
        # An experiment names its back ends itself, plugins among them; variables count there already.
        return {**chosen, **self.of_run, "backend": []}

    def _says_what_to_capture(self) -> bool:
        """Tell whether somebody chose frameworks by the documents' names."""
        return not self.settings.given.isdisjoint(_OF_CAPTURE)

    def _capture(self) -> list[str]:
        """Return which frameworks are listened to, as `capture` takes them."""
        settings = self.settings
        if not settings.track_metrics:
            return ["off"]
        left_out = [
            name
            for name, is_wanted in (
                ("tensorboard", settings.track_tensorboard),
                ("lightning", settings.track_lightning),
            )
            if not is_wanted
        ]
        if settings.automagic_frameworks is None:
            return ["auto", *(f"-{name}" for name in left_out)]
        for name in settings.automagic_frameworks:
            if name not in FRAMEWORKS:
                message = f"automagic_frameworks: {name!r} is not a framework. {near(name, FRAMEWORKS)}"
                raise ConfigError(message)
        named = {one for name in settings.automagic_frameworks for one in _TOGETHER.get(name, (name,))}
        return sorted(({"tensorboard", "lightning"} | named) - set(left_out)) or ["off"]

    def without_effect(self) -> list[str]:
        """Return what was turned off and cannot be turned off alone."""
        return [name for name in ("track_gpu", "track_disk", "track_network") if not getattr(self.settings, name)]

    def for_backends(self) -> dict[str, Any]:
        """Return what a plugin back end is given besides the names of the run."""
        settings = self.settings
        own = {name: getattr(settings, name) for name in ("api_key", "backend_url")}
        shared = {name: value for name, value in own.items() if value is not None}
        mirrors = {name: mirror_options(name, settings, self.backend_options) for name in table.MIRRORS}
        return {**shared, **self.backend_options, **{name: told for name, told in mirrors.items() if told}}


def gather(
    arguments: Mapping[str, object],
    config: object = None,
    settings: TraceletSettings | None = None,
    default: TraceletSettings | None = None,
) -> Options:
    """Return the options of an experiment: argument, else `config`, else `settings`, else the surroundings.

    Args:
        arguments: `exp_name project backend api_key backend_url`, those that were given.
        config: A dictionary, an `ExperimentConfig` or a `TraceletSettings`.
        settings: Settings that were passed.
        default: What `configure` was given.

    Raises:
        ConfigError: A name is not known, or a value cannot be meant.
    """
    if isinstance(config, TraceletSettings):
        settings, config = config, None
    base = settings or default
    passed = base is not None
    base = base.model_copy() if base is not None else TraceletSettings()
    values, of_run, options = _parted(config)
    values.update({name: value for name, value in arguments.items() if value is not None})
    backend = values.pop("backend", None)
    base = base.model_copy(update=values)
    if backend is None:
        # Settings that were made and passed keep their own default; without any, nothing is mirrored unasked.
        backend = base.backend if passed or "backend" in base.given else []
    return Options(base, of_run, _listed(backend), options)


def _parted(config: object) -> tuple[dict[str, object], dict[str, object], dict[str, object]]:
    """Return the fields, the settings of the run and the back ends' options in what `config` was given."""
    if config is None:
        return {}, {}, {}
    if isinstance(config, ExperimentConfig):
        given = {name: value for name, value in config.to_dict().items() if value != _CONFIG_FIELDS[name]}
        return known_fields(given), {}, {}
    if not isinstance(config, dict):
        kind = type(config).__name__
        message = f"config={config!r} is a {kind}; a dictionary, ExperimentConfig or TraceletSettings is needed."
        raise ConfigError(message)
    options = config.get("backend_options", {})
    given = {name: value for name, value in config.items() if name != "backend_options"}
    also = {name: value for name, value in given.items() if name in _OF_RUN}
    fields = known_fields(given, also)
    of_run = {name: value for name, value in also.items() if name not in ROWS and name not in ALIASES}
    return fields, of_run, dict(options)


def _listed(backend: object) -> list[object]:
    """Return back ends as a list: a name, names with commas, a class, an object, or a list of them."""
    parts = backend if isinstance(backend, (list, tuple, set)) else [backend]
    found: list[object] = []
    for part in parts:
        found += [name.strip() for name in part.split(",") if name.strip()] if isinstance(part, str) else [part]
    return found


def _is_set(name: str) -> bool:
    """Tell whether a setting of the run comes from the environment or its file."""
    from tracer.config import explained

    return any(row.name == name and source != "default" for row, _, source in explained())


__all__ = ["SECRET", "ExperimentConfig", "Options", "gather"]
