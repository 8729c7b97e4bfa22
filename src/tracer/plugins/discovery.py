"""Where plugins are found: entry points of installed packages, and folders that only their owner can write.

Listing entry points loads none of them. A file in a folder is executed to see which classes it holds, and each of them
is a plugin; a file that fails is found too, with its error.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import ModuleType

import os
import stat
import sys
import zlib
from contextlib import ExitStack

from tracer import sink
from tracer.plugins.kinds import PluginBase, PluginInfo, PluginMetadata, PluginState, PluginType
from tracer.routing import Attempt

#: One group per kind, so that listing needs no import.
GROUPS = {f"tracer.{kind.value}s": kind for kind in PluginType}
_FOLDERS = ("~/.tracer/plugins", "~/.tracelet/plugins")
_VARIABLES = ("TRACER_PLUGIN_PATH", "TRACELET_PLUGIN_PATH")
_UNKNOWN = "0"


class Found:
    """A plugin that was found, and how its class is got."""

    __slots__ = ("info", "load")

    def __init__(self, info: PluginInfo, load: Callable[[], type]) -> None:
        self.info, self.load = info, load


def default_folders(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the folders that are looked into: the facade's, the user's, and those the variables name."""
    import importlib.util

    environ = os.environ if environ is None else environ
    facade = importlib.util.find_spec("tracelet")
    built_in = [os.path.join(place, "plugins") for place in (facade.submodule_search_locations or ())] if facade else []
    named = [part for name in _VARIABLES for part in environ.get(name, "").split(os.pathsep) if part]
    return [*built_in, *(os.path.expanduser(folder) for folder in _FOLDERS), *named]


def from_entry_points() -> Iterator[Found]:
    """Yield the plugins of installed packages; none of them is loaded."""
    from importlib.metadata import entry_points  # 37 ms: only when somebody looks for plugins

    for group, kind in GROUPS.items():
        for point in entry_points(group=group):
            version = point.dist.version if point.dist is not None else _UNKNOWN
            metadata = PluginMetadata(point.name, version, kind)
            module, _, name = point.value.partition(":")
            yield Found(PluginInfo(metadata, module, name), point.load)


def from_folders(folders: Iterable[str]) -> Iterator[Found]:
    """Yield the plugins in the files of some folders; a folder or file that others could write is named and skipped."""
    for folder in dict.fromkeys(os.path.abspath(os.path.expanduser(folder)) for folder in folders):
        if not os.path.isdir(folder):
            continue
        why = _why_not(folder)
        if why:
            sink.say(f"tracer: plugins in {folder} are not loaded: {why}.")
            continue
        for name in sorted(os.listdir(folder)):
            if name.endswith(".py") and not name.startswith("_"):
                yield from _in_file(os.path.join(folder, name))


def _in_file(path: str) -> Iterator[Found]:
    """Yield the plugins of a file."""
    why = _why_not(path)
    if why:
        sink.say(f"tracer: the plugin file {path} is not loaded: {why}.")
        return
    with Attempt() as attempt:
        module = _execute(path)
    if attempt.error is not None:
        sink.say(f"tracer: the plugin file {path} is skipped: {attempt.said}.")
        named = PluginMetadata(os.path.basename(path)[:-3], _UNKNOWN, PluginType.BACKEND)
        info = PluginInfo(named, path, "", PluginState.ERROR, error=attempt.said)
        yield Found(info, lambda: PluginBase)
        return
    for found in vars(module).values():
        if isinstance(found, type) and found.__module__ == module.__name__ and is_plugin(found):
            yield of_class(found, path)


def of_class(plugin: type, path: str) -> Found:
    """Return a plugin whose class is there."""
    with Attempt() as attempt:
        metadata: PluginMetadata = plugin.get_metadata()  # type: ignore[attr-defined]  # `is_plugin` has seen it
    if attempt.error is not None or not isinstance(metadata, PluginMetadata):
        said = attempt.said or f"get_metadata() returned {metadata!r}, not PluginMetadata"
        sink.say(f"tracer: the plugin {plugin.__name__} of {path} is skipped: {said}.")
        named = PluginMetadata(plugin.__name__, _UNKNOWN, PluginType.BACKEND)
        return Found(PluginInfo(named, path, plugin.__name__, PluginState.ERROR, error=said), lambda: plugin)
    return Found(PluginInfo(metadata, path, plugin.__name__), lambda: plugin)


def is_plugin(found: type) -> bool:
    """Tell whether a class is a plugin: it derives from one of ours with metadata of its own, or looks like one."""
    if issubclass(found, PluginBase):
        return found.get_metadata.__func__ is not PluginBase.get_metadata.__func__  # type: ignore[attr-defined]
    return all(callable(getattr(found, name, None)) for name in ("get_metadata", "initialize"))


def _execute(path: str) -> ModuleType:
    """Execute a file as a module of its own."""
    import importlib.util

    name = f"tracer_plugin_{zlib.crc32(path.encode()):08x}_{os.path.basename(path)[:-3]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        message = f"{path} cannot be loaded as Python."
        raise ImportError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # classes in it must be found by pickle and by `typing`
    with ExitStack() as left:
        left.callback(sys.modules.pop, name, None)
        spec.loader.exec_module(module)
        left.pop_all()  # it may stay
    return module


def _why_not(path: str) -> str:
    """Say why code from here is not run, or nothing: it must be ours or root's, and nobody else may write it."""
    if os.path.isdir(path) and os.path.samefile(path, os.getcwd()):
        return "the working folder is no place for plugins; name another folder"
    state = os.stat(path)
    if state.st_uid not in (0, os.getuid()):
        return f"it belongs to user {state.st_uid}, not to you or root"
    if state.st_mode & stat.S_IWOTH or (state.st_mode & stat.S_IWGRP and state.st_gid != os.getgid()):
        return f"others may write it (mode {stat.S_IMODE(state.st_mode):o}); chmod go-w {path}"
    return ""


__all__ = ["GROUPS", "Found", "default_folders", "from_entry_points", "from_folders", "is_plugin", "of_class"]
