"""What a checkpoint's metrics become: numbers for the series, text where a number does not do, JSON for the marker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

_EXACT = 2**53  # up to here a double holds every whole number


@dataclass(slots=True)
class CheckpointValues:
    """The metrics of one checkpoint by what can hold them."""

    #: Name → number; nested dictionaries are flattened with `/`.
    numbers: dict[str, float] = field(default_factory=dict)
    #: Name → text, None, or a whole number that no double holds.
    typed: dict[str, object] = field(default_factory=dict)
    #: The metrics as they were given, for the checkpoint itself.
    given: dict[str, object] = field(default_factory=dict)


def checkpoint_values(metrics: Mapping[str, object]) -> CheckpointValues:
    """Sort the metrics of one checkpoint; what is no JSON is refused with its name and type."""
    found = CheckpointValues()
    for name, value in metrics.items():
        found.given[str(name)] = _sorted_into(found, str(name), value)
    return found


def _sorted_into(found: CheckpointValues, name: str, value: object) -> object:
    """Put a value where it can be held; return it as JSON holds it."""
    if isinstance(value, Mapping):
        return {str(key): _sorted_into(found, f"{name}/{key}", inner) for key, inner in value.items()}
    if hasattr(value, "item") and not isinstance(value, (int, float, str)) and getattr(value, "ndim", 0) == 0:
        value = value.item()  # a scalar of NumPy, torch or another library
    if isinstance(value, (bool, int, float)):
        _number(found, name, value)
    elif value is None or isinstance(value, str):
        found.typed[name] = value
    else:
        # Lists and the like have no series; the checkpoint keeps them.
        return _as_json(name, value)
    return value


def _number(found: CheckpointValues, name: str, value: float) -> None:
    """Keep a number as a double, or exactly as a whole number where a double would round it."""
    if isinstance(value, int) and not -_EXACT <= value <= _EXACT:
        found.typed[name] = value
    else:
        found.numbers[name] = float(value)


def _as_json(name: str, value: object) -> object:
    """Return a value as JSON holds it, or say that it cannot."""
    value = value.tolist() if hasattr(value, "tolist") else value
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        message = f"{name!r} is {type(value).__name__}, which a checkpoint cannot hold. Give a number, text or list."
        raise TypeError(message) from error


__all__ = ["CheckpointValues", "checkpoint_values"]
