"""A step as entries of a capsule, and back: calls, arguments, upstream gradients, generator states, buffers.

One writer serves the failing step and, with a snapshot, the steps before it; `prefix` keeps their tensors apart.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tracer.capture import randomness
from tracer.errors import CapsuleError
from tracer.flight.digests import clean_name
from tracer.flight.plain import Decoder, Encoder
from tracer.flight.steps import Autocast, Call, Clip, Output, Step
from tracer.flight.tensors import Shelf
from tracer.flight.trees import Tree

Document = dict[str, Any]
_LENGTH = struct.Struct("<Q")
_SPECIAL = {"NaN", "Infinity", "-Infinity"}


class StepWriter:
    """Collects the parts of steps; tensors are cloned as they come.

    Args:
        objects: What JSON cannot hold goes there.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.batch, self.upstream, self.buffers = Shelf(), Shelf(), Shelf()
        self._states: list[bytes] = []
        self._encoder = encoder

    def add(self, step: Step, prefix: str = "") -> Document:
        """Keep a step; return what JSON says of it."""
        return {**step_facts(step), "calls": [self._call(call, f"{prefix}c{n}") for n, call in enumerate(step.calls)]}

    @property
    def states(self) -> bytes:
        """The generator states of all calls, in order."""
        return b"".join(_LENGTH.pack(len(data)) + data for data in self._states)

    def _call(self, call: Call, name: str) -> Document:
        """Keep one call."""
        encoder = self._encoder
        arrays = len(encoder.arrays)
        structure = encoder.encoded(call.inputs.structure)
        for number, tensor in enumerate(call.inputs.tensors):
            self.batch.put(f"{name}.t{number}", tensor)
        for number, array in enumerate(encoder.arrays[arrays:], arrays):
            self.batch.put(f"a{number}", array)
        for output in call.differentiable:
            for number, (_, gradient) in enumerate(output.upstream):
                self.upstream.put(f"{name}.o{output.index}.b{number}", gradient)
        for buffer, value in call.buffers.items():
            self.buffers.put(f"{name}.{clean_name(buffer)}", value)
        self._states.append(randomness.packed(call.states))
        return {
            "arguments": structure,
            "tensors": len(call.inputs.tensors),
            "training": call.training,
            "autocast": [[one.device, one.enabled, one.dtype] for one in call.autocast],
            "buffers": [clean_name(buffer) for buffer in call.buffers],
            "differentiable": [
                {
                    "index": output.index,
                    "backward": [number for number, _ in output.upstream],
                }
                for output in call.differentiable
            ],
            "output_hashes": list(call.output_hashes),
        }


class StepReader:
    """Makes steps of what a writer kept.

    Args:
        batch: Tensors of arguments.
        upstream: Gradients of outputs.
        buffers: Buffers before each call.
        states: What `StepWriter.states` was.
        objects: What a trusted pickle held, or None.
    """

    def __init__(
        self,
        batch: Mapping[str, Tensor],
        upstream: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        states: bytes,
        objects: list[Any] | None,
    ) -> None:
        self._batch, self._upstream, self._buffers = batch, upstream, buffers
        self._states = _parted(states)
        self._taken = 0
        arrays = [name for name in batch if name.startswith("a") and name[1:].isdigit()]
        self._decoder = Decoder([batch[f"a{number}"] for number in range(len(arrays))] if arrays else [], objects)

    @property
    def absent(self) -> list[Any]:
        """The arguments that the capsule does not give away, so far."""
        return self._decoder.absent

    def step(self, facts: Document, prefix: str = "") -> Step:
        """Return the next step; the order is that of writing, because states have no names.

        Raises:
            CapsuleError: A part is missing or cannot be read.
        """
        try:
            step = step_of(facts)
            step.calls = [self._call(one, f"{prefix}c{number}") for number, one in enumerate(facts["calls"])]
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            message = f"The step in the capsule cannot be built: {error!r} is missing or wrong in batch.json."
            raise CapsuleError(message) from error
        return step

    def _call(self, facts: Document, name: str) -> Call:
        """Return one call."""
        states = randomness.unpacked(self._states[self._taken])
        self._taken += 1
        tensors = [self._batch[f"{name}.t{number}"] for number in range(int(facts["tensors"]))]
        return Call(
            inputs=Tree(self._decoder.decoded(facts["arguments"]), tensors),
            versions=tuple(tensor._version for tensor in tensors),  # noqa: SLF001 -- torch's own name for it
            states=states,
            autocast=tuple(Autocast(device, enabled, dtype) for device, enabled, dtype in facts["autocast"]),
            training=bool(facts["training"]),
            buffers={buffer: self._buffers[f"{name}.{buffer}"] for buffer in facts["buffers"]},
            differentiable=[
                Output(
                    one["index"],
                    [
                        (number, self._upstream[f"{name}.o{one['index']}.b{place}"])
                        for place, number in enumerate(one["backward"])
                    ],
                )
                for one in facts["differentiable"]
            ],
            output_hashes=tuple(facts["output_hashes"]),
        )


def step_facts(step: Step) -> Document:
    """Return what JSON says of a step without its calls."""
    return {
        "number": step.number,
        "clips": [
            {
                "kind": clip.kind,
                "limit": clip.limit,
                "norm_type": clip.norm_type,
                "parameters": [clean_name(name) for name in clip.parameters],
                "total_norm": None if clip.total_norm is None else float(clip.total_norm),
            }
            for clip in step.clips
        ],
        "loss": step.loss,
        "norm": step.norm,
        "scale": step.scale,
        "still_scaled": step.still_scaled,
        "learning_rates": list(step.learning_rates),
        "seconds": step.seconds,
        "rows": list(step.rows),
        "notes": list(step.notes),
    }


def step_of(facts: Document) -> Step:
    """Return a step without its calls."""
    return Step(
        number=int(facts["number"]),
        clips=[
            Clip(
                one["kind"],
                float(one["limit"]),
                float(one["norm_type"]),
                tuple(one["parameters"]),
                number(one["total_norm"]),
            )
            for one in facts["clips"]
        ],
        loss=number(facts["loss"]),
        norm=number(facts["norm"]),
        scale=number(facts["scale"]),
        still_scaled=bool(facts["still_scaled"]),
        learning_rates=tuple(float(rate) for rate in facts["learning_rates"]),
        seconds=number(facts["seconds"]),
        rows=tuple(facts["rows"]),
        notes=list(facts["notes"]),
    )


def number(value: object) -> float | None:
    """Return a number that JSON may hold as text."""
    if value is None:
        return None
    if isinstance(value, (int, float)) or (isinstance(value, str) and value in _SPECIAL):
        return float(value)
    raise ValueError(value)


def _parted(data: bytes) -> list[bytes]:
    """Return the generator states of each call."""
    found, place = [], 0
    while place < len(data):
        if place + _LENGTH.size > len(data):
            break
        (length,) = _LENGTH.unpack_from(data, place)
        place += _LENGTH.size
        found.append(data[place : place + length])
        place += length
    if place != len(data):
        message = "The entry rng.bin ends in the middle of a generator's state."
        raise CapsuleError(message)
    return found


__all__ = ["StepReader", "StepWriter", "number", "step_facts", "step_of"]
