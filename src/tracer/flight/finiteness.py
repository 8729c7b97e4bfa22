"""Which tensors hold NaN or Inf, where, and what range the rest has.

The first look must be cheap, for it is taken at every result: a sum is NaN or Inf when anything in it is, and is far
faster than testing each element. Only what looks suspicious is examined.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

_SHORT = (torch.float16, torch.bfloat16)
_MAX_ROWS = 1 << 20
_POSITIONS = 5


class Bad(NamedTuple):
    """Which values that are not finite a tensor holds."""

    nan: bool
    positive: bool  # +Inf
    negative: bool  # -Inf

    def __or__(self, other: Bad) -> Bad:
        """Return what either holds."""
        return Bad(self.nan or other.nan, self.positive or other.positive, self.negative or other.negative)

    @property
    def infinite(self) -> bool:
        """Whether there is an Inf of either sign."""
        return self.positive or self.negative

    def __str__(self) -> str:
        if self.nan:
            return "NaN"
        if self.positive and self.negative:
            return "Inf and -Inf"
        return "Inf" if self.positive else "-Inf"


FINE = Bad(nan=False, positive=False, negative=False)


def examine(tensor: Tensor) -> Bad:
    """Return what a tensor holds that is not finite."""
    values = numbers(tensor)
    if values is None or not _suspicious(values):
        return FINE
    low, high = _extremes(values)
    nan = math.isnan(low)
    if nan:  # the extremes of what has NaN are NaN; testing each element for Inf takes ten times as long as this
        low, high = _extremes(torch.nan_to_num(values, nan=0.0, posinf=math.inf, neginf=-math.inf))
    return Bad(nan, high == math.inf, low == -math.inf)


def numbers(tensor: Tensor) -> Tensor | None:
    """Return a tensor's values as real numbers that can be tested, None when it has none."""
    if tensor.device.type == "meta" or tensor.is_quantized:
        return None
    tensor = stored(tensor.detach())
    if tensor.is_nested or tensor.layout != torch.strided or not tensor.numel():
        return None
    if tensor.is_complex():
        return torch.view_as_real(tensor.resolve_conj())
    if not tensor.is_floating_point():
        return None
    return tensor.float() if tensor.element_size() == 1 else tensor


def stored(tensor: Tensor) -> Tensor:
    """Return the dense tensor that holds the values of a sparse or jagged one; any other as it is."""
    if tensor.layout == torch.sparse_coo:
        return tensor._values()  # noqa: SLF001 -- `values` wants a coalesced tensor, which may cost a sort
    if tensor.layout in {torch.sparse_csr, torch.sparse_csc, torch.jagged}:
        return tensor.values()
    return tensor


def _suspicious(values: Tensor) -> bool:
    """Take the first look: False is certain."""
    if values.dtype in _SHORT:  # their sum is slow when it is taken in float32, and overflows when it is not
        return not all(map(math.isfinite, _extremes(values)))
    return not math.isfinite(values.sum().item())


def _extremes(values: Tensor) -> tuple[float, float]:
    """Return the lowest and highest value; NaN twice when there is one."""
    low, high = torch.aminmax(values)
    return low.item(), high.item()


def describe(tensor: Tensor, name: str = "") -> dict[str, Any]:
    """Return a tensor's shape, type, range of finite values, and how many are not finite."""
    facts: dict[str, Any] = {
        "name": name,
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "min": None,
        "max": None,
        "nonfinite": 0,
    }
    values = numbers(tensor)
    if values is None:
        return facts
    if _suspicious(values):
        finite = values[torch.isfinite(values)]
        facts["nonfinite"] = values.numel() - finite.numel()
        values = finite
    if values.numel():
        facts["min"], facts["max"] = _extremes(values)
    return facts


def mask(tensor: Tensor, *, nans: bool = False) -> Tensor | None:
    """Return where a dense tensor is not finite, or only where it is NaN."""
    values = numbers(tensor)
    if values is None or tensor.layout != torch.strided:
        return None
    bad = torch.isnan(values) if nans else ~torch.isfinite(values)
    return bad.any(-1) if tensor.is_complex() else bad


def rows(bad: Tensor) -> tuple[int, ...]:
    """Return which entries of the first dimension hold something bad."""
    if not bad.dim() or bad.shape[0] > _MAX_ROWS:
        return ()
    return tuple(bad.reshape(bad.shape[0], -1).any(1).nonzero().flatten().tolist())


def rough_rows(tensor: Tensor) -> tuple[int, ...]:
    """Return what `rows` does of a bad tensor, at the cost of a sum; a row of huge values may be among them."""
    values = numbers(tensor)
    if values is None or tensor.layout != torch.strided or not tensor.dim() or tensor.shape[0] > _MAX_ROWS:
        return ()
    sums = values.reshape(tensor.shape[0], -1).sum(1)
    return tuple((~torch.isfinite(sums)).nonzero().flatten().tolist())


def positions(bad: Tensor) -> tuple[tuple[int, ...], ...]:
    """Return the first few places of what is bad."""
    return tuple(tuple(place) for place in bad.nonzero()[:_POSITIONS].tolist())


__all__ = ["FINE", "Bad", "describe", "examine", "mask", "numbers", "positions", "rough_rows", "rows", "stored"]
