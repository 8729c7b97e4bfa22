"""Running a recorded step again: every call and every backward pass, as it was, without the user's loss and loop.

A call is run from its inputs, buffers, generator states and autocast. A backward pass starts from what reached the
outputs when it was recorded; all calls that shared it share it again, for summing in another order gives other bits.
Each pass runs as soon as its last call has, so that no more graphs are alive than in training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tracer.capture import randomness
from tracer.flight.calls import version_of
from tracer.flight.passes import Pass, autocast_of, eagerly, entry_of, loss_among, passes_of, share_a_pass
from tracer.flight.steps import Call, Clip, Step
from tracer.flight.trees import Tree, tree
from tracer.flight.undisturbed import overwrite, replaying, undisturbed, unwrapped

_WRAPPERS = ("_orig_mod.", "module.")


@dataclass(slots=True)
class Rerun:
    """What a rerun gave."""

    outputs: list[Tree] = field(default_factory=list)  # of each call, without their graphs
    gradients: dict[str, Tensor] = field(default_factory=dict)  # by parameter, as the optimizer would have seen them
    notes: list[str] = field(default_factory=list)  # why it may not equal what was recorded, a sentence each


class Phases:
    """Who watches a rerun closely is told where it stands; without a watcher nobody is."""

    def before_call(self, number: int, inputs: Tree) -> None:
        """A call begins with these tensors."""

    def after_call(self, number: int, outputs: Tree) -> None:
        """A call has returned, and its graph is alive."""

    def before_backward(self, outputs: Sequence[Tensor], gradients: Sequence[Tensor], calls: Sequence[int]) -> None:
        """A backward pass starts from these, which belong to these calls."""

    def arrived(self, computed: Tensor, recorded: Tensor) -> None:
        """This gradient arrived at an output, and goes on as it was recorded."""

    def after_backward(self) -> None:
        """A backward pass has ended; the parameters hold what all passes so far gave."""


def rerun(
    model: torch.nn.Module,
    step: Step,
    *,
    observer: AbstractContextManager[Any] | None = None,
    phases: Phases | None = None,
    clip: bool = True,
) -> Rerun:
    """Run a recorded step again and return its outputs and gradients; the model is afterwards as it was before.

    Args:
        model: The model, with the parameters it had when the step was recorded. A compiled one runs compiled, but in
            eager mode when somebody observes.
        step: What was recorded.
        observer: Entered around all calls and passes, such as a `TorchDispatchMode`.
        phases: Told when calls and passes begin and end.
        clip: Clip the gradients as the user did.

    Returns:
        What came out.

    Raises:
        ValueError: The step's calls were not all kept.
        Exception: Whatever the model's own code raises.

    Example:
        >>> import torch
        >>> from tracer.capture import randomness
        >>> model = torch.nn.Linear(2, 1)
        >>> call = Call(tree(((torch.ones(4, 2),), {})), (0,), randomness.capture(), (), True, {})
        >>> rerun(model, Step(7, calls=[call])).outputs[0].tensors[0].shape
        torch.Size([4, 1])
    """
    if not step.replayable:
        message = f"Step {step.number} cannot be run again: not all of its {len(step.calls)} calls were kept."
        raise ValueError(message)
    with undisturbed(model), torch.enable_grad():
        running = _Running(model, step, phases or Phases(), eager=observer is not None)
        with observer or nullcontext(), eagerly(wanted=observer is not None):
            running.run()
        running.unscale()
        for one in step.clips if clip else ():
            running.clip(one)
        running.collect()
    return running.result


class _Running:
    """A rerun underway."""

    def __init__(self, model: torch.nn.Module, step: Step, phases: Phases, *, eager: bool) -> None:
        self.inner = unwrapped(model)
        self.entry = self.inner if eager else entry_of(model)
        self.step, self.phases, self.result = step, phases, Rerun()
        self.parameters = dict(self.inner.named_parameters())
        self.buffers = dict(self.inner.named_buffers())
        self._own = {id(parameter) for parameter in self.parameters.values()}
        self._alive: dict[int, Tree] = {}  # outputs with their graphs, until their last pass

    def run(self) -> None:
        """Run all calls, and each pass as soon as it can."""
        passes = passes_of(self.step)
        waiting = sorted(passes)
        # Inside this level autocast keeps its casts until it is told to forget them.
        torch.autocast_increment_nesting()
        try:
            for number, call in enumerate(self.step.calls):
                self._call(number, call, shared=share_a_pass(passes, number))
                if not passes:
                    self._from_loss(number)
                while waiting and passes[waiting[0]].calls()[-1] <= number:
                    one = passes[waiting.pop(0)]
                    later = {call for identity in waiting for call in passes[identity].calls()}
                    self._backward(one, retain=not later.isdisjoint(one.calls()))
                needed = {call for identity in waiting for call in passes[identity].calls()}
                self._alive = {call: outputs for call, outputs in self._alive.items() if call in needed}
        finally:
            torch.clear_autocast_cache()
            torch.autocast_decrement_nesting()

    def _call(self, number: int, call: Call, *, shared: bool) -> None:
        """Run one call as it was."""
        for name, value in call.buffers.items():
            buffer = _named(self.buffers, name)
            if buffer is None:
                self.result.notes.append(f"The buffer {name!r} was recorded, but the model has none of that name.")
            else:
                overwrite(buffer, value)
        if self.inner.training != call.training:
            self.inner.train(call.training)
            self.result.notes.append("The model's training flag was changed after the call; all modules were given it.")
        if not shared:
            # Calls of one backward pass most likely ran in one autocast context and shared its casts of the weights.
            torch.clear_autocast_cache()
        inputs = Tree(call.inputs.structure, self._inputs(call))
        randomness.restore(call.states, self.inner)
        self.phases.before_call(number, inputs)
        args, kwargs = inputs.rebuilt()
        with autocast_of(call):
            value = self.entry(*args, **kwargs)
        outputs = tree(value)
        self.phases.after_call(number, outputs)
        self._alive[number] = outputs
        self.result.outputs.append(Tree(outputs.structure, [tensor.detach() for tensor in outputs.tensors]))

    def _from_loss(self, number: int) -> None:
        """Run the backward pass of a call without a record of it, if the model returned its loss."""
        index = loss_among(self._alive[number])
        if index is None:
            note = (
                "What reached the outputs in the backward pass was not recorded: only the forward part was run again."
            )
        else:
            note = "What reached the loss in the backward pass was not recorded: it was taken to be the scale, else 1."
            self._backward(Pass([(number, index, None)]), retain=False)
        if note not in self.result.notes:
            self.result.notes.append(note)

    def _inputs(self, call: Call) -> list[Tensor]:
        """Return a call's tensors cut off from the graph that made them, whose gradients are none of ours."""
        chosen = []
        for place, tensor in enumerate(call.inputs.tensors):
            if id(tensor) in self._own:
                chosen.append(tensor)
                continue
            fresh = tensor.detach()
            changes = place < len(call.versions) and call.versions[place] != version_of(tensor)
            if tensor.requires_grad:
                fresh.requires_grad_()
            # Where the model writes into its input, it must not write into the user's.
            chosen.append(fresh.clone() if changes else fresh)
        return chosen

    def _backward(self, one: Pass, *, retain: bool) -> None:
        """Run one backward pass from all of its outputs at once."""
        starts: list[Tensor] = []
        gradients: list[Tensor] = []
        handles = []
        seen: set[int] = set()
        for call, index, gradient in one.starts:
            tensors = self._alive[call].tensors
            output = tensors[index] if index < len(tensors) else None
            if output is None or not output.requires_grad:
                self.result.notes.append(f"Output {index} of call {call} took part in the backward pass, but not now.")
                continue
            if id(output) in seen:
                continue
            seen.add(id(output))
            recorded = gradient if gradient is not None else torch.full_like(output, self.step.scale or 1.0)
            starts.append(output)
            gradients.append(recorded)
            # What was recorded is all that reached an output. Where one output was computed from another, adding up
            # again would count twice; the recorded gradient takes the place of the sum.
            handles.append(output.register_hook(self._replacing(recorded)))  # type: ignore[no-untyped-call]
        if starts:
            self.phases.before_backward(starts, gradients, one.calls())
            torch.autograd.backward(starts, gradients, retain_graph=retain)
            self.phases.after_backward()
        for handle in handles:
            handle.remove()

    def _replacing(self, recorded: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the hook that lets a recorded gradient go on in the place of a computed one."""

        def hook(computed: Tensor) -> Tensor:
            self.phases.arrived(computed, recorded)
            return recorded

        return hook

    def unscale(self) -> None:
        """Divide the gradients by a GradScaler's scale, with its own arithmetic."""
        if self.step.scale is None or self.step.still_scaled:
            return
        by_device: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for parameter in self.parameters.values():
            if parameter.grad is not None:
                by_device.setdefault((parameter.grad.device, parameter.grad.dtype), []).append(parameter.grad)
        for (device, _), gradients in by_device.items():
            inverse = torch.tensor(self.step.scale, device=device).double().reciprocal().float()
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, torch.zeros(1, device=device), inverse)

    def clip(self, one: Clip) -> None:
        """Clip as the user did."""
        found = {name: _named(self.parameters, name) for name in one.parameters}
        missing = [name for name, parameter in found.items() if parameter is None]
        if missing:
            self.result.notes.append(f"Clipped parameters that the model has no longer: {', '.join(missing)}.")
        parameters = [parameter for parameter in found.values() if parameter is not None]
        if one.kind == "value":
            torch.nn.utils.clip_grad_value_(parameters, one.limit)
        else:
            torch.nn.utils.clip_grad_norm_(parameters, one.limit, one.norm_type)

    def collect(self) -> None:
        """Take the gradients; the parameters get their old ones back."""
        self.result.gradients.update(
            (name, parameter.grad) for name, parameter in self.parameters.items() if parameter.grad is not None
        )


def _named(known: Mapping[str, Tensor], name: str) -> Tensor | None:
    """Return what bears a name, also when the name was taken from a wrapped model."""
    while name not in known:
        for wrapper in _WRAPPERS:
            if name.startswith(wrapper):
                name = name.removeprefix(wrapper)
                break
        else:
            return None
    return known[name]


__all__ = ["Phases", "Rerun", "replaying", "rerun", "undisturbed", "unwrapped", "version_of"]
