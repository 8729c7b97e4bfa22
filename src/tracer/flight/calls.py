"""What is kept of each call of a watched model: two hooks on the model, and one on each of its differentiable outputs.

The step under way is filled here; the recorder ends it at the optimizer's step. Nothing of a call outlives its step but
the batch: a tensor with a graph behind it is kept detached, and what backward brought is dropped with the step.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from tracer import clock
from tracer.capture import randomness
from tracer.flight.buffers import Buffers
from tracer.flight.shield import Shield
from tracer.flight.steps import Autocast, Call, Output, Step
from tracer.flight.trees import Slot, Tree, leaves, tree
from tracer.flight.undisturbed import replaying
from tracer.sink import Guard

#: More calls than these between two steps are no training step any more, and are not kept.
MOST_CALLS = 64
#: The gradient of a larger output is not kept: it would hold memory that training needs.
MOST_UPSTREAM_BYTES = 64 << 20
#: From this length of a step on NumPy's slower official getter costs less than half a percent of it.
_LONG_STEP_S = 0.010
_SCAN_STEPS = 64

_TOO_MANY = f"More than {MOST_CALLS} calls of the model came before the optimizer's step; they were not kept."
_NO_UPSTREAM = "Gradients of the outputs were not kept, so only the forward part can be run again."
_LARGE = f"An output is larger than {MOST_UPSTREAM_BYTES >> 20} MiB; its gradient was not kept."
_IN_PLACE = "Inputs were changed in place after the model was called: {}. From the next step on they are copied."


class Calls:
    """Records the calls of one model into the step under way.

    Args:
        model: The model; it is not kept alive.
        guard: Keeps a failure of ours out of the model's call.
    """

    def __init__(self, model: Module, guard: Guard) -> None:
        self.model = weakref.ref(model)
        self.shield = Shield(guard, "recording a call of the model")
        self.buffers = Buffers(model)
        self.step = Step(0)
        self.token = 0  # changes with each step: what a hook of an older step brings is not taken
        self.upstream = True
        self.active = True
        self.copies_inputs = False
        self.step_s = 0.0
        self.loss: Tensor | None = None  # as the model itself returned it
        self.ended_at: float | None = None
        self.before_first: Callable[[], None] | None = None  # what has to be settled before the next step begins
        self._open: Call | None = None
        self._overflowed = self._large = False
        self._steps = 0
        kinds = ["cpu"]
        if hasattr(torch, "accelerator") and torch.accelerator.is_available():
            kinds.append(str(torch.accelerator.current_accelerator()))
        self._kinds = tuple(kinds)
        self._no_autocast = tuple(Autocast(kind, enabled=False, dtype="bfloat16") for kind in kinds)
        self._handles: list[Any] = []
        self._compiled: _Compiled | None = None
        self.attach()

    # Hooks.

    def attach(self) -> None:
        """Put the hooks on the model; one that was compiled in place gets ours around what was compiled."""
        model = self.model()
        if model is None:
            return
        compiled = model._compiled_call_impl  # noqa: SLF001 -- `Module.compile` keeps it there
        if compiled is not None:
            self._drop_hooks()
            self._compiled = compiled if isinstance(compiled, _Compiled) else _Compiled(self, compiled)
            model._compiled_call_impl = self._compiled  # noqa: SLF001 -- as above
        elif not self._handles:
            before, after = _Hook(self.before), _Hook(self.after)
            self._handles = [
                # First of all pre-hooks: a rerun goes through the user's own again.
                model.register_forward_pre_hook(before, with_kwargs=True, prepend=True),
                model.register_forward_hook(after, with_kwargs=True),
            ]

    def detach(self) -> None:
        """Take the hooks off, and let go of everything."""
        self.active = False
        self._drop_hooks()
        model = self.model()
        if self._compiled is not None and model is not None and model._compiled_call_impl is self._compiled:  # noqa: SLF001 -- see `attach`
            model._compiled_call_impl = self._compiled.original  # noqa: SLF001 -- see `attach`
        self._compiled = None
        self.step, self.loss, self._open = Step(self.step.number), None, None
        self.token += 1
        self.buffers.forget()

    def _drop_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def before(self, model: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep what decides the call that begins."""
        # A call inside a backward pass is a recomputation and no call of the training.
        if not torch.is_grad_enabled() or torch._C._current_graph_task_id() != -1 or not self.active or replaying():  # noqa: SLF001 -- it has no public name
            return
        with self.shield:
            if self.before_first is not None:
                self.before_first()
            self._open = None
            self._open = self._record(args, kwargs, training=model.training)

    def after(self, _model: Module, _args: tuple[Any, ...], _kwargs: dict[str, Any], outputs: Any) -> None:  # noqa: ANN401 -- whatever the model returns
        """Wait for what backward brings to the outputs of the call that ends."""
        call = self._open
        if call is None or not torch.is_grad_enabled() or torch._C._current_graph_task_id() != -1 or replaying():  # noqa: SLF001 -- see `before`
            return
        with self.shield:
            self._open = None
            self._await_gradients(call, outputs)
            call.returned = True

    def _record(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, training: bool) -> Call | None:
        """Return the record of the call that begins, None if this step has too many."""
        step = self.step
        if len(step.calls) >= MOST_CALLS or self._overflowed:
            if not self._overflowed:
                self._overflowed = True
                step.calls.clear()
                step.notes.append(_TOO_MANY)
            return None
        if not step.calls and self.ended_at is not None:
            step.data_seconds = clock.monotonic() - self.ended_at
        inputs = _flat(args) if not kwargs else tree((args, kwargs))
        tensors = inputs.tensors
        for place, tensor in enumerate(tensors):
            if self.copies_inputs and not isinstance(tensor, Parameter):
                tensors[place] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
            elif tensor.requires_grad and not isinstance(tensor, Parameter):
                tensors[place] = tensor.detach().requires_grad_()  # with its graph it would hold another model's step
        states = randomness.capture(gauss=self.step_s >= _LONG_STEP_S)
        if self.buffers.has_generators:
            states = states._replace(private=self.buffers.generators())
        versions = tuple([version_of(tensor) for tensor in tensors])
        call = Call(inputs, versions, states, self._autocast(), training, self.buffers.values())
        step.calls.append(call)
        return call

    def _autocast(self) -> tuple[Autocast, ...]:
        """Return the state of autocast by kind of device."""
        if not any(map(torch.is_autocast_enabled, self._kinds)):
            return self._no_autocast
        return tuple(
            Autocast(kind, torch.is_autocast_enabled(kind), str(torch.get_autocast_dtype(kind)).removeprefix("torch."))
            for kind in self._kinds
        )

    def _await_gradients(self, call: Call, outputs: Any) -> None:  # noqa: ANN401 -- whatever the model returns
        """Put a hook on each differentiable output."""
        tensors = [outputs] if isinstance(outputs, Tensor) else leaves(outputs)
        for index, tensor in enumerate(tensors):
            if not tensor.requires_grad:
                continue
            if tensor.dim() == 0 and self.loss is None:
                self.loss = _returned_loss(outputs, tensor)
            output = Output(index)
            call.differentiable.append(output)
            if not self.upstream:
                continue
            if tensor.nbytes > MOST_UPSTREAM_BYTES:
                self._large = True
                continue
            tensor.register_hook(_Upstream(self, output))  # type: ignore[no-untyped-call]  # torch's

    # The step.

    def end_step(self, now: float) -> Step:
        """Return the step under way, and begin the next."""
        step = self.step
        self.token += 1
        self._open, self.loss = None, None
        self.step = Step(step.number + 1, index=step.index + 1)
        self._overflowed = self._large = False
        self.ended_at = now
        self._steps += 1
        if self._steps == 1 or self._steps % _SCAN_STEPS == 0:  # a first call may make buffers
            self.buffers.scan()
        return step

    def discard(self) -> None:
        """Forget the calls so far: no optimizer will use what they computed."""
        self.token += 1
        self.step, self._open, self.loss = Step(self.step.number, index=self.step.index), None, None
        self._overflowed = self._large = False

    def changed_inputs(self) -> None:
        """See whether inputs were changed in place since; say so in the step, and copy from now on."""
        if self.copies_inputs:
            return
        changed = [
            f"tensor {place} of call {number}"
            for number, call in enumerate(self.step.calls)
            for place, (tensor, version) in enumerate(zip(call.inputs.tensors, call.versions, strict=True))
            if version_of(tensor) != version
        ]
        if changed:
            self.copies_inputs = True
            several = " and others" if len(changed) > 1 else ""
            self.step.notes.append(_IN_PLACE.format(changed[0] + several))

    def complete(self, step: Step) -> Step:
        """Drop calls that never returned, and note what a replay of the step should know; for a step that is used."""
        step.calls = [call for call in step.calls if call.returned]
        notes = [_LARGE] if self._large else []
        if not self.upstream and step.calls:
            notes.append(_NO_UPSTREAM)
        if step is self.step:
            notes += [
                f"The buffer {name!r} changed for the first time in this step; its value before was not kept."
                for name in self.buffers.unexpected()
            ]
        step.notes += [note for note in notes if note not in step.notes]
        return step


