"""A capsule from a step: `collect` clones in the training thread, `write` does the rest on any thread.

What is slow and needs nothing of the training waits for `write`: hashes, commit and command line, the source files,
packing, the disk.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from tracer import clock
from tracer.errors import MissingDependency
from tracer.flight import manifest as facts_of
from tracer.flight import pickles
from tracer.flight.archive import FORMAT, SUFFIX, sweep, write_archive
from tracer.flight.digests import Trace, clean_name
from tracer.flight.hashes import hashes_of
from tracer.flight.plain import Absent, Encoder, path_of
from tracer.flight.steps import Step
from tracer.flight.stored_snapshots import SnapshotData, SnapshotWriter
from tracer.flight.stored_steps import StepWriter, step_facts
from tracer.flight.tensors import Shelf, to_bytes
from tracer.flight.undisturbed import unwrapped
from tracer.render.formats import plain, to_json

_LARGEST_PARAMETERS = 8 << 30
_US = 1_000_000


@dataclass(slots=True)
class Facts:
    """What a capsule says beside the step itself."""

    kind: str = "manual"
    value: float | None = None
    ring: Sequence[Step] = ()
    origin: Any = None  # an Origin, or anything with `to_json`
    run: str | None = None
    rank: int = 0
    world_size: int = 1
    check: str = "sync"
    exact: bool = True
    notes: Sequence[str] = ()
    attachments: Mapping[str, bytes] = field(default_factory=dict)  # such as stacks.txt
    optimizer: torch.optim.Optimizer | None = None
    snapshot: SnapshotData | None = None
    include_model: bool = True
    trace: Trace | None = None  # of a run of the step in this process
    outputs: Sequence[Sequence[Tensor]] = ()  # of each call, where they are still known
    checkpoint: str | None = None  # where the parameters lie, should they be too many for a capsule
    error: str | None = None  # the exception that ended the step: its type and message


@dataclass(slots=True)
class Draft:
    """A capsule in memory: everything that training may change is cloned."""

    name: str
    manifest: dict[str, Any]
    tensors: Shelf
    step: StepWriter
    batch: dict[str, Any]
    gradients: dict[str, Tensor]
    outputs: list[list[Tensor]]
    trace: Trace | None
    sources: dict[str, str]
    model: bytes | None
    objects: bytes | None
    ring: list[dict[str, Any]]
    attachments: dict[str, bytes]
    snapshot: SnapshotWriter | None

    @property
    def size_bytes(self) -> int:
        """What the clones take of the memory."""
        shelves = (self.tensors, self.step.batch, self.step.upstream, self.step.buffers)
        gradients = sum(tensor.numel() * tensor.element_size() for tensor in self.gradients.values())
        return sum(shelf.size_bytes for shelf in shelves) + gradients


def collect(model: nn.Module, step: Step, facts: Facts) -> Draft:
    """Clone what a capsule of this step needs; nothing of the model or of the gradients is changed.

    Args:
        model: The watched model, with the parameters that the step began with and the gradients it ended with.
        step: What the recorder kept of the step.
        facts: What the capsule says of it.

    Returns:
        What `write` makes a file of.

    Example:
        >>> import torch
        >>> draft = collect(torch.nn.Linear(2, 1), Step(7), Facts())
        >>> draft.name
        'step-7-manual.trc'
    """
    root = unwrapped(model)
    notes = [*step.notes, *facts.notes]
    encoder = Encoder()
    writer = StepWriter(encoder)
    batch = {"step": writer.add(step)}
    tensors, left_out = _parameters(root, facts, notes)
    gradients = {
        clean_name(name): parameter.grad.detach().clone()
        for name, parameter in root.named_parameters()
        if parameter.grad is not None
    }
    pickled = _pickled(root, notes) if facts.include_model else None
    objects = _pickled_objects(encoder.objects, notes) if encoder.objects else None
    if not step.replayable:
        notes.append("Not all calls of the step were kept, so it cannot be run again.")
    manifest = {
        "format": FORMAT,
        "kind": facts.kind,
        "step": step.number,
        "rank": facts.rank,
        "world_size": facts.world_size,
        "exact": facts.exact and step.replayable and objects is None,
        "created": _iso(clock.now_us()),
        "run": facts.run,
        "value": facts.value,
        "check": facts.check,
        "error": facts.error,
        "origin": None if facts.origin is None else facts.origin.to_json(),
        **facts_of.surroundings(),
        "autocast": {one.device: one.dtype for call in step.calls for one in call.autocast if one.enabled},
        "amp_scale": step.scale,
        "model": facts_of.model_facts(model),
        "parameters": "checkpoint" if left_out else "capsule",
        "checkpoint": facts.checkpoint,
        "optimizer": None if facts.optimizer is None else path_of(type(facts.optimizer)),
        "calls": [_call_facts(call) for call in step.calls],
        "trace": None if facts.trace is None or not facts.trace.modules else list(map(list, facts.trace.modules)),
        "nondeterministic_ops": [],
        "notes": notes,
    }
    rank = f"-rank{facts.rank}" if facts.world_size > 1 else ""
    return Draft(
        name=f"step-{step.number}-{facts.kind.replace('/', '-')}{rank}{SUFFIX}",
        manifest=manifest,
        tensors=tensors,
        step=writer,
        batch=batch,
        gradients=gradients,
        outputs=_outputs(step, facts),
        trace=facts.trace,
        sources=facts_of.sources(model),
        model=pickled,
        objects=objects,
        ring=[_ring_facts(one) for one in facts.ring],
        attachments=dict(facts.attachments),
        snapshot=None if facts.snapshot is None else SnapshotWriter(facts.snapshot),
    )


def write(draft: Draft, folder: str) -> str:
    """Write a capsule into a folder and return its path; a file of that name is not replaced.

    Args:
        draft: What `collect` returned.
        folder: Where it shall lie; made if it is not there.

    Returns:
        The path of the file, which is whole and durable.

    Raises:
        OSError: The disk is full, or the folder cannot be written; no part of the capsule is left.
    """
    manifest = dict(draft.manifest)
    entries, specs = _tensor_files(draft)
    entries["batch.json"] = to_json(draft.batch, indent=None).encode()
    entries["rng.bin"] = draft.step.states
    entries["ring.json"] = to_json(draft.ring).encode()
    if draft.objects is not None:
        entries["objects.pkl"] = draft.objects
    if draft.model is not None:
        entries["model.pkl"] = draft.model
    if draft.snapshot is not None:
        entries |= draft.snapshot.entries()
    manifest["sources"] = {}
    for entry, text, known in facts_of.read_sources(draft.sources):
        entries[entry] = text
        manifest["sources"][entry] = known
    entries |= draft.attachments
    shelves = {"parameters": draft.tensors, "inputs": draft.step.batch}
    calls = draft.batch["step"]["calls"]
    manifest["hashes"] = hashes_of(draft.gradients, draft.outputs, calls, shelves, draft.trace)
    manifest["tensors"] = specs
    background = facts_of.background_facts()
    manifest["machine"] = {"cpu": background.pop("cpu"), **manifest["machine"]}
    os.makedirs(folder, exist_ok=True)
    sweep(folder)
    path = _free(os.path.join(folder, draft.name))
    write_archive(path, dict(cast("dict[str, Any]", plain({**manifest, **background}))), entries)
    return path


def _parameters(root: nn.Module, facts: Facts, notes: list[str]) -> tuple[Shelf, bool]:
    """Return parameters and buffers; tied ones once. None where they are too many and a checkpoint has them."""
    shelf = Shelf()
    everything = [
        *root.named_parameters(remove_duplicate=False),
        *root.named_buffers(remove_duplicate=False),
    ]
    size = sum(tensor.numel() * tensor.element_size() for tensor in {id(t): t for _, t in everything}.values())
    if size > _LARGEST_PARAMETERS and facts.checkpoint:
        notes.append(f"The parameters take {size / (1 << 30):.0f} GiB and are not in here: see {facts.checkpoint}.")
        return shelf, True
    for name, tensor in everything:
        local = getattr(tensor, "to_local", None)  # of a tensor that is spread over ranks: this rank's part
        shelf.put(clean_name(name), local() if callable(local) else tensor)
        if tensor.is_meta:
            notes.append(f"The parameter {name} has no values on this rank.")
    return shelf, False


def _pickled(root: nn.Module, notes: list[str]) -> bytes | None:
    """Return the model's pickle, if it can be pickled."""
    named: dict[int, str] = {}
    for name, tensor in [*root.named_parameters(), *root.named_buffers()]:
        named.setdefault(id(tensor), clean_name(name))
    try:
        return pickles.dumped_model(root, named)
    except MissingDependency:
        notes.append("The model was not pickled: cloudpickle is not installed (pip install 'ml-tracer[replay]').")
    except pickles.UNPICKLABLE as error:
        notes.append(f"The model cannot be pickled ({type(error).__name__}: {error}). Replay it with --entry.")
    return None


