"""Statistics of what the modules of a model put out, on the steps that are sampled.

Hooks hang on the modules only while a step is sampled: on all others a forward pass is untouched. Nothing is read in
the hooks; the figures of all modules are stacked and read once when the step is over.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tracer import clock
from tracer.capture.arrivals import Arrival, sent
from tracer.capture.parameters import inner
from tracer.events import Axis

ACTIVATION_STATISTICS = ("mean", "std", "absmax", "dead", "saturated", "nans", "infs")

#: A unit is dead when it is zero for every sample of the batch: asked of modules that cut off below zero.
_CUTTING = (nn.ReLU, nn.ReLU6, nn.Threshold, nn.Hardshrink)
#: Where a function that saturates is flat: so near to one of its ends.
_SATURATING: dict[type[nn.Module], tuple[float, float]] = {
    nn.Sigmoid: (0.0, 1.0), nn.Tanh: (-1.0, 1.0), nn.Hardsigmoid: (0.0, 1.0), nn.Hardtanh: (-1.0, 1.0),
}  # fmt: skip
_NEAR = 0.01


class ActivationSample:
    """What the modules of a model put out during one step.

    Args:
        model: The model; its modules without parts, and those that are no mere containers, are listened to.
        wanted: Which modules, by name.
    """

    def __init__(self, model: nn.Module, wanted: Callable[[str], bool]) -> None:
        self.cost_s = 0.0
        self._rows: dict[str, Tensor] = {}
        self._handles = [
            module.register_forward_hook(_Listener(weakref.ref(self), name or type(module).__name__))
            for name, module in inner(model).named_modules()
            if wanted(name) and _speaks(module)
        ]

    def end(self) -> tuple[Axis, Arrival] | None:
        """Stop listening; return the layers in the order in which they first spoke, and their figures by statistic."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        rows, self._rows = self._rows, {}
        if not rows:
            return None
        devices = {row.device for row in rows.values()}
        stacked = torch.stack([row if len(devices) == 1 else row.cpu() for row in rows.values()], dim=1)
        return Axis("activations", tuple(rows), ACTIVATION_STATISTICS), sent(stacked)

    def heard(self, name: str, module: nn.Module, output: object) -> None:
        """Reduce what a module put out; of several calls in a step the first counts."""
        tensor = _first_tensor(output)
        if tensor is None or name in self._rows:
            return
        began = clock.monotonic()
        with torch.no_grad():
            self._rows[name] = _reduced(module, tensor.detach())
        self.cost_s += clock.monotonic() - began


class _Listener:
    """A module's hook: holds the sample weakly, so that a copied or saved model carries nothing of ours."""

    __slots__ = ("_name", "_sample")

    def __init__(self, sample: weakref.ref[ActivationSample], name: str) -> None:
        self._sample, self._name = sample, name

    def __call__(self, module: nn.Module, inputs: object, output: object) -> None:  # noqa: ARG002 -- torch's signature
        """Hand the output on: not in evaluation, not while compiling, and not when backward computes it again."""
        sample = self._sample()
        if sample is None or torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return
        if torch._C._current_graph_task_id() == -1:  # noqa: SLF001 -- tells a recomputation inside backward
            sample.heard(self._name, module, output)

    def __reduce__(self) -> tuple[Any, ...]:
        """Come out of a copy or pickle as a hook that does nothing."""
        return (_silent, ())


def _silent() -> Callable[..., None]:
    """Return what stands for a hook in a copy of the model."""
    return _says_nothing


def _says_nothing(*_: object) -> None:
    """Do nothing."""


def _speaks(module: nn.Module) -> bool:
    """Tell whether a module computes something itself: containers only pass on what their parts put out."""
    return not isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Identity, nn.Dropout))


def _first_tensor(output: object) -> Tensor | None:
    """Return the tensor that is a module's main output."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() and output.numel() else None
    if isinstance(output, (tuple, list)):
        return _first_tensor(output[0]) if output else None
    if isinstance(output, dict):
        return next((one for value in output.values() if (one := _first_tensor(value)) is not None), None)
    return None


def _reduced(module: nn.Module, tensor: Tensor) -> Tensor:
    """Return the statistics of an output as one small tensor, on its own device."""
    local: Any = getattr(tensor, "to_local", None)
    values = tensor if local is None else local()
    flat = values.reshape(-1)
    total = flat.sum(dtype=torch.float32)
    norm = torch.linalg.vector_norm(flat, dtype=torch.float32)
    count = flat.numel()
    mean = total / count
    deviation = ((norm * norm - total * mean).clamp_min(0.0) / max(count - 1, 1)).sqrt()
    low, high = torch.aminmax(flat)
    absmax = torch.maximum(-low, high).to(torch.float32)
    bad = ~torch.isfinite(norm)
    # Counting NaN and infinities reads everything twice more; where the norm is finite both are zero.
    if values.device.type == "cpu" and not bool(bad):
        nans = infs = total.new_zeros(())
    else:
        nans, infs = flat.isnan().sum().to(torch.float32), flat.isinf().sum().to(torch.float32)
    nothing = total.new_full((), torch.nan)
    dead = _dead_share(values) if isinstance(module, _CUTTING) else nothing
    saturated = _saturated_share(values, _SATURATING[type(module)]) if type(module) in _SATURATING else nothing
    return torch.stack([mean, deviation, absmax, dead, saturated, nans, infs])


def _dead_share(values: Tensor) -> Tensor:
    """Return the share of units that are zero for the whole batch; the units of an image are its channels."""
    if values.dim() < 2:  # noqa: PLR2004 -- without a batch nothing can be said
        return values.new_full((), torch.nan, dtype=torch.float32)
    if values.dim() > 3:  # noqa: PLR2004 -- batch, channels, and places
        alive = (values != 0).flatten(2).any(dim=2).any(dim=0)
    else:
        alive = (values != 0).reshape(-1, values.shape[-1]).any(dim=0)
    return 1 - alive.to(torch.float32).mean()


def _saturated_share(values: Tensor, ends: tuple[float, float]) -> Tensor:
    """Return the share of values that lie at one of the flat ends of their function."""
    low, high = ends
    near = _NEAR * (high - low)
    return ((values < low + near) | (values > high - near)).to(torch.float32).mean()


__all__ = ["ACTIVATION_STATISTICS", "ActivationSample"]
