"""Where a NaN began: the first operation, module, line and samples of a step that went wrong.

The step is run again while every operation's result is examined. What is bad at the end, in a gradient or in an output
that brought a bad gradient back, is followed to its beginning; what became bad on the way but left no trace there, such
as a masked score, is not blamed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tracer.flight.bad_values import Event, Source, met, told
from tracer.flight.blame import causes, downstream
from tracer.flight.dataflow import TookTooLong
from tracer.flight.growth import Growth, Jump
from tracer.flight.looking import Enough, Looking
from tracer.flight.rerun import rerun, unwrapped
from tracer.flight.steps import Step
from tracer.flight.wording import grown, growth_paragraph, paragraph
from tracer.sink import Guard


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the first bad value of a step came to be.

    Attributes:
        op: The operation, such as `aten.log.default`; `input`, `parameter` or `loss` when none of the model's made it.
        module: The module's name in the model; empty for the model itself, `(loss)` for what lies outside it.
        phase: `forward`, `backward`, `input` or `parameter`.
        kind: `nan`, `inf`, `overflow` (too large for the type), or `growth` of finite values.
        file: The file of the line below.
        line: The line that ran the operation; in a backward pass the line whose derivative it is.
        code: What is written there.
        inputs: Of each tensor that went in: name (if it has one), shape, dtype, min, max, and how many were not finite.
        samples: The rows of the batch that are bad.
        positions: The first few places of bad values in the operation's result.
        chain: What the bad values reached next, at most 20 operations.
        reproduced: Whether it was seen when the step ran again.
        on_purpose: Infinities that the model writes itself, such as attention masks.
        text: All of it as a paragraph.
        name: Of the argument, parameter or buffer that was bad before any operation ran.
        node: The node of the autograd graph, for an operation of a backward pass.
    """

    op: str
    module: str
    phase: str
    kind: str
    file: str | None = None
    line: int | None = None
    code: str = ""
    inputs: tuple[dict[str, Any], ...] = ()
    samples: tuple[int, ...] = ()
    positions: tuple[tuple[int, ...], ...] = ()
    chain: tuple[str, ...] = ()
    reproduced: bool = True
    on_purpose: tuple[str, ...] = ()
    text: str = ""
    name: str = ""
    node: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as values that JSON can hold, but for NaN and Inf among the ranges, of which there are none."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Origin:
        """Return an origin that was stored; what an older or newer version knows besides is left out.

        Example:
            >>> origin = Origin("aten.log.default", "blocks.1", "forward", "nan", samples=(3,))
            >>> Origin.from_json(origin.to_json()) == origin
            True
        """
        known = {field.name for field in dataclasses.fields(cls)}
        values = {name: value for name, value in stored.items() if name in known}
        for name in ("inputs", "samples", "chain", "on_purpose"):
            values[name] = tuple(values.get(name) or ())
        values["positions"] = tuple(tuple(place) for place in values.get("positions") or ())
        return cls(**values)


def _plain(value: Any) -> Any:  # noqa: ANN401 -- a field's value
    """Return tuples as lists."""
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def find_origin(
    model: torch.nn.Module,
    step: Step,
    *,
    guard: Guard | None = None,
    limit_s: float | None = None,
    sizes: Mapping[str, float] | None = None,
) -> Origin | None:
    """Run a step again and return where its first bad value came to be; the model and training are left as they were.

    Args:
        model: The model, with the parameters it had when the step was recorded.
        step: What was recorded.
        guard: Told of what the model raises when it runs again; by default that is nobody's concern.
        limit_s: Give up after this many seconds.
        sizes: Former root mean squares of parameters by name, to say how much they have grown.

    Returns:
        The origin; None when nothing bad came up, or when the search had to be given up.

    Example:
        >>> import torch
        >>> from tracer.capture import randomness
        >>> from tracer.flight.steps import Call, Output
        >>> from tracer.flight.trees import tree
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Softmax(-1))
        >>> batch = torch.tensor([[1.0, 2.0], [3.0, float("nan")]])
        >>> call = Call(tree(((batch,), {})), (0,), randomness.capture(), (), True, {})
        >>> origin = find_origin(model, Step(7, calls=[call]))
        >>> origin.phase, origin.name, origin.samples
        ('input', 'input', (1,))
    """
    guard = guard or Guard(quiet=True)
    looking = Looking(model, step, limit_s)
    with guard("running a step again to find where a NaN began"):
        try:
            rerun(model, step, observer=looking.search, phases=looking, clip=False)
            looking.finished = True
        except Enough:
            looking.finished = True
        except TookTooLong:
            return None
    # A model that tests its own values may have raised on the way; what was seen until then counts.
    return _verdict(looking, sizes or {})


