"""The SHA-256 of tensors, and of the modules' outputs while a step runs: it tells "the same, bit for bit" from "near".

`Trace` is the fingerprint of one run of a step. Taken in the training process and again in a replay, its first
difference names the module where the two part.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from tracer.flight.trees import tree

_SHORT = 32


@dataclass(slots=True, frozen=True)
class Trace:
    """What a step computed, as hashes: module outputs in the order of execution, outputs of calls, gradients."""

    modules: tuple[tuple[str, str], ...] = ()  # (name, hash), as often as each was called
    outputs: tuple[tuple[str, ...], ...] = ()  # of each call, one hash per tensor
    gradients: Mapping[str, str] = field(default_factory=dict)


class ModuleTrace:
    """Hashes what each module returns, as long as the block lasts; `modules` holds the answer."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._handles: list[Any] = []
        self.modules: list[tuple[str, str]] = []

    def __enter__(self) -> Self:
        for name, module in self._model.named_modules():
            self._handles.append(module.register_forward_hook(self._listener(clean_name(name))))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _listener(self, name: str) -> Any:  # noqa: ANN401 -- a hook of torch
        """Return the hook of one module."""

        def listen(module: nn.Module, args: tuple[Any, ...], output: object) -> None:  # noqa: ARG001
            self.modules.append((name, digest_of_all(tree(output).tensors)))

        return listen


def digest(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's values; of indices and values where it is sparse."""
    found = hashlib.sha256()
    for part in _parts(tensor.detach()):
        plain = part.cpu().contiguous()
        size = plain.numel() * plain.element_size()
        if size:
            found.update((ctypes.c_char * size).from_address(plain.data_ptr()))
    return found.hexdigest()


def digest_of_all(tensors: Iterable[Tensor]) -> str:
    """Return one short hash of several tensors."""
    return hashlib.sha256("".join(map(digest, tensors)).encode()).hexdigest()[:_SHORT]


def clean_name(name: str) -> str:
    """Return the name that a module or parameter has without the wrappers that compiling and sharding put around it."""
    parts = [part for part in name.split(".") if part not in {"_orig_mod", "_fsdp_wrapped_module"}]
    return ".".join(parts)


def _parts(tensor: Tensor) -> list[Tensor]:
    """Return strided, real tensors that hold all there is in one of any kind."""
    if tensor.layout is torch.sparse_coo:
        whole = tensor.coalesce()
        return [whole.indices(), *_parts(whole.values())]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), *_parts(tensor.values())]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), *_parts(tensor.values())]
    if tensor.is_quantized:
        return [tensor.int_repr()]
    if tensor.is_complex():
        return [torch.view_as_real(tensor.resolve_conj().resolve_neg())]
    return [tensor.resolve_neg()]


__all__ = ["ModuleTrace", "Trace", "clean_name", "digest", "digest_of_all"]
