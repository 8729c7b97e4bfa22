"""Is this step still sound? The norm of its gradients, and a test for outliers that takes one number per step.

The test is the live form of `analysis.losses`: the distance from the median of the recent past, in units of that
past's own noise, with its bar of eight. It knows the past only and answers at once, so it asks for a little more: a
norm must also be ten times its median, and a loss must stand out against its own tails.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tracer.capture import reductions

#: So many times its noise must a number leave its course; the same bar as `analysis.losses.LOSS_THRESHOLD`.
THRESHOLD = 8.0
#: A norm has to be this many times its median as well; the same as in `analysis.gradients.norm_anomalies`.
NORM_RATIO = 10.0
#: Before so many numbers nothing is known of their noise: the first steps of a training leap anyway.
_FEWEST = 24
_WINDOW = 64
#: The quartiles of a normal distribution lie this many standard deviations apart.
_QUARTILES_TO_SIGMA = 1.349
#: A change of less than eight per cent is no finding, however quiet the series is.
_RELATIVE_FLOOR = 0.01
#: A noise with heavy tails raises its own bar: so many times what one number in twenty exceeds.
_TAIL_FACTOR, _TAIL_QUANTILE = 4.0, 0.95
#: What is this many times the bar on the plain scale stands out, whatever the logarithmic scale says.
_PLAIN_FACTOR = 3.0


class Outliers:
    """Tells of each number whether it is an outlier upwards against those before; numbers that are not finite are not.

    Args:
        ratio: How many times the median an outlier has to be as well; None asks for no ratio, as for a loss.

    Example:
        >>> spikes = Outliers()
        >>> [spikes.score(1.0 + 0.01 * (step % 7)) for step in range(60)].count(None)
        60
        >>> spikes.score(4.0) > THRESHOLD
        True
    """

    __slots__ = ("_bars", "_bars_sorted", "_order", "_ratio", "_sorted", "median")

    def __init__(self, ratio: float | None = None) -> None:
        self._ratio = ratio
        self._order: deque[float] = deque()
        self._sorted: list[float] = []
        self._bars: deque[float] = deque()
        self._bars_sorted: list[float] = []
        self.median = math.nan

    def score(self, value: float) -> float | None:
        """Take the next number; return how many times its noise it lies above its course if that is too many.

        Args:
            value: The number.

        Returns:
            The distance in units of the noise, None for a number like the others.
        """
        if not math.isfinite(value):
            return None
        found = self._judge(value) if len(self._order) >= _FEWEST else None
        _slide(self._order, self._sorted, value)
        return found

    def _judge(self, value: float) -> float | None:
        """Compare a number with the past."""
        past = self._sorted
        self.median = past[len(past) // 2]
        if self._ratio is not None and value <= self._ratio * self.median:
            return None  # the usual case of a norm: nothing more is computed
        distance = self._distance(value)
        usual = self._tail()
        _slide(self._bars, self._bars_sorted, abs(distance))
        return distance if distance > max(THRESHOLD, usual) else None

    def _distance(self, value: float) -> float:
        """Return the distance from the course in units of the noise, on the scale that asks for more."""
        past = self._sorted
        low, high = past[len(past) // 4], past[3 * len(past) // 4]
        # The quartiles include the trend of the window, so a falling loss has a little more room.
        scale = max((high - low) / _QUARTILES_TO_SIGMA, _RELATIVE_FLOOR * abs(self.median), _tiny(past))
        plain = (value - self.median) / scale
        if past[0] <= 0.0 or value <= 0.0:
            return plain
        noise = max(math.log(high / low) / _QUARTILES_TO_SIGMA, _RELATIVE_FLOOR)
        logarithmic = math.log(value / self.median) / noise
        if self._ratio is not None:
            return logarithmic
        return math.copysign(max(min(abs(logarithmic), abs(plain)), abs(plain) / _PLAIN_FACTOR), plain)

    def _tail(self) -> float:
        """Return the bar that the noise's own tails ask for."""
        if self._ratio is not None or len(self._bars_sorted) < _FEWEST:
            return 0.0
        return _TAIL_FACTOR * self._bars_sorted[int(_TAIL_QUANTILE * (len(self._bars_sorted) - 1))]


def _tiny(past: Sequence[float]) -> float:
    """Return the smallest scale that can be divided by."""
    return max(abs(past[0]), abs(past[-1])) * 1e-12 or 1e-300


