"""The last steps in memory: a few of them, and at most so many bytes of batches."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from tracer.flight.steps import Call, Step
from tracer.flight.trees import Slot, Tree, plain_only

#: Of a large tensor these bytes at the beginning name it well enough.
_HASHED_BYTES = 65_536


class Ring:
    """Keeps the last steps; old batches are given up when they take too much memory.

    Args:
        length: How many steps.
        most_bytes: How many bytes of batches, on an accelerator counted in full.

    Example:
        >>> ring = Ring(2, 1000)
        >>> for number in range(3):
        ...     ring.push(Step(number))
        >>> [step.number for step in ring]
        [1, 2]
    """

    def __init__(self, length: int, most_bytes: float) -> None:
        self._steps: deque[tuple[Step, int]] = deque()
        self._length, self._most = length, most_bytes
        self.bytes = 0

    def push(self, step: Step) -> None:
        """Take a step that is over; the oldest goes."""
        size = batch_bytes(step)
        self._steps.append((step, size))
        self.bytes += size
        while len(self._steps) > self._length:
            self.bytes -= self._steps.popleft()[1]
        if self.bytes > self._most:
            self._give_up_batches()

    def _give_up_batches(self) -> None:
        """Reduce the oldest batches to shape and hash until the rest fits."""
        for place, (step, size) in enumerate(self._steps):
            if self.bytes <= self._most:
                return
            if size:
                reduce(step)
                self._steps[place] = (step, 0)
                self.bytes -= size

    def last(self) -> Step | None:
        """Return the newest step."""
        return self._steps[-1][0] if self._steps else None

    def clear(self) -> None:
        """Forget everything."""
        self._steps.clear()
        self.bytes = 0

    def __iter__(self) -> Iterator[Step]:
        """Give the steps, oldest first."""
        return iter([step for step, _ in self._steps])

    def __len__(self) -> int:
        """Return how many steps are kept."""
        return len(self._steps)


def batch_bytes(step: Step) -> int:
    """Return how many bytes the inputs of a step take."""
    return sum([one.nbytes for call in step.calls for one in call.inputs.tensors if one.layout is torch.strided])


def strip(step: Step) -> None:
    """Let go of everything that belongs to the step alone: upstream gradients, buffers, objects we do not know."""
    for call in step.calls:
        for output in call.differentiable:
            output.upstream = []
        call.buffers = {}
        args, kwargs = call.inputs.structure
        if kwargs or any(type(one) is not Slot for one in args):
            call.inputs = Tree(plain_only(call.inputs.structure), call.inputs.tensors)
    for clip in step.clips:
        clip.total_norm = None


def reduce(step: Step) -> None:
    """Give up a step's batch; its shapes and a hash stay."""
    inputs = [tensor for call in step.calls for tensor in call.inputs.tensors]
    step.shapes = tuple(f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}" for tensor in inputs)
    step.batch_hash = _hash(inputs)
    step.calls = list[Call]()


def _hash(tensors: list[Tensor]) -> str | None:
    """Return a short hash of a batch on the CPU; a device is not waited for."""
    total = 0
    for tensor in tensors:
        if tensor.device.type != "cpu" or tensor.layout != torch.strided:
            return None
        start = tensor.detach().reshape(-1)[: max(1, _HASHED_BYTES // max(tensor.element_size(), 1))].contiguous()
        total = zlib.crc32(bytes(start.view(torch.uint8).numpy()) if start.numel() else b"", total)
    return f"{total:08x}" if tensors else None


__all__ = ["Ring", "batch_bytes", "reduce", "strip"]
