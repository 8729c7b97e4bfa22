"""Gradient statistics of watched models, as their optimizers see them.

The statistics are taken in the moment before an optimizer steps: there the gradient is accumulated and clipped, and
`zero_grad` has not come yet. An optimizer that is given a closure computes its gradients inside its step, so there it
is the moment after the step. Parameters that no optimizer stepped are measured when they are asked for. Nothing hangs
on the model.

Runs on the caller's thread, and never waits for a device: what a device holds arrives later, see `arrived`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from tracer import clock
from tracer.capture import commits
from tracer.capture.parameters import Held, LayerAxis, WatchedParameters
from tracer.capture.shards import Shards
from tracer.capture.tensor_statistics import Place, layer_values, reduced
from tracer.capture.usual import UsualGradients
from tracer.events import TENSOR_STATISTICS, Axis, LayerValues
from tracer.sink import Guard

#: While nobody says when the statistics are wanted, measuring again and again may take this share of the time.
_MAX_SHARE = 0.01


class GradientStatistics(commits.CommitListener):
    """Norm, mean, std, max, min, zeros, NaNs and infinities of every watched gradient.

    A parameter without gradient (frozen, unused) has a column of NaN, so its absence is seen. Tied weights appear once,
    under their first name. Of a sharded parameter the figures are those of the whole, without gathering it. Gradients
    that a GradScaler multiplied and left to a fused optimizer are divided by its scale.

    Args:
        guard: What keeps a failure of ours out of the optimizer's step.
        parameters: The watched parameters, where others look at the same.

    Example:
        >>> statistics = GradientStatistics()
        >>> model = torch.nn.Linear(2, 1)
        >>> statistics.attach(model)
        >>> model(torch.ones(4, 2)).sum().backward()
        >>> memoryview(statistics.measure(step=1).matrix).cast("f")[0:2].tolist()  # the norms of weight and bias
        [5.656854152679443, 4.0]
        >>> statistics.detach()
    """

    def __init__(self, *, guard: Guard | None = None, parameters: WatchedParameters | None = None) -> None:
        self._guard = guard or Guard()
        self._parameters = parameters or WatchedParameters()
        self._due: Callable[[], bool] = _always
        self._captured: dict[int, Place] = {}
        self._outdated: set[int] = set()
        self._measure_again_at = 0.0
        self._stop_listening: Callable[[], None] | None = None
        self._axis = LayerAxis("gradients", TENSOR_STATISTICS)
        self._underway: list[tuple[Axis, list[Place | None], int | None, float]] = []
        self._usual_for: Held | None = None
        self._usual: UsualGradients | None = None
        self.shards = Shards()

    def attach(
        self, model: Module, *, layers: Sequence[str] | None = None, due: Callable[[], bool] | None = None
    ) -> None:
        """Watch a model from now on, and listen to the optimizers; a further model is watched beside the first.

        Args:
            model: A `torch.nn.Module`.
            layers: Which of its parameters, see `layers.layer_filter`; all when None.
            due: Tells whether the statistics before this step are wanted; asked before every step of an optimizer.
                Without it every step of an optimizer may be the last one before `measure`, and is treated so.

        Raises:
            TypeError: The model has no parameters to name.
            ValueError: A pattern cannot be read.
        """
        self._parameters.add(model, layers)
        self._due = due or _always
        if self._stop_listening is None:
            self._stop_listening = commits.listen(self)

    def take_usual(self, optimizer: Optimizer, step: int | None) -> tuple[LayerValues, float] | None:
        """Return the statistics at once, and the norm of all gradients; None where `take` and `measure` must serve."""
        if self._captured:
            return None
        held = self._parameters.held_by(optimizer)
        if held is not self._usual_for:
            self._usual_for = held
            self._usual = UsualGradients.of(held, self._axis.of(self._parameters.named()))
        found = None if self._usual is None else self._usual.read(getattr(optimizer, "grad_scale", None))
        if found is None or self._usual is None:
            return None
        return LayerValues(self._usual.axis, found[0], step, clock.now()), found[1]

    @property
    def waits(self) -> bool:
        """Whether something was measured and not asked for yet."""
        return bool(self._captured)

    def take(self, optimizer: Optimizer) -> bool:
        """Measure the gradients that an optimizer is about to use; tell whether it holds any that are watched."""
        stepped = [one for one in self._parameters.held_by(optimizer).parameters if one.grad is not None]
        if not stepped:
            return False
        if any(parameter.is_cuda for parameter in stepped) and torch.cuda.is_current_stream_capturing():
            return False  # what is launched now would be recorded into the graph; who asks later measures then
        self._captured.update(self._reduced(stepped, getattr(optimizer, "grad_scale", None)))
        self._outdated -= {id(parameter) for parameter in stepped}
        return True

    def is_complete(self) -> bool:
        """Tell whether every watched parameter that has a gradient was measured."""
        captured = self._captured
        return all(parameter.grad is None or id(parameter) in captured for _, parameter in self._parameters.named())

    def measure(self, step: int | None = None, *, present: bool = True) -> LayerValues | None:
        """Return the statistics of the gradients that are current: those of the last optimizer step, else the present.

        Args:
            step: The step they belong to.
            present: Whether to measure what no optimizer stepped; otherwise it is left out.

        Returns:
            The values; None when there is no gradient at all, or when a device holds them: see `arrived`.
        """
        if present:
            self._parameters.look_again()
        parameters = self._parameters.named()
        if not parameters:
            self.detach()
            return None
        captured, outdated = self._captured, self._outdated
        self.forget()
        if present:
            missing = [
                parameter
                for _, parameter in parameters
                if parameter.grad is not None and (id(parameter) not in captured or id(parameter) in outdated)
            ]
            captured.update(self._reduced(missing))
        places = [captured.get(id(parameter)) for _, parameter in parameters]
        if not any(places):
            return None
        axis, now = self._axis.of(parameters), clock.now()
        if all(place is None or place[0].arrived() for place in places):
            return layer_values(axis, places, step, now)
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
            values.append(layer_values(axis, places, step, time))
        return values

    def forget(self) -> None:
        """Drop what was measured before a step of an optimizer and not asked for."""
        self._captured, self._outdated, self._measure_again_at = {}, set(), 0.0

    def detach(self) -> None:
        """Stop watching; what is underway can still be asked for with `arrived`."""
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None
        self._parameters.clear()
        self._usual_for = self._usual = None  # they hold the parameters
        self.forget()

    def before_commit(self, optimizer: Optimizer, *, closure: bool) -> None:
        """Measure before an optimizer's step, where no closure will still compute the gradients."""
        if self._due() and not closure:
            self._take_sparingly(optimizer)

    def after_commit(self, optimizer: Optimizer, *, closure: bool) -> None:
        """Measure after an optimizer's step that computed its gradients itself."""
        if closure and self._due():
            self._take_sparingly(optimizer)

    def _take_sparingly(self, optimizer: Optimizer) -> None:
        """Measure, unless that was just done and nobody has asked yet."""
        with self._guard("measuring gradients"):
            started = clock.monotonic()
            held = self._parameters.held_by(optimizer).parameters
            keys = {id(parameter) for parameter in held if parameter.grad is not None}
            if started < self._measure_again_at and keys <= self._captured.keys():
                self._outdated |= keys
            elif self.take(optimizer):
                ended = clock.monotonic()
                self._measure_again_at = ended + (ended - started) * (1 / _MAX_SHARE - 1)

    def _reduced(self, parameters: Sequence[Tensor], scale: Tensor | None = None) -> dict[int, Place]:
        """Return where the statistics of each parameter's gradient stand."""
        return reduced([(id(one), one.grad.detach()) for one in parameters if one.grad is not None], self.shards, scale)


def _always() -> bool:
    """Say that the statistics may be wanted at any time."""
    return True


__all__ = ["GradientStatistics"]
