"""Where an experiment's values also go: each back end has a thread that reads the run's journal, and nothing waits.

What `log` returned from is in the journal, so a lane needs no queue: it reads on at its own pace, in order, and at the
end reads what is left. A back end that fails or hangs holds up neither the training nor the others. The collectors that
plugins bring have a thread each as well.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tracer.experiment.backends import Chosen
    from tracer.plugins.kinds import PluginInfo
    from tracer.plugins.lifecycle import PluginManager
    from tracer.run import Run

import threading
from collections import deque

from tracer import clock, events, sink
from tracer.experiment.backends import mirrors_that_work, say_not_yet
from tracer.plugins.kinds import PluginType
from tracer.plugins.schema import check_config
from tracer.routing import Attempt, MetricData, MetricType

_POLL_S = 0.1
#: A lane that delivers nothing for so long at the end is not waited for.
_NO_PROGRESS_S = 0.8
#: … nor one that does not even begin.
_BEGIN_S = 2.0
_LEAST_INTERVAL_S = 0.01
#: What recording itself cost is no metric of the training.
_OWN = "tracer/"


class Lane:
    """One back end of a run, on a thread of its own.

    Args:
        name: The plugin's name.
        registry: What knows the plugin.
        run: The run whose journal is read.
        processors: What changes or drops metrics on their way.
        searched: Set once all of them are known.
    """

    def __init__(
        self, name: str, registry: PluginManager, run: Run, processors: list[PluginInfo], searched: threading.Event
    ) -> None:
        self.name, self.delivered, self.failed, self.state = name, 0, 0, "starting"
        self._registry, self._run, self._processors, self._searched = registry, run, processors, searched
        self._ending = threading.Event()
        self._parameters: deque[Mapping[str, object]] = deque()
        self._said = False
        self.thread = threading.Thread(target=self._serve, name=f"tracer-lane-{name}", daemon=True)

    def log_params(self, values: Mapping[str, object]) -> None:
        """Have parameters delivered; never waits."""
        self._parameters.append(dict(values))

    def end(self) -> None:
        """Have the thread end once everything is delivered."""
        self._ending.set()

    def wait(self, deadline: float) -> bool:
        """Wait while the lane makes progress, until the deadline; tell whether it has delivered everything."""
        before, since = -1, clock.monotonic()
        while self.thread.is_alive():
            done, now = self.delivered + self.failed, clock.monotonic()
            if done != before:
                before, since = done, now
            patience = _BEGIN_S if self.state == "starting" else _NO_PROGRESS_S
            left = min(deadline - now, since + patience - now)
            if left <= 0:
                return False
            self.thread.join(min(left, _POLL_S))
        return self.state == "complete"

    def told(self) -> dict[str, object]:
        """Return what became of it, for `run.json`."""
        said: dict[str, object] = {"state": self.state, "delivered": self.delivered, "failed": self.failed}
        info = self._registry.plugins[self.name]
        return said | ({"error": info.error} if info.error else {})

    def _serve(self) -> None:
        """Start the plugin, deliver everything in order, stop it."""
        from tracer.storage.follow import (
            Follower,
        )  # the room of readers is loaded by who reads, off the caller's thread

        clock.wait(self._searched, _BEGIN_S)
        if not self._registry.start_plugin(self.name):
            self.state = "error"
            return
        self.state = "active"
        plugin = self._registry.get_plugin_instance(self.name)
        follower = Follower(self._run.folder, {})
        with self._run.guard(f"reading for the back end {self.name}"):
            while True:
                is_last = self._ending.is_set()
                found = self._pass_on(plugin, follower)
                if is_last and not found:
                    break
                if not found:
                    clock.wait(self._ending, _POLL_S)
            self.state = "complete"
        follower.close()
        self._registry.stop_plugin(self.name)

    def _pass_on(self, plugin: Any, follower: Any) -> bool:  # noqa: ANN401 -- any class with `log_metric`; a reader
        """Deliver what is new; tell whether there was something."""
        found = False
        while self._parameters:
            found = True
            values = self._parameters.popleft()
            if hasattr(plugin, "log_params"):
                with Attempt() as attempt:
                    plugin.log_params(dict(values))
                self._count(attempt, 0)
        for name, rank, step, time_us, value in follower.poll():
            found = True
            if rank == self._run.rank and isinstance(value, (int, float)) and not name.startswith(_OWN):
                self._deliver(plugin, name, value, step, time_us)
        return found

    def _deliver(self, plugin: Any, name: str, value: float, step: int, time_us: int) -> None:  # noqa: ANN401 -- as above
        """Deliver one value."""
        with Attempt() as attempt:
            if not self._processors:
                plugin.log_metric(name, value, step)
            else:
                metric: MetricData | None = MetricData(name, value, MetricType.SCALAR, step, time_us / 1e6)
                for processor in self._processors:
                    metric = processor.instance.process(metric) if metric is not None else None
                if metric is not None:
                    plugin.log_metric(metric.name, metric.value, metric.iteration)
        self._count(attempt, 1)

    def _count(self, attempt: Attempt, amount: int) -> None:
        """Count what was delivered or failed, and say the first failure."""
        if attempt.error is None:
            self.delivered += amount
            return
        self.failed += 1
        if not self._said:
            self._said = True
            sink.say(
                f"tracer: the back end {self.name!r} raised {attempt.said}. The run and the others are unaffected."
            )


class Lanes:
    """All places one run goes to besides our own store, and the collectors of plugins.

    Args:
        run: The run.
        chosen: The back ends that were asked for.
        options: What plugins are given besides the names of the run.
    """

    def __init__(self, run: Run, chosen: Chosen, options: Mapping[str, Any]) -> None:
        self._run, self.chosen, self._registry = run, chosen, chosen.registry
        self.mirrors = {name: "active" if name in mirrors_that_work() else "not served yet" for name in chosen.mirrors}
        self.lanes: list[Lane] = []
        self._processors: list[PluginInfo] = []
        self._ending, self._searched = threading.Event(), threading.Event()
        self._options = dict(options)
        for name in chosen.plugins:
            self._prepare(name)

    def start(self) -> None:
        """Begin; plugins are connected on their own threads."""
        for name, state in self.mirrors.items():
            if state != "active":
                say_not_yet(name)
        for lane in self.lanes:
            lane.thread.start()
        searcher = threading.Thread(target=self._find_collectors, name="tracer-plugins", daemon=True)
        searcher.start()  # 37 ms for the entry points alone: nothing to wait for

    def add(self, chosen: Chosen) -> None:
        """Add back ends while the run goes on; they get it from its beginning."""
        for name in chosen.mirrors:
            if name not in self.mirrors:
                self.mirrors[name] = "not served yet"
                say_not_yet(name)
        self._registry = chosen.registry
        for name in chosen.plugins:
            if name not in self.names():
                self._prepare(name).thread.start()

    def names(self) -> list[str]:
        """Return what was asked for and has not failed."""
        return [*self.mirrors, *(lane.name for lane in self.lanes if lane.state != "error")]

    def log_params(self, values: Mapping[str, object]) -> None:
        """Have parameters delivered everywhere."""
        for lane in self.lanes:
            lane.log_params(values)

    def stop(self, timeout_s: float) -> None:
        """Deliver everything that was recorded, then end; a lane without progress is not waited for."""
        self._ending.set()
        devices = self._run.recorder.devices
        if devices.pending():
            with self._run.guard("reading values of a device"):
                devices.copy()
                devices.write_arrived(wait=True)
        deadline = clock.monotonic() + timeout_s
        for lane in self.lanes:
            lane.end()
        for lane in self.lanes:
            if not lane.wait(deadline) and lane.state not in ("error", "complete"):
                lane.state = "behind"
                sink.say(
                    f"tracer: the back end {lane.name!r} took {lane.delivered:,} values and no more of them in time. "
                    "All of them are recorded locally."
                )

    def told(self) -> dict[str, object]:
        """Return what was asked for and what became of it, for `run.json`; nothing secret."""
        mirrors: dict[str, object] = {}
        for name, state in self.mirrors.items():
            told = _options_of(name, self._options)
            shown = {key: value for key, value in told.items() if key != "api_key"}
            mirrors[name] = {"state": state} | ({"options": shown} if shown else {})
        return mirrors | {lane.name: lane.told() for lane in self.lanes}

    def _prepare(self, name: str) -> Lane:
        """Make a lane for a plugin, with its settings checked."""
        about = {"project": self._run.facts["project"], "experiment_name": self._run.name, "run_id": self._run.run_id}
        self._registry.configs[name] = about | _options_of(name, self._options)
        lane = Lane(name, self._registry, self._run, self._processors, self._searched)
        known = self._run.facts.get("config")
        if known:
            lane.log_params(known)
        self.lanes.append(lane)
        return lane

    def _find_collectors(self) -> None:
        """Look for plugins that need not be asked for, and start them."""
        registry = self._registry
        with self._run.guard("looking for plugins"):
            registry.discover_plugins()
        for info in registry.get_plugins_by_type(PluginType.PROCESSOR):
            if registry.start_plugin(info.metadata.name):
                self._processors.append(info)
        self._searched.set()
        for info in registry.get_plugins_by_type(PluginType.COLLECTOR):
            thread = threading.Thread(
                target=self._collect, args=(info,), name=f"tracer-collector-{info.metadata.name}", daemon=True
            )
            thread.start()

    def _collect(self, info: PluginInfo) -> None:
        """Measure at once and then at the plugin's interval, until the run ends."""
        name = info.metadata.name
        if not self._registry.start_plugin(name):
            return
        interval = max(float(getattr(info.instance, "_collection_interval", 60)), _LEAST_INTERVAL_S)
        while True:
            with Attempt() as attempt:
                values = info.instance.collect()
            if attempt.error is not None:
                sink.say(f"tracer: the collector {name!r} raised {attempt.said}. It is asked no more.")
                return
            if values:
                with self._run.guard(f"recording what {name} measured"):
                    self._run.take(events.Scalars({f"{name}/{key}": value for key, value in values.items()}))
            if clock.wait(self._ending, interval):
                break
        self._registry.stop_plugin(name)


def check(chosen: Chosen, options: Mapping[str, Any]) -> None:
    """See that plugins get the settings they ask for; before anything begins.

    Raises:
        ConfigError: One is missing or is not what is asked for; the message names it.
    """
    about = {"project": "", "experiment_name": "", "run_id": ""}
    for name in chosen.plugins:
        if chosen.registry.validate_plugin(name):
            schema = chosen.registry.plugins[name].metadata.config_schema
            check_config(name, schema, about | _options_of(name, options))


def _options_of(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of one plugin: those for all, and its own under its name."""
    own = options.get(name)
    return {
        **{key: value for key, value in options.items() if not isinstance(value, dict)},
        **(own if isinstance(own, dict) else {}),
    }


__all__ = ["Lane", "Lanes", "check"]
