"""What one module does in a step: statistics of its outputs, of the gradient that reaches them, of its weights'."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from tracer.flight.anomaly import norm_of
from tracer.flight.digests import clean_name
from tracer.flight.rerun import Rerun
from tracer.flight.steps import Step
from tracer.flight.trees import tree


@dataclass(frozen=True, slots=True)
class Stats:
    """What a probe says of a tensor's values."""

    minimum: float
    maximum: float
    mean: float
    deviation: float
    nonfinite: int
    elements: int


@dataclass(frozen=True, slots=True)
class Probe:
    """What one module did in one step; a module without parameters has no gradient norm."""

    step: int
    outputs: Stats | None
    upstream: Stats | None  # of the gradient that reached its output
    gradient_norm: float | None
    loss: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the probe as a document."""
        return asdict(self)


class Listening:
    """Listens to one module, as long as the block lasts.

    Args:
        root: The model.
        module: The module's name in it.
    """

    def __init__(self, root: nn.Module, module: str) -> None:
        self._root, self._name = root, module
        self._outputs: list[Tensor] = []
        self._upstream: list[Tensor] = []
        self._handle: Any = None

    def __enter__(self) -> Self:
        module = next(one for name, one in self._root.named_modules() if clean_name(name) == self._name)
        self._handle = module.register_forward_hook(self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _heard(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:  # noqa: ARG002 -- torch's
        for tensor in tree(output).tensors:
            if tensor.is_floating_point():
                self._outputs.append(tensor.detach().clone())
                if tensor.requires_grad:
                    tensor.register_hook(self._upstream.append)  # type: ignore[no-untyped-call]  # torch's own

    def probe(self, step: Step, result: Rerun) -> Probe:
        """Return what was heard."""
        prefix = f"{self._name}." if self._name else ""
        own = [gradient for name, gradient in result.gradients.items() if clean_name(name).startswith(prefix)]
        return Probe(step.number, stats(self._outputs), stats(self._upstream), norm_of(own) if own else None, step.loss)


def stats(tensors: list[Tensor]) -> Stats | None:
    """Return statistics of the finite values of tensors; None where there are no tensors."""
    if not tensors:
        return None
    values = torch.cat([tensor.detach().flatten().double().cpu() for tensor in tensors])
    finite = values[values.isfinite()]
    if not finite.numel():
        nothing = float("nan")
        return Stats(nothing, nothing, nothing, nothing, values.numel(), values.numel())
    return Stats(
        float(finite.min()),
        float(finite.max()),
        float(finite.mean()),
        float(finite.std(correction=0)),
        values.numel() - finite.numel(),
        values.numel(),
    )


__all__ = ["Listening", "Probe", "Stats", "stats"]