def _pickled_objects(objects: list[Any], notes: list[str]) -> bytes:
    """Return the pickle of arguments that are no plain data."""
    data, lost = pickles.dumped_objects(objects, _stand_in)
    names = ", ".join(sorted({type(value).__name__ for value in objects}))
    notes.append(f"Arguments that are no plain data are in the pickle only, which wants trust: {names}.")
    if lost:
        notes.append(f"Arguments could not be kept: {', '.join(sorted(set(lost)))}.")
    return data


def _outputs(step: Step, facts: Facts) -> list[list[Tensor]]:
    """Return clones of the outputs of each call, where somebody still knows them."""
    return [[tensor.detach().clone() for tensor in outputs] for outputs in facts.outputs[: len(step.calls)]]


def _call_facts(call: Any) -> dict[str, Any]:  # noqa: ANN401 -- a Call
    """Return what the manifest says of a call."""
    versions = zip(call.versions, call.inputs.tensors, strict=False)
    return {
        "backward": sorted({number for output in call.differentiable for number, _ in output.upstream}),
        "mutated_inputs": [
            place for place, (version, tensor) in enumerate(versions) if not _unchanged(version, tensor)
        ],
        "buffers_changed": [clean_name(name) for name in call.buffers],
    }


def _unchanged(version: int, tensor: Tensor) -> bool:
    """Tell whether nobody wrote into a tensor since; those made under inference mode count nothing."""
    return tensor.is_inference() or version == tensor._version  # noqa: SLF001 -- torch's own name for it


