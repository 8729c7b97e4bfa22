"""The changes that a what-if run can make to a recorded step, and the values that they take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tracer.flight.steps import Autocast, Call, Output, Step
from tracer.flight.trees import Tree

_TYPES = {name: getattr(torch, name) for name in ("float64", "float32", "bfloat16", "float16")}
_ON, _OFF = ("on", "true", "yes", "1"), ("off", "false", "no", "0")
#: What each change takes, in words.
KINDS = {
    "dtype": "float64, float32, bfloat16 or float16",
    "autocast": "off, bfloat16 or float16",
    "drop_samples": "numbers of samples, such as 3 or 3,5",
    "clip": "the largest norm, such as 1.0",
    "seed": "a whole number",
    "deterministic": "on or off",
    "threads": "a whole number of at least 1",
    "lr": "a learning rate such as 1e-4, or a factor such as 0.1x",
}
_LOW = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Change:
    """One change: its kind, its value in torch's terms, and how it is typed."""

    kind: str
    value: Any
    text: str

    @classmethod
    def of(cls, kind: str, value: Any) -> Change:  # noqa: ANN401 -- what the user wrote
        """Return the change that a user means.

        Raises:
            ValueError: There is no such change, or not with that value.
        """
        name = kind.replace("-", "_")
        if name not in KINDS:
            accepted = ", ".join(one.replace("_", "-") for one in KINDS)
            message = f"There is no change {kind!r}. Accepted: {accepted}."
            raise ValueError(message)
        try:
            read, shown = _READ[name](value)
        except (ValueError, TypeError, KeyError) as error:
            message = f"{kind}={value!r} makes no sense. {kind} takes {KINDS[name]}."
            raise ValueError(message) from error
        return cls(name, read, f"{name.replace('_', '-')}={shown}")


def changed(step: Step, change: Change) -> Step:
    """Return a step with a change made to it; the step itself stays as it is."""
    match change.kind:
        case "dtype":
            return replace(step, calls=[_cast(call, change.value) for call in step.calls])
        case "autocast":
            return replace(step, calls=[_autocast(call, change.value) for call in step.calls])
        case "drop_samples":
            return replace(step, calls=[_without(call, change.value) for call in step.calls])
    return step


def sensible(step: Step, samples: Sequence[int], *, has_travel: bool) -> list[Change]:
    """Return the changes worth trying on a step, of whose batch some samples are suspected."""
    chosen: list[tuple[str, Any]] = []
    low = any(one.enabled for call in step.calls for one in call.autocast)
    if low:
        chosen.append(("autocast", "off"))
    tensors = [tensor for call in step.calls for tensor in call.inputs.tensors]
    if low or any(tensor.dtype in _LOW for tensor in tensors):
        chosen.append(("dtype", "float32"))
    chosen.append(("dtype", "float64"))
    if samples:
        chosen.append(("drop_samples", list(samples)))
    chosen += [("clip", 1.0), ("seed", 0)]
    if has_travel:
        chosen.append(("lr", "0.1x"))
    return [Change.of(kind, value) for kind, value in chosen]


def _cast(call: Call, dtype: torch.dtype) -> Call:
    """Return a call with all that is floating in another type, and without autocast."""

    def cast(tensor: Tensor) -> Tensor:
        return tensor.detach().to(dtype).requires_grad_(tensor.requires_grad) if tensor.is_floating_point() else tensor

    return replace(
        call,
        inputs=Tree(call.inputs.structure, [cast(tensor) for tensor in call.inputs.tensors]),
        autocast=tuple(replace(one, enabled=False) for one in call.autocast),
        buffers={name: cast(tensor) for name, tensor in call.buffers.items()},
        differentiable=[
            Output(one.index, [(number, cast(g)) for number, g in one.upstream]) for one in call.differentiable
        ],
    )


