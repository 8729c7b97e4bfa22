"""The classes a plugin derives from, and what it says of itself; the names are those of the Tracelet documents.

A plugin needs two methods: `get_metadata`, and what its kind is asked for (`log_metric` of a back end, `collect` of a
collector). All others do nothing unless it has them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

from enum import Enum

from tracer.routing import MetricData, MetricSink, MetricType


class PluginType(Enum):
    """What a plugin is for."""

    BACKEND = "backend"
    COLLECTOR = "collector"
    FRAMEWORK = "framework"
    PROCESSOR = "processor"


class PluginState(Enum):
    """How far a plugin has come. States are compared by set, never by number: 6 is not more than 2."""

    DISCOVERED = 1
    LOADED = 2
    VALIDATED = 3
    INITIALIZED = 4
    ACTIVE = 5
    ERROR = 6
    STOPPED = 7


class PluginMetadata:
    """What a plugin says of itself.

    Args:
        name: The name it is asked for by.
        version: Its version.
        type: What it is for.
        description: A sentence about it.
        author: Who made it.
        dependencies: Names of plugins that are started before it.
        config_schema: What its config must hold, as JSON Schema: `required`, and `type enum minimum maximum` of each of
            its `properties`.
        capabilities: What it can do, in words of its own.
    """

    __slots__ = (
        "author",
        "capabilities",
        "config_schema",
        "dependencies",
        "description",
        "name",
        "type",
        "version",
    )

    def __init__(
        self,
        name: str,
        version: str,
        type: PluginType,  # noqa: A002 -- the documents' name
        description: str = "",
        author: str = "",
        dependencies: Sequence[str] = (),
        config_schema: Mapping[str, Any] | None = None,
        capabilities: Iterable[str] = (),
    ) -> None:
        self.name, self.version, self.type, self.description = name, version, type, description
        self.author, self.dependencies, self.config_schema = author, list(dependencies), config_schema
        self.capabilities = set(capabilities)

    def __repr__(self) -> str:
        """Name the plugin."""
        return f"PluginMetadata({self.name!r}, {self.version!r}, {self.type})"


class PluginInfo:
    """A plugin that was found, and what became of it."""

    __slots__ = ("class_name", "error", "instance", "metadata", "module_path", "state")

    def __init__(
        self,
        metadata: PluginMetadata,
        module_path: str,
        class_name: str,
        state: PluginState = PluginState.DISCOVERED,
        instance: Any = None,  # noqa: ANN401 -- whatever class it is of
        error: str | None = None,
    ) -> None:
        self.metadata, self.module_path, self.class_name = metadata, module_path, class_name
        self.state, self.instance, self.error = state, instance, error

    def __repr__(self) -> str:
        """Say how far it has come."""
        return f"<plugin {self.metadata.name!r} of {self.module_path}: {self.state.name}>"


class PluginBase:
    """What every plugin has."""

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """Return what the plugin says of itself."""
        message = f"{cls.__name__} has no get_metadata; a plugin must say its name, version and type there."
        raise NotImplementedError(message)

    def initialize(self, config: dict[str, Any]) -> None:
        """Prepare with the settings that were given for it."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End."""

    def get_status(self) -> dict[str, object]:
        """Return what can be said of it now."""
        return {"name": self.get_metadata().name}


class BackendPlugin(PluginBase, MetricSink):
    """A place that metrics go to besides our own store.

    `log_metric` is called on a thread of the plugin's own, with every value in order; it may be slow and may raise.
    """

    def log_metric(self, name: str, value: Any, iteration: Any) -> None:  # noqa: ANN401 -- a plugin says what it takes
        """Take a value."""
        raise NotImplementedError

    def log_params(self, params: dict[str, Any]) -> None:
        """Take parameters."""

    def log_artifact(self, local_path: str, artifact_path: str | None = None) -> None:
        """Take a file."""

    def save_experiment(self, experiment_data: dict[str, Any]) -> None:
        """Take what is known of the experiment at its end."""

    def get_sink_id(self) -> str:
        """Return the plugin's name."""
        return self.get_metadata().name

    def can_handle_type(self, metric_type: MetricType) -> bool:
        """Take numbers and parameters."""
        return metric_type in {MetricType.SCALAR, MetricType.SYSTEM, MetricType.CUSTOM, MetricType.PARAMETER}

    def receive_metric(self, metric: MetricData) -> None:
        """Hand a metric to the method that is for it."""
        if metric.type is MetricType.PARAMETER:
            self.log_params({metric.name: metric.value})
        else:
            self.log_metric(metric.name, metric.value, metric.iteration)


class CollectorPlugin(PluginBase):
    """Something that is measured from time to time; what `collect` returns becomes metrics of the run."""

    _collection_interval: float = 60

    def collect(self) -> dict[str, Any]:
        """Return the figures of now by name."""
        raise NotImplementedError


class FrameworkPlugin(PluginBase):
    """A framework that is listened to: `start` puts the listeners in, `stop` takes them out."""


class ProcessorPlugin(PluginBase):
    """Something that changes or drops a metric on its way to a back end."""

    def process(self, metric: MetricData) -> MetricData | None:
        """Return the metric, another one, or None to drop it."""
        return metric


__all__ = [
    "BackendPlugin",
    "CollectorPlugin",
    "FrameworkPlugin",
    "PluginBase",
    "PluginInfo",
    "PluginMetadata",
    "PluginState",
    "PluginType",
    "ProcessorPlugin",
]
