"""Tensors of every kind as plain ones in a file: strides, sparse layouts, complex numbers, quantisation.

A file of tensors is safetensors where that is installed, else what `torch.save` writes and `weights_only=True` reads;
nothing in either can run code. What a plain tensor does not say of itself (its strides, that it was sparse) is a small
dictionary beside it, in the manifest.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from tracer.errors import CapsuleError

Spec = dict[str, Any]
#: A view whose memory is at most this many times its values is kept with the gaps: kernels see the same strides.
_MOST_GAPS = 2
_LARGEST_STRIDED = 1 << 34
_COMPRESSED: dict[str, tuple[str, str]] = {
    "sparse_csr": ("crow_indices", "col_indices"),
    "sparse_bsr": ("crow_indices", "col_indices"),
    "sparse_csc": ("ccol_indices", "row_indices"),
    "sparse_bsc": ("ccol_indices", "row_indices"),
}


class Shelf:
    """Tensors to be written, by name; each is cloned when it is put there, twice the same object only once.

    Args:
        copy: Whether to clone; not needed for tensors that belong to nobody else.
    """

    def __init__(self, *, copy: bool = True) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.specs: dict[str, Spec] = {}
        self._copy = copy
        self._known: dict[int, tuple[str, Tensor]] = {}  # keeps what it names alive, so that an id stays one object's

    def put(self, name: str, tensor: Tensor) -> None:
        """Keep a tensor under a name."""
        known = self._known.get(id(tensor))
        if known is not None:
            self.specs[name] = {"same": known[0]}
            return
        self._known[id(tensor)] = (name, tensor)
        parts, spec = _taken_apart(tensor.detach())
        if tensor.requires_grad:
            spec["requires_grad"] = True
        if tensor.device.type != "cpu":
            spec["device"] = str(tensor.device)
        for suffix, part in parts.items():
            self.tensors[name + suffix] = part.clone(memory_format=torch.contiguous_format) if self._copy else part
        if spec:
            self.specs[name] = spec

    @property
    def size_bytes(self) -> int:
        """What the tensors take."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors.values())


def taken(tensors: Mapping[str, Tensor], specs: Mapping[str, Spec]) -> dict[str, Tensor]:
    """Return tensors as they were before they were put on a shelf, on the CPU.

    Raises:
        CapsuleError: A description does not fit its tensor.
    """
    found: dict[str, Tensor] = {}
    owned = {part for name, spec in specs.items() if spec.get("layout") for part in _names_of(name, spec)}
    for name in [*tensors, *specs]:
        spec = specs.get(name, {})
        if name in found or name in owned or "same" in spec:
            continue
        try:
            found[name] = _put_together(tensors, name, spec)
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            message = f"The tensor {name!r} cannot be built from what the capsule says of it ({error})."
            raise CapsuleError(message) from error
        if spec.get("requires_grad"):
            found[name].requires_grad_()
    for name, spec in specs.items():
        if "same" in spec:
            if spec["same"] not in found:
                message = f"The tensor {name!r} is said to be {spec['same']!r}, which the capsule does not hold."
                raise CapsuleError(message)
            found[name] = found[spec["same"]]
    return found


def to_bytes(tensors: Mapping[str, Tensor]) -> tuple[str, bytes]:
    """Return the suffix and the bytes of a file of plain tensors."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    writer = _safetensors_writer()
    if writer is not None:
        return "safetensors", writer(plain)
    buffer = io.BytesIO()
    torch.save(plain, buffer)
    return "pt", buffer.getvalue()


def from_bytes(entry: str, data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a file; nothing in it is run.

    Raises:
        CapsuleError: The file is not what its name says, or safetensors is needed and not installed.
    """
    if entry.endswith(".safetensors"):
        return _from_safetensors(entry, data)
    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, UnpicklingError) as error:
        message = f"The entry {entry} holds no tensors that can be read ({type(error).__name__}: {error})."
        raise CapsuleError(message) from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        message = f"The entry {entry} holds something other than named tensors."
        raise CapsuleError(message)
    return loaded


