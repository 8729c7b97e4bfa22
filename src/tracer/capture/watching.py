"""Watching models while they train: which statistics are taken at which step, and where they go.

Everything hangs on the moments before and after an optimizer's step (`commits`); the governor says what is due. What an
optimizer shows is emitted as soon as all of a step is known, so a killed run keeps the statistics of its last step.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, distributed
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from tracer import clock
from tracer.capture import commits
from tracer.capture.activations import ActivationSample
from tracer.capture.arrivals import Arrival
from tracer.capture.governor import Governor, Instrument
from tracer.capture.gradients import GradientStatistics
from tracer.capture.histograms import ExponentCounts
from tracer.capture.layers import layer_filter
from tracer.capture.parameters import LayerAxis, WatchedParameters
from tracer.capture.reductions import plain
from tracer.capture.shards import Pace
from tracer.capture.telling import Telling
from tracer.capture.tensor_statistics import layer_values, reduced
from tracer.capture.updates import Updates
from tracer.events import TENSOR_STATISTICS, Axis, LayerValues
from tracer.sink import Guard, emit

#: The parts of the allowance: gradients are what people look at first.
_SHARES = {"gradients": 0.6, "weights": 0.1, "updates": 0.1, "activations": 0.1, "histograms": 0.1}
#: Looks at which the ranks of a sharded model wait for each other.
_TOGETHER = frozenset({"gradients", "weights", "updates"})


@dataclass(frozen=True, slots=True)
class Watch:
    """What is watched of a model.

    Attributes:
        gradients: Eight statistics of each parameter's gradient.
        weights: The same of the parameters themselves, and the norms of the optimizer's state.
        updates: How far each step moves each parameter, in relation to its size.
        activations: `sampled`: what the modules put out, on some steps; True on every step, False never.
        histograms: Exact histograms of the gradients by power of two, on some steps.
        layers: Which layers, see `layers.layer_filter`; all when None.
    """

    gradients: bool = True
    weights: bool = True
    updates: bool = True
    activations: str | bool = "sampled"
    histograms: bool = True
    layers: tuple[str, ...] | None = None


class Watcher(commits.CommitListener):
    """Takes the statistics of the watched models and emits them.

    Args:
        governor: Says what is due, and is told what it cost.
        guard: Keeps a failure of ours out of the training.
        step: Returns the run's step.
        wanted: Tells whether the gradients of this step are wanted whatever they cost: a checkpoint is next.
    """

    def __init__(
        self, governor: Governor, *, guard: Guard, step: Callable[[], int], wanted: Callable[[], bool]
    ) -> None:
        self.governor = governor
        self.each_step: Callable[[], None] = _nothing  # called when a step has begun
        self.norm: float | None = None  # of all gradients at the present commit, where they were measured
        self._guard, self._step, self._wanted = guard, step, wanted
        self._parameters = WatchedParameters()
        self._gradients = GradientStatistics(guard=guard, parameters=self._parameters)
        self._shards = self._gradients.shards
        self._telling = Telling(self._shards)
        self._updates = Updates(self._parameters, self._shards, self._telling)
        self._watches: weakref.WeakKeyDictionary[Module, Watch] = weakref.WeakKeyDictionary()
        self._instruments = {name: governor.instrument(name, share=share) for name, share in _SHARES.items()}
        self._families: list[tuple[str, Instrument]] = []  # those that somebody wants
        self._due: dict[str, bool] = {}
        self._axes = {
            "weights": LayerAxis("weights", TENSOR_STATISTICS),
            "histograms": LayerAxis("gradients", ("histogram",)),
        }
        self._commits: weakref.WeakKeyDictionary[Optimizer, int] = weakref.WeakKeyDictionary()
        self._present: int | None = None
        self._told_at: int | None = None
        self._began = 0.0
        self._samples: list[ActivationSample] = []
        self._stop_listening: Callable[[], None] | None = None

    def watch(self, model: Module, what: Watch) -> None:
        """Watch a model from now on, beside those watched already.

        Raises:
            TypeError: It is no module.
            ValueError: A layer pattern cannot be read.
        """
        if _is_replica(model):
            return  # replicas see the same gradients: the first rank speaks for all
        self._parameters.add(model, what.layers)
        self._watches[model] = what
        self._choose_families()
        if self._stop_listening is None:
            self._stop_listening = commits.listen(self)
        self._began = self._began or clock.monotonic()
        if what.activations is True:
            self._sample_activations(always=True)

    def unwatch(self, model: Module) -> None:
        """Watch a model no more; the others are watched on."""
        self._leave()
        self._watches.pop(model, None)
        self._choose_families()
        self._parameters.remove(model)
        if not self._watches:
            self.stop()

    def stop(self) -> None:
        """Stop watching and emit what is left; waits for what a device still holds."""
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None
        self._leave()
        self._emit_arrived(wait=True)
        for sample in self._samples:  # of a step that never came
            sample.end()
        self._samples.clear()
        self._gradients.detach()

    def _choose_families(self) -> None:
        """Find out what is wanted of any model."""
        wanted = {what for what in _SHARES for watch in self._watches.values() if getattr(watch, what)}
        self._families = [(what, one) for what, one in self._instruments.items() if what in wanted]

    def checkpoint(self, step: int) -> None:
        """Emit what a checkpoint shows: also of models that no optimizer of torch steps."""
        self._leave()
        wanted = any(what.gradients for what in self._watches.values())
        if wanted and self._told_at not in (step, step - 1):
            values = self._gradients.measure(step)
            if values is not None:
                self._telling.emit(values)
        self._emit_arrived()

    def before_commit(self, optimizer: Optimizer, *, closure: bool) -> None:
        """Look at gradients and weights before they are used and changed."""
        with self._guard("watching the model"):
            held = self._parameters.held_by(optimizer).parameters
            if held:
                self._enter(optimizer)
                if not closure:
                    self._look_before(optimizer, held)

    def after_commit(self, optimizer: Optimizer, *, closure: bool) -> None:
        """Look at what the step changed, and get ready for the next one."""
        with self._guard("watching the model"):
            if not self._parameters.held_by(optimizer).parameters:
                return
            if closure:
                self._take_gradients(optimizer)
            if self._updates.pending:
                self._timed("updates", lambda: self._updates.after(optimizer), again=True)
            if not self._samples:
                self._sample_activations(always=False)

    # The course of a step.

    def _enter(self, optimizer: Optimizer) -> None:
        """Notice that a new step has begun."""
        number = self._step()
        if number == 0:  # a loop that never calls `tracer.step` is counted by its optimizer
            number = self._commits.get(optimizer, 0)
            self._commits[optimizer] = number + 1
        if number == self._present:
            return
        self._leave()
        now = clock.monotonic()
        if self._present is not None:
            self.each_step()
            self.governor.step_ended(now - self._began)
        self._began, self._present, self.norm = now, number, None
        governor = self.governor
        self._due = {what: governor.due(one) for what, one in self._families}
        if "gradients" in self._due and self._wanted():
            self._due["gradients"] = True
        self._end_samples()
        self._emit_arrived()

    def _leave(self) -> None:
        """Emit what of a step was held back because not all of its optimizers had stepped."""
        if self._present is None:
            return
        if self._gradients.waits:
            self._tell_taken()
        self._updates.flush()

    def _look_before(self, optimizer: Optimizer, held: list[Tensor]) -> None:
        """Look at what is due before a step of an optimizer."""
        self._take_gradients(optimizer)
        if not (self._due.get("histograms") or self._due.get("weights") or self._due.get("updates")):
            return
        stepped = [parameter for parameter in held if parameter.grad is not None]
        if self._due.get("histograms"):
            self._timed("histograms", lambda: self._take_histograms(stepped))
        if self._due.get("weights"):
            self._timed("weights", self._take_weights)
            self._due["weights"] = False  # once a step, whichever optimizer comes first
        if self._due.get("updates") and stepped:
            self._timed("updates", lambda: self._updates.before(stepped, self._present))

    # The instruments.

    def _take_gradients(self, optimizer: Optimizer) -> None:
        """Measure the gradients of an optimizer's parameters, and emit them once all of the step are there."""
        if not self._due.get("gradients"):
            return

        def look() -> None:
            usual = self._gradients.take_usual(optimizer, self._present)
            if usual is not None:
                values, self.norm = usual
                self._tell_gradients(values)
            elif self._gradients.take(optimizer) and self._gradients.is_complete():
                self._tell_taken()

        self._timed("gradients", look)

    def _take_histograms(self, parameters: Sequence[Tensor]) -> None:
        """Count the magnitudes of the gradients by powers of two."""
        names = {id(parameter): name for name, parameter in self._parameters.named()}
        dense = [(names[id(one)], one, plain(one.grad.detach())) for one in parameters if one.grad is not None]
        there = [(name, one, tensor) for name, one, tensor in dense if tensor is not None and tensor.numel()]
        if there:
            axis = self._axes["histograms"].of([(name, one) for name, one, _ in there])
            counts, step = ExponentCounts([tensor for _, _, tensor in there]), self._present
            self._telling.later(counts.arrived, lambda: emit(counts.histograms(axis, step)))

    def _take_weights(self) -> None:
        """Measure the parameters before they change."""
        parameters = self._parameters.named()
        places = reduced([(id(one), one.detach()) for _, one in parameters if one.is_floating_point()], self._shards)
        axis, now, step = self._axes["weights"].of(parameters), clock.now(), self._present
        row = [places.get(id(one)) for _, one in parameters]
        self._telling.later(
            lambda: all(place is None or place[0].arrived() for place in row),
            lambda: self._telling.emit(layer_values(axis, row, step, now)),
        )

    def _sample_activations(self, *, always: bool) -> None:
        """Listen to the modules during the next step, if that is due."""
        due = always or self.governor.due_next(self._instruments["activations"])
        for model, what in list(self._watches.items()):
            wanted = what.activations is True or (what.activations and due)
            if wanted and not _is_compiled(model):  # a hook inside a compiled model would have it compiled anew
                self._samples.append(ActivationSample(model, layer_filter(what.layers)))

    def _end_samples(self) -> None:
        """Take the figures of the modules that were listened to."""
        samples, self._samples = self._samples, []
        for sample in samples:
            began = clock.monotonic()
            found = sample.end()
            if found is not None:
                axis, figures = found
                self._telling.later(figures.is_there, partial(self._tell_sample, axis, figures, self._present))
                cost = sample.cost_s + clock.monotonic() - began
                self._instruments["activations"].looked(cost, self.governor.step_seconds)

    def _tell_taken(self) -> None:
        """Emit the gradients that were taken, unless they are still on a device."""
        values = self._gradients.measure(self._present, present=False)
        if values is not None:
            self.norm = _total(values)
            self._tell_gradients(values)

    def _tell_gradients(self, values: LayerValues) -> None:
        """Emit the gradients of a step."""
        self._told_at = values.step
        self._telling.emit(values)

    def _emit_arrived(self, *, wait: bool = False) -> None:
        """Emit what has come from devices since."""
        for values in self._gradients.arrived(wait=wait):
            self._telling.emit(values)
        self._telling.arrived(wait=wait)

    def _tell_sample(self, axis: Axis, figures: Arrival, step: int | None) -> None:
        """Emit the statistics of the modules."""
        self._telling.figures(axis, figures.values(), step)

    def _timed(self, name: str, look: Callable[[], None], *, again: bool = False) -> None:
        """Do a look and account for it; ranks that share a model account for the dearest of them."""
        instrument, step_seconds = self._instruments[name], self.governor.step_seconds
        agreed = self._shards.begin(name, Pace(instrument.last_s, step_seconds))
        began = clock.monotonic()
        look()
        cost = clock.monotonic() - began
        if again:
            instrument.add(cost)
        elif self._shards.any and name in _TOGETHER:
            instrument.looked_together(cost, agreed, self.governor.max_overhead)
        else:
            instrument.looked(cost, step_seconds)


