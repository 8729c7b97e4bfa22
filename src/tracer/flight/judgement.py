"""Is a step sound? The numbers of one step, put together and judged when they are known: at once, or a step later."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from tracer.capture.clipping import Clipped
from tracer.flight.checks import NORM_RATIO, Late, Outliers, gradient_norm, suspected_rows
from tracer.flight.holdings import Held
from tracer.flight.responses import EXPLOSION, NAN_OR_INF, SPIKE, Anomaly
from tracer.flight.steps import Clip, Step

_LAYERS_TOLD = 5


class Judge:
    """Knows what is usual in one training, and says of each step what is not."""

    def __init__(self) -> None:
        self._norms: dict[float, Outliers] = {}
        self._losses = Outliers()
        self._standing: dict[str, int] = {}  # kind → the last step that had it: one trouble is one anomaly

    def norm(self, step: Step, norm: float, norm_type: float = 2.0) -> Anomaly | None:
        """Judge the norm of a step's gradients."""
        step.norm = norm
        if not math.isfinite(norm):
            text = f"The gradients are not finite: their norm is {_said(norm)}."
            return self._once(Anomaly(NAN_OR_INF, step, text, norm))
        outliers = self._norms.get(norm_type)
        if outliers is None:
            outliers = self._norms[norm_type] = Outliers(NORM_RATIO)
        score = outliers.score(norm)
        if score is None:
            return None
        times = norm / outliers.median
        text = f"The norm of the gradients is {norm:.4g}, {times:.3g} times its median of {outliers.median:.4g}."
        details = {"z_score": score, "ratio": times}
        return self._once(Anomaly(EXPLOSION, step, text, norm, details=details))

    def loss(self, step: Step, loss: float, *, returned: bool) -> Anomaly | None:
        """Judge a loss: as the model returned it, or as the program logged it after the step before."""
        where = "that the model returned" if returned else "that was logged last"
        if returned:
            step.loss = loss
        if not math.isfinite(loss):
            text = f"The loss {where} is {_said(loss)}."
            found = Anomaly(NAN_OR_INF, step, text, loss, from_gradients=False, exact=returned, late=not returned)
            return self._once(found)
        score = self._losses.score(loss)
        if score is None:
            return None
        text = f"The loss {where} is {loss:.4g}, far above its course of {self._losses.median:.4g}."
        details = {"z_score": score, "window_mean": self._losses.median}
        found = Anomaly(SPIKE, step, text, loss, from_gradients=False, exact=returned, late=not returned)
        found.details.update(details)
        return self._once(found)

    def is_standing(self, anomaly: Anomaly) -> bool:
        """Tell whether an anomaly only goes on with what was reported before."""
        return bool(anomaly.details.get("goes_on"))

    def _once(self, anomaly: Anomaly) -> Anomaly:
        """Mark an anomaly that follows another of its kind: it is acted upon, but not told again."""
        last = self._standing.get(anomaly.kind)
        self._standing[anomaly.kind] = anomaly.step.index
        if last is not None and anomaly.step.index - last <= 1:
            anomaly.details["goes_on"] = True
        return anomaly


class ClipNotes:
    """The clippings since the last step, and the norm they found for nothing."""

    def __init__(self) -> None:
        self._clips: list[tuple[Clipped, frozenset[int]]] = []
        self._last: tuple[list[Tensor], frozenset[int], tuple[str, ...]] = ([], frozenset(), ())
        self.waits = False  # whether the user's own loop waits for the device at each step

    def add(self, clip: Clipped, names: Mapping[int, str]) -> Clip | None:
        """Take a clipping; return the record of it, None if it was not of parameters that have a name."""
        known, ids, called = self._last
        # Most programs clip the same parameters at each step.
        if len(known) != len(clip.parameters) or not all(map(operator.is_, known, clip.parameters)):
            ids = frozenset([id(one) for one in clip.parameters if id(one) in names])
            called = tuple([names[id(one)] for one in clip.parameters if id(one) in names])
            self._last = (clip.parameters, ids, called)
        if not ids:
            return None
        self._clips.append((clip, ids))
        self.waits = self.waits or clip.waits
        return Clip(clip.kind, clip.limit, clip.norm_type, called, clip.total_norm)

    def clear(self) -> None:
        """Forget them: the step is over."""
        self._clips.clear()

    def forget(self) -> None:
        """Let go of the parameters too."""
        self._clips.clear()
        self._last = ([], frozenset(), ())

    def norm(self, wanted: frozenset[int]) -> tuple[Tensor, float] | None:
        """Return the norm of all wanted parameters and its type, if the first clipping has seen each of them."""
        if not self._clips:
            return None
        clip, ids = self._clips[0]  # a later one sees what this one left
        if clip.total_norm is None or not wanted <= ids:
            return None
        return clip.total_norm, clip.norm_type


class Pending:
    """A step whose numbers are still on the device.

    Args:
        step: The step, with all that a replay of it needs.
        norm: Its norm, on the way.
        norm_type: Which norm.
        optimizer: Whose step it was.
        scaled: Whether a GradScaler skips what overflows, so that it is no anomaly.
        exact: Whether the parameters stay as they were if the norm is not finite.
    """

    __slots__ = ("exact", "norm", "norm_type", "optimizer", "scale", "scaled", "step")

    def __init__(
        self,
        step: Step,
        norm: Late,
        norm_type: float,
        optimizer: Callable[[], Optimizer | None],
        scale: Late | None,
        *,
        scaled: bool,
        exact: bool,
    ) -> None:
        self.step, self.norm, self.norm_type, self.optimizer = step, norm, norm_type, optimizer
        self.scale, self.scaled, self.exact = scale, scaled, exact

    def arrived(self) -> bool:
        """Tell whether the numbers are there."""
        return self.norm.arrived()


def norm_for_nothing(
    held: Held, clips: ClipNotes, norms: Callable[[], float | None] | None
) -> tuple[Tensor | float, float] | None:
    """Return the norm of the gradients and its type where somebody knows it: the user's clipping, or the watcher."""
    clipped = clips.norm(held.ids)
    if clipped is not None:
        return clipped
    measured = norms() if norms is not None else None
    return None if measured is None else (measured, 2.0)


def details_of(named: Sequence[tuple[str, Tensor]], step: Step) -> dict[str, Any]:
    """Return what helps to understand a step whose numbers are finite but wrong: the largest layers, suspected rows."""
    norms = {name: float(gradient_norm([parameter.grad])) for name, parameter in named if parameter.grad is not None}
    largest = sorted(norms, key=lambda name: -norms[name] if math.isfinite(norms[name]) else -math.inf)[:_LAYERS_TOLD]
    upstream = [gradient for call in step.calls for output in call.differentiable for _, gradient in output.upstream]
    return {"layers": {name: norms[name] for name in largest}, "rows": suspected_rows(upstream)}


def flag_of(norm: Tensor | float, device: torch.device) -> Tensor:
    """Return 1.0 where a norm is not finite, on a device, without waiting for it."""
    if isinstance(norm, Tensor):
        return (~torch.isfinite(norm)).to(device, torch.float32).reshape(())
    return torch.tensor(0.0 if math.isfinite(norm) else 1.0, device=device)


def _said(value: float) -> str:
    """Return a number that is not finite as people write it."""
    return "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf"


__all__ = ["ClipNotes", "Judge", "Pending", "details_of", "flag_of", "norm_for_nothing"]
