"""From found to active: loads, checks, initialises, starts and stops plugins, each on its own.

A plugin that fails is named, is in state `ERROR` with the reason, and never stops the others or the run.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

import os

from tracer import sink
from tracer.errors import ConfigError
from tracer.plugins.discovery import Found, default_folders, from_entry_points, from_folders, of_class
from tracer.plugins.kinds import PluginInfo, PluginMetadata, PluginState, PluginType
from tracer.plugins.schema import check_config
from tracer.routing import Attempt

_LOADED = frozenset({PluginState.LOADED, PluginState.VALIDATED, PluginState.INITIALIZED, PluginState.ACTIVE})
_VALID = _LOADED - {PluginState.LOADED}
_READY = frozenset({PluginState.INITIALIZED, PluginState.STOPPED})
#: What each kind must be able to do, beside `get_metadata` and `initialize`.
_NEEDED = {
    PluginType.BACKEND: ("log_metric",),
    PluginType.COLLECTOR: ("collect",),
    PluginType.FRAMEWORK: ("start", "stop"),
    PluginType.PROCESSOR: ("process",),
}
_registered: dict[str, type] = {}


def register_plugin(plugin: type) -> type:
    """Make a plugin class of the program known by its name; also as a decorator.

    Args:
        plugin: A class with `get_metadata`.

    Returns:
        The class.

    Raises:
        TypeError: It is no plugin class.
    """
    _registered[_found_in(plugin).info.metadata.name] = plugin
    return plugin


def _found_in(plugin: type) -> Found:
    """Return a class of the program as a plugin, or say why it is none."""
    found = of_class(plugin, plugin.__module__) if hasattr(plugin, "get_metadata") else None
    if found is None or found.info.state is PluginState.ERROR:
        why = found.info.error if found is not None else "it has no get_metadata()"
        message = f"{plugin!r} is no plugin: {why}. Derive it from BackendPlugin or CollectorPlugin."
        raise TypeError(message)
    return found


class PluginManager:
    """The plugins of this process, and how far each has come.

    Args:
        plugin_paths: Further folders that are looked into.
        use_default_paths: Whether entry points, `~/.tracer/plugins`, `~/.tracelet/plugins` and the folders of
            `TRACER_PLUGIN_PATH` and `TRACELET_PLUGIN_PATH` are looked into.

    Example:
        >>> PluginManager(use_default_paths=False).discover_plugins()
        []
    """

    def __init__(  # the documents pass both by place
        self,
        plugin_paths: Iterable[str] | None = None,
        use_default_paths: bool = True,  # noqa: FBT001, FBT002 -- as above
    ) -> None:
        self.plugin_paths = [os.fspath(path) for path in plugin_paths or ()]
        self._uses_defaults = use_default_paths
        if use_default_paths:
            self.plugin_paths += default_folders()
        self.plugins: dict[str, PluginInfo] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        self._found: dict[str, Found] = {}
        self._classes: dict[str, type] = {}
        self._made: dict[str, Any] = {}

    def discover_plugins(self) -> list[PluginInfo]:
        """Look for plugins; those known already keep their state.

        Returns:
            All that are known now. `TRACER_PLUGINS=off` finds only what the program registered itself, and
            `TRACER_PLUGINS_OFF` names some that are left out.
        """
        left_out = {name.strip() for name in os.environ.get("TRACER_PLUGINS_OFF", "").split(",")}
        if self._uses_defaults:
            for plugin in _registered.values():
                self._add(of_class(plugin, plugin.__module__), left_out)
        if os.environ.get("TRACER_PLUGINS", "").lower() != "off":
            if self._uses_defaults:
                for found in from_entry_points():
                    self._add(found, left_out)
            for found in from_folders(self.plugin_paths):
                self._add(found, left_out)
        return list(self.plugins.values())

    def add(self, plugin: Any) -> str:  # noqa: ANN401 -- a class or an object of one
        """Take in a plugin that the program has: its class, or an object it made.

        Returns:
            Its name.

        Raises:
            TypeError: It is no plugin.
        """
        found = _found_in(plugin if isinstance(plugin, type) else type(plugin))
        name = found.info.metadata.name
        self.plugins[name], self._found[name] = found.info, found
        if not isinstance(plugin, type):
            self._made[name] = plugin
        return name

    def load_plugin(self, plugin_name: str) -> bool:
        """Load the class of a plugin; tell whether it is loaded now."""
        info = self._known(plugin_name)
        if info.state in _LOADED | {PluginState.STOPPED}:
            return True
        if info.state is PluginState.ERROR:
            return False
        with Attempt() as attempt:
            plugin = self._found[plugin_name].load()
            said = plugin.get_metadata()  # type: ignore[attr-defined]  # what has none fails here, and is named
            if isinstance(said, PluginMetadata):
                info.metadata = said
            self._classes[plugin_name] = plugin
        return self._went(info, attempt, "loading", PluginState.LOADED)

    def validate_plugin(self, plugin_name: str) -> bool:
        """See that a plugin can do what its kind is asked for; tell whether it can."""
        info = self._known(plugin_name)
        if info.state in _VALID | {PluginState.STOPPED}:
            return True
        if not self.load_plugin(plugin_name):
            return False
        with Attempt() as attempt:
            _check_methods(self._classes[plugin_name], info.metadata)
        return self._went(info, attempt, "checking", PluginState.VALIDATED)

    def initialize_plugin(self, plugin_name: str, config: Mapping[str, Any] | None = None) -> bool:
        """Make a plugin and give it its settings; tell whether it took them.

        Args:
            plugin_name: Its name.
            config: Its settings; those of `load_config` when absent.
        """
        info = self._known(plugin_name)
        if info.state in {PluginState.INITIALIZED, PluginState.ACTIVE}:
            return True
        if not self.validate_plugin(plugin_name):
            return False
        chosen = dict(self.configs.get(plugin_name, {}) if config is None else config)
        with Attempt() as attempt:
            check_config(plugin_name, info.metadata.config_schema, chosen)
            info.instance = self._made.get(plugin_name) or self._classes[plugin_name]()
            info.instance.initialize(chosen)
        return self._went(info, attempt, "initialising", PluginState.INITIALIZED)

    def start_plugin(self, plugin_name: str) -> bool:
        """Start a plugin, after those it depends on; tell whether it is active now."""
        for name in self.resolve_dependencies([plugin_name]):
            info = self._known(name)
            if info.state is PluginState.ACTIVE:
                continue
            if info.state is PluginState.STOPPED or self.initialize_plugin(name):
                with Attempt() as attempt:
                    _call(info.instance, "start")
                if self._went(info, attempt, "starting", PluginState.ACTIVE):
                    continue
            if name != plugin_name:
                self._fail(self._known(plugin_name), f"it depends on {name!r}, which failed: {info.error}")
            return False
        return True

    def stop_plugin(self, plugin_name: str) -> bool:
        """Stop a plugin; tell whether it ended in order."""
        info = self._known(plugin_name)
        if info.state is not PluginState.ACTIVE:
            return info.state in _READY
        with Attempt() as attempt:
            _call(info.instance, "stop")
        return self._went(info, attempt, "stopping", PluginState.STOPPED)

    def get_plugin_instance(self, plugin_name: str) -> Any:  # noqa: ANN401 -- whatever class it is of
        """Return the object that was initialised; None before that, and of a plugin that is not known."""
        info = self.plugins.get(plugin_name)
        return info.instance if info is not None and info.state is not PluginState.ERROR else None

    def get_plugins_by_type(self, plugin_type: PluginType) -> list[PluginInfo]:
        """Return the plugins of a kind."""
        return [info for info in self.plugins.values() if info.metadata.type is plugin_type]

    def resolve_dependencies(self, plugin_names: Iterable[str]) -> list[str]:
        """Return some plugins and all they depend on, each behind what it needs.

        Raises:
            ValueError: Two need each other, or one needs what is not there.
        """
        ordered: list[str] = []
        for name in plugin_names:
            self._resolve(name, [], ordered)
        return ordered

    def load_config(self, config_path: str) -> dict[str, dict[str, Any]]:
        """Read the settings of plugins from a YAML or JSON file: name → settings, at its head or under `plugins`.

        Raises:
            ConfigError: The file cannot be read.
        """
        import yaml  # a base dependency, loaded only where there is a file to read; it reads JSON too

        try:
            with open(config_path, encoding="utf-8") as file:
                content = yaml.safe_load(file) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            message = f"The plugin settings {config_path!r} cannot be read ({error}). Mend the file."
            raise ConfigError(message) from error
        content = content.get("plugins", content) if isinstance(content, dict) else None
        if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
            message = f"The plugin settings {config_path!r} must hold `name: {{setting: value}}` for each plugin."
            raise ConfigError(message)
        self.configs.update({str(name): dict(value) for name, value in content.items()})
        return self.configs

    def get_status(self) -> dict[str, dict[str, object]]:
        """Return type, version, origin, state and error of each plugin, and what an active one says of itself."""
        status: dict[str, dict[str, object]] = {}
        for name, info in self.plugins.items():
            said: dict[str, object] = {
                "type": info.metadata.type.value,
                "version": info.metadata.version,
                "module": info.module_path,
                "state": info.state.name,
                "error": info.error,
            }
            if info.state is PluginState.ACTIVE and hasattr(info.instance, "get_status"):
                with Attempt() as attempt:
                    said["status"] = info.instance.get_status()
                said["error"] = attempt.said or info.error
            status[name] = said
        return status

    def class_of(self, plugin_name: str) -> type:
        """Return the class of a plugin; one that cannot be loaded raises what stopped it."""
        if not self.load_plugin(plugin_name):
            raise ValueError(self._known(plugin_name).error)
        return self._classes[plugin_name]

    def _add(self, found: Found, left_out: set[str]) -> None:
        """Take a plugin in; the first of a name wins."""
        info = found.info
        name = info.metadata.name
        known = self.plugins.get(name)
        if known is not None and known.module_path == info.module_path:
            return
        if known is not None and known.state is not PluginState.ERROR:
            sink.say(
                f"tracer: two plugins are called {name!r}: {known.module_path} is used, {info.module_path} is not."
            )
        elif name not in left_out:
            self.plugins[name], self._found[name] = info, found

    def _known(self, name: str) -> PluginInfo:
        """Return a plugin by name, or say which there are."""
        if name not in self.plugins:
            message = f"There is no plugin {name!r}. Found: {', '.join(sorted(self.plugins)) or 'none'}."
            raise ValueError(message)
        return self.plugins[name]

    def _resolve(self, name: str, path: list[str], ordered: list[str]) -> None:
        """Add a plugin behind what it needs."""
        if name in path:
            message = f"Circular dependency detected: {' → '.join([*path[path.index(name) :], name])}."
            raise ValueError(message)
        if name in ordered:
            return
        info = self._known(name)
        self.load_plugin(name)  # only its class knows what it needs
        for needed in info.metadata.dependencies:
            if needed not in self.plugins:
                message = f"The plugin {name!r} depends on {needed!r}, which was not found."
                raise ValueError(message)
            self._resolve(needed, [*path, name], ordered)
        ordered.append(name)

    def _went(self, info: PluginInfo, attempt: Attempt, doing: str, state: PluginState) -> bool:
        """Note how an attempt went."""
        if attempt.error is not None:
            self._fail(info, f"{doing} it failed with {attempt.said}")
            return False
        info.state, info.error = state, None
        return True

    def _fail(self, info: PluginInfo, error: str) -> None:
        """Set a plugin aside, and say why."""
        info.state, info.error = PluginState.ERROR, error
        sink.say(f"tracer: the plugin {info.metadata.name!r} ({info.module_path}) is skipped: {error}.")


def _check_methods(plugin: type, metadata: PluginMetadata) -> None:
    """See that a class has what its kind needs, and not only our own empty method."""
    for name in _NEEDED.get(metadata.type, ()):
        method = getattr(plugin, name, None)
        owner = next((base for base in plugin.__mro__ if name in vars(base)), None)
        ours = owner is not None and owner.__module__ == PluginInfo.__module__
        if not callable(method) or (ours and metadata.type in {PluginType.BACKEND, PluginType.COLLECTOR}):
            message = f"{plugin.__name__} has no method {name}(), which a {metadata.type.value} needs"
            raise TypeError(message)


def _call(instance: object, name: str) -> None:
    """Call a method that a plugin may leave out."""
    method: Callable[[], object] | None = getattr(instance, name, None)
    if method is not None:
        method()


__all__ = ["PluginManager", "register_plugin"]
