"""Where finite values first become far larger: what lies behind an explosion of loss or gradients.

An operation's growth is the largest magnitude of its result over that of its inputs, weights left aside, less what
adding up many values explains. In a backward pass only gradients count as inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tracer.flight.bad_values import storage
from tracer.flight.finiteness import describe, numbers
from tracer.flight.looking import argument_names, rows_of
from tracer.flight.operations import Operation, operation, tensors
from tracer.flight.rerun import Phases
from tracer.flight.trees import Tree
from tracer.flight.whereabouts import Place, Whereabouts

#: Below this a growth is no jump: layers of a healthy model multiply by numbers of this kind.
_JUMP = 100.0
#: In a forward pass a result below this is no explosion, however small its inputs were: norms do that.
_LARGE = 100.0
#: A row of the batch whose largest value is this much above the median row's stands out.
_OUTSTANDING = 100.0
_CONTRACTIONS = frozenset({"mm", "addmm", "bmm", "baddbmm", "convolution"})


@dataclass(slots=True, eq=False)
class Jump:
    """An operation whose result is far larger than its inputs, or (without an operation) rows that stand out."""

    growth: float
    before: float
    after: float
    op: Operation | None
    place: Place | None
    name: str
    call: int
    rows: tuple[int, ...]
    shape: tuple[int, ...]
    inputs: tuple[dict[str, Any], ...]


class Growth(TorchDispatchMode, Phases):  # type: ignore[no-untyped-call]
    """Measures every operation's growth."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.jumps: list[Jump] = []
        self._whereabouts = Whereabouts(model)
        self._weights = {storage(one): name for name, one in (*model.named_parameters(), *model.named_buffers())}
        self._gradients: set[int] = set()
        self.batch: dict[int, int] = {}  # rows per call
        self._model, self._call = model, 0
        self._paused = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Say that nothing is compiled while this watches: torch's guard against it costs time at every operation."""
        return False

    def __enter__(self) -> Self:
        self._whereabouts.start()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: object) -> None:
        self._whereabouts.stop()
        super().__exit__(*exception)  # type: ignore[no-untyped-call]

    def first(self) -> Jump | None:
        """Return the first jump that is of the order of the largest."""
        if not self.jumps:
            return None
        enough = math.sqrt(max(jump.growth for jump in self.jumps))
        return next(jump for jump in self.jumps if jump.growth >= enough)

    def before_call(self, number: int, inputs: Tree) -> None:
        """Look for rows of the batch that are far larger than the others."""
        self._call, self._paused = number, True
        self.batch[number] = rows_of(inputs)
        for tensor, name in zip(inputs.tensors, argument_names(self._model, inputs), strict=True):
            self._weights.pop(storage(tensor), None)
            jump = self._outstanding(tensor, name)
            if jump is not None:
                self.jumps.append(jump)
        self._paused = False

    def before_backward(self, outputs: Sequence[Tensor], gradients: Sequence[Tensor], calls: Sequence[int]) -> None:  # noqa: ARG002 -- a watcher's
        """Take the pass's first gradients."""
        self._call = calls[-1]
        self._gradients = {storage(one) for one in gradients}

    def _outstanding(self, tensor: Tensor, name: str) -> Jump | None:
        """Return the rows of an input that stand out."""
        values = numbers(tensor)
        if values is None or values.dim() == 0 or values.shape[0] < 3:  # noqa: PLR2004 -- a median wants some
            return None
        sizes = values.abs().reshape(values.shape[0], -1).amax(1).float()
        middle, largest = float(sizes.median()), float(sizes.max())
        if not math.isfinite(largest) or largest <= _OUTSTANDING * middle or not middle:
            return None
        rows = tuple((sizes > _OUTSTANDING * middle).nonzero().flatten().tolist())
        facts = (describe(tensor, name),)
        return Jump(largest / middle, middle, largest, None, None, name, self._call, rows, tuple(tensor.shape), facts)

    def __torch_dispatch__(self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Any = None) -> Any:  # noqa: ANN401 -- as torch calls it
        """Run an operation and compare its result with its inputs."""
        result = func(*args, **(kwargs or {}))
        nature = operation(func)
        if self._paused or nature.view or nature.unset:
            return result
        self._whereabouts.note()
        read = [one for one in tensors([*args, *(kwargs or {}).values()]) if storage(one) not in self._weights]
        backward = torch._C._current_autograd_node() is not None  # noqa: SLF001 -- torch has no other door to it
        made = list(tensors(result))
        if backward:
            read = [one for one in read if storage(one) in self._gradients]
            keep = self._gradients.update if read else self._gradients.difference_update
            keep({storage(one) for one in made})
        if made and read and not nature.writes:
            self._compare(nature, args, read, made[0], backward=backward)
        return result

    def _compare(
        self, nature: Operation, args: Sequence[Any], read: list[Tensor], made: Tensor, *, backward: bool
    ) -> None:
        """Keep an operation if it is a jump."""
        before, after = max(map(_largest, read)), _largest(made)
        if not before or not math.isfinite(after):
            return
        growth = after / before / _summed(nature, args, read[0], made)
        if growth < _JUMP or (after < _LARGE and not backward):
            return
        place = self._whereabouts.here()
        values = numbers(made)
        rows: tuple[int, ...] = ()
        if values is not None and values.dim():
            sizes = values.abs().reshape(values.shape[0], -1).amax(1)
            rows = tuple((sizes > after / 10).nonzero().flatten().tolist())
        facts = tuple(describe(one, self._weights.get(storage(one), "")) for one in tensors(list(args)))
        self.jumps.append(Jump(growth, before, after, nature, place, "", self._call, rows, tuple(made.shape), facts))


def _largest(tensor: Tensor) -> float:
    """Return the largest magnitude; 0 for what is not numbers."""
    values = numbers(tensor)
    if values is None:
        return 0.0
    low, high = torch.aminmax(values)
    return max(-float(low), float(high))


def _summed(nature: Operation, args: Sequence[Any], read: Tensor, made: Tensor) -> float:
    """Return the growth that adding up many values explains."""
    if nature.base == "convolution":
        weight: Tensor = args[1]
        return math.sqrt(max(weight.numel() / weight.shape[0], 1))
    if nature.base in _CONTRACTIONS:
        left: Tensor = args[1] if nature.base in {"addmm", "baddbmm"} else args[0]
        return math.sqrt(max(left.shape[-1], 1))
    return max(read.numel() / max(made.numel(), 1), 1.0)


__all__ = ["Growth", "Jump"]
