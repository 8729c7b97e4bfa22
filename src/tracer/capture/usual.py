"""The usual training: one optimizer holds all that is watched, and every gradient is there, plain, and on the CPU.

What does not change from step to step is prepared, and the native kernel writes the record itself: between the kernels
of a real step nothing of ours is in the caches, and Python would take longer than the reduction.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tracer.capture import native, tables
from tracer.capture.parameters import Held
from tracer.events import Axis


class UsualGradients:
    """Reads the gradients of the same parameters again and again.

    Args:
        held: The parameters of an optimizer, and their order among the layers.
        axis: The layers.
    """

    __slots__ = ("_expected", "_layers", "_parameters", "axis")

    def __init__(self, held: Held, axis: Axis) -> None:
        self.axis, self._parameters = axis, held.parameters
        places = [0] * len(held.parameters)
        for column, at in enumerate([] if held.order is None else held.order.tolist()):
            places[at] = column
        self._expected = [(parameter.dtype, parameter.numel()) for parameter in held.parameters]
        types = [tables.NATIVE_TYPES[dtype] for dtype, _ in self._expected]
        self._layers = native.Layers([size for _, size in self._expected], types, places)

    @classmethod
    def of(cls, held: Held, axis: Axis) -> UsualGradients | None:
        """Return what reads these parameters' gradients; None where this is not the usual case."""
        if held.order is None or not native.available():
            return None
        known = all(parameter.is_cpu and parameter.dtype in tables.NATIVE_TYPES for parameter in held.parameters)
        return cls(held, axis) if known else None

    def read(self, scale: Tensor | None) -> tuple[bytes, float] | None:
        """Return the statistics and the norm of all gradients; None when one of them is not as usual today."""
        gradients = [parameter.grad for parameter in self._parameters]
        if not all(map(_is_as, gradients, self._expected)):
            return None
        addresses = list(map(Tensor.data_ptr, gradients))  # type: ignore[arg-type]  # none of them is missing
        return self._layers.read(addresses, 1.0 if scale is None else float(scale)) if all(addresses) else None


def _is_as(gradient: Tensor | None, expected: tuple[torch.dtype, int]) -> bool:
    """Tell whether a gradient is there, on the CPU, its values follow each other, and it is what was prepared for.

    A model may be converted, moved or resized in place meanwhile: its parameters are the same objects then.
    """
    return (
        type(gradient) is Tensor
        and gradient.is_cpu
        and (gradient.dtype, gradient.numel()) == expected
        and gradient.layout is torch.strided
        and gradient.is_contiguous()
        and not gradient.is_neg()
    )


__all__ = ["UsualGradients"]
