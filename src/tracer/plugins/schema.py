"""The check of a plugin's settings against its `config_schema`: the part of JSON Schema that settings need."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

from tracer.errors import ConfigError

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list, tuple),
    "null": (type(None),),
}


def check_config(plugin: str, schema: Mapping[str, Any] | None, config: Mapping[str, Any]) -> None:
    """See that a plugin gets the settings it asks for.

    Args:
        plugin: Its name.
        schema: Its `config_schema`: `required`, and `type enum minimum maximum` of each of its `properties`.
        config: What it would be given.

    Raises:
        ConfigError: A key is missing or its value is not what is asked for; the message names it.

    Example:
        >>> check_config("mine", {"required": ["api_key"]}, {"api_key": "…"})
    """
    if not schema:
        return
    for name in schema.get("required", ()):
        if config.get(name) is None:
            options = {plugin: {name: "…"}}
            message = (
                f"The plugin {plugin!r} needs the setting {name!r}, which was not given. Pass it with "
                f"start_logging(backend={plugin!r}, config={{'backend_options': {options!r}}})."
            )
            raise ConfigError(message)
    for name, asked in schema.get("properties", {}).items():
        if config.get(name) is not None:
            _check(f"The plugin {plugin!r}: {name}={config[name]!r}", asked, config[name])


def _check(what: str, asked: Mapping[str, Any], value: object) -> None:
    """See that one value is what is asked for."""
    types = asked.get("type", ())
    types = (types,) if isinstance(types, str) else tuple(types)
    known = tuple(kind for name in types for kind in _TYPES.get(name, ()))
    if known and (not isinstance(value, known) or (isinstance(value, bool) and bool not in known)):
        message = f"{what} is not of the type {' or '.join(types)} that it asks for."
        raise ConfigError(message)
    if "enum" in asked and value not in asked["enum"]:
        message = f"{what} is not known. Choose one of: {', '.join(map(str, asked['enum']))}."
        raise ConfigError(message)
    if isinstance(value, (int, float)) and not asked.get("minimum", value) <= value <= asked.get("maximum", value):
        message = f"{what} is out of range: from {asked.get('minimum', '-∞')} to {asked.get('maximum', '∞')}."
        raise ConfigError(message)


__all__ = ["check_config"]