def _from_safetensors(entry: str, data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a file of safetensors."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError as error:
        message = (
            f"Reading {entry} needs the safetensors package, which is not installed. pip install 'ml-tracer[replay]'"
        )
        raise CapsuleError(message) from error
    try:
        return dict(load(data))
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        message = f"The entry {entry} holds no tensors that can be read ({error})."
        raise CapsuleError(message) from error


def _safetensors_writer() -> Callable[[dict[str, Tensor]], bytes] | None:
    """Return what writes safetensors, if that is installed."""
    try:
        from safetensors.torch import save
    except ImportError:
        return None
    return save


def _taken_apart(tensor: Tensor) -> tuple[dict[str, Tensor], Spec]:
    """Return plain, contiguous tensors and what makes them one again; views where nothing has to be computed."""
    layout = str(tensor.layout).removeprefix("torch.")
    if layout == "sparse_coo":
        parts = {".indices": tensor._indices(), ".values": tensor._values()}  # noqa: SLF001 -- also if not coalesced
        return parts, {"layout": layout, "size": list(tensor.size()), "coalesced": tensor.is_coalesced()}
    if layout in _COMPRESSED:
        parts = {f".{name}": getattr(tensor, name)() for name in _COMPRESSED[layout]}
        return {**parts, ".values": tensor.values()}, {"layout": layout, "size": list(tensor.size())}
    if tensor.is_quantized:
        return _quantised(tensor)
    spec: Spec = {}
    if tensor.is_complex():
        spec["complex"] = True
        tensor = torch.view_as_real(tensor.resolve_conj().resolve_neg())
    else:
        tensor = tensor.resolve_neg()
    if tensor.is_contiguous():
        return {"": tensor}, spec
    extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.size(), tensor.stride(), strict=True))
    spec |= {"size": list(tensor.size()), "stride": list(tensor.stride())}
    if extent <= _MOST_GAPS * tensor.numel():
        return {"": tensor.as_strided((extent,), (1,), tensor.storage_offset())}, {**spec, "flat": True}
    return {"": tensor}, spec


def _quantised(tensor: Tensor) -> tuple[dict[str, Tensor], Spec]:
    """Return the integers of a quantised tensor, and its scales."""
    spec: Spec = {"layout": "quantised", "dtype": str(tensor.dtype).removeprefix("torch.")}
    if tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric):
        spec["axis"] = tensor.q_per_channel_axis()
        parts = {".scales": tensor.q_per_channel_scales(), ".zeros": tensor.q_per_channel_zero_points()}
        return {".values": tensor.int_repr(), **parts}, spec
    return {".values": tensor.int_repr()}, {**spec, "scale": tensor.q_scale(), "zero": tensor.q_zero_point()}


def _names_of(name: str, spec: Spec) -> list[str]:
    """Return the names under which the parts of a tensor lie."""
    layout = spec["layout"]
    parts = {"sparse_coo": ("indices", "values"), "quantised": ("values", "scales", "zeros")}.get(layout)
    return [f"{name}.{part}" for part in parts or (*_COMPRESSED.get(layout, ()), "values")]


def _put_together(tensors: Mapping[str, Tensor], name: str, spec: Spec) -> Tensor:
    """Return one tensor from its parts."""
    layout = spec.get("layout")
    if layout == "sparse_coo":
        indices, values = tensors[f"{name}.indices"], tensors[f"{name}.values"]
        made = torch.sparse_coo_tensor(indices, values, spec["size"], check_invariants=True)
        # The one way to say so without sorting again.
        return made._coalesced_(spec["coalesced"])
    if layout in _COMPRESSED:
        compressed, plain = (tensors[f"{name}.{part}"] for part in _COMPRESSED[layout])
        return torch.sparse_compressed_tensor(
            compressed,
            plain,
            tensors[f"{name}.values"],
            spec["size"],
            layout=getattr(torch, layout),
            check_invariants=True,
        )
    if layout == "quantised":
        return _requantised(tensors, name, spec)
    tensor = tensors[name]
    if "stride" in spec:
        tensor = _strided(tensor, spec)
    return torch.view_as_complex(tensor) if spec.get("complex") else tensor


def _requantised(tensors: Mapping[str, Tensor], name: str, spec: Spec) -> Tensor:
    """Return a quantised tensor from integers and scales."""
    integers = tensors[f"{name}.values"]
    if "axis" in spec:
        scales, zeros = tensors[f"{name}.scales"], tensors[f"{name}.zeros"]
        return torch._make_per_channel_quantized_tensor(integers, scales, zeros, spec["axis"])  # noqa: SLF001
    return torch._make_per_tensor_quantized_tensor(integers, spec["scale"], spec["zero"])  # noqa: SLF001


def _strided(tensor: Tensor, spec: Spec) -> Tensor:
    """Return values laid out in memory as they were."""
    size, stride = list(map(int, spec["size"])), list(map(int, spec["stride"]))
    if math.prod(size) * tensor.element_size() > _LARGEST_STRIDED:
        message = f"it would take {math.prod(size) * tensor.element_size():,} bytes"
        raise ValueError(message)
    if spec.get("flat"):
        return tensor.as_strided(size, stride)  # torch refuses what reaches beyond the values
    extent = 1 + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if math.prod(size) != tensor.numel() or extent * tensor.element_size() > _LARGEST_STRIDED:
        return tensor
    return torch.empty_strided(size, stride, dtype=tensor.dtype).copy_(tensor.reshape(size))


__all__ = ["Shelf", "Spec", "from_bytes", "taken", "to_bytes"]
