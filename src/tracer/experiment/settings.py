"""`TraceletSettings`: the Tracelet documents' settings, each a row, read from argument, environment, `.env` and file.

The order is: argument, environment, `.env`, the file (`tracelet.yaml`, `tracelet.json` or what `TRACELET_CONFIG`
names), default.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Self

    Fields = dict[str, Any]

import os

from tracer import sink
from tracer.config import Setting
from tracer.errors import ConfigError

_FILES = ("tracelet.yaml", "tracelet.yml", "tracelet.json")
_ENV_FILE = ".env"
_PREFIX = "TRACELET_"
#: Variables that are no fields.
_OTHER = frozenset({"TRACELET_CONFIG", "TRACELET_PLUGIN_PATH", "TRACELET_STRICT_IMPORTS"})
#: Never shown, never stored.
SECRET = frozenset({"api_key", "wandb_api_key"})


def _row(name: str, type: str, default: object, help: str, minimum: float | None = None) -> Setting:  # noqa: A002
    """Return a row; its variable is its name with the prefix."""
    return Setting(name, type, default, env=(_PREFIX + name.upper(),), help=help, minimum=minimum)


FIELDS = (
    _row("project", "str", "default", "Project of new runs."),
    _row("experiment_name", "str", None, "Name of the run; made from date and host when absent."),
    _row("backend", "list[str]", ["mlflow"], "Back ends that the run is mirrored to."),
    _row("api_key", "str", None, "Key for the back end; never stored."),
    _row("backend_url", "str", None, "Address of the back end."),
    _row("track_tensorboard", "bool", True, "Listen to TensorBoard writers."),
    _row("track_lightning", "bool", True, "Listen to Lightning trainers."),
    _row("track_system", "bool", True, "Record CPU, memory, disk and GPU in the background."),
    _row("track_git", "bool", True, "Record commit, branch and the uncommitted diff."),
    _row("track_env", "bool", True, "Record Python, packages and platform."),
    _row("metrics_interval", "float", 10.0, "Seconds between two samples of the system.", 0.1),
    _row("track_args", "bool", True, "Record the arguments that the program parsed."),
    _row("track_stdout", "bool", True, "Keep what the program prints."),
    _row("track_checkpoints", "bool", True, "Note the checkpoints that a framework saves."),
    _row(
        "track_metrics", "bool", True, "Listen to frameworks at all; what the program logs itself is always recorded."
    ),
    _row("enable_automagic", "bool", False, "Also record the values of the function that starts the experiment."),
    _row("automagic_frameworks", "list[str]", None, "The only frameworks that are listened to."),
    _row("enable_artifacts", "bool", False, "Accepted; artifacts can always be logged."),
    _row("automagic_artifacts", "bool", False, "Keep files that appear in the folders of `artifact_watch_dirs`."),
    _row("watch_filesystem", "bool", False, "The same; the working folder's `outputs` when no folder is named."),
    _row("artifact_watch_dirs", "list[str]", None, "Folders in which files that appear are artifacts of the run."),
    _row("track_gpu", "bool", True, "Record figures of GPUs."),
    _row("track_disk", "bool", True, "Record figures of the disk."),
    _row("track_network", "bool", True, "Record figures of the network."),
    _row("track_model_architecture", "bool", True, "Record size and layers of a model given to `capture_model`."),
    _row("detect_function_args", "bool", True, "Automagic: look at the arguments of functions."),
    _row("detect_class_attributes", "bool", True, "Automagic: look at the attributes of `self`."),
    _row("max_queue_size", "int", 10000, "Metrics that may wait in a router of the program's own.", 1),
    _row("num_workers", "int", 4, "Threads of a router of the program's own.", 1),
    _row("mlflow_tracking_uri", "str", None, "MLflow's address."),
    _row("mlflow_experiment_name", "str", None, "MLflow's experiment; the project when absent."),
    _row("wandb_project", "str", None, "Project in Weights & Biases; the project when absent."),
    _row("wandb_entity", "str", None, "Entity in Weights & Biases."),
    _row("wandb_api_key", "str", None, "Key for Weights & Biases; never stored."),
    _row("clearml_project", "str", None, "Project in ClearML; the project when absent."),
    _row("clearml_task_name", "str", None, "Task in ClearML; the run's name when absent."),
    _row("aim_repo", "str", None, "Folder of Aim's repository."),
    _row("aim_experiment", "str", None, "Experiment in Aim; the project when absent."),
)
ROWS = {row.name: row for row in FIELDS}
#: Other names of the same fields.
ALIASES = {
    "project_name": "project",
    "exp_name": "experiment_name",
    "backends": "backend",
    "track_system_metrics": "track_system",
    "track_environment": "track_env",
    "track_arguments": "track_args",
    "automagic": "enable_automagic",
    "artifacts": "enable_artifacts",
}


class TraceletSettings:
    """The settings of an experiment, as the Tracelet documents name them.

    Args:
        _env_file: The file of variables; `.env` of the working folder. None reads none.
        **settings: Any field of `FIELDS`, or another name of one.

    Raises:
        ConfigError: A field is not known or its value cannot be meant; the message names what comes near, and the
            variable or file that a value came from.

    Example:
        >>> TraceletSettings(project="gpt", backend="mlflow,wandb").backend
        ['mlflow', 'wandb']
    """

    __slots__ = (*ROWS, "given")

    given: frozenset[str]

    def __init__(self, *, _env_file: str | None = _ENV_FILE, **settings: object) -> None:
        found = dict(_from_surroundings(_env_file))
        found.update(_read(known_fields(settings), ""))
        object.__setattr__(self, "given", frozenset(found))
        for row in FIELDS:
            object.__setattr__(self, row.name, found[row.name] if row.name in found else _copied(row.default))

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """Return settings with these values."""
        return cls(**values)  # type: ignore[arg-type]  # each value is read by its row

    def model_dump(self) -> Fields:
        """Return every field."""
        return {row.name: _copied(getattr(self, row.name)) for row in FIELDS}

    def model_copy(self, *, update: Mapping[str, object] | None = None) -> Self:
        """Return a copy; `update` changes some fields."""
        copy = object.__new__(type(self))
        changed = _read(known_fields(update or {}), "")
        object.__setattr__(copy, "given", self.given | set(changed))
        for name, value in {**self.model_dump(), **changed}.items():
            object.__setattr__(copy, name, value)
        return copy

    # The older names of the two.
    copy = model_copy
    dict = model_dump

    @property
    def project_name(self) -> str:
        """The project."""
        project: str = self.project
        return project

    @property
    def track_system_metrics(self) -> bool:
        """Whether the system is recorded."""
        track: bool = self.track_system
        return track

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- the fields; each row says its type
            ...

    def __setattr__(self, name: str, value: object) -> None:
        """Change a field; it is checked like an argument."""
        for field, read in _read(known_fields({name: value}), "").items():
            object.__setattr__(self, field, read)
            object.__setattr__(self, "given", self.given | {field})

    def __eq__(self, other: object) -> bool:
        """Compare by value."""
        return isinstance(other, TraceletSettings) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]  # they can change

    def __repr__(self) -> str:
        """Show the fields, without what is secret."""
        shown = (f"{name}={'…' if name in SECRET and value else repr(value)}" for name, value in self)
        return f"TraceletSettings({', '.join(shown)})"

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yield names and values."""
        yield from self.model_dump().items()


