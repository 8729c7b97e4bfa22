"""The native kernel: statistics, norms and histograms of many tensors in the processor's widest instructions.

A library of C beside this file, built when Tracer is installed where a C compiler is, and called through `ctypes`: one
call for a table of tensors, without the interpreter's lock. Nothing depends on it. Where it is missing or switched off
with `TRACER_NATIVE=off`, the callers take their portable way, which gives the same figures, only later.

Loads neither torch nor numpy, so that a command can ask `reason`.
"""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

#: Changed with statistics.c whenever a call or a table looks different.
_INTERFACE = 2
#: What is asked of the environment once, when the library is first needed.
_VARIABLE = "TRACER_NATIVE"
_OFF = frozenset({"0", "off", "false", "no"})
_LIBRARY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "native", "statistics.so")

#: How statistics.c numbers the types that it reads.
FLOAT32, FLOAT64, BFLOAT16, FLOAT16 = range(4)
#: How many figures a row of `statistics` has: count, sum, sum of squares, min, max, zeros, NaNs, infinities.
FIGURES = 8
#: The instruction sets there are kernels for, by the number that `choose` takes; a processor may lack the first ones.
INSTRUCTIONS = ("AVX-512", "AVX2", "SSE2")


class Table:
    """Where tensors lie in memory; whoever makes one keeps them alive while it is used.

    Args:
        addresses: Of the first value of each.
        sizes: How many values follow each other there.
        types: `FLOAT32` and so on.
    """

    __slots__ = ("count", "fields")

    def __init__(self, addresses: Sequence[int], sizes: Sequence[int], types: Sequence[int]) -> None:
        self.count = len(addresses)
        self.fields = array("q", bytes(24 * self.count))
        self.fields[0::3] = array("q", addresses)
        self.fields[1::3] = array("q", sizes)
        self.fields[2::3] = array("q", types)


class Layers:
    """Reduces tensors of the same sizes again and again; only where they lie changes. See `available`.

    Args:
        sizes: How many values each has.
        types: `FLOAT32` and so on.
        places: The column of each tensor in the result.
    """

    __slots__ = ("_call", "_count", "_fields", "_keep", "_out")

    def __init__(self, sizes: Sequence[int], types: Sequence[int], places: Sequence[int]) -> None:
        self._count = len(sizes)
        self._fields = Table([0] * self._count, sizes, types).fields
        figures, columns = array("d", bytes(8 * FIGURES * self._count)), array("q", places)
        self._out = array("f", bytes(4 * FIGURES * self._count))
        self._keep = (figures, columns)
        self._call = (_loaded().tracer_layers, figures.buffer_info()[0], columns.buffer_info()[0])

    def read(self, addresses: Sequence[int], scale: float) -> tuple[bytes, float]:
        """Return the statistics as single floats, a statistic per row and a layer per column, and the norm of all."""
        function, figures, places = self._call
        self._fields[0::3] = array("q", addresses)
        norm: float = function(
            self._fields.buffer_info()[0], self._count, figures, places, scale, self._out.buffer_info()[0]
        )
        return self._out.tobytes(), norm


def available() -> bool:
    """Tell whether the native kernel is in use.

    Example:
        >>> available() == ("AVX" in reason() or "SSE" in reason() or "vectors" in reason())
        True
    """
    return _library()[0] is not None


def reason() -> str:
    """Return which instructions the native kernel uses, or why there is none; a part of a sentence."""
    library, why_not = _library()
    return why_not if library is None else f"in use, with {library.tracer_instructions().decode()}"


def statistics(table: Table) -> array[float]:
    """Return the figures of each tensor, a row of `FIGURES` after the other; see `available`."""
    rows = array("d", bytes(8 * FIGURES * table.count))
    _loaded().tracer_statistics(table.fields.buffer_info()[0], table.count, rows.buffer_info()[0])
    return rows


def squares(table: Table) -> array[float]:
    """Return the sum of squares of each tensor; see `available`."""
    sums = array("d", bytes(8 * table.count))
    _loaded().tracer_squares(table.fields.buffer_info()[0], table.count, sums.buffer_info()[0])
    return sums


def exponents(table: Table, lowest: int, bins: int) -> array[int]:
    """Return how many values have each exponent: a row of `bins` per sign (negative first) and tensor.

    Args:
        table: The tensors.
        lowest: The exponent of the first bin; no value may have a lower one.
        bins: How many exponents there are; no value may have a higher one.
    """
    counts = array("I", bytes(4 * 2 * bins * table.count))
    _loaded().tracer_exponents(table.fields.buffer_info()[0], table.count, counts.buffer_info()[0], lowest, bins)
    return counts


def choose(number: int) -> bool:
    """Use the instructions with this number in `INSTRUCTIONS`, as tests and benchmarks do; False if there are none."""
    return available() and bool(_loaded().tracer_choose(number))


@contextmanager
def switched_off() -> Iterator[None]:
    """Let everybody take the portable way meanwhile, as tests and benchmarks do."""
    global _found  # noqa: PLW0603 -- one library for the whole process
    before, _found = _library(), (None, "switched off for a while")
    try:
        yield
    finally:
        _found = before


def _loaded() -> ctypes.CDLL:
    """Return the library where it is in use."""
    library, why_not = _library()
    if library is None:
        message = f"The native kernel is {why_not}. Ask `available` first."
        raise RuntimeError(message)
    return library


def _library() -> tuple[ctypes.CDLL | None, str]:
    """Return the library or why it is not used; loaded at the first call."""
    global _found  # noqa: PLW0603 -- one library for the whole process
    if _found is None:
        _found = _load(_LIBRARY)
    return _found


def _load(path: str) -> tuple[ctypes.CDLL | None, str]:
    """Load the library unless something speaks against it."""
    if os.environ.get(_VARIABLE, "").strip().lower() in _OFF:
        return None, f"switched off by {_VARIABLE}={os.environ[_VARIABLE]}"
    if not os.path.exists(path):
        return None, "not part of this installation, because there was no C compiler when it was built"
    try:
        library = ctypes.CDLL(path)
        interface = int(library.tracer_interface())
    except (OSError, AttributeError) as error:  # for another processor, or no library of ours
        return None, f"not usable here: {error}"
    if interface != _INTERFACE:
        return None, f"not usable: built with interface {interface} instead of {_INTERFACE}; install Tracer again"
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.tracer_instructions.restype = ctypes.c_char_p
    library.tracer_choose.argtypes, library.tracer_choose.restype = [number], number
    library.tracer_statistics.argtypes, library.tracer_statistics.restype = [pointer, number, pointer], None
    library.tracer_layers.argtypes = [pointer, number, pointer, pointer, ctypes.c_double, pointer]
    library.tracer_layers.restype = ctypes.c_double
    library.tracer_squares.argtypes, library.tracer_squares.restype = [pointer, number, pointer], None
    library.tracer_exponents.argtypes = [pointer, number, pointer, number, number]
    library.tracer_exponents.restype = None
    return library, ""


_found: tuple[ctypes.CDLL | None, str] | None = None


__all__ = [
    "BFLOAT16",
    "FIGURES",
    "FLOAT16",
    "FLOAT32",
    "FLOAT64",
    "INSTRUCTIONS",
    "Layers",
    "Table",
    "available",
    "choose",
    "exponents",
    "reason",
    "squares",
    "statistics",
    "switched_off",
]
