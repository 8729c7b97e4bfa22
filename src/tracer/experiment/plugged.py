"""The plugins of one experiment: back ends as lanes of its run, collectors on threads of their own, processors between.

A plugin is connected on its lane's thread, so a slow one holds up nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tracer.backends.base import Backend
    from tracer.mirroring.asking import Chosen
    from tracer.mirroring.starting import Wanted
    from tracer.plugins.kinds import PluginInfo
    from tracer.run import Run

import functools
import threading

from tracer import clock, events, sink
from tracer.plugins.kinds import PluginType
from tracer.plugins.lifecycle import PluginManager
from tracer.plugins.schema import check_config
from tracer.routing import Attempt

#: How long a back end waits for processors to be found before it begins.
_SEARCH_S = 2.0
_LEAST_INTERVAL_S = 0.01


class Plugged:
    """The plugins of one run.

    Args:
        run: The run.
        registry: What knows the plugins.
        options: What they are given besides the names of the run.
    """

    def __init__(self, run: Run, registry: PluginManager, options: Mapping[str, Any]) -> None:
        self._run, self._registry, self._options = run, registry, dict(options)
        self._processors: list[PluginInfo] = []
        self._ending, self._searched = threading.Event(), threading.Event()

    def start(self) -> None:
        """Look for collectors and processors, which need not be asked for, and start them."""
        searcher = threading.Thread(target=self._find_collectors, name="tracer-plugins", daemon=True)
        searcher.start()  # 37 ms for the entry points alone: nothing to wait for

    def wanted(self, chosen: Chosen) -> list[Wanted]:
        """Return the plugin back ends that were chosen, as a run takes them."""
        from tracer.mirroring.starting import Wanted

        return [Wanted(name, make=functools.partial(self._made, chosen.registry, name)) for name in chosen.plugins]

    def stop(self) -> None:
        """Have the collectors end."""
        self._ending.set()

    def _made(self, registry: PluginManager, name: str) -> Backend:
        """Return a plugin as a back end; called on its lane's thread, which starts it."""
        from tracer.backends.plugin import PluginBackend

        clock.wait(self._searched, _SEARCH_S)
        processors = [info.instance for info in self._processors]
        return PluginBackend(options_of(name, self._options), name, registry, processors)

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
            check_config(name, schema, about | options_of(name, options))


def options_of(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of one plugin: those for all, and its own under its name."""
    own = options.get(name)
    return {
        **{key: value for key, value in options.items() if not isinstance(value, dict)},
        **(own if isinstance(own, dict) else {}),
    }


__all__ = ["Plugged", "check", "options_of"]