def known_fields(
    values: Mapping[str, object], also: Mapping[str, object] | None = None, where: str = ""
) -> dict[str, object]:
    """Return values by field name, or name the one that is not known and what comes near.

    Args:
        values: Name → value.
        also: Further names that are known; they are left out of what is returned.
        where: The file they come from.
    """
    found: dict[str, object] = {}
    for name, value in values.items():
        field = name if name in ROWS else ALIASES.get(name)
        if field is not None:
            found[field] = value
        elif also is None or name not in also:
            hint = near(name, [*ROWS, *ALIASES, *(also or ())])
            message = f"{where}{name!r} is not a setting (its value is {value!r}). {hint}"
            raise ConfigError(message)
    return found


def near(name: str, known: Any) -> str:  # noqa: ANN401 -- any names
    """Say what was probably meant, else what there is."""
    import difflib

    found = difflib.get_close_matches(name.lower(), list(known), n=1)
    return f"Did you mean {found[0]!r}?" if found else f"Known: {', '.join(sorted(known))}."


def _read(values: Mapping[str, object], where: str) -> dict[str, object]:
    """Read values by their rows."""
    found: dict[str, object] = {}
    for name, value in values.items():
        row = ROWS[name]
        if row.type == "list[str]" and isinstance(value, str) and value.lstrip().startswith("["):
            import json  # lists as pydantic writes them

            try:
                value = json.loads(value)  # noqa: PLW2901 -- the same value, read
            except ValueError:
                message = f"{where or name}={value!r} begins like a JSON list and is none. Names with commas will do."
                raise ConfigError(message) from None
        found[name] = row.read(_bare(value, row), where or name)
    return found


