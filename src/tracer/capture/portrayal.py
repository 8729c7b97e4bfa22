"""Hyper-parameters as JSON holds them: a portrait of each value, without its data and without secrets.

What a framework takes as a parameter is anything: numbers of NumPy, functions, distributions, other estimators, whole
arrays. Numbers and text stay; an object that has parameters becomes its class and those; of an array only its kind and
shape are kept, for it may be somebody's data.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from typing import Any

from tracer.capture.redaction import Redactor

#: A list of this many numbers is a choice somebody wrote down; a longer one is data.
_MAX_NUMBERS = 50
_MAX_ITEMS = 1_000
_MAX_TEXT = 500
_MAX_DEPTH = 8
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_PLAIN = (bool, int, str)
_redactor = Redactor()


def parameters(values: Mapping[str, object]) -> dict[str, object]:
    """Return hyper-parameters as JSON holds them, without secrets."""
    clean = _redactor.value(portrait(values), "config")
    _redactor.found.clear()
    return clean if isinstance(clean, dict) else {}


def portrait(value: object, depth: int = 0) -> object:  # noqa: PLR0911 -- one case per kind
    """Return what is kept of one value."""
    if value is None or type(value) in _PLAIN:
        return value if not isinstance(value, str) else value[:_MAX_TEXT]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))  # JSON knows no infinity
    if depth > _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {_key(key): portrait(item, depth + 1) for key, item in list(value.items())[:_MAX_ITEMS]}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = list(value)
        if len(items) > _MAX_NUMBERS and all(isinstance(item, (int, float)) for item in items):
            return f"{len(items)} numbers"
        return [portrait(item, depth + 1) for item in items[:_MAX_ITEMS]]
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return _array(value, depth)
    return _thing(value, depth)


def of_class(value: object) -> str:
    """Return the name of an object's class, as people say it."""
    return type(value).__name__


def _key(key: object) -> str:
    """Return a key as text; `np.str_` and the like are text as well."""
    return str(key)[:_MAX_TEXT]


def _array(value: Any, depth: int) -> object:  # noqa: ANN401 -- arrays of any library
    """Return a number of NumPy as Python's, a short row of numbers as a list, and of anything larger its shape."""
    shape = tuple(value.shape)
    if not shape and hasattr(value, "item"):
        return portrait(value.item(), depth + 1)
    if len(shape) == 1 and shape[0] <= _MAX_NUMBERS and hasattr(value, "tolist"):
        return portrait(value.tolist(), depth + 1)
    return f"{of_class(value)} of {value.dtype}, shape {shape}"


def _thing(value: Any, depth: int) -> object:  # noqa: ANN401 -- whatever is a parameter of something
    """Return what is kept of an object: its class with its parameters, or its name."""
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"{value.__module__}.{value.__qualname__}"
    if hasattr(value, "get_params"):
        return {"class": of_class(value), **_sub(value.get_params(deep=False), depth)}
    distribution = getattr(value, "dist", None)
    if distribution is not None and hasattr(value, "kwds"):  # a frozen distribution of SciPy says nothing of itself
        said = [*map(str, value.args), *(f"{name}={item}" for name, item in value.kwds.items())]
        return f"{getattr(distribution, 'name', of_class(distribution))}({', '.join(said)})"
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series)):
        return f"{of_class(value)}, shape {tuple(value.shape)}"
    return _ADDRESS.sub("", repr(value))[:_MAX_TEXT]


def _sub(values: Mapping[str, object], depth: int) -> dict[str, object]:
    """Return the parameters of something that is a parameter itself."""
    return {_key(name): portrait(item, depth + 1) for name, item in values.items()}


__all__ = ["of_class", "parameters", "portrait"]
