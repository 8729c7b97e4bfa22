"""Every setting is a row of one table: field, environment names, file key, type, default, help.

The order is: argument, environment, file, default. The file is `tracer.yaml` beside the program, or what
`TRACER_CONFIG` names; the command line, the documentation and `tracer doctor` read the same rows.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

import os
import re

from tracer.errors import ConfigError

_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")
DURABILITIES = ("interval", "step", "none")
_FILE = "tracer.yaml"


class Setting:
    """One row: what a setting is called everywhere, what it may be, and what it is for."""

    __slots__ = ("choices", "default", "env", "file_key", "help", "minimum", "name", "type")

    def __init__(
        self,
        name: str,
        type: str,  # noqa: A002 -- the column is called so in the documentation
        default: object,
        *,
        env: tuple[str, ...] = (),
        help: str,  # noqa: A002 -- the column is called so in the documentation
        file_key: str = "",
        choices: tuple[str, ...] = (),
        minimum: float | None = None,
    ) -> None:
        self.name, self.type, self.default, self.help = name, type, default, help
        self.env = env or (f"TRACER_{name.upper()}",)
        self.file_key = file_key or name
        self.choices, self.minimum = choices, minimum

    def read(self, value: object, where: str) -> object:
        """Return a value of this setting's type, or say what is wrong with it and where it came from."""
        if value is None and self.default is None:
            return None
        if self.choices and value not in self.choices and str(value).lower() in _YES + _NO[:-1]:
            value = self.choices[int(_flag(value))]  # yes and no, where one of several ways may be chosen
        try:
            read = _READERS[self.type](value)
        except (TypeError, ValueError):
            message = f"{where}={value!r} is not {_NAMED[self.type]}. {self.help}"
            raise ConfigError(message) from None
        if self.choices and read not in self.choices:
            message = f"{where}={value!r} is not known. Choose one of: {', '.join(self.choices)}."
            raise ConfigError(message)
        if self.minimum is not None and isinstance(read, (int, float)) and not read >= self.minimum:
            message = f"{where}={value!r} is too small: at least {self.minimum:g} is needed. {self.help}"
            raise ConfigError(message)
        return read


def _text(value: object) -> str:
    """Read text; a path counts as text, a number does not."""
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value)
    raise TypeError


def _flag(value: object) -> bool:
    """Read yes or no."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (str, int)) and str(value).strip().lower() in _YES + _NO:
        return str(value).strip().lower() in _YES
    raise ValueError


def _whole(value: object) -> int:
    """Read a whole number."""
    if isinstance(value, (bool, float)) and value != int(value):
        raise ValueError
    return int(value)  # type: ignore[call-overload, no-any-return]  # what it cannot read it refuses by itself


def _number(value: object) -> float:
    """Read a number."""
    return float(value)  # type: ignore[arg-type]  # what it cannot read it refuses by itself


def _names(value: object) -> list[str]:
    """Read names: a list, or text with commas."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_text(part) for part in value]
    raise TypeError


def _mapping(value: object) -> dict[str, object]:
    """Read a dictionary with text as keys."""
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return dict(value)
    raise TypeError


def _rules(value: object) -> list[object]:
    """Take rules: dictionaries or `Rule` objects; the room of mirrors reads them, and says what is wrong."""
    if not isinstance(value, (list, tuple)) or any(isinstance(rule, str) for rule in value):
        raise TypeError
    return list(value)


def _action(value: object) -> object:
    """Take what shall be done; `reactions` reads it, and says what is wrong with it."""
    if value is None or not (callable(value) or isinstance(value, (str, list, tuple))):
        raise TypeError
    return value


_READERS: Mapping[str, Callable[[object], object]] = {
    "str": _text, "bool": _flag, "int": _whole, "float": _number, "list[str]": _names, "dict": _mapping,
    "action": _action, "rules": _rules,
}  # fmt: skip
_NAMED = {
    "str": "text", "bool": "yes or no", "int": "a whole number", "float": "a number",
    "list[str]": "a list of names", "dict": "a dictionary",
    "action": "an action, a function, or a list of them", "rules": "a list of rules",
}  # fmt: skip

