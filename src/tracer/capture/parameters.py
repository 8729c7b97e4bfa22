"""The parameters of the watched models, by name, and which of them an optimizer holds.

Layers come and go, so nothing is looked up once and for all; but walking a large model at every step would cost more
than its statistics, so what an optimizer holds is remembered until it holds something else.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import DataParallel, Module
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from tracer.capture.layers import layer_filter
from tracer.events import Axis

#: What activation checkpointing by wrapping puts into names.
_CHECKPOINTED = "_checkpoint_wrapped_module."


class Held(NamedTuple):
    """The watched parameters that an optimizer holds."""

    signature: int  # of everything it holds, to notice a change
    parameters: list[Tensor]  # in its own order
    order: NDArray[np.intp] | None  # where each watched parameter stands among them; None unless it holds all


class WatchedParameters:
    """The parameters of some models: each once, under the first of its names.

    Models are held weakly: watching keeps none alive.
    """

    def __init__(self) -> None:
        self._sources: list[tuple[weakref.ref[Module], Callable[[str], bool]]] = []
        self._held: weakref.WeakKeyDictionary[Optimizer, Held] = weakref.WeakKeyDictionary()
        self._named: list[tuple[str, weakref.ref[Tensor]]] = []
        self._fresh = False

    def add(self, model: Module, layers: Sequence[str] | None = None) -> None:
        """Watch a model from now on, beside those watched already.

        Args:
            model: A `torch.nn.Module`.
            layers: Which of its parameters, see `layers.layer_filter`; all when None.

        Raises:
            TypeError: The model has no parameters to name.
            ValueError: A pattern cannot be read.
        """
        if not callable(getattr(model, "named_parameters", None)):
            message = f"Only a torch.nn.Module can be watched; got {type(model).__name__}. Pass the model itself."
            raise TypeError(message)
        matches = layer_filter(layers)
        self._sources = [(source, test) for source, test in self._sources if source() not in (None, model)]
        self._sources.append((weakref.ref(model), matches))
        self.look_again()

    def remove(self, model: Module) -> None:
        """Watch a model no more."""
        self._sources = [(source, test) for source, test in self._sources if source() not in (None, model)]
        self.look_again()

    def clear(self) -> None:
        """Watch nothing any more."""
        self._sources.clear()
        self.look_again()

    def look_again(self) -> None:
        """Walk the models anew at the next question: they may have changed."""
        self._fresh = False
        self._held.clear()

    @property
    def models(self) -> list[Module]:
        """The models that are still there."""
        return [model for source, _ in self._sources if (model := source()) is not None]

    def named(self) -> list[tuple[str, Tensor]]:
        """Return the parameters by unique name."""
        if self._fresh:
            found = [(name, parameter) for name, source in self._named if (parameter := source()) is not None]
            if len(found) == len(self._named):
                return found
        fresh = self._walked()
        self._named = [(name, weakref.ref(parameter)) for name, parameter in fresh]
        self._fresh = True
        return fresh

    def held_by(self, optimizer: Optimizer) -> Held:
        """Return those that an optimizer holds."""
        groups = optimizer.param_groups
        held = groups[0]["params"] if len(groups) == 1 else [one for group in groups for one in group["params"]]
        signature = hash(tuple(map(id, held)))
        known = self._held.get(optimizer)
        if known is not None and known.signature == signature:
            return known
        self._fresh = False  # the optimizer changed, so the model may have
        watched = {id(parameter): place for place, (_, parameter) in enumerate(self.named())}
        mine = [parameter for parameter in held if id(parameter) in watched]
        order = None
        if len(mine) == len(watched):
            order = np.argsort([watched[id(parameter)] for parameter in mine])
        self._held[optimizer] = found = Held(signature, mine, order)
        return found

    def _walked(self) -> list[tuple[str, Tensor]]:
        """Walk the models; the names of another model's layers are told apart."""
        named: dict[str, Tensor] = {}
        seen: set[int] = set()
        for source, matches in self._sources:
            model = source()
            for wrapped_name, parameter in () if model is None else inner(model).named_parameters():
                name = wrapped_name.replace(_CHECKPOINTED, "")
                if id(parameter) not in seen and matches(name):
                    seen.add(id(parameter))
                    named[_free(name, type(model).__name__, named)] = parameter
        return list(named.items())


class LayerAxis:
    """Makes the axis of the present layers: the same object as long as they are the same.

    Args:
        what: The family of statistics, such as `gradients`.
        statistics: Their names, in order.
    """

    def __init__(self, what: str, statistics: Sequence[str]) -> None:
        self._what, self._statistics = what, tuple(statistics)
        self.present = Axis(what, (), statistics)

    def of(self, parameters: Iterable[tuple[str, Tensor]]) -> Axis:
        """Return the axis of these layers."""
        names, tensors = zip(*parameters, strict=True)
        shapes = tuple(tuple(tensor.shape) for tensor in tensors)
        if (names, shapes) != (self.present.layers, self.present.shapes):
            self.present = Axis(self._what, names, self._statistics, shapes)
        return self.present


def inner(model: Module) -> Module:
    """Return the model inside what compiled or replicates it: its names are those the user knows.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> inner(torch.nn.DataParallel(model)) is model
        True
    """
    while True:
        if isinstance(model, (DataParallel, DistributedDataParallel)):
            model = model.module
        elif isinstance(compiled := getattr(model, "_orig_mod", None), Module):
            model = compiled
        else:
            return model


def _free(name: str, model: str, taken: dict[str, Tensor]) -> str:
    """Return a layer's name, told from that of another model's layer where both are called the same."""
    if name not in taken:
        return name
    candidate, number = f"{model}.{name}", 2
    while candidate in taken:
        candidate, number = f"{model}{number}.{name}", number + 1
    return candidate


__all__ = ["LayerAxis", "WatchedParameters", "inner"]
