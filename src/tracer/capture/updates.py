"""How far a step of an optimizer moved each parameter, and the norms of the state that it keeps for it.

The ratio of update to weight is an estimate from some values of each tensor, evenly spaced: a copy of a whole model
could take the memory that training needs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from tracer.capture.arrivals import Arrival, sent
from tracer.capture.parameters import LayerAxis, WatchedParameters
from tracer.capture.shards import Shards
from tracer.capture.telling import Telling

#: Values of each tensor that are compared; the estimate of a ratio from so many is good to about one per cent.
SAMPLED = 16_384
#: What `update_ratios` says of each parameter.
UPDATE_STATISTICS = ("ratio", "norm")


class Updates:
    """The updates of the watched parameters; those of several optimizers in one step are told together.

    Args:
        parameters: The watched parameters.
        shards: Makes the norms of parts those of the whole.
        telling: Takes what was found.
    """

    def __init__(self, parameters: WatchedParameters, shards: Shards, telling: Telling) -> None:
        self._parameters, self._shards, self._telling = parameters, shards, telling
        self._axis = LayerAxis("updates", UPDATE_STATISTICS)
        self._before: Before | None = None
        self._found: dict[int, tuple[float, float]] = {}
        self._step: int | None = None

    @property
    def pending(self) -> bool:
        """Whether a step is awaited."""
        return self._before is not None

    def before(self, parameters: Sequence[Tensor], step: int | None) -> None:
        """Keep some values of each parameter until after the step."""
        self._before, self._step = Before(parameters), step

    def after(self, optimizer: Optimizer) -> None:
        """Compare with what the step left, and measure the optimizer's state."""
        before, step, self._before = self._before, self._step, None
        if before is None:
            return
        parameters = before.parameters
        moved = before.update(self._shards)
        keys = [id(parameter) for parameter in parameters]
        self._telling.later(moved.is_there, lambda: self._note(keys, moved.values(), step))
        states = optimizer_norms(optimizer, parameters, self._shards)
        if states is not None:
            names, norms = states
            known = {id(parameter): name for name, parameter in self._parameters.named()}
            axis = LayerAxis("optimizer", names).of([(known[id(one)], one) for one in parameters])
            self._telling.later(norms.is_there, lambda: self._telling.figures(axis, norms.values(), step))

    def flush(self) -> None:
        """Tell what waits for further optimizers of its step."""
        if self._found:
            found, self._found = self._found, {}
            self._tell(found, self._step)

    def _note(self, keys: Sequence[int], figures: NDArray[np.float64], step: int | None) -> None:
        """Take the ratios and norms of one optimizer's parameters."""
        ratios, norms = figures.reshape(2, -1).tolist()
        found = dict(zip(keys, zip(ratios, norms, strict=True), strict=True))
        if step != self._step:  # it came from a device after the step was over
            self._tell(found, step)
            return
        self._found.update(found)
        if len(self._found) >= sum(one.grad is not None for _, one in self._parameters.named()):
            self.flush()

    def _tell(self, found: dict[int, tuple[float, float]], step: int | None) -> None:
        """Emit one column for each parameter that was updated."""
        parameters = [(name, one) for name, one in self._parameters.named() if id(one) in found]
        columns = [found[id(one)] for _, one in parameters]
        if columns:
            self._telling.figures(self._axis.of(parameters), list(zip(*columns, strict=True)), step)


class Before:
    """What parameters held before a step.

    Args:
        parameters: Those that the optimizer is about to change.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = parameters
        self._parts = [_part(parameter) for parameter in parameters]
        pairs = zip(parameters, self._parts, strict=True)
        self._shares = [max(part.numel(), 1) / max(_local(parameter).numel(), 1) for parameter, part in pairs]
        self._copies = [part.clone() for part in self._parts]

    def update(self, shards: Shards) -> Arrival:
        """Return, after the step, the ratios of update to weight and then the norms of the updates.

        A parameter that was exactly zero has no ratio: NaN.
        """
        with torch.no_grad():
            new = [part.to(torch.float32) for part in self._parts]
            old = [copy.to(torch.float32) for copy in self._copies]
            moved = torch._foreach_sub(new, old)  # noqa: SLF001 -- the fused forms have no public names
            norms = torch.stack(torch._foreach_norm([*old, *moved], 2)).view(2, -1)  # noqa: SLF001 -- as above
            weights, updates = shards.whole_norms(norms, self.parameters)
            ratios = torch.where(weights > 0, updates / weights, torch.nan)
            shares = torch.tensor(self._shares, dtype=updates.dtype).sqrt_().to(updates.device, non_blocking=True)
            return sent(torch.stack([ratios, updates / shares]))


def optimizer_norms(
    optimizer: Optimizer, parameters: Sequence[Tensor], shards: Shards
) -> tuple[tuple[str, ...], Arrival] | None:
    """Return the names of the tensors that an optimizer keeps for its parameters, and their norms.

    Args:
        optimizer: The optimizer, after a step.
        parameters: Those of its parameters that are of interest.
        shards: Makes the norms of parts those of the whole.

    Returns:
        Names such as `exp_avg`, and norms in the order of parameter by name: NaN where there is none. None without any.
    """
    state = optimizer.state
    names = sorted(
        {
            name
            for parameter in parameters
            for name, value in state.get(parameter, {}).items()
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.is_floating_point()
        }
    )
    if not names:
        return None
    with torch.no_grad():
        device = parameters[0].device
        held: list[tuple[int, Tensor]] = []
        for row, name in enumerate(names):
            for column, parameter in enumerate(parameters):
                value = state.get(parameter, {}).get(name)
                if isinstance(value, Tensor) and value.shape == parameter.shape and value.device == device:
                    held.append((row * len(parameters) + column, _local(value)))
        norms = torch.full((len(names) * len(parameters),), torch.nan, device=device)
        found = torch._foreach_norm([value for _, value in held], 2)  # noqa: SLF001 -- the fused form has no public name
        places = torch.tensor([place for place, _ in held]).to(device, non_blocking=True)
        norms[places] = torch.stack(found).to(norms.dtype)
        norms = shards.whole_norms(norms.view(len(names), -1), parameters)
    return tuple(names), sent(norms)


def _local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a sharded tensor."""
    to_local = getattr(tensor, "to_local", None)
    local: Tensor = tensor.detach() if to_local is None else to_local().detach()
    return local


def _part(parameter: Tensor) -> Tensor:
    """Return a view of at most `SAMPLED` values of a parameter, evenly spaced."""
    local = _local(parameter)
    flat = local.view(-1) if local.is_contiguous() else local.flatten()
    return flat[:: -(-flat.numel() // SAMPLED)] if flat.numel() > SAMPLED else flat


__all__ = ["SAMPLED", "UPDATE_STATISTICS", "Updates"]