SETTINGS = (
    Setting(
        "project_name",
        "str",
        "default",
        env=("TRACER_PROJECT", "TRACELET_PROJECT"),
        file_key="project",
        help="Project of new runs.",
    ),
    Setting("run_name", "str", None, help="Name of the run; made from date and host when absent."),
    Setting("tags", "list[str]", (), help="Tags of the run; `tracer list --tag` finds them."),
    Setting("notes", "str", None, help="Free text about the run."),
    Setting("group", "str", None, help="Name that several runs share, such as the folds of one experiment."),
    Setting("job_type", "str", None, help="What the run does in its group, such as `train` or `eval`."),
    Setting(
        "storage_path", "str", "./.tracer", env=("TRACER_STORAGE",), file_key="storage", help="Folder of the store."
    ),
    Setting(
        "retention_days",
        "int",
        30,
        minimum=0,
        help=(
            "Days after which a run expires if you set this; 0 keeps it for ever. The default alone deletes nothing."
        ),
    ),
    Setting(
        "checkpoint_interval",
        "int",
        1000,
        minimum=1,
        help="Steps between two checkpoints: markers with statistics; every value is kept anyway.",
    ),
    Setting("capture_samples", "int", 5, minimum=0, help="Rows kept of each batch given to `run.log_samples`."),
    Setting("track_gradients", "bool", True, help="Record statistics of the gradients of a watched model."),
    Setting(
        "track_system_metrics",
        "bool",
        True,
        env=("TRACER_TRACK_SYSTEM_METRICS", "TRACELET_TRACK_SYSTEM"),
        help="Record CPU, memory, disk and GPU in the background.",
    ),
    Setting(
        "track_git",
        "bool",
        True,
        env=("TRACER_TRACK_GIT", "TRACELET_TRACK_GIT"),
        help="Record commit, branch and the uncommitted diff.",
    ),
    Setting(
        "track_environment",
        "bool",
        True,
        env=("TRACER_TRACK_ENVIRONMENT", "TRACELET_TRACK_ENV"),
        help="Record Python, packages, platform and command line.",
    ),
    Setting(
        "track_arguments",
        "bool",
        True,
        env=("TRACER_TRACK_ARGUMENTS", "TRACELET_TRACK_ARGS"),
        help="Record what the program's own parser of arguments found, as parameters of the run.",
    ),
    Setting("track_code", "bool", True, help="Keep the main script and the modules of its own that it imported."),
    Setting(
        "track_output",
        "str",
        "off",
        env=("TRACER_TRACK_OUTPUT", "TRACELET_TRACK_STDOUT"),
        choices=("off", "wrap", "fd"),
        help=(
            "Keep what the program prints and logs: Python's own output (`wrap`), also that of libraries and children "
            "(`fd`), or none."
        ),
    ),
    Setting(
        "track_checkpoints",
        "bool",
        True,
        env=("TRACER_TRACK_CHECKPOINTS", "TRACELET_TRACK_CHECKPOINTS"),
        help="Note the checkpoints that a framework saves as artifacts of the run, by reference: nothing is copied.",
    ),
    Setting(
        "artifact_folders",
        "list[str]",
        (),
        env=("TRACER_ARTIFACT_FOLDERS", "TRACELET_ARTIFACT_WATCH_DIRS"),
        help="Folders in which files that appear while the run lives are artifacts of it.",
    ),
    Setting(
        "capture",
        "list[str]",
        (),
        help=(
            "Frameworks that are listened to without being asked: `auto` for all, names such as `tensorboard`, or "
            "`off`; a name with `-` before it is left out of all."
        ),
    ),
    Setting(
        "capture_every_step",
        "bool",
        False,
        help="Record every step of what a Lightning module logs, and not only what its loggers are told.",
    ),
    Setting(
        "redact", "list[str]", (), help="Further names whose values are secret, beside those known; `off` ends it."
    ),
    Setting("redact_allow", "list[str]", (), help="Names whose values are no secret although they look like one."),
    Setting(
        "gradient_layers",
        "list[str]",
        None,
        help=("Watch only layers whose name holds one of these texts, matches a glob, or matches `re:` and a pattern."),
    ),
    Setting(
        "max_overhead",
        "float",
        0.01,
        minimum=0.0001,
        help="Share of the training's time that watching may take; above it Tracer looks less often. 1 means no limit.",
    ),
    Setting("detect_anomalies", "bool", True, help="Judge what is logged while the run goes on."),
    Setting(
        "on_anomaly",
        "action",
        "continue",
        help=(
            "What is done about an anomaly: `continue`, `raise`, `skip`, `guard`, `checkpoint`, `webhook:URL`, "
            "`command:LINE`, a function, or a list of them."
        ),
    ),
    Setting(
        "anomaly_severity",
        "str",
        "high",
        choices=("low", "medium", "high", "critical"),
        help="The least severity about which something is done; a function is called for all.",
    ),
    Setting(
        "system_interval_s",
        "float",
        10.0,
        env=("TRACER_SYSTEM_INTERVAL_S", "TRACELET_METRICS_INTERVAL"),
        minimum=0.1,
        help="Seconds between two samples of the system.",
    ),
    Setting(
        "durability",
        "str",
        "interval",
        choices=DURABILITIES,
        help=(
            "When a machine's crash is survived: after at most a second (`interval`), at each step "
            "(`step`), or when the system likes (`none`)."
        ),
    ),
    Setting(
        "journal",
        "str",
        "auto",
        choices=("auto", "mapped", "append"),
        help="How the journal is written; `auto` maps it on local disks and appends elsewhere.",
    ),
    Setting(
        "maintain",
        "str",
        "companion",
        choices=("companion", "off"),
        help=(
            "Who turns the journal of a long run into Parquet while it lives: a small niced process, or "
            "nobody until a command reads it."
        ),
    ),
    Setting("finish_timeout_s", "float", 10.0, minimum=0, help="Longest time that `finish` may take."),
    Setting(
        "backend",
        "list[str]",
        (),
        env=("TRACER_BACKEND", "TRACELET_BACKEND"),
        help="Other trackers that the run is mirrored to, such as `mlflow` or `wandb`; our own store always records.",
    ),
    Setting(
        "backend_url",
        "str",
        None,
        env=("TRACER_BACKEND_URL", "TRACELET_BACKEND_URL"),
        help="Address of the back end, where one is asked for; else what its own client reads.",
    ),
    Setting("backend_options", "dict", (), help="Back end → what it is told: `{'mlflow': {'experiment_name': 'a'}}`."),
    Setting("backend_rules", "rules", (), help="What goes to which back end: `Rule` objects or dictionaries."),
    Setting(
        "lane",
        "str",
        "process",
        choices=("process", "thread"),
        help="Where back ends are served: in a process beside the training, or in threads of it.",
    ),
    Setting(
        "linger_s",
        "float",
        60.0,
        minimum=0,
        help="How long that process may go on after the run has ended; a batch scheduler's job is not held up at all.",
    ),
    Setting(
        "spool_max_bytes",
        "int",
        1 << 30,
        minimum=0,
        help="How much of a run's journal is kept for a back end that is away; older values are sent from the store.",
    ),
    Setting("quiet", "bool", False, help="Print nothing at start and end."),
    Setting(
        "strict", "bool", False, help="Raise internal errors instead of counting them; for tests of Tracer itself."
    ),
    Setting(
        "custom_metrics",
        "dict",
        (),
        help=(
            "Name → function without arguments, called at each checkpoint; or name → {goal: min|max, "
            "unit: text}, which declares a metric."
        ),
    ),
    Setting(
        "async_writes",
        "bool",
        True,
        help="`False` means durability=`step`; there is no queue that could be switched off.",
    ),
    Setting(
        "write_buffer_size",
        "int",
        100,
        minimum=1,
        help="Accepted for old programs; nothing is buffered, so nothing changes.",
    ),
    Setting(
        "max_workers", "int", 4, minimum=1, help="Accepted for old programs; there is no pool, so nothing changes."
    ),
)
_ROWS = {row.name: row for row in SETTINGS}
#: What is shown of a back end's options: they may hold keys.
_SET = "set"
#: The user and password of an address, and what follows a question mark.
_USER = re.compile(r"(?<=://)[^/@]*@|\?.*")
#: What people write for a field: the file's keys are accepted as arguments too.
_ALIASES = {row.file_key: row.name for row in SETTINGS}


