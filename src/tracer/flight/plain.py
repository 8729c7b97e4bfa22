"""A tree's structure as JSON, and back: what a capsule keeps of arguments beside their tensors.

Numbers, text, containers and a few kinds of torch's own values are written as they are. Anything else goes into a list
that only a trusted pickle carries. Reading calls no code that a capsule names: a class is looked up among the loaded
modules, and it must be a named tuple, a dataclass or a mapping.
"""

from __future__ import annotations

import base64
import collections
import dataclasses
import math
import sys
from collections.abc import Mapping
from typing import Any

import torch

from tracer.errors import CapsuleError
from tracer.flight.trees import Slot

#: Modules of these packages may be imported to find a class; of others only what the program has loaded already.
_KNOWN_PACKAGES = frozenset({"collections", "torch", "transformers"})
_DEEPEST = 100
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class Absent:
    """Stands for a value that the capsule has only as a pickle that was not trusted, or not at all."""

    def __init__(self, kind: str, *, pickled: bool) -> None:
        self.kind, self.pickled = kind, pickled

    def __repr__(self) -> str:
        return f"<{self.kind}, {'in the pickle that is not trusted' if self.pickled else 'not kept'}>"


class Encoder:
    """Makes JSON of structures; `objects` holds what JSON cannot, and `arrays` NumPy's arrays as tensors."""

    def __init__(self, first_array: int = 0) -> None:
        self.objects: list[Any] = []
        self.arrays: list[torch.Tensor] = []
        self._first_array = first_array

    def encoded(self, value: Any) -> Any:  # noqa: ANN401, PLR0911 -- one line for each kind of value
        """Return the JSON of a value."""
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if math.isfinite(value) else {"float": _name(value)}
        if kind is Slot:
            return {"tensor": value.index}
        if kind is list:
            return [self.encoded(part) for part in value]
        if kind is tuple or kind is torch.Size:
            return {"size" if kind is torch.Size else "tuple": [self.encoded(part) for part in value]}
        if kind is dict:
            return {"dict": self._pairs(value)}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return {"named": _path(kind), "fields": [self.encoded(part) for part in value]}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return {"data": _path(kind), "fields": self._pairs(parts)}
        if isinstance(value, Mapping):
            return {"mapping": _path(kind), "items": self._pairs(value)}
        return self._rare(value)

    def _pairs(self, value: Mapping[Any, Any]) -> list[list[Any]]:
        """Return a mapping's pairs: JSON's keys are text, a program's are anything."""
        return [[self.encoded(key), self.encoded(part)] for key, part in value.items()]

    def _rare(self, value: Any) -> Any:  # noqa: ANN401, PLR0911 -- one line for each kind
        """Return the JSON of a value that is not a container."""
        if isinstance(value, torch.dtype | torch.device | torch.memory_format | torch.layout):
            return {"torch": type(value).__name__, "value": str(value).removeprefix("torch.")}
        if isinstance(value, complex):
            return {"complex": [self.encoded(value.real), self.encoded(value.imag)]}
        if type(value) is bytes:
            return {"bytes": base64.b64encode(value).decode("ascii")}
        if isinstance(value, slice):
            return {"slice": [self.encoded(part) for part in (value.start, value.stop, value.step)]}
        if type(value) is range:
            return {"range": [value.start, value.stop, value.step]}
        if value is Ellipsis:
            return {"ellipsis": True}
        if type(value) in (set, frozenset):
            return {type(value).__name__: [self.encoded(part) for part in value]}
        array = _array(value)
        if array is not None:
            self.arrays.append(array)
            scalar = not hasattr(value, "__array_finalize__")
            return {"scalar" if scalar else "array": self._first_array + len(self.arrays) - 1}
        self.objects.append(value)
        return {"object": len(self.objects) - 1, "class": _path(type(value))}