def largest_growth(model: torch.nn.Module, step: Step, *, guard: Guard | None = None) -> Origin | None:
    """Run a step again and return where finite values first became far larger; for an explosion without NaN.

    Args:
        model: See `find_origin`.
        step: See `find_origin`.
        guard: See `find_origin`.

    Returns:
        An origin of the kind `growth`: an operation, or an input with rows that stand out; None without any jump.

    Example:
        >>> import torch
        >>> from tracer.capture import randomness
        >>> from tracer.flight.steps import Call
        >>> from tracer.flight.trees import tree
        >>> batch = torch.tensor([[1.0], [2.0], [9000.0], [1.0]])
        >>> call = Call(tree(((batch,), {})), (0,), randomness.capture(), (), True, {})
        >>> origin = largest_growth(torch.nn.Linear(1, 1), Step(7, calls=[call]))
        >>> origin.kind, origin.phase, origin.samples
        ('growth', 'input', (2,))
    """
    guard = guard or Guard(quiet=True)
    growth = Growth(unwrapped(model))
    with guard("running a step again to find where values grew"):
        rerun(model, step, observer=growth, phases=growth, clip=False)
    jump = growth.first()
    return None if jump is None else _of_jump(jump, growth.batch.get(jump.call, 0), step)


def _verdict(looking: Looking, sizes: Mapping[str, float]) -> Origin | None:
    """Return the origin of what was bad in the end."""
    cause = causes(looking.ends or looking.last_resort()).first()
    if isinstance(cause, Source) and cause.kind == "constant":
        # It has no place; the operation that first read it has.
        cause = next(iter(downstream(cause, looking.flow.events)), None)
    if cause is None:
        return _loss_alone(looking)
    chain = downstream(cause, looking.flow.events)
    samples = looking.samples(cause, chain)
    facts = _of_event(cause) if isinstance(cause, Event) else _of_source(looking, cause)
    origin = Origin(
        **facts,
        samples=samples,
        positions=cause.positions,
        chain=tuple(f"{told(event)}: {event.bad}" for event in chain),
        on_purpose=tuple(one for one in looking.flow.on_purpose if one != met(cause)),
    )
    batch = looking.batch.get(cause.call, 0)
    weights = grown(looking.model, sizes) if origin.kind == "overflow" else ""
    rows = looking.step.rows if len(looking.step.rows) == batch else ()
    return dataclasses.replace(origin, text=paragraph(origin, batch=batch, rows=rows, weights=weights))


def _loss_alone(looking: Looking) -> Origin | None:
    """Return the loss as the origin when it is bad and nothing in the model is, not even a gradient."""
    loss = looking.step.loss
    if loss is None or math.isfinite(loss) or not looking.finished:
        return None
    facts = tuple(looking.ranges.get(len(looking.step.calls) - 1, ()))
    origin = Origin(
        "loss",
        "(loss)",
        "forward",
        "nan" if math.isnan(loss) else "inf",
        inputs=facts,
        on_purpose=tuple(looking.flow.on_purpose),
    )
    return dataclasses.replace(origin, text=paragraph(origin))


def _of_event(event: Event) -> dict[str, Any]:
    """Return the fields that tell of an operation."""
    frame = event.place.frame
    return {
        "op": event.op.name,
        "module": event.place.module,
        "phase": "backward" if event.place.backward else "forward",
        "kind": "overflow" if event.overflow else "nan" if event.shown.nan else "inf",
        "file": frame and frame.path,
        "line": frame and frame.line,
        "code": frame.code if frame else "",
        "inputs": event.inputs,
        "node": event.place.node,
    }


def _of_source(looking: Looking, source: Source) -> dict[str, Any]:
    """Return the fields that tell of a tensor that was bad from the start."""
    kind = "nan" if source.bad.nan else "inf"
    if source.kind == "upstream":
        facts = tuple(looking.ranges.get(source.call, ()))
        return {
            "op": "loss",
            "module": "(loss)",
            "phase": "backward",
            "kind": kind,
            "inputs": facts,
            "name": source.name,
        }
    if source.kind == "input":
        return {
            "op": "input",
            "module": "(input)",
            "phase": "input",
            "kind": kind,
            "inputs": (source.facts,),
            "name": source.name,
        }
    module = source.name.rpartition(".")[0]
    return {
        "op": source.kind,
        "module": module,
        "phase": "parameter",
        "kind": kind,
        "inputs": (source.facts,),
        "name": source.name,
    }


def _of_jump(jump: Jump, batch: int, step: Step) -> Origin:
    """Return a jump as an origin."""
    samples = jump.rows if jump.shape and jump.shape[0] == batch else ()
    op, place = jump.op, jump.place
    if op is None or place is None:
        origin = Origin("input", "(input)", "input", "growth", inputs=jump.inputs, samples=samples, name=jump.name)
    else:
        frame = place.frame
        origin = Origin(
            op.name,
            place.module,
            "backward" if place.backward else "forward",
            "growth",
            file=frame and frame.path,
            line=frame and frame.line,
            code=frame.code if frame else "",
            inputs=jump.inputs,
            samples=samples,
            node=place.node,
        )
    rows = step.rows if len(step.rows) == batch else ()
    return dataclasses.replace(origin, text=growth_paragraph(origin, jump.before, jump.after, batch=batch, rows=rows))


__all__ = ["Origin", "find_origin", "largest_growth"]
