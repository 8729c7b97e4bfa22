"""Whether the anomaly that a capsule was written for appears in a run of its step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from tracer.flight.rerun import Rerun
from tracer.flight.stored_steps import number

#: Of a norm or a loss that was too high: what is still as high.
_AS_HIGH = 0.5
#: Kinds of capsules that are of numbers that are none.
_NONFINITE = frozenset({"nan_or_inf", "amp_skips", "nonfinite_grad", "nonfinite_loss"})
EXPLOSION, SPIKE = "gradient_explosion", "loss_spike"


def appears(manifest: Mapping[str, Any], done: Rerun | None, error: str | None) -> bool | None:
    """Tell whether the anomaly appears; None where the capsule is of none, or nothing can be told.

    Args:
        manifest: What the capsule says.
        done: What a run gave; None when the model raised.
        error: What it raised.
    """
    kind = str(manifest.get("kind", ""))
    if manifest.get("error"):
        recorded = str(manifest["error"]).partition(":")[0]
        return error is not None and error.partition(":")[0] == recorded
    if done is None:
        return None
    if is_nonfinite(manifest):
        return has_nonfinite(done)
    value = _value(manifest)
    measured = {EXPLOSION: _norm, SPIKE: loss_of}.get(kind)
    if value is None or value <= 0 or measured is None:
        return None
    found = measured(done)
    return None if found is None else found >= _AS_HIGH * value


def _norm(done: Rerun) -> float | None:
    """Return the norm of all gradients of a run."""
    return norm_of(done.gradients.values())


def is_nonfinite(manifest: Mapping[str, Any]) -> bool:
    """Tell whether a capsule is of numbers that are none."""
    value = _value(manifest)
    return manifest.get("kind") in _NONFINITE or (value is not None and not abs(value) < torch.inf)


def has_nonfinite(done: Rerun) -> bool:
    """Tell whether an output or a gradient holds NaN or an infinity."""
    outputs = (tensor for tree in done.outputs for tensor in tree.tensors)
    return any(not bool(values.isfinite().all()) for values in _floating([*done.gradients.values(), *outputs]))


def norm_of(gradients: Iterable[Tensor]) -> float:
    """Return the 2-norm of all gradients together."""
    norms = [torch.linalg.vector_norm(values.double()) for values in _floating(gradients) if values.numel()]
    return float(torch.linalg.vector_norm(torch.stack([norm.cpu() for norm in norms]))) if norms else 0.0


def loss_of(done: Rerun) -> float | None:
    """Return the loss where the model returned one: the only number among its last outputs."""
    if not done.outputs:
        return None
    scalars = [tensor for tensor in done.outputs[-1].tensors if tensor.numel() == 1 and tensor.is_floating_point()]
    return float(scalars[0]) if len(scalars) == 1 else None


def _floating(tensors: Iterable[Tensor]) -> Iterable[Tensor]:
    """Yield the values of tensors that can be NaN."""
    for tensor in tensors:
        values = tensor.coalesce().values() if tensor.layout is torch.sparse_coo else tensor
        if values.is_complex():
            values = torch.view_as_real(values)
        if values.is_floating_point():
            yield values


def _value(manifest: Mapping[str, Any]) -> float | None:
    """Return what was measured."""
    try:
        return number(manifest.get("value"))
    except ValueError:
        return None


__all__ = ["EXPLOSION", "appears", "has_nonfinite", "is_nonfinite", "loss_of", "norm_of"]
