"""Files of tensors, written and read without torch and never with pickle: the safetensors format.

    8 bytes   length of the header, little-endian
    header    JSON: name → {dtype, shape, data_offsets}, padded with spaces so that the data begin at a multiple of 8
    data      the tensors' bytes, little-endian, one after the other

Read here beside `.npz` and `.npy`, which numpy writes; every other reader of safetensors opens what is written here.
"""

from __future__ import annotations

import json
import math
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np

from tracer.errors import StoreError

SUFFIX = ".safetensors"
READABLE = (SUFFIX, ".npz", ".npy")
_ALIGNED, _LARGEST_HEADER = 8, 100_000_000
#: Name in the file → (numpy's type, bytes of an element).
_TYPES = {
    "F64": ("<f8", 8), "F32": ("<f4", 4), "F16": ("<f2", 2), "BF16": ("<u2", 2), "I64": ("<i8", 8), "I32": ("<i4", 4),
    "I16": ("<i2", 2), "I8": ("i1", 1), "U8": ("u1", 1), "U16": ("<u2", 2), "U32": ("<u4", 4), "U64": ("<u8", 8),
    "BOOL": ("?", 1), "F8_E4M3": ("u1", 1), "F8_E5M2": ("u1", 1),
}  # fmt: skip
_ALIENS = frozenset({"BF16", "F8_E4M3", "F8_E5M2"})  # what numpy lacks
_OF_NUMPY = {np.dtype(kind).str.lstrip("<|"): name for name, (kind, _) in _TYPES.items() if name not in _ALIENS}
_OF_TORCH = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file: what it is, and how to get its values."""

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], Any]

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


def pack(values: Mapping[str, object]) -> bytes:
    """Return tensors and arrays as the bytes of a safetensors file; nested dictionaries get names with dots.

    Raises:
        TypeError: Something is neither a tensor nor an array nor a number.
        ValueError: Two of them would have the same name, or there is none.
    """
    found: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    for name, value in _leaves(values, ""):
        if name in found or name == "__metadata__":
            message = f"Two tensors would be called {name!r}. Rename one of them."
            raise ValueError(message)
        found[name] = _raw(name, value)
    if not found:
        message = "There is no tensor in the dictionary, so there is nothing to keep."
        raise ValueError(message)
    header: dict[str, object] = {}
    offset = 0
    ordered = sorted(found, key=lambda name: (-_TYPES[found[name][0]][1], name))  # so that each lies aligned
    for name in ordered:
        dtype, shape, data = found[name]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNED)
    return b"".join([len(text).to_bytes(8, "little"), text, *(found[name][2] for name in ordered)])


def tensors_of(file: BinaryIO, name: str) -> dict[str, Tensor]:
    """Return the tensors of an open file by name.

    Args:
        file: The file, open as long as the tensors are read.
        name: What it is called: the ending tells the format.

    Raises:
        StoreError: It is not what its ending says.
    """
    try:
        if name.lower().endswith(SUFFIX):
            return _of_safetensors(file)
        if name.lower().endswith(".npz"):
            return _of_npz(file)
        array = np.load(file, allow_pickle=False)
        return {"array": Tensor(str(array.dtype), array.shape, lambda: array)}
    except (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile) as error:
        message = f"{name} cannot be read as tensors ({error})."
        raise StoreError(message) from error


def _of_safetensors(file: BinaryIO) -> dict[str, Tensor]:
    """Read the header of a safetensors file; every place it names is checked."""
    file.seek(0, 2)
    whole = file.tell()
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > min(_LARGEST_HEADER, whole - 8):
        message = f"its header would have {length:,} bytes"
        raise ValueError(message)
    header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    found: dict[str, Tensor] = {}
    for name, said in header.items():
        begin, end = said["data_offsets"]
        dtype, shape = said["dtype"], tuple(said["shape"])
        if not 0 <= begin <= end <= whole - 8 - length or end - begin != math.prod(shape) * _TYPES[dtype][1]:
            message = f"tensor {name!r} does not lie where the header says"
            raise ValueError(message)
        found[name] = Tensor(dtype, shape, _reader(file, dtype, shape, 8 + length + begin, end - begin))
    return found


def _of_npz(file: BinaryIO) -> dict[str, Tensor]:
    """Return the arrays of an archive; objects, which are pickles, are refused."""
    archive = np.load(file, allow_pickle=False)
    found: dict[str, Tensor] = {}
    for name in archive.files:
        array = archive[name]
        kind = _OF_NUMPY.get(array.dtype.str.lstrip("<|"), str(array.dtype))
        found[name] = Tensor(kind, array.shape, partial(np.asarray, array))
    return found


def _reader(file: BinaryIO, dtype: str, shape: tuple[int, ...], at: int, size: int) -> Callable[[], Any]:
    """Return what reads one tensor; bfloat16, which numpy lacks, becomes float32."""

    def read() -> Any:  # noqa: ANN401 -- an array
        file.seek(at)
        array = np.frombuffer(file.read(size), _TYPES[dtype][0]).reshape(shape)
        return (array.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else array

    return read


def _leaves(values: Mapping[str, object], before: str) -> Iterator[tuple[str, object]]:
    """Yield what a nested dictionary holds, with its whole name."""
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _raw(name: str, value: Any) -> tuple[str, tuple[int, ...], bytes]:  # noqa: ANN401 -- a tensor, an array
    """Return type, shape and bytes of a tensor, an array or a number."""
    kind = str(getattr(value, "dtype", ""))
    if kind.startswith("torch."):
        dtype = _OF_TORCH.get(kind.removeprefix("torch."))
        if dtype is None or str(getattr(value, "layout", "")) != "torch.strided":
            what = f"{kind}, {value.layout}"
            message = f"Tensor {name!r} is {what}, which a file of tensors cannot hold. Convert it first."
            raise TypeError(message)
        plain = value.detach().cpu().contiguous()
        return dtype, tuple(plain.shape), plain.reshape(-1).view(sys.modules["torch"].uint8).numpy().tobytes()
    if not isinstance(value, (bool, int, float, np.generic, np.ndarray)) and not hasattr(value, "__array__"):
        message = (
            f"{name!r} is {type(value).__name__}, neither a tensor nor an array. Leave it out, give it as `metadata`, "
            "or save the file yourself and log its path."
        )
        raise TypeError(message)
    array = np.asarray(value)
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    found = _OF_NUMPY.get(little.dtype.str.lstrip("<|"))
    if found is None:
        message = f"Array {name!r} is of type {array.dtype}, which a file of tensors cannot hold. Convert it first."
        raise TypeError(message)
    return found, array.shape, np.ascontiguousarray(little).tobytes()


__all__ = ["READABLE", "SUFFIX", "Tensor", "pack", "tensors_of"]
