"""An origin in words that a person understands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

_FEW = 8
_FAR = 100.0  # times its former size, from which on a weight is worth a word

_FORWARD = {
    "log": "The logarithm of a negative number is NaN, and that of zero is -Inf.",
    "log2": "The logarithm of a negative number is NaN, and that of zero is -Inf.",
    "log10": "The logarithm of a negative number is NaN, and that of zero is -Inf.",
    "log1p": "log1p is NaN below -1 and -Inf at -1.",
    "sqrt": "The square root of a negative number is NaN.",
    "rsqrt": "rsqrt is NaN below zero and Inf at zero.",
    "div": "Dividing by zero gives Inf, and 0 / 0 gives NaN.",
    "reciprocal": "The reciprocal of zero is Inf.",
    "pow": "A negative base with a fractional exponent gives NaN, and zero with a negative one gives Inf.",
    "acos": "acos is NaN outside of -1 to 1.",
    "asin": "asin is NaN outside of -1 to 1.",
    "atanh": "atanh is Inf at 1 and NaN beyond.",
    "acosh": "acosh is NaN below 1.",
    "mul": "Zero times Inf is NaN.",
    "sub": "Inf minus Inf is NaN.",
    "var": "The variance of a single value, with the unbiased estimate, is 0 / 0.",
    "std": "The standard deviation of a single value, with the unbiased estimate, is 0 / 0.",
    "mean": "The mean of no values is NaN.",
    "_softmax": "Softmax of a row in which everything is -Inf is NaN, and so is that of a row with Inf.",
    "_log_softmax": "Log-softmax of a row in which everything is -Inf is NaN, and so is that of a row with Inf.",
    "_ctc_loss": "CTC gives Inf for a label that is longer than its input.",
    "nll_loss_forward": "The mean loss is 0 / 0 when every label is ignored.",
}
_BACKWARD = {
    "Sqrt": "The square root is infinitely steep at zero.",
    "Pow": "A power with an exponent below 1 is infinitely steep at zero.",
    "Norm": "A norm has no slope at zero.",
    "LinalgVectorNorm": "A norm has no slope at zero.",
    "Acos": "acos is infinitely steep at -1 and 1.",
    "Asin": "asin is infinitely steep at -1 and 1.",
    "Atan2": "atan2 has no slope at (0, 0).",
    "Std": "The standard deviation has no slope where all values are equal.",
    "Var": "The variance of a single value, with the unbiased estimate, is 0 / 0.",
    "Div": "Its derivative divides by the square of the denominator.",
    "Log": "The logarithm is infinitely steep at zero.",
}
_OVERFLOW = "The result is too large for {dtype}, whose largest number is {largest:.3g}."
_NAMES = {"nan": "NaN", "inf": "Inf", "overflow": "Inf", "growth": "a jump"}


class Told(Protocol):
    """What is put into words: an `Origin`."""

    @property
    def op(self) -> str: ...
    @property
    def module(self) -> str: ...
    @property
    def phase(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def file(self) -> str | None: ...
    @property
    def line(self) -> int | None: ...
    @property
    def code(self) -> str: ...
    @property
    def inputs(self) -> tuple[dict[str, Any], ...]: ...
    @property
    def samples(self) -> tuple[int, ...]: ...
    @property
    def chain(self) -> tuple[str, ...]: ...
    @property
    def on_purpose(self) -> tuple[str, ...]: ...
    @property
    def name(self) -> str: ...
    @property
    def node(self) -> str: ...


def paragraph(origin: Told, *, batch: int = 0, rows: Sequence[Any] = (), weights: str = "") -> str:
    """Return an origin as one paragraph.

    Args:
        origin: What was found.
        batch: How many rows the batch has.
        rows: Their places in the data set, where they are known.
        weights: A sentence on weights that have grown, see `grown`.

    Returns:
        The paragraph.
    """
    begin = {"input": _input, "parameter": _parameter}.get(
        origin.phase, _outside if origin.op == "loss" else _operation
    )
    sentences = [begin(origin), _samples(origin, batch, rows), _ranges(origin), _why(origin), weights, _went_on(origin)]
    return " ".join(sentence for sentence in sentences if sentence)


def growth_paragraph(origin: Told, before: float, after: float, *, batch: int = 0, rows: Sequence[Any] = ()) -> str:
    """Return a jump in magnitude as one paragraph; the arguments are those of `paragraph`."""
    times = f"{after / before:.3g} times"
    if origin.phase == "input":
        usual = f"{after:.4g} where the median row has {before:.4g}"
        begin = f"The input `{origin.name}` has rows {times} as large as usual: {usual}."
    else:
        where = f"module `{origin.module}`" if origin.module else "the model itself"
        line = f" at {origin.file}:{origin.line} (`{origin.code}`)" if origin.file else ""
        by = f", part of {origin.node}," if origin.phase == "backward" else ""
        begin = (
            f"Values first grew in `{origin.op}`{by} in the {origin.phase} pass of {where}{line}: {times}, "
            f"from {before:.4g} to {after:.4g}."
        )
    sentences = [begin, _samples(origin, batch, rows), _ranges(origin)]
    return " ".join(sentence for sentence in sentences if sentence)


def _operation(origin: Told) -> str:
    """Say which operation it was."""
    module = f"module `{origin.module}`" if origin.module else "the model itself"
    by = f", part of {origin.node}," if origin.phase == "backward" and origin.node else ""
    line = f" at {origin.file}:{origin.line}" if origin.file else ""
    code = f" (`{origin.code}`)" if origin.code else ""
    what = "The first NaN" if origin.kind == "nan" else "The first Inf"
    return f"{what} came from `{origin.op}`{by} in the {origin.phase} pass of {module}{line}{code}."


def _outside(origin: Told) -> str:
    """Say that the loss outside the model did it."""
    if origin.phase == "forward":
        return (
            f"The model's outputs and all gradients are finite, but the loss function outside of it gave "
            f"{_NAMES[origin.kind]}: look at its labels (are all of them ignored?) and at its weights."
        )
    return (
        f"The model's outputs are not to blame: the loss function outside of it gave {_NAMES[origin.kind]} as the "
        f"{origin.name}. Look at the loss, its labels and its weights."
    )


def _input(origin: Told) -> str:
    """Say that the data did it."""
    return f"The input `{origin.name}` held {_NAMES[origin.kind]} before the model saw it."


def _parameter(origin: Told) -> str:
    """Say that a weight did it."""
    held = f"The {origin.op} `{origin.name}` held {_NAMES[origin.kind]} before the step began"
    return f"{held}: an earlier update, or the memory, spoiled it."


def _samples(origin: Told, batch: int, rows: Sequence[Any]) -> str:
    """Say which samples are concerned."""
    if not origin.samples:
        return ""
    if len(origin.samples) == batch > 1:
        return f"All {batch} samples of the batch are concerned."
    shown = ", ".join(map(str, origin.samples[:_FEW])) + (" …" if len(origin.samples) > _FEW else "")
    of = f" of {batch}" if batch else ""
    places = ", ".join(str(rows[sample]) for sample in origin.samples[:_FEW]) if rows else ""
    known = f" (in the data set: {places})" if places else ""
    return f"Sample{'s' if len(origin.samples) > 1 else ''} {shown}{of} in the batch{known}."


def _ranges(origin: Told) -> str:
    """Say what went in."""
    shown = []
    for facts in origin.inputs:
        if facts["min"] is None and not facts["nonfinite"]:
            continue
        name = f"`{facts['name']}` " if facts["name"] else ""
        shape = " by ".join(map(str, facts["shape"])) or "a number"
        span = f"{facts['min']:.4g} to {facts['max']:.4g}" if facts["min"] is not None else "nothing finite"
        bad = f", {facts['nonfinite']} not finite" if facts["nonfinite"] else ""
        shown.append(f"{name}{span} ({shape}, {facts['dtype']}{bad})")
    label = (
        "The outputs were"
        if origin.op == "loss"
        else "What went in:"
        if origin.phase in {"forward", "backward"}
        else "Its values:"
    )
    return f"{label} {'; '.join(shown)}." if shown else ""


def _why(origin: Told) -> str:
    """Say what usually makes such an operation fail."""
    if origin.kind == "overflow":
        types = [facts["dtype"] for facts in origin.inputs if facts["max"] is not None and "int" not in facts["dtype"]]
        dtype = types[0] if types else "float32"
        return _OVERFLOW.format(dtype=dtype, largest=torch.finfo(getattr(torch, dtype)).max)
    if origin.phase == "backward":
        return next((text for name, text in _BACKWARD.items() if origin.node.startswith(name + "Backward")), "")
    base = origin.op.removeprefix("aten.").partition(".")[0]
    return _FORWARD.get(base, _FORWARD.get(base.rstrip("_"), "")) if origin.phase == "forward" else ""


def _went_on(origin: Told) -> str:
    """Say what it reached first, and what was left out of the search."""
    first = f"It went on to {origin.chain[0].rpartition(':')[0]}." if origin.chain else ""
    meant = ""
    if origin.on_purpose:
        others = f" and {len(origin.on_purpose) - 1} more" if len(origin.on_purpose) > 1 else ""
        meant = f"What is infinite on purpose was passed over: {origin.on_purpose[0]}{others}."
    return " ".join(part for part in (first, meant) if part)


def grown(model: torch.nn.Module, sizes: Mapping[str, float]) -> str:
    """Return a sentence on weights that are far larger than they were or than a new layer's; empty when none is.

    Args:
        model: The model.
        sizes: Former root mean squares by parameter; for those not known, what a new layer of the shape begins with.

    Returns:
        The sentence.
    """
    factors: dict[str, float] = {}
    weights = {name: weight for name, weight in model.named_parameters() if weight.dim() > 1}
    for name, weight in weights.items():
        size = float(torch.linalg.vector_norm(weight.detach(), dtype=torch.float64)) / weight.numel() ** 0.5
        usual = sizes.get(name) or (weight.numel() / weight.shape[0]) ** -0.5
        if size > _FAR * usual:
            factors[name] = size / usual
    if not factors:
        return ""
    name = max(factors, key=lambda one: factors[one])
    than = "its former size" if name in sizes else "the size a new layer of its shape has"
    have = "have" if len(factors) > 1 else "has"
    return f"{len(factors)} of {len(weights)} weights {have} blown up: `{name}` has {factors[name]:.3g} times {than}."


__all__ = ["grown", "growth_paragraph", "paragraph"]