def check_optimizer(model: Module, optimizer: Any) -> None:  # noqa: ANN401 -- whatever was passed
    """See that an optimizer belongs to a model.

    Raises:
        ValueError: It holds none of the model's parameters.
    """
    groups = getattr(optimizer, "param_groups", None)
    if groups is None:
        return  # not torch's own: nothing can be said about it
    held = {id(parameter) for group in groups for parameter in group["params"]}
    if not any(id(parameter) in held for parameter in model.parameters()):
        message = (
            f"The optimizer {type(optimizer).__name__} holds no parameter of the model {type(model).__name__}. "
            "Pass the optimizer that steps this model, or leave it out: optimizers are found without it."
        )
        raise ValueError(message)


def _nothing() -> None:
    """Do nothing at the beginning of a step."""


def _is_replica(model: Module) -> bool:
    """Tell whether this is a copy of a model whose first copy is watched by the first rank."""
    return isinstance(model, DistributedDataParallel) and distributed.is_initialized() and distributed.get_rank() != 0


def _is_compiled(model: Module) -> bool:
    """Tell whether a model was compiled, as a whole or in place."""
    return hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None


def _total(values: LayerValues) -> float:
    """Return the norm of all gradients together, out of those of the layers."""
    rows = np.frombuffer(bytes(values.matrix), np.float32).reshape(len(TENSOR_STATISTICS), -1)
    norms, counted = rows[TENSOR_STATISTICS.index("norm")], rows[TENSOR_STATISTICS.index("nans")]
    there = norms[~np.isnan(counted)].astype(np.float64)  # the norm of a NaN gradient stays NaN
    return math.sqrt(float(there @ there))


__all__ = ["Watch", "Watcher", "check_optimizer"]