class Decoder:
    """Makes structures of JSON; `objects` is what a trusted pickle held, or None."""

    def __init__(self, tensors: list[torch.Tensor], objects: list[Any] | None = None) -> None:
        self._tensors, self._objects = tensors, objects
        self.absent: list[Absent] = []

    def decoded(self, value: Any, depth: int = 0) -> Any:  # noqa: ANN401 -- what the user passed
        """Return the value that JSON stands for.

        Raises:
            CapsuleError: It stands for nothing.
        """
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if depth > _DEEPEST:
            message = "The entry batch.json is nested more deeply than any batch."
            raise CapsuleError(message)
        if isinstance(value, list):
            return [self.decoded(part, depth + 1) for part in value]
        try:
            return self._made(value, depth + 1)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            message = f"The entry batch.json holds a value that cannot be read: {str(value)[:200]} ({error!r})."
            raise CapsuleError(message) from error

    def _made(self, value: dict[str, Any], depth: int) -> Any:  # noqa: ANN401, PLR0911 -- one line for each kind
        """Return what a dictionary with a kind stands for."""
        kind, content = next(iter(value.items()))
        match kind:
            case "tensor":
                return Slot(content)
            case "float":
                return _SPECIAL[content]
            case "tuple" | "size" | "set" | "frozenset":
                parts = [self.decoded(part, depth) for part in content]
                made = {"tuple": tuple, "size": torch.Size, "set": set, "frozenset": frozenset}[kind]
                return made(parts)
            case "dict":
                return self._pairs(content, depth)
            case "named":
                return _named(content, [self.decoded(part, depth) for part in value["fields"]])
            case "data":
                return _data(content, self._pairs(value["fields"], depth))
            case "mapping":
                return _mapping(content, self._pairs(value["items"], depth))
            case "object":
                return self._object(content, value["class"])
            case _:
                return self._rare(kind, content, value, depth)

    def _rare(self, kind: str, content: Any, value: dict[str, Any], depth: int) -> Any:  # noqa: ANN401, PLR0911
        """Return a value that is not a container."""
        match kind:
            case "torch":
                return torch.device(value["value"]) if content == "device" else _of_torch(content, value["value"])
            case "complex":
                return complex(self.decoded(content[0], depth), self.decoded(content[1], depth))
            case "bytes":
                return base64.b64decode(content, validate=True)
            case "slice":
                return slice(*(self.decoded(part, depth) for part in content))
            case "range":
                return range(*map(int, content))
            case "ellipsis":
                return Ellipsis
            case "array" | "scalar":
                array = self._tensors[content].numpy()
                return array[()] if kind == "scalar" else array
        raise ValueError(kind)

    def _pairs(self, content: list[list[Any]], depth: int) -> dict[Any, Any]:
        """Return a dictionary from pairs."""
        return {self.decoded(key, depth): self.decoded(part, depth) for key, part in content}

    def _object(self, index: int, kind: str) -> Any:  # noqa: ANN401 -- anything
        """Return an object of the trusted pickle, or what stands for it."""
        if self._objects is not None and not isinstance(self._objects[index], Absent):
            return self._objects[index]
        self.absent.append(Absent(kind, pickled=self._objects is None))
        return self.absent[-1]


def class_at(path: str) -> type | None:
    """Return the class of a path such as `pkg.module:Net` if its module is loaded or of a package known to be safe."""
    module, _, name = path.partition(":")
    if module not in sys.modules and module.partition(".")[0] in _KNOWN_PACKAGES:
        import importlib

        try:
            importlib.import_module(module)
        except ImportError:
            return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) else None


def path_of(kind: type) -> str:
    """Return the path of a class."""
    return f"{kind.__module__}:{kind.__qualname__}"


_path = path_of


def _array(value: object) -> torch.Tensor | None:
    """Return one of NumPy's arrays or scalars as a tensor of its own memory, if it is one of numbers."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.ndarray | numpy.generic):
        return None
    try:
        return torch.from_numpy(numpy.array(value))  # a copy: the user's may change
    except TypeError:  # texts, objects, dates
        return None


def _of_torch(kind: str, name: str) -> Any:  # noqa: ANN401 -- a dtype, layout or memory format
    """Return one of torch's constants."""
    found = getattr(torch, name)
    if type(found).__name__ != kind:
        raise ValueError(name)
    return found


def _named(path: str, parts: list[Any]) -> Any:  # noqa: ANN401 -- of the user's own class
    """Return a named tuple; one of a class made for it where its own is not loaded."""
    kind = class_at(path)
    if kind is None or not (issubclass(kind, tuple) and hasattr(kind, "_fields")):
        return tuple(parts)
    return tuple.__new__(kind, parts)


def _data(path: str, parts: dict[Any, Any]) -> Any:  # noqa: ANN401 -- of the user's own class
    """Return a dataclass; a dictionary where its class is not loaded."""
    kind = class_at(path)
    if kind is None or not dataclasses.is_dataclass(kind):
        return parts
    if issubclass(kind, Mapping):  # the outputs of transformers are both, and fill the mapping as they are made
        return kind(**parts)
    made = object.__new__(kind)
    for name, part in parts.items():
        object.__setattr__(made, name, part)
    return made


def _mapping(path: str, parts: dict[Any, Any]) -> Any:  # noqa: ANN401 -- of the user's own class
    """Return a mapping; a dictionary where its class is not loaded or wants something else."""
    kind = class_at(path)
    if kind is collections.OrderedDict:
        return collections.OrderedDict(parts)
    if kind is None or not issubclass(kind, Mapping):
        return parts
    try:
        return kind(**parts)
    except TypeError:
        return parts


def _name(value: float) -> str:
    """Return what JSON says for a number it cannot hold."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


__all__ = ["Absent", "Decoder", "Encoder", "class_at", "path_of"]
