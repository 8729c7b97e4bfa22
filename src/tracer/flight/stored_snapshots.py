"""An older state of the training and the steps since then, as entries of a capsule under `snapshot/`, and back.

snapshot/state.json             step, optimizer (class, groups, plain state), steps with their groups' values
snapshot/state.safetensors      p.<name> parameters, b.<name> buffers, o.<name>.<key> the optimizer's tensors
snapshot/batch.safetensors      arguments, upstream gradients and buffers of each step: s0.c0.t0, …
snapshot/upstream.safetensors
snapshot/buffers.safetensors
snapshot/rng.bin                generator states of each call of each step
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tracer.errors import CapsuleError
from tracer.flight.archive import Archive
from tracer.flight.digests import clean_name
from tracer.flight.plain import Encoder
from tracer.flight.steps import Step
from tracer.flight.stored_steps import StepReader, StepWriter
from tracer.flight.tensors import Shelf, from_bytes, taken, to_bytes
from tracer.render.formats import plain

_STATE = "snapshot/state.json"


@dataclass(slots=True)
class SnapshotData:
    """What a replay over several steps starts from; names are those in the model.

    `steps` are the steps from `number` up to the one before the capsule's own, each with what it was called with;
    `groups` are the values of the optimizer's parameter groups (learning rate, betas, …) as each of them used them,
    and the capsule's own step, if it was done, at the end.
    """

    number: int  # the first step that can be run from this state
    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    optimizer: str = ""  # its class, as `torch.optim.adamw:AdamW`
    members: Sequence[Sequence[str]] = ()  # the names of each group's parameters
    state: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by parameter: exp_avg, step, …
    steps: Sequence[Step] = ()
    groups: Sequence[Sequence[Mapping[str, Any]]] = ()  # of each step, the values of each group


class SnapshotWriter:
    """Clones a snapshot's data as it is made; `entries` may be called on any thread.

    Args:
        data: The snapshot; its tensors stay the recorder's.
    """

    def __init__(self, data: SnapshotData) -> None:
        self._state = Shelf()
        for prefix, tensors in (("p", data.parameters), ("b", data.buffers)):
            for name, tensor in tensors.items():
                self._state.put(f"{prefix}.{clean_name(name)}", tensor)
        numbers: dict[str, dict[str, Any]] = {}
        for name, values in data.state.items():
            for key, value in values.items():
                if isinstance(value, Tensor):
                    self._state.put(f"o.{clean_name(name)}.{key}", value)
                else:
                    numbers.setdefault(clean_name(name), {})[key] = value
        self._encoder = Encoder()
        self._steps = StepWriter(self._encoder)
        steps = [self._steps.add(step, f"s{place}") for place, step in enumerate(data.steps)]
        self._facts = {
            "number": data.number,
            "optimizer": data.optimizer,
            "members": [[clean_name(name) for name in names] for names in data.members],
            "numbers": numbers,
            "steps": steps,
            "groups": [[_group(group) for group in groups] for groups in data.groups],
        }

    def entries(self) -> dict[str, bytes]:
        """Return the entries of the capsule."""
        shelves = {
            "state": self._state,
            "batch": self._steps.batch,
            "upstream": self._steps.upstream,
            "buffers": self._steps.buffers,
        }
        found: dict[str, bytes] = {}
        for name, shelf in shelves.items():
            suffix, data = to_bytes(shelf.tensors)
            found[f"snapshot/{name}.{suffix}"] = data
        facts = {
            **self._facts,
            "specs": {name: shelf.specs for name, shelf in shelves.items()},
            "whole": not self._encoder.objects,
        }
        found[_STATE] = json.dumps(plain(facts)).encode()
        found["snapshot/rng.bin"] = self._steps.states
        return found


def read_snapshot(archive: Archive) -> SnapshotData | None:
    """Return a capsule's snapshot; None if it has none.

    Raises:
        CapsuleError: It is damaged.
    """
    if _STATE not in archive:
        return None
    facts = archive.json(_STATE)
    try:
        tensors = {name: _tensors(archive, name, facts["specs"][name]) for name in facts["specs"]}
        reader = StepReader(
            tensors["batch"], tensors["upstream"], tensors["buffers"], archive.read("snapshot/rng.bin"), None
        )
        return SnapshotData(
            number=int(facts["number"]),
            parameters=_under("p.", tensors["state"]),
            buffers=_under("b.", tensors["state"]),
            optimizer=str(facts["optimizer"]),
            members=facts["members"],
            state=_optimizer_state(tensors["state"], facts["numbers"]),
            steps=[reader.step(one, f"s{place}") for place, one in enumerate(facts["steps"])],
            groups=[[_group_back(group) for group in groups] for groups in facts["groups"]],
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        message = f"The entry {_STATE} of {archive.path!r} is damaged: {error!r} is missing or wrong."
        raise CapsuleError(message) from error


def _tensors(archive: Archive, name: str, specs: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of one file of the snapshot."""
    entry = next(
        (f"snapshot/{name}.{kind}" for kind in ("safetensors", "pt") if f"snapshot/{name}.{kind}" in archive), ""
    )
    return taken(from_bytes(entry, archive.read(entry or f"snapshot/{name}.safetensors")), specs)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin so, without the beginning."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _optimizer_state(
    tensors: Mapping[str, Tensor], numbers: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the optimizer's state by parameter."""
    state: dict[str, dict[str, Any]] = {name: dict(values) for name, values in numbers.items()}
    for name, tensor in _under("o.", tensors).items():
        parameter, _, key = name.rpartition(".")
        state.setdefault(parameter, {})[key] = tensor
    return state


def _group(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group's values as JSON can hold them; a learning rate may be a tensor."""
    found: dict[str, Any] = {}
    for key, value in group.items():
        if key == "params":
            continue
        if isinstance(value, Tensor):
            found[key] = {"tensor": value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
        elif isinstance(value, tuple):
            found[key] = {"tuple": [_number(one) for one in value]}
        else:
            found[key] = value
    return found


def _number(value: Any) -> Any:  # noqa: ANN401 -- a number, or a tensor of one
    """Return a plain number."""
    return value.tolist() if isinstance(value, Tensor) else value


def _group_back(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group's values as the optimizer knows them."""
    found: dict[str, Any] = {}
    for key, value in group.items():
        if isinstance(value, dict) and "tensor" in value:
            dtype = getattr(torch, value["dtype"])
            if not isinstance(dtype, torch.dtype):
                raise TypeError(value["dtype"])
            found[key] = torch.tensor(value["tensor"], dtype=dtype)
        elif isinstance(value, dict) and "tuple" in value:
            found[key] = tuple(value["tuple"])
        else:
            found[key] = value
    return found


__all__ = ["SnapshotData", "SnapshotWriter", "read_snapshot"]
