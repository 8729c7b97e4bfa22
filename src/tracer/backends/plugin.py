"""A plugin as a back end: a class with `get_metadata`, `initialize` and `log_metric`, and whatever else it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tracer.backends.base import Backend, Limits, Refused, Rejected, RemoteIds
from tracer.backends.names import ranked
from tracer.plugins.lifecycle import PluginManager
from tracer.routing import Attempt, MetricData, MetricType
from tracer.transfer import FACTS, FILE, POINTS, Event, File, Points, RunInfo

#: What recording itself cost is no metric of the training.
_OWN = "tracer/"


class PluginBackend(Backend):
    """Gives a plugin the contract of a back end.

    A plugin gets each value by itself: one that it raises at is lost, the others of the batch are not. It is told
    `project`, `experiment_name` and `run_id` with its settings. What another rank than the first logged has `rank<r>/`
    before its name.

    Args:
        options: The settings of the plugin.
        plugin: The class, or an object of it; of `registry` the name of one that it knows.
        registry: What knows the plugin and those that it depends on; one of its own when absent.
        processors: Plugins whose `process` changes or drops values on their way.
    """

    name: ClassVar[str] = "plugin"
    kinds: ClassVar[frozenset[str]] = frozenset({POINTS, FILE, FACTS})
    #: It is not told which values it has already.
    limits: ClassVar[Limits] = Limits(repeatable=False, losses={"times": "a plugin is given name, value and step only"})

    def __init__(
        self,
        options: Mapping[str, object],
        plugin: object,
        registry: PluginManager | None = None,
        processors: Sequence[Any] = (),
    ) -> None:
        super().__init__(options)
        self._registry = registry or PluginManager(use_default_paths=False)
        self._plugin = plugin if isinstance(plugin, str) else self._registry.add(plugin)
        self._processors = processors
        self._params: dict[str, object] = {}
        self._info: RunInfo | None = None

    @property
    def instance(self) -> Any:  # noqa: ANN401 -- whatever class it is of
        """The plugin's object, once it was started."""
        return self._registry.get_plugin_instance(self._plugin)

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Initialise and start it, and give it the parameters."""
        told = {"project": run.project, "experiment_name": run.name, "run_id": run.uid}
        self._registry.configs[self._plugin] = told | self.options
        if not self._registry.start_plugin(self._plugin):
            message = f"The plugin {self._plugin!r} did not start: {self._registry.plugins[self._plugin].error}."
            raise Refused(message)
        self._take_facts(run)
        return {"run": remote.get("run", run.uid)}

    def write(self, events: Sequence[Event]) -> None:
        """Give it each value, file and new parameter.

        Raises:
            Rejected: It raised at some of them; the others it has.
        """
        lost, said = 0, ""
        for event in events:
            failed = self._take(event)
            lost += len(failed)
            said = failed[-1] if failed else said
        if lost:
            message = f"The plugin {self._plugin!r} raised {said}."
            raise Rejected(message, lost=lost)

    def close(self, status: str, ended: int | None) -> None:
        """Tell it how the run ended, and stop it."""
        instance = self.instance
        if self._info is not None and hasattr(instance, "save_experiment"):
            summary = {"project": self._info.project, "name": self._info.name, "run_id": self._info.uid}
            with Attempt():
                instance.save_experiment({**summary, "status": status, "ended": ended, **self._info.summary})
        self._registry.stop_plugin(self._plugin)

    def _take(self, event: Event) -> list[str]:
        """Give it one event; return what it raised."""
        if isinstance(event, RunInfo):
            return self._take_facts(event)
        if isinstance(event, File):
            return self._take_file(event)
        if not isinstance(event, Points) or event.name.startswith(_OWN):
            return []
        name = ranked(event.name, event.rank)
        columns = zip(event.steps.tolist(), event.times.tolist(), event.values.tolist(), strict=True)
        return [said for step, time, value in columns if (said := self._give(name, value, step, time))]

    def _give(self, name: str, value: float, step: int, time: int) -> str:
        """Give it one value, past the processors; return what was raised."""
        with Attempt() as attempt:
            if self._processors:
                metric: MetricData | None = MetricData(name, value, MetricType.SCALAR, step, time / 1e6)
                for processor in self._processors:
                    metric = processor.process(metric) if metric is not None else None
                if metric is not None:
                    self.instance.log_metric(metric.name, metric.value, metric.iteration)
            else:
                self.instance.log_metric(name, value, step)
        return attempt.said

    def _take_facts(self, info: RunInfo) -> list[str]:
        """Give it parameters that are new or changed."""
        self._info = info
        new = {
            key: value for key, value in info.params.items() if key not in self._params or self._params[key] != value
        }
        self._params |= new
        if not new or not hasattr(self.instance, "log_params"):
            return []
        with Attempt() as attempt:
            self.instance.log_params(dict(new))
        return [attempt.said] if attempt.said else []

    def _take_file(self, file: File) -> list[str]:
        """Give it the files of an artifact."""
        failed = []
        for part in file.parts if hasattr(self.instance, "log_artifact") else ():
            with Attempt() as attempt:
                self.instance.log_artifact(part.local, f"{file.name}/{part.path}")
            failed += [attempt.said] if attempt.said else []
        return failed[:1]


def as_backend(found: object, options: Mapping[str, object]) -> Backend:
    """Return a back end of a class that is one, or of a plugin: a class or an object of the plugins' shape.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(found, type) and issubclass(found, Backend):
        return found(options)
    return PluginBackend(options, found)


__all__ = ["PluginBackend", "as_backend"]