def _slide(order: deque[float], ordered: list[float], value: float) -> None:
    """Put a number into a window that is kept in both orders, and the oldest out."""
    if len(order) >= _WINDOW:
        del ordered[bisect_left(ordered, order.popleft())]
    order.append(value)
    insort(ordered, value)


def gradient_norm(gradients: Sequence[Tensor]) -> Tensor | float:
    """Return the 2-norm of all gradients together: a number on the CPU, a tensor that nobody waits for on a device.

    The 2-norm alone tells whether anything is not finite; asking each element costs fifteen times as much.

    Args:
        gradients: Of any kind and device.

    Returns:
        The norm, 0 without gradients.

    Example:
        >>> float(gradient_norm([torch.tensor([3.0]), torch.tensor([4.0])]))
        5.0
    """
    if all(map(_is_usual, gradients)):
        return reductions.total_norm(gradients)
    dense = [one for gradient in gradients if (one := reductions.plain(gradient.detach())) is not None and one.numel()]
    if not dense:
        return 0.0
    if all(tensor.device.type == "cpu" for tensor in dense):
        return reductions.total_norm(dense)
    return _on_devices(dense)


def _is_usual(gradient: Tensor) -> bool:
    """Tell whether a gradient is what nearly all are on a CPU: a plain tensor of real numbers without a graph."""
    return (
        gradient.is_cpu
        and gradient.layout is torch.strided
        and gradient.dtype.is_floating_point
        and type(gradient) is Tensor
        and not gradient.requires_grad
    )


def _on_devices(tensors: Sequence[Tensor]) -> Tensor:
    """Return the norm on the device of the first tensor."""
    by_kind: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        by_kind.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    target = tensors[0].device
    norms = [
        norm.to(target, torch.float32, non_blocking=True)
        for (_, dtype), several in by_kind.items()
        # Half precision would overflow in its own squares; wider than float32 there is nothing to win.
        for norm in torch._foreach_norm(several, 2, dtype=torch.float32 if dtype.itemsize < 4 else None)  # noqa: SLF001, PLR2004 -- the fused form has no public name; four bytes
    ]
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return total


class Late:
    """A number on a device, on its way to the host: asked for later, never waited for.

    Args:
        value: A tensor of one element.
    """

    __slots__ = ("_event", "_host")

    def __init__(self, value: Tensor) -> None:
        self._event: Any = None
        self._host = value.detach().clone() if value.device.type != "cuda" else value
        if value.device.type == "cuda":
            self._host = torch.empty((), dtype=value.dtype, pin_memory=True)
            with torch.cuda.device(value.device):
                self._host.copy_(value.detach().reshape(()), non_blocking=True)
                self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                self._event.record()

    def arrived(self) -> bool:
        """Tell whether `value` returns without waiting."""
        return self._event is None or bool(self._event.query())

    def value(self) -> float:
        """Return the number; waits where it has to."""
        if self._event is not None:
            self._event.synchronize()
        return float(self._host)


def chosen_mode(check: str, device: torch.device, *, user_waits: bool) -> str:
    """Return when the norm is read: `sync` or `delayed`.

    Args:
        check: The setting: `auto`, `sync` or `delayed`.
        device: Where the gradients lie.
        user_waits: Whether the user's own loop waits for the device at each step.
    """
    if check != "auto":
        return check
    return "sync" if device.type == "cpu" or user_waits else "delayed"


def suspected_rows(upstream: Sequence[Tensor], *, most: int = 3, times: float = 5.0) -> list[int]:
    """Return the rows of a batch whose gradient at the output is far larger than that of the others, largest first.

    Args:
        upstream: ∂L/∂out of the step's calls; dimension 0 is the row.
        most: How many rows at most.
        times: How many times the median of all rows.

    Example:
        >>> suspected_rows([torch.tensor([[1.0], [1.0], [40.0], [1.0]])])
        [2]
    """
    for gradient in upstream:
        if gradient.dim() and gradient.shape[0] > 1 and gradient.layout == torch.strided:
            norms = torch.linalg.vector_norm(gradient.detach().reshape(gradient.shape[0], -1).float(), dim=1)
            usual = float(norms.median())
            order = norms.argsort(descending=True)[:most].tolist()
            return [row for row in order if not float(norms[row]) <= times * usual]
    return []


__all__ = ["NORM_RATIO", "THRESHOLD", "Late", "Outliers", "chosen_mode", "gradient_norm", "suspected_rows"]
