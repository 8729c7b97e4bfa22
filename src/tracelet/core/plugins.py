"""Plugins and what looks after them."""

from tracer.plugins.kinds import (
    BackendPlugin,
    CollectorPlugin,
    FrameworkPlugin,
    PluginBase,
    PluginInfo,
    PluginMetadata,
    PluginState,
    PluginType,
    ProcessorPlugin,
)
from tracer.plugins.lifecycle import PluginManager, register_plugin

__all__ = [
    "BackendPlugin",
    "CollectorPlugin",
    "FrameworkPlugin",
    "PluginBase",
    "PluginInfo",
    "PluginManager",
    "PluginMetadata",
    "PluginState",
    "PluginType",
    "ProcessorPlugin",
    "register_plugin",
]
