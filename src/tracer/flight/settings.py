"""The recorder's settings: argument, environment (`TRACER_FLIGHT_RING=16`), the file's section `flight:`, default.

A value that cannot be meant is a `ValueError` where the program wrote it, and a warning and the default where it stands
in the environment: a training must not end for a typing mistake in a job script.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tracer import sink

#: What to do about an anomaly; a function that returns one of them is accepted too.
ACTIONS = ("continue", "raise", "skip", "guard")
CHECKS = ("auto", "sync", "delayed")
_SECTION, _FILE = "flight", "tracer.yaml"
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")
Action = str | Callable[..., Any]


def _setting(default: Any, read: Callable[[Any], Any], meaning: str) -> Any:  # noqa: ANN401 -- the type of each field
    """Return a field with what reads it and what it is for."""
    return field(default=default, metadata={"read": read, "meaning": meaning})


def _flag(value: Any) -> bool:  # noqa: ANN401 -- what the user wrote
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _YES + _NO:
        return value.strip().lower() in _YES
    message = "yes or no"
    raise ValueError(message)


def _number(low: float, high: float = math.inf, *, whole: bool = False) -> Callable[[Any], Any]:
    """Return what reads a number between two others."""
    wanted = f"a {'whole ' if whole else ''}number " + (
        f"of at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:,g}"
    )

    def read(value: Any) -> Any:  # noqa: ANN401 -- what the user wrote
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ValueError(wanted) from None
        if isinstance(value, bool) or not low <= number <= high or math.isinf(number) or (whole and number % 1):
            raise ValueError(wanted)
        return int(number) if whole else number

    return read


def _word(*words: str, otherwise: Callable[[Any], Any] | None = None) -> Callable[[Any], Any]:
    """Return what reads one of some words, or else something."""
    shown = ", ".join(f"{word!r}" for word in words)

    def read(value: Any) -> Any:  # noqa: ANN401 -- what the user wrote
        if value is False and "off" in words:  # YAML reads `off` so
            return "off"
        if value is True and "on" in words:
            return "on"
        if isinstance(value, str) and value.strip().lower() in words:
            return value.strip().lower()
        if otherwise is None:
            message = f"one of {shown}"
            raise ValueError(message)
        try:
            return otherwise(value)
        except ValueError as error:
            message = f"{shown}, or {error}"
            raise ValueError(message) from None

    return read


def _action(value: Any) -> Action:  # noqa: ANN401 -- what the user wrote
    if callable(value):
        action: Action = value
        return action
    try:
        return str(_word(*ACTIONS)(value))
    except ValueError as error:
        message = f"{error}, or a function that returns one of them"
        raise ValueError(message) from None


def _signal(value: Any) -> str:  # noqa: ANN401 -- what the user wrote
    """Read the name of a signal."""
    import signal

    name = str(value).strip().upper()
    if name in {"OFF", "FALSE"}:
        return "off"
    if not hasattr(signal, name) or not name.startswith("SIG"):
        message = "the name of a signal such as 'SIGUSR1', or 'off'"
        raise ValueError(message)
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class FlightConfig:
    """How the flight recorder behaves; every field has a default.

    Raises:
        ValueError: A value is out of range; the message says what is accepted.

    Example:
        >>> FlightConfig(ring=16, on_anomaly="skip").ring
        16
    """

    enabled: bool = _setting(True, _flag, "Record the last steps of every watched model.")
    ring: int = _setting(8, _number(1, 1000, whole=True), "Steps kept in memory.")
    ring_mb: float = _setting(256.0, _number(0), "MiB of batches kept in memory; older ones leave shape and hash.")
    upstream: str = _setting("auto", _word("auto", "on", "off"), "Whether gradients of outputs are kept for a replay.")
    check: str = _setting("auto", _word(*CHECKS), "When the norm is read: at its step, or one step later.")
    guard: bool = _setting(False, _flag, "Have fused optimizers skip updates that are not finite, on the device.")
    on_anomaly: Action = _setting("continue", _action, "What is done about an anomaly.")  # noqa: RUF009 -- a field, as the others
    diagnose: bool = _setting(True, _flag, "Search the origin of NaN and Inf at once, in the training process.")
    snapshots: str | int = _setting(
        "off", _word("off", "auto", otherwise=_number(1, whole=True)), "Steps between two copies of the whole state."
    )
    host_memory_share: float = _setting(0.10, _number(0, 1), "Share of the free memory that snapshots may take.")
    max_capsules: int = _setting(3, _number(0, whole=True), "Capsules per run; with 0 there are reports only.")
    disk_mb: float = _setting(2048.0, _number(0), "MiB that all capsules of a run may take.")
    include_model: bool = _setting(True, _flag, "Put the pickled model into the capsule, where cloudpickle is there.")
    stall_s: str | float = _setting(
        "auto", _word("auto", "off", otherwise=_number(1)), "Seconds without a step that count as a stall."
    )
    signal: str = _setting("SIGUSR1", _signal, "The signal that asks for a capsule; `off` installs none.")
    scaler_skips: int = _setting(5, _number(1, whole=True), "Steps that a GradScaler may skip in a row.")

    def __post_init__(self) -> None:
        """Read every field."""
        for one in fields(self):
            value = getattr(self, one.name)
            object.__setattr__(self, one.name, _read(one, value, one.name))

    @classmethod
    def load(cls, arguments: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> FlightConfig:
        """Return the settings: argument, else environment, else the file's section `flight:`, else default.

        Args:
            arguments: What the program passed; it wins.
            environ: The environment; the process' own when absent.

        Returns:
            The settings.

        Raises:
            ValueError: An argument is not known or out of range.

        Example:
            >>> FlightConfig.load({"ring": 4}, environ={"TRACER_FLIGHT_CHECK": "sync"})
            FlightConfig(ring=4, check='sync')
        """
        environ = os.environ if environ is None else environ
        found = {**_from_file(environ.get("TRACER_CONFIG")), **_from_environment(environ)}
        known = {one.name for one in fields(cls)}
        for name in arguments or {}:
            if name not in known:
                message = f"{name!r} is not a setting of the flight recorder. Known: {', '.join(sorted(known))}."
                raise ValueError(message)
        return cls(**{**found, **(arguments or {})})

    def __repr__(self) -> str:
        """Show what differs from the defaults."""
        changed = [one.name for one in fields(self) if getattr(self, one.name) != one.default]
        return f"FlightConfig({', '.join(f'{name}={getattr(self, name)!r}' for name in changed)})"


def _read(one: Any, value: Any, where: str) -> Any:  # noqa: ANN401 -- a field of any type
    """Return a field's value, or say what is accepted."""
    try:
        return one.metadata["read"](value)
    except ValueError as error:
        message = f"{where}={value!r} is not accepted: {one.metadata['meaning']} It has to be {error}."
        raise ValueError(message) from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what the environment sets; what cannot be read is told and left out."""
    given = {one.name: environ.get(f"TRACER_FLIGHT_{one.name.upper()}") for one in fields(FlightConfig)}
    return _accepted({name: value for name, value in given.items() if value is not None}, "TRACER_FLIGHT_{}".format)


def _from_file(path: str | None) -> dict[str, Any]:
    """Return what the file's section sets; what cannot be read is told and left out."""
    path = path or _FILE
    if not os.path.exists(path):
        return {}
    import yaml  # loaded only where there is a file to read

    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}  # `Config` reads the same file, and says what is wrong with it
    content = content.get("tracer", content) if isinstance(content, dict) else {}
    section = content.get(_SECTION) if isinstance(content, dict) else None
    if not isinstance(section, dict):
        return {} if section is None else _accepted({"enabled": section}, lambda _: _SECTION)
    return _accepted(section, lambda name: f"{path}: {_SECTION}.{name.lower()}")


def _accepted(given: Mapping[str, Any], called: Callable[[str], str]) -> dict[str, Any]:
    """Return the values that can be meant; tell of the others."""
    known = {one.name: one for one in fields(FlightConfig)}
    accepted = {}
    for name, value in given.items():
        try:
            if name not in known:
                message = f"{name!r} is not a setting of the flight recorder."
                raise ValueError(message)  # noqa: TRY301 -- told in the same way as a value that cannot be read
            accepted[name] = _read(known[name], value, called(name.upper()))
        except ValueError as error:
            sink.say(f"tracer: {error} The default is used.")
    return accepted


__all__ = ["ACTIONS", "CHECKS", "Action", "FlightConfig"]
