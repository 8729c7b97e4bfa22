"""Tensors as TensorBoard's events carry them, read into NumPy; torch and tensorboardX write the same fields."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Number in the protocol → name of the type in NumPy, and the fields that may hold the values.
_TYPES = {
    1: ("f4", "float_val"),
    2: ("f8", "double_val"),
    3: ("i4", "int_val"),
    4: ("u1", "int_val", "uint32_val"),  # the first by the protocol, the second by torch
    5: ("i2", "int_val"),
    6: ("i1", "int_val"),
    8: ("c8", "scomplex_val"),
    9: ("i8", "int64_val"),
    10: ("?", "bool_val"),
    14: ("bfloat16", "half_val"),
    17: ("u2", "int_val"),
    18: ("c16", "dcomplex_val"),
    19: ("f2", "half_val"),
    22: ("u4", "uint32_val"),
    23: ("u8", "uint64_val"),
}
#: Fields whose values have a fixed width: their number in the message, and the type of what lies there.
_FIXED = {"float_val": (5, "<f4"), "double_val": (6, "<f8"), "scomplex_val": (9, "<f4"), "dcomplex_val": (12, "<f8")}
#: The number for texts.
STRINGS = 7
#: How a field of the wire format is told apart: bits of its key, and the kind that begins with a length.
_KIND_BITS, _KIND, _WITH_LENGTH = 3, 0b111, 2
_MORE, _PAYLOAD, _PAYLOAD_BITS = 0x80, 0x7F, 7
_HALF_BITS = 0xFFFF

Array = np.ndarray[Any, Any]


def array(tensor: Any) -> Array | None:  # noqa: ANN401 -- a message of either package
    """Return the values of a tensor of numbers, or None where its type is none that NumPy knows.

    Args:
        tensor: A `TensorProto`.
    """
    kind, *fields = _TYPES.get(tensor.dtype, ("",))
    if not fields:
        return None
    shape = tuple(dimension.size for dimension in tensor.tensor_shape.dim)
    if tensor.tensor_content:
        raw = np.frombuffer(tensor.tensor_content, "<u2" if kind == "bfloat16" else f"<{kind}")
        return (_widened(raw) if kind == "bfloat16" else raw).reshape(shape)
    flat = _fixed(tensor, fields[0]).view(kind) if fields[0] in _FIXED else _flat(kind, tensor, fields)
    size = math.prod(shape)
    if 0 < len(flat) < size:  # the last value stands for all that follow
        flat = np.concatenate([flat, np.full(size - len(flat), flat[-1])])
    return flat.reshape(shape) if len(flat) == size else flat  # a scalar may come without its shape


def _flat(kind: str, tensor: Any, fields: Sequence[str]) -> Array:  # noqa: ANN401 -- as above
    """Return the values of the field that has any, one by one: their width varies."""
    held = next((held for field in fields if (held := getattr(tensor, field))), ())
    if kind in {"f2", "bfloat16"}:
        return _halves(kind, np.fromiter(held, "i8", len(held)))
    return np.fromiter(held, kind, len(held))


def _fixed(tensor: Any, field: str) -> Array:  # noqa: ANN401 -- as above
    """Return the values of a field of fixed width, out of the message as it is sent: as fast as copying it.

    Asking for them one by one would take as long again as making the event has.
    """
    number, kind = _FIXED[field]
    sent = tensor.SerializeToString()
    found, at = [], 0
    while at < len(sent):
        key, at = _whole_number(sent, at)
        if key & _KIND != _WITH_LENGTH:  # all others that can stand here are numbers of varying width
            _, at = _whole_number(sent, at)
            continue
        length, at = _whole_number(sent, at)
        if key >> _KIND_BITS == number:
            found.append(np.frombuffer(sent, kind, length // np.dtype(kind).itemsize, at))
        at += length
    return found[0] if len(found) == 1 else np.concatenate([np.zeros(0, kind), *found])


def _whole_number(sent: bytes, at: int) -> tuple[int, int]:
    """Return the number of varying width at a place, and where the next thing stands."""
    value = shift = 0
    while True:
        byte = sent[at]
        value |= (byte & _PAYLOAD) << shift
        at, shift = at + 1, shift + _PAYLOAD_BITS
        if not byte & _MORE:
            return value, at


def _halves(kind: str, bits: Array) -> Array:
    """Return half-precision values: the protocol holds their own 16 bits, torch the 32 of the float they make."""
    if bool((bits > _HALF_BITS).any()) or bool((bits < 0).any()):
        floats: Array = bits.astype("i4").view("f4")
        return floats.astype("f2") if kind == "f2" else floats
    return bits.astype("u2").view("f2") if kind == "f2" else _widened(bits)


def _widened(bits: Array) -> Array:
    """Return brain floats, of which NumPy knows nothing, as the floats whose upper half they are."""
    floats: Array = (bits.astype("u4") << 16).view("f4")
    return floats


def file_of(values: Array) -> bytes:
    """Return an array as the bytes of a `.npy` file."""
    held = io.BytesIO()
    np.lib.format.write_array(held, values, allow_pickle=False)
    return held.getvalue()


__all__ = ["STRINGS", "array", "file_of"]
