"""What is in a capsule's file, read entry by entry when it is asked for; pickles only when the capsule is trusted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tracer.errors import CapsuleError
from tracer.flight import pickles
from tracer.flight.archive import Archive
from tracer.flight.signature import is_own
from tracer.flight.steps import Step
from tracer.flight.stored_snapshots import SnapshotData, read_snapshot
from tracer.flight.stored_steps import StepReader
from tracer.flight.tensors import Spec, from_bytes, taken

_KINDS = ("safetensors", "pt")


class Contents:
    """The parts of a capsule.

    Args:
        path: The file.
        trust: Whether its pickles may run code; those of one's own capsules always may.

    Raises:
        CapsuleError: It is no capsule, is damaged, or a newer Tracer wrote it.
    """

    def __init__(self, path: str | os.PathLike[str], *, trust: bool = False) -> None:
        self.archive = Archive(os.fspath(path))
        self.manifest: dict[str, Any] = self.archive.manifest
        self.trust = trust or is_own(self.manifest)
        self.path = self.archive.path

    @property
    def name(self) -> str:
        """The file's name."""
        return os.path.basename(self.path)

    def parameters(self) -> dict[str, Tensor]:
        """Return parameters and buffers by name; tied ones are the same object.

        Raises:
            CapsuleError: They are damaged, or were left to a checkpoint.
        """
        if self.manifest.get("parameters") == "checkpoint":
            message = (
                f"{self.name} holds no parameters, because they are too many. They are those of the checkpoint "
                f"{self.manifest.get('checkpoint')!r}: load it in a function and name that: --entry file.py:build"
            )
            raise CapsuleError(message)
        return self._tensors("tensors")

    def step(self) -> Step:
        """Return the step as it was recorded.

        Raises:
            CapsuleError: A part is damaged, or an argument lies in a pickle that is not trusted.
        """
        document = self.archive.json("batch.json")
        objects = self._objects()
        reader = StepReader(
            self._tensors("batch"),
            self._tensors("upstream"),
            self._tensors("buffers"),
            self.archive.read("rng.bin"),
            objects,
        )
        if not isinstance(document, dict) or not isinstance(document.get("step"), dict):
            message = f"The entry batch.json of {self.path!r} holds no step."
            raise CapsuleError(message)
        step = reader.step(document["step"])
        if reader.absent:
            first = reader.absent[0]
            way = (
                "It is in a pickle, which runs code as it is read: if you know who wrote the capsule, say --trust "
                "(in Python: trust=True)."
                if first.pickled
                else "It could not be pickled, so the step cannot be run again from this file."
            )
            message = f"An argument of the model is an object of the class {first.kind}. {way}"
            raise CapsuleError(message)
        return step

    def ring(self) -> list[dict[str, Any]]:
        """Return the numbers of the last steps, the oldest first."""
        found = self.archive.json("ring.json")
        return found if isinstance(found, list) else []

    def snapshot(self) -> SnapshotData | None:
        """Return the older state, if the capsule has one."""
        return read_snapshot(self.archive)

    def pickled_model(self) -> bytes | None:
        """Return the model's pickle where there is one and it may be used."""
        return self.archive.read("model.pkl") if self.trust and "model.pkl" in self.archive else None

    def _objects(self) -> list[Any] | None:
        """Return the arguments that are no plain data, if they may be read."""
        if not self.trust or "objects.pkl" not in self.archive:
            return None
        return pickles.loaded_objects(self.archive.read("objects.pkl"))

    def _tensors(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of a file, each on the device it was on if there is one here."""
        entry = next((f"{name}.{kind}" for kind in _KINDS if f"{name}.{kind}" in self.archive), f"{name}.safetensors")
        specs = self.manifest.get("tensors", {}).get(name, {})
        return placed(taken(from_bytes(entry, self.archive.read(entry)), specs), specs)


def placed(tensors: Mapping[str, Tensor], specs: Mapping[str, Spec]) -> dict[str, Tensor]:
    """Return tensors on the devices they were on, as far as there are such devices here."""
    moved: dict[int, Tensor] = {}
    for name, tensor in tensors.items():
        device = specs.get(name, {}).get("device")
        if isinstance(device, str) and id(tensor) not in moved and _is_here(device):
            moved[id(tensor)] = tensor.detach().to(device).requires_grad_(tensor.requires_grad)
    return {name: moved.get(id(tensor), tensor) for name, tensor in tensors.items()}


def _is_here(device: str) -> bool:
    """Tell whether there is such a device."""
    try:
        wanted = torch.device(device)
    except RuntimeError:
        return False
    return wanted.type == "cuda" and torch.cuda.is_available() and (wanted.index or 0) < torch.cuda.device_count()


__all__ = ["Contents", "placed"]