class Config:
    """The settings of one run, checked and complete.

    Args:
        project_name: Project of the run.
        **settings: Any other field of `SETTINGS`.

    Raises:
        ConfigError: A field is not known or its value cannot be meant.

    Example:
        >>> Config(project_name="gpt", checkpoint_interval=500).checkpoint_interval
        500
    """

    __slots__ = (*_ROWS, "given")

    project_name: str
    run_name: str
    tags: list[str]
    notes: str | None
    group: str | None
    job_type: str | None
    storage_path: str
    retention_days: int
    checkpoint_interval: int
    capture_samples: int
    track_gradients: bool
    track_system_metrics: bool
    track_git: bool
    track_environment: bool
    track_arguments: bool
    track_code: bool
    track_output: str
    track_checkpoints: bool
    artifact_folders: list[str]
    capture: list[str]
    capture_every_step: bool
    redact: list[str]
    redact_allow: list[str]
    gradient_layers: list[str] | None
    max_overhead: float
    detect_anomalies: bool
    on_anomaly: object
    anomaly_severity: str
    system_interval_s: float
    durability: str
    journal: str
    maintain: str
    finish_timeout_s: float
    backend: list[str]
    backend_url: str | None
    backend_options: dict[str, object]
    backend_rules: list[Any]
    lane: str
    linger_s: float
    spool_max_bytes: int
    quiet: bool
    strict: bool
    custom_metrics: dict[str, object]
    async_writes: bool
    write_buffer_size: int
    max_workers: int
    given: frozenset[str]

    def __init__(self, project_name: str = "default", **settings: object) -> None:
        arguments = _known({"project_name": project_name, **settings})
        for row in SETTINGS:
            value = row.read(arguments[row.name], row.name) if row.name in arguments else _fresh(row)
            object.__setattr__(self, row.name, value)
        self.given = frozenset(settings)
        self.storage_path = os.path.abspath(self.storage_path)
        self.run_name = self.run_name or _run_name()
        if not self.async_writes:
            self.durability = "step"

    @classmethod
    def load(cls, arguments: Mapping[str, object], environ: Mapping[str, str] | None = None) -> Config:
        """Return the settings of a new run: argument, else environment, else file, else default.

        Args:
            arguments: What the program passed; it wins.
            environ: The environment; the process' own when absent.

        Returns:
            The checked settings; `given` names those that somebody set.

        Raises:
            ConfigError: A value cannot be read; the message names the variable or file it came from.
        """
        found = {row.name: value for row, value, source in explained(environ) if source != "default"}
        found.update(_known(arguments))
        return cls(**found)  # type: ignore[arg-type]  # each value was read by its row

    def to_dict(self) -> dict[str, object]:
        """Return every field, ready for JSON; what may be secret is left out of the back ends' options."""
        values = {row.name: getattr(self, row.name) for row in SETTINGS}
        values["backend_options"] = dict.fromkeys(sorted(self.backend_options), _SET)
        values["backend_rules"] = [rule if isinstance(rule, dict) else repr(rule) for rule in self.backend_rules]
        values["backend_url"] = self.backend_url and _USER.sub("", self.backend_url)
        values["custom_metrics"] = {name: _shown(value) for name, value in self.custom_metrics.items()}
        values["on_anomaly"] = shown_action(self.on_anomaly)
        return values

    def __repr__(self) -> str:
        """Show what differs from the defaults."""
        values = self.to_dict()  # without what may be secret
        changed = {name: values[name] for name in sorted(self.given)}
        return (
            f"Config(project_name={self.project_name!r}, " + ", ".join(f"{k}={v!r}" for k, v in changed.items()) + ")"
        )


