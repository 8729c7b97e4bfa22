"""Nested arguments and outputs as a structure and a flat list of tensors.

The structure is a copy: whoever empties a batch dictionary after the call does not empty ours. Lists, tuples, named
tuples, dictionaries and their subclasses (such as the outputs of transformers) and dataclasses are walked through;
everything else is kept by reference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """Where a tensor stood: its place in the list."""

    index: int


class Tree(NamedTuple):
    """A structure with slots, and the tensors that belong there."""

    structure: Any
    tensors: list[Tensor]

    def rebuilt(self, tensors: Sequence[Tensor] | None = None) -> Any:  # noqa: ANN401 -- what the user passed
        """Return the value again, with its own tensors or with others in their places."""
        chosen = self.tensors if tensors is None else tensors
        return mapped(self.structure, lambda leaf: chosen[leaf.index] if type(leaf) is Slot else leaf)


def tree(value: object) -> Tree:
    """Return a nested value as a tree."""
    tensors: list[Tensor] = []

    def take(leaf: object) -> object:
        if isinstance(leaf, Tensor):
            tensors.append(leaf)
            return Slot(len(tensors) - 1)
        return leaf

    return Tree(mapped(value, take), tensors)


def leaves(value: Any) -> list[Tensor]:  # noqa: ANN401 -- any nesting of anything
    """Return the tensors of a nested value, in the order in which `tree` lists them, without building a copy."""
    if isinstance(value, Tensor):
        return [value]
    kind = type(value)
    if kind is dict or (isinstance(value, Mapping) and not dataclasses.is_dataclass(value)):
        parts = value.values()
    elif kind is tuple or kind is list or (isinstance(value, tuple) and hasattr(value, "_fields")):
        parts = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, field.name) for field in dataclasses.fields(value)]
    else:
        return []
    return [tensor for part in parts for tensor in leaves(part)]


_PLAIN = (type(None), bool, int, float, complex, str, bytes, Slot, torch.dtype, torch.device, torch.Size)


def plain_only(structure: Any) -> Any:  # noqa: ANN401 -- any nesting of anything
    """Return a structure in which every leaf that is no plain value is its class' name: it may hold whole graphs."""
    return mapped(structure, lambda leaf: leaf if isinstance(leaf, _PLAIN) else f"<{type(leaf).__name__}>")


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:  # noqa: ANN401, PLR0911 -- any nesting of anything; a case each
    """Return a copy of a nested value with every leaf changed."""
    kind = type(value)
    if kind is Slot or isinstance(value, Tensor):
        return change(value)
    if kind is tuple or kind is list:
        return kind([mapped(part, change) for part in value])
    if kind is dict:
        return {key: mapped(part, change) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return kind(*[mapped(part, change) for part in value])
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: mapped(getattr(value, field.name), change) for field in dataclasses.fields(value)}
        return _like(value, parts)
    if isinstance(value, Mapping):
        return _like(value, {key: mapped(part, change) for key, part in value.items()})
    return change(value)


def _like(value: Any, parts: dict[Any, Any]) -> Any:  # noqa: ANN401 -- of the user's own class
    """Return a mapping or dataclass of the same class with other parts; a plain dictionary if its class refuses."""
    try:
        return type(value)(**parts)
    except TypeError:
        return parts


__all__ = ["Slot", "Tree", "leaves", "mapped", "plain_only", "tree"]