class _Hook:
    """A hook that stays behind when the model is copied or saved: the copy is not watched."""

    __slots__ = ("__weakref__", "_function")

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> None:  # noqa: ANN401 -- those of torch's hooks
        if torch.compiler.is_compiling():
            return
        self._function(*arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave a function of the standard library that takes anything and does nothing, so no Tracer is needed."""
        return getattr, (contextlib.nullcontext(), "__exit__")

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        return contextlib.nullcontext().__exit__


class _Compiled:
    """A model compiled in place, with our hooks around it: hooks inside would be compiled away."""

    __slots__ = ("_calls", "original")

    def __init__(self, calls: Calls, original: Callable[..., Any]) -> None:
        self._calls, self.original = weakref.ref(calls), original

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- the model's own
        calls = self._calls()
        model = None if calls is None or torch.compiler.is_compiling() else calls.model()
        if calls is None or model is None:
            return self.original(*args, **kwargs)
        calls.before(model, args, kwargs)
        outputs = self.original(*args, **kwargs)
        calls.after(model, args, kwargs, outputs)
        return outputs


class _Upstream:
    """Takes what backward brings to one output, as long as its step lasts."""

    __slots__ = ("_calls", "_output", "_token")

    def __init__(self, calls: Calls, output: Output) -> None:
        self._calls, self._output, self._token = calls, output, calls.token

    def __call__(self, gradient: Tensor) -> None:
        if self._token == self._calls.token and not replaying():
            kept = gradient.detach() if gradient.requires_grad else gradient
            self._output.upstream.append((torch._C._current_graph_task_id(), kept))  # noqa: SLF001 -- it has no public name


def version_of(tensor: Tensor) -> int:
    """Return how often a tensor was changed in place; tensors of inference mode do not count it."""
    return 0 if tensor.is_inference() else tensor._version  # noqa: SLF001 -- it has no public name


def _returned_loss(outputs: Any, scalar: Tensor) -> Tensor | None:  # noqa: ANN401 -- whatever the model returns
    """Return a scalar if it is the loss that the model computed itself: its only or first output, or called so."""
    if isinstance(outputs, Mapping):
        is_loss = outputs.get("loss") is scalar
    elif isinstance(outputs, (Tensor, tuple, list)):
        is_loss = outputs is scalar or outputs[0] is scalar
    else:
        is_loss = getattr(outputs, "loss", None) is scalar
    return scalar.detach() if is_loss and scalar.is_floating_point() else None


_ONLY_TENSORS: list[tuple[tuple[Slot, ...], dict[str, Any]]] = [
    (tuple(Slot(place) for place in range(count)), {}) for count in range(5)
]


def _flat(args: tuple[Any, ...]) -> Tree:
    """Return the tree of positional arguments; what most models are called with needs no walk."""
    if len(args) < len(_ONLY_TENSORS) and all(isinstance(one, Tensor) for one in args):
        return Tree(_ONLY_TENSORS[len(args)], list(args))
    return tree((args, {}))


__all__ = ["MOST_CALLS", "MOST_UPSTREAM_BYTES", "Calls", "version_of"]
