"""The back ends and sources of Tracer itself by name; a client is looked for before it is imported.

Loaded by `import tracelet`, so: slotted classes, no dataclasses, no typing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracer.backends.base import Backend, Source

import re
from importlib import import_module
from importlib.util import find_spec

from tracer.errors import ConfigError
from tracer.plugins import missing


class Entry:
    """One peer.

    Args:
        shown: Its name as people write it.
        package: What has to be importable for it; empty where we speak its format ourselves.
        extra: Which extra of ours brings the package.
        backend: `module:class` under `tracer.backends`; empty where runs are only read.
        source: `module:class` under `tracer.backends`; empty where nothing can be read.
        options: What it can be told, besides `url` and `api_key`.
        url_option: Which option `backend_url` means.
        key_variable: The variable in which its client looks for the key.
    """

    __slots__ = ("backend", "extra", "key_variable", "options", "package", "shown", "source", "url_option")

    #: What every back end may be told besides.
    HIDDEN = ("api_key", "storage_path")

    def __init__(
        self,
        shown: str,
        package: str = "",
        extra: str = "",
        backend: str = "",
        source: str = "",
        options: tuple[str, ...] = (),
        url_option: str = "",
        key_variable: str = "",
    ) -> None:
        self.shown, self.package, self.extra = shown, package, extra
        self.backend, self.source, self.options = backend, source, options
        self.url_option, self.key_variable = url_option, key_variable


ENTRIES: Mapping[str, Entry] = {
    "mlflow": Entry(
        "MLflow",
        "mlflow",
        "mlflow",
        "mlflow:MLflowBackend",
        "mlflow_reading:MLflowSource",
        ("experiment_name", "run_name", "tracking_uri", "register_models"),
        "tracking_uri",
        "MLFLOW_TRACKING_TOKEN",
    ),
    "wandb": Entry(
        "Weights & Biases",
        "wandb",
        "wandb",
        "wandb:WandbBackend",
        "wandb_reading:WandbSource",
        (
            "project_name",
            "experiment_name",
            "entity",
            "tags",
            "job_type",
            "disable_stats",
            "quiet",
            "mode",
            "dir",
            "init_timeout_s",
        ),
        "base_url",
        "WANDB_API_KEY",
    ),
    "clearml": Entry(
        "ClearML",
        "clearml",
        "clearml",
        "clearml:ClearMLBackend",
        "clearml_reading:ClearMLSource",
        ("project_name", "task_name", "task_type", "tags", "auto_connect_arg_parser", "auto_connect_frameworks", "dir"),
        "api_host",
        "CLEARML_API_SECRET_KEY",
    ),
    "aim": Entry(
        "Aim",
        "aim",
        "aim",
        "aim:AimBackend",
        "aim_reading:AimSource",
        ("experiment_name", "run_name", "tags", "remote_uri", "repo_path"),
        "remote_uri",
    ),
    "tensorboard": Entry(
        "TensorBoard",
        "tensorboard",
        "tensorboard",
        "tensorboard:TensorBoardBackend",
        "tensorboard_reading:TensorBoardSource",
        ("log_dir",),
        "log_dir",
    ),
    "trackio": Entry(
        "trackio",
        "trackio",
        "trackio",
        "trackio:TrackioBackend",
        "trackio_reading:TrackioSource",
        ("project_name", "run_name", "dir"),
        "dir",
    ),
    "otlp": Entry(
        "OpenTelemetry (OTLP)",
        backend="otlp:OtlpBackend",
        options=("endpoint", "headers", "signals", "steps", "timeout_s"),
        url_option="endpoint",
        key_variable="OTEL_EXPORTER_OTLP_HEADERS",
    ),
    "prometheus": Entry(
        "Prometheus",
        backend="prometheus:PrometheusBackend",
        options=("port", "gateway", "job", "host", "headers", "series", "timeout_s"),
        url_option="gateway",
    ),
    "sagemaker": Entry(
        "SageMaker Experiments",
        "boto3",
        "sagemaker",
        "sagemaker:SageMakerBackend",
        "",
        ("experiment_name", "trial_name", "region", "endpoint", "bucket"),
        "endpoint",
    ),
    "csv": Entry(
        "CSV", backend="files:CsvBackend", source="files_reading:CsvSource", options=("path",), url_option="path"
    ),
    "jsonl": Entry(
        "JSON Lines",
        backend="files:JsonLinesBackend",
        source="files_reading:JsonLinesSource",
        options=("path",),
        url_option="path",
    ),
    "parquet": Entry(
        "Parquet",
        backend="files:ParquetBackend",
        source="files_reading:ParquetSource",
        options=("path",),
        url_option="path",
    ),
    "webhook": Entry(
        "a webhook",
        backend="webhook:WebhookBackend",
        options=("url", "headers", "secret", "media_bytes", "timeout_s"),
        url_option="url",
    ),
    "layerclaw": Entry("LayerClaw's tracer.db", source="layerclaw_reading:LayerClawSource"),
    "neptune": Entry("Neptune's exported Parquet", source="neptune_reading:NeptuneSource"),
}


#: What can be asked for by name without a plugin.
MIRRORS = tuple(name for name, known in ENTRIES.items() if known.backend)


def entry(name: str) -> Entry:
    """Return what is known of a peer.

    Raises:
        ConfigError: There is none of that name.
    """
    found = ENTRIES.get(name)
    if found is None:
        message = f"{name!r} is no back end of Tracer. Known: {', '.join(ENTRIES)}."
        raise ConfigError(message)
    return found


def merged(
    name: str, options: Mapping[str, object], *, url: str | None = None, api_key: str | None = None
) -> dict[str, object]:
    """Return what a back end is told: its options, with address and key under the names that it knows.

    Raises:
        ConfigError: It has no such option, or the address cannot be one.
    """
    known = entry(name)
    allowed = {*known.options, *known.HIDDEN, *((known.url_option,) if known.url_option else ())}
    for option in options:
        if option not in allowed:
            from difflib import get_close_matches  # loaded by who was misunderstood

            near = get_close_matches(option, allowed, 1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(known.options)}."
            message = f"backend_options: {known.shown} has no option {option!r}.{hint}"
            raise ConfigError(message)
    told = dict(options)
    if url is not None:
        if not known.url_option:
            message = f"backend_url={without_user(url)!r}: {known.shown} has no address. Leave it out."
            raise ConfigError(message)
        told.setdefault(known.url_option, url)
    if api_key is not None:
        told.setdefault("api_key", api_key)
    return told


def without_user(address: str) -> str:
    """Return an address without user, password and query, fit to be shown.

    Example:
        >>> without_user("https://me:secret@host/path?token=x")
        'https://host/path'
    """
    return re.sub(r"(?<=://)[^/@]*@|(?<=.)[?#].*", "", address)


def is_installed(name: str) -> bool:
    """Tell whether the client of a peer is there; it is looked for, not imported."""
    package = entry(name).package
    try:
        return not package or find_spec(package) is not None
    except (ImportError, ValueError):  # a parent is missing, or it is half imported
        return False


def check_client(name: str) -> None:
    """See that the client of a peer is there.

    Raises:
        MissingDependency: It is not; the message names the command that brings it.
    """
    known = entry(name)
    if not is_installed(name):
        raise missing(known.package, extra=known.extra, purpose=f"The back end {known.shown}")


def backend(name: str, options: Mapping[str, object]) -> Backend:
    """Return a back end, its client imported.

    Raises:
        ConfigError: There is none of that name, or it only reads.
        MissingDependency: Its client is not installed.
    """
    known = entry(name)
    if not known.backend:
        message = f"Runs are read from {known.shown}, not written to it."
        raise ConfigError(message)
    check_client(name)
    made: Backend = class_of(known.backend)(options)
    return made


def source(name: str, uri: str, options: Mapping[str, object] | None = None) -> Source:
    """Return a source of runs.

    Raises:
        ConfigError: There is none of that name, or nothing can be read from it.
    """
    known = entry(name)
    if not known.source:
        message = f"Runs are written to {known.shown}, not read from it."
        raise ConfigError(message)
    made: Source = class_of(known.source)(uri, options)
    return made


def class_of(where: str) -> type:
    """Return a class of this room by its place."""
    module, _, name = where.partition(":")
    found: type = getattr(import_module(f"tracer.backends.{module}"), name)
    return found
