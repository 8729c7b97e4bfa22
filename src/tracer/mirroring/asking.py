"""What was asked for, checked before anything begins: back ends of the table, classes by their place, and plugins."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

from difflib import get_close_matches

from tracer.backends import table
from tracer.errors import ConfigError
from tracer.mirroring.starting import Wanted
from tracer.plugins.kinds import PluginState, PluginType
from tracer.plugins.lifecycle import PluginManager


class Chosen:
    """The back ends that were asked for: `mirrors` by name or place, `plugins` with what knows them."""

    __slots__ = ("mirrors", "plugins", "registry")

    def __init__(self, mirrors: list[str], plugins: list[str], registry: PluginManager) -> None:
        self.mirrors, self.plugins, self.registry = mirrors, plugins, registry

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [*self.mirrors, *self.plugins]

    def wanted(self, options: Mapping[str, Any], *, url: str | None = None, api_key: str | None = None) -> list[Wanted]:
        """Return the mirrors with what each is told; address and key are for the first of them.

        Args:
            options: Back end → options.
            url: An address that was given without saying for which.
            api_key: A key that was.

        Raises:
            ConfigError: A back end has no such option, or there is none of that name.
            MissingDependency: A client is not installed.
        """
        found = []
        for number, name in enumerate(self.mirrors):
            told = dict(options.get(name, {}))
            if name in table.ENTRIES:
                shared = {"url": url, "api_key": api_key} if number == 0 else {}
                told = table.merged(name, told, **shared)
            found.append(Wanted.of(name, told))
        return found


def choose(asked: Iterable[object]) -> Chosen:
    """Return the back ends that are meant, each once.

    Args:
        asked: Names, places as `module:Class`, plugin classes, and objects of such.

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
        elif one.lower() in table.MIRRORS:
            table.check_client(one.lower())
            chosen.mirrors.append(one.lower())
        elif ":" in one:
            chosen.mirrors.append(one)
        else:
            chosen.plugins.append(plugin_named(one, chosen.registry))
    chosen.mirrors, chosen.plugins = list(dict.fromkeys(chosen.mirrors)), list(dict.fromkeys(chosen.plugins))
    chosen.registry.resolve_dependencies(chosen.plugins)
    return chosen


def plugin_named(name: str, registry: PluginManager) -> str:
    """Return the name of a plugin back end that was found, or say what comes near.

    Raises:
        ConfigError: There is none.
    """
    if name not in registry.plugins:
        registry.discover_plugins()
    info = registry.plugins.get(name)
    if info is None or (info.metadata.type is not PluginType.BACKEND and info.state is not PluginState.ERROR):
        found = [one.metadata.name for one in registry.get_plugins_by_type(PluginType.BACKEND)]
        known = sorted({*table.MIRRORS, *found})
        near = get_close_matches(name, known, 1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        message = f"backend={name!r} is not a known back end. {hint}Known: {', '.join(known)}."
        raise ConfigError(message)
    return name


__all__ = ["Chosen", "choose", "plugin_named"]
