"""The two classes with which a loop of one's own reads gradient statistics, without a run."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import Module

from tracer.capture.gradients import GradientStatistics
from tracer.config import Config
from tracer.events import DOCUMENTED_STATISTICS

_COUNTS = frozenset({"num_zeros", "num_nans", "num_infs"})


class GradientHook:
    """The gradient statistics of one model by layer.

    They are measured when they are asked for, or before the optimizer's step that came since, never inside backward.

    Args:
        config: `gradient_layers` says which layers.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 1)
        >>> hook = GradientHook(Config())
        >>> hook.attach(model)
        >>> model(torch.ones(4, 2)).sum().backward()
        >>> hook.get_data()["bias"]["norm"]
        4.0
        >>> hook.detach()
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._statistics = GradientStatistics()
        self._data: dict[str, dict[str, float]] = {}
        self._fresh: set[str] = set()
        self._handles: list[Any] = []

    def attach(self, model: Module) -> None:
        """Watch a `torch.nn.Module`.

        Args:
            model: The model; a further one is watched beside it.

        Raises:
            TypeError: It has no parameters to name.
        """
        self._statistics.attach(model, layers=self.config.gradient_layers)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                mark = partial(self._mark, name)
                hook = parameter.register_post_accumulate_grad_hook(mark)  # type: ignore[no-untyped-call]  # torch's
                self._handles.append(hook)

    def detach(self) -> None:
        """Stop watching; the data stay until `reset`."""
        self._take()
        self._statistics.detach()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def get_data(self) -> dict[str, dict[str, float]]:
        """Return the latest statistics.

        Returns:
            Layer → `norm mean std max min num_zeros num_nans num_infs`; layers without gradient are left out.
        """
        self._take()
        return {layer: dict(values) for layer, values in self._data.items()}

    def reset(self) -> None:
        """Forget what was measured; the next backward brings new data."""
        self._statistics.forget()
        self._data.clear()
        self._fresh.clear()

    def _mark(self, name: str, parameter: Tensor) -> None:  # noqa: ARG002 -- torch hands it to its hooks
        """Note that a backward reached a parameter."""
        self._fresh.add(name)

    def _take(self) -> None:
        """Measure now, and keep what layers say to which a backward brought a gradient since `reset`."""
        if not self._fresh:
            return
        self._statistics.arrived()  # nobody asked for those in time
        values = self._statistics.measure()
        if values is None:
            waited = self._statistics.arrived(wait=True)  # the caller wants figures, so here the device is waited for
            if not waited:
                return
            values = waited[-1]
        layers = values.axis.layers
        figures = memoryview(values.matrix).cast("f").tolist()
        for column, layer in enumerate(layers):
            statistics = dict(zip(DOCUMENTED_STATISTICS, figures[column :: len(layers)], strict=True))
            if layer in self._fresh and not math.isnan(statistics["num_nans"]):
                self._data[layer] = {
                    name: int(value) if name in _COUNTS else value for name, value in statistics.items()
                }


class HookManager:
    """All hooks of a model: those that the settings switch on.

    Args:
        config: `track_gradients` and `gradient_layers` are read.

    Example:
        >>> HookManager(Config(track_gradients=False)).get_all_data()
        {}
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.hooks = [GradientHook(config)] if config.track_gradients else []

    def attach_all(self, model: Module) -> None:
        """Attach every hook to a model.

        Args:
            model: A `torch.nn.Module`.
        """
        for hook in self.hooks:
            hook.attach(model)

    def detach_all(self) -> None:
        """Detach every hook."""
        for hook in self.hooks:
            hook.detach()

    def get_all_data(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return the data of every hook.

        Returns:
            Class name of the hook → its data, such as `{"GradientHook": {layer: {"norm": …}}}`.
        """
        return {type(hook).__name__: hook.get_data() for hook in self.hooks}

    def reset_all(self) -> None:
        """Forget the data of every hook."""
        for hook in self.hooks:
            hook.reset()


__all__ = ["GradientHook", "HookManager"]
