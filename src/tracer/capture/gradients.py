"""Gradient statistics of a watched model, as its optimizer sees them.

The statistics are taken where a checkpoint needs them: in the hook that torch runs before every optimizer's step, when
the next `tracer.step()` will be a checkpoint. There the gradient is accumulated and clipped, and `zero_grad` has not
come yet. An optimizer that is given a closure computes its gradients inside its step, so there it is the hook after
the step. Parameters that no optimizer stepped are measured at the checkpoint itself. Nothing hangs on the model, and
while no checkpoint is near an optimizer's step costs one call of `due`.

Runs on the caller's thread, and never waits for a device: what a device holds arrives later, see `arrived`.
"""

from __future__ import annotations

import weakref
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from tracer import clock
from tracer.capture.layers import layer_filter
from tracer.capture.reductions import ABSENT, Reduction, Row, plain
from tracer.events import TENSOR_STATISTICS, Axis, LayerValues
from tracer.sink import Guard

_AXIS = "gradients"
#: While a checkpoint stays due, measuring again and again may take this share of the time.
_MAX_SHARE = 0.01


class GradientStatistics:
    """Norm, mean, std, max, min, zeros, NaNs and infinities of every watched gradient, once per checkpoint.

    A parameter without gradient (frozen, unused) has a column of NaN, so its absence is seen. Tied weights appear once,
    under their first name. A sharded parameter gives the figures of its local shard. Gradients that a GradScaler
    multiplied and left to a fused optimizer are divided by its scale.

    Args:
        guard: What keeps a failure of ours out of the optimizer's step.

    Example:
        >>> statistics = GradientStatistics()
        >>> model = torch.nn.Linear(2, 1)
        >>> statistics.attach(model)
        >>> model(torch.ones(4, 2)).sum().backward()
        >>> memoryview(statistics.measure(step=1).matrix).cast("f")[0:2].tolist()  # the norms of weight and bias
        [5.656854152679443, 4.0]
        >>> statistics.detach()
    """

    def __init__(self, *, guard: Guard | None = None) -> None:
        self._guard = guard or Guard()
        self._sources: list[tuple[weakref.ref[torch.nn.Module], Callable[[str], bool]]] = []
        self._due: Callable[[], bool] = _always
        self._captured: dict[int, tuple[Reduction, int]] = {}
        self._outdated: set[int] = set()
        self._measure_again_at = 0.0
        self._hooks: list[Any] = []
        self._axis = Axis(_AXIS, (), TENSOR_STATISTICS)
        self._underway: list[tuple[Axis, list[tuple[Reduction, int] | None], int | None, float]] = []

    def attach(
        self,
        model: torch.nn.Module,
        *,
        layers: Sequence[str] | None = None,
        due: Callable[[], bool] | None = None,
    ) -> None:
        """Watch a model from now on; a further model is watched beside the first.

        Args:
            model: A `torch.nn.Module`.
            layers: Which of its parameters, see `layers.layer_filter`; all when None.
            due: Tells whether the next step is a checkpoint; called before every step of an optimizer. Without it
                every step of an optimizer may be the last one before `measure`, and is treated so.

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
        self._due = due or _always
        if not self._hooks:
            self._hooks = [
                register_optimizer_step_pre_hook(self._before_step),
                register_optimizer_step_post_hook(self._after_step),
            ]

    def measure(self, step: int | None = None) -> LayerValues | None:
        """Return the statistics of the gradients that are current: those of the last optimizer step, else the present.

        Args:
            step: The step they belong to.

        Returns:
            The values; None when there is no gradient at all, or when a device holds them: see `arrived`.
        """
        parameters = self._parameters()
        if not parameters:
            self.detach()
            return None
        captured, outdated = self._captured, self._outdated
        self.forget()
        present = {
            id(parameter)
            for _, parameter in parameters
            if parameter.grad is not None and (id(parameter) not in captured or id(parameter) in outdated)
        }
        captured.update(self._reduced([parameter for _, parameter in parameters if id(parameter) in present]))
        places = [captured.get(id(parameter)) for _, parameter in parameters]
        if not any(places):
            return None
        axis, now = self._axis_of(parameters), clock.now()
        if all(place is None or place[0].arrived() for place in places):
            return _values(axis, places, step, now)
        self._underway.append((axis, places, step, now))
        return None

    def arrived(self, *, wait: bool = False) -> list[LayerValues]:
        """Return what `measure` left on a device and what has come from there since, oldest first.

        Args:
            wait: Wait for all of it, as `finish` does; otherwise this never waits.

        Returns:
            The values, each with the step and time it was measured at.
        """
        values = []
        while self._underway:
            axis, places, step, time = self._underway[0]
            if not wait and not all(place is None or place[0].arrived() for place in places):
                break
            del self._underway[0]
            values.append(_values(axis, places, step, time))
        return values

    def forget(self) -> None:
        """Drop what was measured before a step of an optimizer and not asked for."""
        self._captured, self._outdated, self._measure_again_at = {}, set(), 0.0

    def detach(self) -> None:
        """Stop watching; what is underway can still be asked for with `arrived`."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._sources.clear()
        self.forget()

    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Measure before an optimizer's step, where no closure will still compute the gradients."""
        if not torch.compiler.is_compiling() and self._due() and not _has_closure(args, kwargs):
            self._capture(optimizer)

    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Measure after an optimizer's step that computed its gradients itself."""
        if not torch.compiler.is_compiling() and _has_closure(args, kwargs) and self._due():
            self._capture(optimizer)

    def _capture(self, optimizer: Optimizer) -> None:
        """Measure what this optimizer holds of the watched parameters."""
        with self._guard("measuring gradients"):
            started = clock.monotonic()
            watched = {id(parameter) for _, parameter in self._parameters()}
            if not watched:  # the models are gone; torch walks over its hooks now, so they are removed by `measure`
                return
            held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            stepped = [parameter for parameter in held if id(parameter) in watched and parameter.grad is not None]
            keys = {id(parameter) for parameter in stepped}
            if started < self._measure_again_at and keys <= self._captured.keys():
                self._outdated |= keys
                return
            on_cuda = any(parameter.is_cuda for parameter in stepped)
            if on_cuda and torch.cuda.is_current_stream_capturing():
                return  # what is launched now would be recorded into the graph; the checkpoint measures instead
            self._captured.update(self._reduced(stepped, getattr(optimizer, "grad_scale", None)))
            self._outdated -= keys
            ended = clock.monotonic()
            self._measure_again_at = ended + (ended - started) * (1 / _MAX_SHARE - 1)

    def _parameters(self) -> list[tuple[str, Tensor]]:
        """Return the watched parameters by unique name, each once; looked up anew, for layers come and go."""
        named: dict[str, Tensor] = {}
        seen: set[int] = set()
        for source, matches in self._sources:
            model = source()
            for name, parameter in () if model is None else model.named_parameters():
                if id(parameter) not in seen and matches(name):
                    seen.add(id(parameter))
                    named[_free(name, type(model).__name__, named)] = parameter
        return list(named.items())

    def _reduced(self, parameters: Sequence[Tensor], scale: Tensor | None = None) -> dict[int, tuple[Reduction, int]]:
        """Return where the statistics of each parameter's gradient stand: one batch per device."""
        batches: dict[torch.device, tuple[list[int], list[Tensor]]] = {}
        with torch.no_grad():
            for parameter in parameters:
                gradient = None if parameter.grad is None else plain(parameter.grad.detach())
                if gradient is not None:
                    keys, gradients = batches.setdefault(gradient.device, ([], []))
                    keys.append(id(parameter))
                    gradients.append(gradient)
            places: dict[int, tuple[Reduction, int]] = {}
            for device, (keys, gradients) in batches.items():
                reduction = Reduction(gradients, scale, later=_reads_later(device))
                places.update((key, (reduction, row)) for row, key in enumerate(keys))
        return places

    def _axis_of(self, parameters: Iterable[tuple[str, Tensor]]) -> Axis:
        """Return the axis of these parameters: the same object as long as they are the same."""
        layers = tuple(name for name, _ in parameters)
        shapes = tuple(tuple(parameter.shape) for _, parameter in parameters)
        if (layers, shapes) != (self._axis.layers, self._axis.shapes):
            self._axis = Axis(_AXIS, layers, TENSOR_STATISTICS, shapes)
        return self._axis


def _always() -> bool:
    """Say that a checkpoint may come at any time."""
    return True


def _reads_later(device: torch.device) -> bool:
    """Tell whether reading from this device would wait for it."""
    return device.type != "cpu"


def _has_closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether an optimizer's step was called with a function that computes the gradients; `args[0]` is itself."""
    return (len(args) > 1 and callable(args[1])) or callable(kwargs.get("closure"))


def _free(name: str, model: str, taken: dict[str, Tensor]) -> str:
    """Return a layer's name, told from that of another model's layer where both are called the same."""
    if name not in taken:
        return name
    candidate, number = f"{model}.{name}", 2
    while candidate in taken:
        candidate, number = f"{model}{number}.{name}", number + 1
    return candidate


def _values(axis: Axis, places: Sequence[tuple[Reduction, int] | None], step: int | None, time: float) -> LayerValues:
    """Return the rows as one matrix of single floats, a statistic per row and a layer per column."""
    rows: list[Row] = [ABSENT if place is None else place[0].rows()[place[1]] for place in places]
    matrix = array("f", [figure for statistic in zip(*rows, strict=True) for figure in statistic])
    return LayerValues(axis, matrix.tobytes(), step, time)


__all__ = ["GradientStatistics"]
