"""The hashes in a capsule's manifest, by which a replay is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tracer.flight.digests import Trace, digest
from tracer.flight.tensors import Shelf, taken


def hashes_of(
    gradients: Mapping[str, Tensor],
    outputs: Sequence[Sequence[Tensor]],
    calls: Sequence[Mapping[str, Any]],
    shelves: Mapping[str, Shelf],
    again: Trace | None,
) -> dict[str, Any]:
    """Return the hashes of a step.

    Args:
        gradients: Those of the parameters when the optimizer was about to use them.
        outputs: Of each call, where they are still known.
        calls: What JSON says of the calls.
        shelves: Further tensors to hash, such as parameters, by the field they go into.
        again: The hashes of a second run in the training process, which has the outputs where nobody else has.
    """
    known = [list(call["output_hashes"]) for call in calls]
    for place, tensors in enumerate(outputs):
        known[place] = known[place] or [digest(tensor) for tensor in tensors]
    for place, hashes in enumerate(again.outputs if again is not None else ()):
        known[place] = known[place] or list(hashes)
    grads = {name: digest(tensor) for name, tensor in gradients.items()}
    return {
        "kind": "sha256",
        "grads": grads,
        # Of the run of the step that the training process itself made: whether it gave the recorded gradients.
        "same_in_training": None if again is None or not again.gradients else dict(again.gradients) == grads,
        "norms": {name: _norm(tensor) for name, tensor in gradients.items()},
        "outputs": known,
        "loss": _loss_hash(known, calls),
        **{field: _digests(shelf) for field, shelf in shelves.items()},
    }


def _digests(shelf: Shelf) -> dict[str, str]:
    """Return the hashes of the tensors on a shelf, as they were before they were put there."""
    return {name: digest(tensor) for name, tensor in taken(shelf.tensors, shelf.specs).items()}


def _loss_hash(outputs: list[list[str]], calls: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the hash of the loss where the model returns one: the only differentiable output of the last call."""
    if not calls or len(calls[-1]["differentiable"]) != 1:
        return None
    index: int = calls[-1]["differentiable"][0]["index"]
    return outputs[-1][index] if index < len(outputs[-1]) else None


def _norm(tensor: Tensor) -> float:
    """Return the 2-norm of a gradient in double precision."""
    values = tensor.coalesce().values() if tensor.layout is torch.sparse_coo else tensor
    wide = values.to(torch.complex128 if values.is_complex() else torch.float64)
    return float(torch.linalg.vector_norm(wide)) if values.numel() else 0.0


__all__ = ["hashes_of"]