def _ring_facts(step: Step) -> dict[str, Any]:
    """Return what the ring says of a step: its numbers, and the shapes of what went in."""
    shapes = [
        f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
        for call in step.calls
        for tensor in call.inputs.tensors
    ]
    return {**step_facts(step), "calls": len(step.calls), "inputs": shapes or list(step.shapes)}


def _tensor_files(draft: Draft) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files of tensors, and what their tensors do not say of themselves."""
    entries: dict[str, bytes] = {}
    specs: dict[str, Any] = {}
    shelves = {
        "tensors": draft.tensors,
        "batch": draft.step.batch,
        "upstream": draft.step.upstream,
        "buffers": draft.step.buffers,
    }
    for name, shelf in shelves.items():
        suffix, data = to_bytes(shelf.tensors)
        entries[f"{name}.{suffix}"] = data
        specs[name] = shelf.specs
    return entries, specs


def _stand_in(value: object) -> Absent:
    """Return what stands for an argument that cannot be kept."""
    return Absent(path_of(type(value)), pickled=False)


def _free(path: str) -> str:
    """Return a path that is not taken: a second capsule of a step gets a number."""
    stem = path.removesuffix(SUFFIX)
    number = 1
    while os.path.exists(path):
        number += 1
        path = f"{stem}-{number}{SUFFIX}"
    return path


def _iso(micros: int) -> str:
    """Return a time as ISO 8601 in UTC."""
    return dt.datetime.fromtimestamp(micros / _US, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


__all__ = ["Draft", "Facts", "collect", "write"]
