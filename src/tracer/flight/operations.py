"""What is known of an operation before it runs: what it overwrites, and how its results come to be infinite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tracer.flight.finiteness import FINE, Bad, examine

# They make memory without setting it: what is found there is nobody's result.
_UNSET = frozenset({"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "resize_", "resize"})
# What they write does not depend on what was there.
_OVERWRITES = frozenset({"copy_", "fill_", "zero_", "normal_", "uniform_", "random_", "exponential_", "bernoulli_"})
# Their value or slope is infinite at some finite place; all others give Inf only for want of range.
_POLES = frozenset({
    "div", "reciprocal", "log", "log2", "log10", "log1p", "rsqrt", "pow", "atanh", "logit", "digamma", "lgamma",
    "special_zeta", "tan", "erfinv", "xlogy", "cholesky_inverse", "linalg_inv_ex", "linalg_solve_triangular",
    "_ctc_loss",
})  # fmt: skip
# They take -Inf for "leave this out"; a row in which everything is left out is their own NaN.
_LEAVES_OUT = ("softmax", "logsumexp", "logcumsumexp", "scaled_dot_product", "efficient_attention", "flash_attention")


class Operation(NamedTuple):
    """An operation's nature."""

    name: str  # as in `aten.log.default`
    base: str  # as in `log`
    view: bool  # its result is another look at its input
    writes: tuple[int | str, ...]  # places and names of the arguments that it changes
    reads: bool  # what it changes had a say in the result
    unset: bool
    pointwise: bool
    random: bool

    @property
    def pole(self) -> bool:
        """Whether finite numbers can give an Inf without being large."""
        return self.base.rstrip("_") in _POLES or "backward" in self.base

    @property
    def leaves_out(self) -> bool:
        """Whether -Inf among its inputs means that something is masked."""
        return any(part in self.base for part in _LEAVES_OUT)


@cache
def operation(func: Any) -> Operation:  # noqa: ANN401 -- an OpOverload, of which torch ships no type
    """Return the nature of what a dispatch mode was given."""
    schema = func._schema  # noqa: SLF001 -- torch has no other door to it
    base = schema.name.rpartition("::")[2]
    arguments = [
        argument.name if argument.kwarg_only else place
        for place, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    aliases = any(result.alias_info is not None for result in schema.returns)
    return Operation(
        name=str(func),
        base=base,
        view=(aliases and not arguments) or base == "_unsafe_view",  # it does not say that it is one
        writes=tuple(arguments),
        reads=base not in _OVERWRITES and "out" not in arguments,
        unset=base in _UNSET,
        pointwise=torch.Tag.pointwise in func.tags,
        random=torch.Tag.nondeterministic_seeded in func.tags,
    )


def tensors(values: object) -> Iterator[Tensor]:
    """Yield the tensors among arguments or results, also those in lists."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from tensors(value)


def written(nature: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Return the tensors that an operation will change."""
    found: list[Tensor] = []
    for key in nature.writes:
        held = kwargs.get(key) if isinstance(key, str) else args[key] if key < len(args) else None
        found.extend(tensors(held))
    return found


def written_numbers(args: Sequence[Any], kwargs: Mapping[str, Any]) -> set[Bad]:
    """Return what bad results the Python numbers among the arguments stand for: somebody wrote those there."""
    numbers = [one for one in (*args, *kwargs.values()) if isinstance(one, float) and not math.isfinite(one)]
    return {Bad(math.isnan(one), one == math.inf, one == -math.inf) for one in numbers}


def fits_wider(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Tell whether the same operation on the same numbers in double precision stays finite."""

    def wide(value: Any) -> Any:  # noqa: ANN401 -- an operation's argument
        if isinstance(value, Tensor):
            wider = (
                torch.complex128 if value.is_complex() else torch.float64 if value.is_floating_point() else value.dtype
            )
            return value.to(wider)
        return [wide(one) for one in value] if isinstance(value, (list, tuple)) else value

    try:
        results = func(*map(wide, args), **{name: wide(value) for name, value in kwargs.items()})
        return all(examine(one) == FINE for one in tensors(results))
    except (RuntimeError, TypeError, ValueError):  # not every operation is there in double precision
        return False


__all__ = ["Operation", "fits_wider", "operation", "tensors", "written", "written_numbers"]