def explained(environ: Mapping[str, str] | None = None) -> list[tuple[Setting, object, str]]:
    """Return each setting, the value that a new run would get, and its source: a variable, the file, or `default`.

    Args:
        environ: The environment; the process' own when absent.

    Raises:
        ConfigError: A value cannot be read; the message names the variable or file it came from.

    Example:
        >>> [(row.name, value) for row, value, source in explained({"TRACER_PROJECT": "gpt"}) if source != "default"]
        [('project_name', 'gpt')]
    """
    environ = os.environ if environ is None else environ
    path = environ.get("TRACER_CONFIG")
    from_file = _from_file(path)
    found: list[tuple[Setting, object, str]] = []
    for row in SETTINGS:
        named = next((name for name in row.env if name in environ), None)
        if named is not None:
            found.append((row, row.read(environ[named], named), named))
        elif row.name in from_file:
            found.append((row, from_file[row.name], path or _FILE))
        else:
            found.append((row, _fresh(row), "default"))
    return found


def _known(arguments: Mapping[str, object]) -> dict[str, object]:
    """Return arguments by field name, or name the one that is not known and what comes near."""
    named: dict[str, object] = {}
    for name, value in arguments.items():
        field = name if name in _ROWS else _ALIASES.get(name)
        if field is None:
            import difflib

            near = difflib.get_close_matches(name, _ROWS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "`tracer settings` lists them all."
            message = f"{name!r} is not a setting (its value is {value!r}). {hint}"
            raise ConfigError(message)
        named[field] = value
    return named


def _fresh(row: Setting) -> object:
    """Return a default that nobody shares."""
    if row.type == "dict":
        return {}
    return None if row.default is None else _READERS[row.type](row.default)


def _from_file(path: str | None) -> dict[str, object]:
    """Return the settings of the file, by field name."""
    if path is None and not os.path.exists(_FILE):
        return {}
    path = path or _FILE
    import yaml  # a base dependency, loaded only where there is a file to read

    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        message = f"The settings file {path!r} cannot be read ({error}). Mend it, or unset TRACER_CONFIG."
        raise ConfigError(message) from error
    if not isinstance(content, dict):
        message = f"The settings file {path!r} holds {type(content).__name__}, not `name: value` lines."
        raise ConfigError(message)
    content = content.get("tracer", content)
    content = {name: value for name, value in content.items() if name != "flight"}  # `flight.settings` reads that
    return {name: _ROWS[name].read(value, f"{path}: {name}") for name, value in _known(content).items()}


def _run_name() -> str:
    """Return a name for a run that was given none."""
    import socket
    import time

    host = "".join(c if c.isalnum() or c in "-_" else "-" for c in socket.gethostname().split(".")[0])
    return time.strftime("run_%Y%m%d_%H%M%S_", time.localtime()) + (host or "host")


def _shown(value: object) -> object:
    """Return a custom metric as JSON can hold it."""
    return f"<function {getattr(value, '__name__', 'of yours')}>" if callable(value) else value


def shown_action(choice: object) -> object:
    """Return what `on_anomaly` was set to as it may be stored: addresses and commands may hold keys.

    Example:
        >>> shown_action(["raise", "webhook:https://example.org/hook/secret"])
        ['raise', 'webhook:https://example.org/…']
    """
    if isinstance(choice, (list, tuple)):
        return [shown_action(part) for part in choice]
    if callable(choice):
        return _shown(choice)
    kind, colon, target = str(choice).partition(":")
    if kind == "webhook":
        from urllib.parse import urlsplit

        parts = urlsplit(target)
        return f"{kind}:{parts.scheme}://{parts.hostname or ''}/…"
    return f"{kind}:…" if colon else choice


TracerConfig = Config  # what older programs call it

__all__ = ["SETTINGS", "Config", "Setting", "TracerConfig", "explained", "shown_action"]
