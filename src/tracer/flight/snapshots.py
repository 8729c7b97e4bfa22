"""Copies of the whole state every so many steps, from which the steps since can be replayed one after the other.

Two slots of host memory take turns, so one is always whole. Between two copies the steps are kept as they were called,
with their batches on the host. How often copies are made follows from what one costs: half a percent of the time.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from tracer import clock
from tracer.flight.ring import batch_bytes
from tracer.flight.steps import Output, Step
from tracer.flight.stored_snapshots import SnapshotData
from tracer.flight.trees import Tree, plain_only
from tracer.flight.undisturbed import unwrapped

#: A copy may take this share of the time of the steps between two.
SHARE = 0.005
_LONGEST_INTERVAL = 10_000
_FIRST_INTERVAL = 16  # until a copy and some steps were timed


class Snapshots:
    """Keeps the last two states of a training, and the steps since the older one.

    Args:
        model: The model; it is not kept alive.
        interval: Steps between two copies, None to choose it by what a copy costs.
        most_bytes: Memory for the two slots and the steps.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> snapshots = Snapshots(model, interval=1, most_bytes=1 << 20)
        >>> snapshots.step_begins(Step(0), optimizer, 0.02)
        >>> snapshots.data(Step(0)).number
        0
    """

    def __init__(self, model: Module, *, interval: int | None, most_bytes: float) -> None:
        self._model = weakref.ref(model)
        self._fixed, self.interval = interval, interval or _FIRST_INTERVAL
        self._most = most_bytes
        self._slots: list[_Slot] = [_Slot(), _Slot()]
        self._steps: list[tuple[Step, list[dict[str, Any]], int]] = []
        self._bytes = 0
        self.switched_off: str | None = None
        self.copies = 0
        self.copy_s = 0.0

    def step_begins(self, step: Step, optimizer: Optimizer, step_s: float) -> None:
        """Copy the state if it is time: the parameters are those that this step begins with.

        Args:
            step: The step that begins.
            optimizer: The optimizer of the model.
            step_s: How long a step takes.
        """
        if self.switched_off:
            return
        newest = max((slot.index for slot in self._slots if slot.whole), default=None)
        if newest is not None and step.index - newest < self.interval:
            return
        model = self._model()
        if model is None:
            return
        if newest is None and not self._fits(model, optimizer):
            return
        slot = min(self._slots, key=lambda one: one.index if one.whole else -1)
        started = clock.monotonic()
        slot.copy(unwrapped(model), optimizer, step)
        took = clock.monotonic() - started
        self.copies += 1
        self.copy_s += took
        if self._fixed is None and step_s > 0 and self.copies > 1:  # the first copy allocates as well
            self.interval = min(max(1, math.ceil(took / (SHARE * step_s))), _LONGEST_INTERVAL)
        self._forget_before(min((one.index for one in self._slots if one.whole), default=step.index))

    def step_ended(self, step: Step, groups: Sequence[Mapping[str, Any]]) -> None:
        """Keep a step that is over, with what the optimizer's groups said in it."""
        if self.switched_off or not any(slot.whole for slot in self._slots):
            return
        for slot in self._slots:
            if slot.index == step.index:
                slot.number = step.number  # the program may have counted on only after the copy
        kept = _on_host(step)
        size = batch_bytes(kept) + sum(
            gradient.nbytes for call in kept.calls for output in call.differentiable for _, gradient in output.upstream
        )
        self._bytes += size
        values = [{key: value for key, value in group.items() if key != "params"} for group in groups]
        self._steps.append((kept, values, size))
        if self._bytes + sum(slot.bytes for slot in self._slots) > self._most:
            self._make_room()

    def data(self, step: Step, groups: Sequence[Mapping[str, Any]] = ()) -> SnapshotData | None:
        """Return the oldest whole state and the steps since, for a capsule; None while there is none.

        Args:
            step: The step under way, which is not among them.
            groups: The values of the optimizer's groups in it.
        """
        now = [[{key: value for key, value in group.items() if key != "params"} for group in groups]] if groups else []
        for slot in sorted((slot for slot in self._slots if slot.whole), key=lambda slot: slot.index):
            kept = [(one, values) for one, values, _ in self._steps if slot.index <= one.index < step.index]
            if [one.index for one, _ in kept] == list(range(slot.index, step.index)):
                if slot.index == step.index:
                    slot.number = step.number
                return slot.data([one for one, _ in kept], [values for _, values in kept] + now)
        return None

    def clear(self) -> None:
        """Give the memory back."""
        self._steps.clear()
        self._bytes = 0
        self._slots = [_Slot(), _Slot()]

    def _fits(self, model: Module, optimizer: Optimizer) -> bool:
        """Tell whether two copies fit into the memory; an optimizer without state yet will take twice the model."""
        parameters = sum(tensor.nbytes for tensor in model.parameters())
        values = [value for state in optimizer.state.values() for value in state.values()]
        state = sum(value.nbytes for value in values if isinstance(value, Tensor))
        needed = 2 * (parameters + sum(tensor.nbytes for tensor in model.buffers()) + (state or 2 * parameters))
        if needed > self._most:
            self.switched_off = (
                f"two copies of the state take {needed / 2**20:.0f} MiB, and host_memory_share leaves "
                f"{self._most / 2**20:.0f} MiB"
            )
            return False
        return True

    def _make_room(self) -> None:
        """Give up what is oldest: the older state with its steps; if that is not enough, all of it."""
        newest = max(slot.index for slot in self._slots if slot.whole)
        self._forget_before(newest)
        for slot in self._slots:
            if slot.index < newest:
                slot.whole = False
        if self._bytes + sum(slot.bytes for slot in self._slots) > self._most:
            self._forget_before(newest + self.interval + 1)
            for slot in self._slots:
                slot.whole = False
            self.interval = max(1, self.interval // 2)

    def _forget_before(self, index: int) -> None:
        """Drop the steps that no state leads to any more."""
        self._bytes -= sum(size for step, _, size in self._steps if step.index < index)
        self._steps = [one for one in self._steps if one[0].index >= index]


class _Slot:
    """One copy of the state, in memory that is allocated once."""

    def __init__(self) -> None:
        self.number, self.index, self.whole = -1, -1, False
        self.bytes = 0
        self._copies: dict[str, Tensor] = {}
        self._plain: dict[str, dict[str, Any]] = {}
        self._members: list[list[str]] = []
        self._optimizer = ""
        self._event: Any = None

    def copy(self, model: Module, optimizer: Optimizer, step: Step) -> None:
        """Copy the state that a step begins with; until the end of it the slot is not whole."""
        self.whole, self.number, self.index = False, step.number, step.index
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        sources: dict[str, Tensor] = {f"p.{name}": tensor for name, tensor in model.named_parameters()}
        sources |= {f"b.{name}": tensor for name, tensor in model.named_buffers()}
        self._plain = {}
        for parameter, values in optimizer.state.items():
            name = names.get(id(parameter))
            for key, value in values.items() if name is not None else ():
                if isinstance(value, Tensor):
                    sources[f"o.{name}.{key}"] = value
                else:
                    self._plain.setdefault(str(name), {})[key] = value
        self._members = [[names.get(id(one), "") for one in group["params"]] for group in optimizer.param_groups]
        self._optimizer = f"{type(optimizer).__module__}:{type(optimizer).__qualname__}"
        self._fill({name: tensor.detach() for name, tensor in sources.items()})
        self.whole = True

    def _fill(self, sources: dict[str, Tensor]) -> None:
        """Copy tensors into the slot's own memory, which is made where it is missing."""
        copies = {}
        for name, tensor in sources.items():
            known = self._copies.get(name)
            fits = known is not None and known.shape == tensor.shape and known.dtype == tensor.dtype
            copies[name] = known if fits and known is not None else _host_like(tensor)
        self._copies = copies
        self.bytes = sum(tensor.nbytes for tensor in copies.values())
        on_device = any(tensor.is_cuda for tensor in sources.values())
        with torch.no_grad():
            if on_device:
                self._fill_beside(list(copies.values()), list(sources.values()))
            else:
                torch._foreach_copy_(list(copies.values()), list(sources.values()))

    def _fill_beside(self, copies: list[Tensor], sources: list[Tensor]) -> None:
        """Copy from a device; the next kernels of the training wait for the copy on the device, not on the host."""
        torch._foreach_copy_(copies, sources, non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record()

    def data(self, steps: list[Step], groups: list[list[dict[str, Any]]]) -> SnapshotData:
        """Return the copy as a capsule stores it."""
        if self._event is not None:
            self._event.synchronize()
        state: dict[str, dict[str, Any]] = {name: dict(values) for name, values in self._plain.items()}
        for name, tensor in self._under("o.").items():
            parameter, _, key = name.rpartition(".")
            state.setdefault(parameter, {})[key] = tensor
        return SnapshotData(
            self.number, self._under("p."), self._under("b."), self._optimizer, self._members, state, steps, groups
        )

    def _under(self, prefix: str) -> dict[str, Tensor]:
        return {name[2:]: tensor for name, tensor in self._copies.items() if name.startswith(prefix)}


def _host_like(tensor: Tensor) -> Tensor:
    """Return memory on the host for a tensor; pinned where it comes from a device."""
    return torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)


def _on_host(step: Step) -> Step:
    """Return a copy of a step that lives on: batches and upstream gradients on the host, objects as their names."""
    kept = Step(step.number, [], list(step.clips), step.loss, step.norm, step.scale, step.still_scaled)
    kept.index = step.index
    kept.learning_rates, kept.rows, kept.notes = step.learning_rates, step.rows, list(step.notes)
    for call in step.calls:
        tensors = [tensor.detach().to("cpu").requires_grad_(tensor.requires_grad) for tensor in call.inputs.tensors]
        inputs = Tree(plain_only(call.inputs.structure), tensors)
        outputs = [Output(one.index, [(n, g.to("cpu")) for n, g in one.upstream]) for one in call.differentiable]
        kept.calls.append(
            type(call)(
                inputs,
                tuple(0 if tensor.is_inference() else tensor._version for tensor in tensors),  # noqa: SLF001 -- it has no public name
                call.states,
                call.autocast,
                call.training,
                dict(call.buffers),
                outputs,
                call.output_hashes,
                call.returned,
            )
        )
    return kept


def host_memory(share: float) -> float:
    """Return how many bytes a share of the machine's free memory is."""
    import psutil  # a base dependency, loaded only where snapshots are wanted

    return share * float(psutil.virtual_memory().available)


__all__ = ["SHARE", "Snapshots", "host_memory"]