def _autocast(call: Call, dtype: str | None) -> Call:
    """Return a call under another autocast."""
    given = call.autocast or (Autocast("cpu", enabled=False, dtype="bfloat16"),)
    chosen = tuple(replace(one, enabled=dtype is not None, dtype=dtype or one.dtype) for one in given)
    if dtype is None:  # what comes back is no longer of the low type
        outputs = [
            Output(one.index, [(n, g.float() if g.dtype in _LOW else g) for n, g in one.upstream])
            for one in call.differentiable
        ]
        return replace(call, autocast=chosen, differentiable=outputs)
    return replace(call, autocast=chosen)


def _without(call: Call, samples: tuple[int, ...]) -> Call:
    """Return a call without some samples: rows of dimension 0 of arguments and of what reached the outputs."""
    sizes = [tensor.size(0) for tensor in call.inputs.tensors if tensor.dim() > 0]
    if not sizes:
        message = "no argument has a dimension of samples"
        raise ValueError(message)
    batch = sizes[0]
    if max(samples) >= batch:
        message = f"the batch has the samples 0 to {batch - 1}"
        raise ValueError(message)

    def cut(tensor: Tensor) -> Tensor:
        if tensor.dim() == 0 or tensor.size(0) % batch or tensor.size(0) == 0:
            return tensor
        rows = tensor.size(0) // batch  # of each sample, where batch and time were made one dimension
        kept = [row for row in range(tensor.size(0)) if row // rows not in samples]
        return tensor.detach()[kept].requires_grad_(tensor.requires_grad)

    return replace(
        call,
        inputs=Tree(call.inputs.structure, [cut(tensor) for tensor in call.inputs.tensors]),
        differentiable=[
            Output(one.index, [(number, cut(g)) for number, g in one.upstream]) for one in call.differentiable
        ],
    )


def _read_type(value: Any) -> tuple[torch.dtype, str]:  # noqa: ANN401 -- what the user wrote
    name = str(value).removeprefix("torch.")
    return _TYPES[name], name


def _read_autocast(value: Any) -> tuple[str | None, str]:  # noqa: ANN401 -- what the user wrote
    name = str(value).removeprefix("torch.").lower()
    if value is False or name in _OFF:
        return None, "off"
    if name not in ("bfloat16", "float16"):
        raise ValueError(value)
    return name, name


def _read_samples(value: Any) -> tuple[tuple[int, ...], str]:  # noqa: ANN401 -- what the user wrote
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    samples = tuple(int(part) for part in parts)
    if not samples or min(samples) < 0:
        raise ValueError(value)
    return samples, ",".join(map(str, samples))


def _read_clip(value: Any) -> tuple[float, str]:  # noqa: ANN401 -- what the user wrote
    limit = float(value)
    if not 0 < limit < float("inf"):
        raise ValueError(value)
    return limit, f"{limit:g}"


def _read_seed(value: Any) -> tuple[int, str]:  # noqa: ANN401 -- what the user wrote
    return int(value), str(int(value))


def _read_switch(value: Any) -> tuple[bool, str]:  # noqa: ANN401 -- what the user wrote
    name = str(value).lower()
    if name not in _ON + _OFF:
        raise ValueError(value)
    return name in _ON, "on" if name in _ON else "off"


def _read_threads(value: Any) -> tuple[int, str]:  # noqa: ANN401 -- what the user wrote
    if int(value) < 1:
        raise ValueError(value)
    return int(value), str(int(value))


def _read_rate(value: Any) -> tuple[Callable[[float], float], str]:  # noqa: ANN401 -- what the user wrote
    text = str(value)
    number = float(text.removesuffix("x"))
    if not 0 <= number < float("inf"):
        raise ValueError(value)
    if text.endswith("x"):
        return lambda rate: rate * number, text
    return lambda _: number, text


_READ: dict[str, Callable[[Any], tuple[Any, str]]] = {
    "dtype": _read_type,
    "autocast": _read_autocast,
    "drop_samples": _read_samples,
    "clip": _read_clip,
    "seed": _read_seed,
    "deterministic": _read_switch,
    "threads": _read_threads,
    "lr": _read_rate,
}

__all__ = ["KINDS", "Change", "changed", "sensible"]
