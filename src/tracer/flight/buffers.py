"""The values of buffers before each call: of all of them at the first, later of those that are known to change.

A version counter tells of most changes, but not of all: the kernels of batch normalisation write the running statistics
without moving it. So norms that keep statistics are known to change them, and after the first call every buffer is
compared with what it was before.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from tracer.capture import randomness
from tracer.flight.undisturbed import unwrapped


class _Entry:
    """One buffer, and when it was last looked at."""

    __slots__ = ("changes", "holder", "key", "name", "seen", "version")

    def __init__(self, name: str, holder: dict[str, Tensor | None], key: str, *, changes: bool) -> None:
        self.name, self.holder, self.key = name, holder, key
        self.seen, self.version, self.changes = 0, -1, changes


class Buffers:
    """Watches the buffers of one model, and the random generators that its modules hold.

    Args:
        model: The model; it is not kept alive.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = weakref.ref(model)
        self._entries: dict[tuple[int, str], _Entry] = {}
        self._generators: list[tuple[str, weakref.ref[torch.nn.Module], str]] = []
        self._first: dict[str, Tensor] | None = None  # what all were before the first call, until the second
        self._calls = 0
        self.scan()

    def scan(self) -> None:
        """Look for buffers and generators that came since."""
        model = self._model()
        if model is None:
            self._entries.clear()
            return
        inner = unwrapped(model)
        entries: dict[tuple[int, str], _Entry] = {}
        for path, module in inner.named_modules():
            holder: dict[str, Tensor | None] = module._buffers  # noqa: SLF001 -- `named_buffers` walks the model each time
            for key in holder:
                name = f"{path}.{key}" if path else key
                known = self._entries.get((id(holder), key))
                entries[id(holder), key] = known or _Entry(name, holder, key, changes=isinstance(module, _NormBase))
        self._entries = entries
        found = randomness.private_generators(inner)
        self._generators = [(path, weakref.ref(module), name) for path, module, name in found]

    @property
    def has_generators(self) -> bool:
        """Whether the model's modules hold random generators."""
        return bool(self._generators)

    def values(self) -> dict[str, Tensor]:
        """Return clones of the buffers that calls change, as they are now."""
        kept: dict[str, Tensor] = {}
        if not self._entries:
            return kept
        self._calls += 1
        for entry in self._entries.values():
            buffer = entry.holder.get(entry.key)
            if buffer is None:
                continue
            version = _version(buffer)
            if version != entry.version or id(buffer) != entry.seen:
                entry.changes = entry.changes or entry.version >= 0
                entry.version, entry.seen = version, id(buffer)
            if self._first is not None and not entry.changes and entry.name in self._first:
                entry.changes = not torch.equal(buffer, self._first[entry.name])
            if entry.changes or self._calls == 1:
                kept[entry.name] = buffer.detach().clone()
        self._first = kept if self._calls == 1 else None
        return kept

    def unexpected(self) -> list[str]:
        """Return the buffers that changed since the last call began and were not kept before it."""
        found = []
        for entry in self._entries.values():
            buffer = entry.holder.get(entry.key)
            if buffer is None or entry.changes or entry.version < 0:
                continue
            if _version(buffer) != entry.version or id(buffer) != entry.seen:
                found.append(entry.name)
        return found

    def generators(self) -> dict[str, Any]:
        """Return the states of the generators that the model's modules hold, by path."""
        held = [(path, module(), name) for path, module, name in self._generators]
        return {path: randomness.state_of(getattr(one, name)) for path, one, name in held if hasattr(one, name)}

    def forget(self) -> None:
        """Let go of all buffers."""
        self._entries.clear()
        self._generators.clear()


def _version(tensor: Tensor) -> int:
    """Return how often a tensor was changed in place; tensors of inference mode do not count it."""
    return 0 if tensor.is_inference() else tensor._version  # noqa: SLF001 -- it has no public name


__all__ = ["Buffers"]
