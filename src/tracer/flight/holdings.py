"""What each optimizer holds of a watched model; found by the identity of parameters, so nobody has to say it."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from tracer.flight.undisturbed import unwrapped


class Held:
    """What one optimizer holds of the model.

    Args:
        parameters: Those of the model.
        optimizer: The optimizer; None for one that is not torch's.
        count: How many parameters it holds in all.
    """

    __slots__ = ("__weakref__", "count", "flagged", "ids", "optimizer", "parameters")

    def __init__(self, parameters: list[Tensor], optimizer: Optimizer | None = None, count: int = 0) -> None:
        self.parameters, self.count = parameters, count
        self.ids = frozenset(map(id, parameters))
        self.flagged = False  # whether `found_inf` of the optimizer is ours
        self.optimizer: Callable[[], Optimizer | None] = _nobody if optimizer is None else weakref.ref(optimizer)


class Holdings:
    """The optimizers of one model, as they show up.

    Args:
        model: The model; it is not kept alive.
    """

    def __init__(self, model: Module) -> None:
        self._model = weakref.ref(model)
        self._names: dict[int, str] = {}
        self._known: dict[int, Held] = {}
        self._strangers: dict[int, tuple[weakref.ref[Optimizer], int]] = {}

    def of(self, optimizer: Optimizer) -> Held | None:
        """Return what an optimizer holds, None if nothing; looked up anew when its groups change."""
        groups = optimizer.param_groups
        count = len(groups[0]["params"]) if len(groups) == 1 else sum([len(group["params"]) for group in groups])
        held = self._known.get(id(optimizer))
        if held is not None and held.count == count and held.optimizer() is optimizer:
            return held
        stranger = self._strangers.get(id(optimizer))
        if stranger is not None and stranger[1] == count and stranger[0]() is optimizer:
            return None
        return self._found(optimizer, count)

    def several(self) -> bool:
        """Tell whether more than one optimizer steps this model."""
        return len(self._known) > 1

    def any_optimizer(self) -> Optimizer | None:
        """Return an optimizer of the model, if one is alive."""
        return next((one for held in self._known.values() if (one := held.optimizer()) is not None), None)

    def first(self) -> Held | None:
        """Return what the first optimizer holds."""
        return next(iter(self._known.values()), None)

    def everything(self) -> Held:
        """Return all parameters of the model, for an optimizer that is not torch's."""
        model = self._model()
        return Held([] if model is None else list(model.parameters()))

    def names(self, *, renew: bool = False) -> dict[int, str]:
        """Return the names of the model's parameters by their ids."""
        model = self._model() if renew or not self._names else None
        if model is not None:
            self._names = {id(parameter): name for name, parameter in unwrapped(model).named_parameters()}
        return self._names

    def clear(self) -> None:
        """Let go of all parameters."""
        self._known.clear()
        self._names.clear()

    def _found(self, optimizer: Optimizer, count: int) -> Held | None:
        """Look an optimizer up."""
        names = self.names(renew=True)
        parameters = [one for group in optimizer.param_groups for one in group["params"] if id(one) in names]
        self._known = {key: one for key, one in self._known.items() if one.optimizer() not in (None, optimizer)}
        if not parameters:
            self._strangers[id(optimizer)] = (weakref.ref(optimizer), count)
            return None
        held = self._known[id(optimizer)] = Held(parameters, optimizer, count)
        return held


def is_fused(optimizer: Optimizer) -> bool:
    """Tell whether all updates of an optimizer are fused kernels, which obey `found_inf`."""
    return all(group.get("fused") for group in optimizer.param_groups)


def _nobody() -> None:
    """Stand for an optimizer that is not torch's."""


__all__ = ["Held", "Holdings", "is_fused"]