def _bare(value: object, row: Setting) -> object:
    """Return None for what a variable or file leaves empty where the default is None."""
    return None if row.default is None and value == "" else value


def _from_surroundings(env_file: str | None) -> Iterator[tuple[str, object]]:
    """Yield what the file, `.env` and the environment say, the strongest last."""
    variables = _variables(env_file)
    variables.update(os.environ)
    yield from _from_file(variables.get("TRACELET_CONFIG")).items()
    for row in FIELDS:
        for variable in row.env:
            if variable in variables:
                yield from _read({row.name: variables[variable]}, variable).items()
    _say_unknown(variables)


def _say_unknown(variables: Mapping[str, str]) -> None:
    """Say which variables look like ours and are none: a misspelt one would do nothing without a word."""
    from tracer.config import SETTINGS

    known = {name for row in (*FIELDS, *SETTINGS) for name in row.env} | _OTHER
    for name in variables:
        if name.startswith(_PREFIX) and name not in known:
            import difflib

            close = difflib.get_close_matches(name, known, n=1)
            sink.say(
                f"tracer: {name} is not a variable that is read." + (f" Did you mean {close[0]}?" if close else "")
            )


def _variables(path: str | None) -> dict[str, str]:
    """Read a file of `NAME=value` lines; quotes, comments and `export` as the shell has them."""
    if path is None or not os.path.isfile(path):
        return {}
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        message = f"The file of variables {path!r} cannot be read ({error}). Mend it or take it away."
        raise ConfigError(message) from error
    found: dict[str, str] = {}
    for line in lines:
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.lstrip().startswith("#"):
            found[name.strip()] = _unquoted(value.strip())
    return found


def _unquoted(value: str) -> str:
    """Return the value of a variable without quotes, or without a comment behind it."""
    if value[:1] in ("'", '"') and value.find(value[0], 1) > 0:
        return value[1 : value.find(value[0], 1)]
    return "" if value.startswith("#") else value.partition(" #")[0].rstrip()


def _from_file(path: str | None) -> dict[str, object]:
    """Return the settings of the file, by field name."""
    path = path or next((name for name in _FILES if os.path.isfile(name)), None)
    if path is None:
        return {}
    import yaml  # a base dependency, loaded only where there is a file to read; it reads JSON too

    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        message = f"The settings file {path!r} cannot be read ({error}). Mend it, or unset TRACELET_CONFIG."
        raise ConfigError(message) from error
    content = content.get("tracelet", content) if isinstance(content, dict) else content
    if not isinstance(content, dict):
        message = f"The settings file {path!r} holds {type(content).__name__}, not `name: value` lines."
        raise ConfigError(message)
    found: dict[str, object] = {}
    for name, value in known_fields(content, where=f"{path}: ").items():
        found.update(_read({name: value}, f"{path}: {name}"))
    return found


def _copied(value: object) -> object:
    """Return a value that nobody shares."""
    return list(value) if isinstance(value, list) else value


__all__ = ["ALIASES", "FIELDS", "ROWS", "SECRET", "TraceletSettings", "known_fields", "near"]
