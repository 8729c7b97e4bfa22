"""The states of all random generators that a training step may draw from: reading and restoring them.

They are read before every call of a watched model, so reading must cost next to nothing. Python and NumPy hold their
global generators as a block of 624 words and a position, and the second half of a pair of normal deviates beside it.
Both are copied from memory, which takes a hundredth of what the official functions take. Where they lie is found out,
not assumed: `Layout` compares them with what the official functions say, and where that does not fit they are asked.

`packed` and `unpacked` are the form in a file: a line of JSON with the small things, then the blocks. No pickle.
"""

from __future__ import annotations

import ctypes
import json
import random
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import FunctionType, MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

_WORDS = 624
_BLOCK = 4 * _WORDS + 4  # the words and the position
_PAIR = 16  # NumPy: whether half a pair waits (an int, padded) and which number it is
_HEADER = object.__basicsize__


class Twister(NamedTuple):
    """A Mersenne Twister: its words and position in one form for Python and NumPy, and the half pair that waits."""

    block: bytes  # 624 words of 32 bits, then the position
    gauss: float | None


class States(NamedTuple):
    """The generators' states at one moment; made by `capture`, meaningful to this module only."""

    python: Any  # Twister, bytes as they lie in memory with the half pair, or what `random.getstate` returned
    numpy: Any  # the same; the dictionary of another bit generator; None while NumPy is not loaded
    cpu: Tensor
    devices: tuple[Tensor, ...] = ()
    kind: str = "cuda"  # of the devices
    private: Mapping[str, Any] = MappingProxyType({})  # of generators that the model holds, by path


class _Raw(NamedTuple):
    """A generator as it lay in memory, decoded only when somebody asks."""

    memory: bytes
    rest: Any


class Layout:
    """Where the two global generators lie in memory, as far as that could be verified.

    Args:
        header: Size of what comes before the first word of Python's generator; another one than the real is refused.
    """

    def __init__(self, header: int = _HEADER) -> None:
        self._header = header
        self._inst: Any = random._inst  # noqa: SLF001 -- the global generator has no other name
        self._python_block = _view(id(self._inst) + header, _BLOCK)
        self._seen: Any = None  # the bit generator whose block is known
        self._numpy_block = self._numpy_pair = self._python_block
        self.python = _agrees(self._python_fits)
        self._pair_at: int | None = None
        self.numpy = self.looked = False
        if "numpy" in sys.modules:
            self.look_at_numpy()

    def look_at_numpy(self) -> None:
        """Find NumPy's generator, once it is loaded."""
        self.looked = True
        self.numpy = _agrees(self._numpy_fits)
        self._pair_at = _pair_offset() if self.numpy else None

    @property
    def pair(self) -> bool:
        """Whether NumPy's half pair can be read from memory too."""
        return self._pair_at is not None

    def python_now(self) -> _Raw:
        """Return the memory of Python's global generator."""
        return _Raw(self._python_block.tobytes(), self._inst.gauss_next)

    def numpy_now(self, generator: Any) -> _Raw:  # noqa: ANN401 -- a RandomState
        """Return the memory of NumPy's global `RandomState`, which is over a Mersenne Twister."""
        bits = generator._bit_generator  # noqa: SLF001 -- its public name costs a call
        if bits is not self._seen:
            self._numpy_block = _view(bits.ctypes.state_address, _BLOCK)
            if self._pair_at is not None:
                self._numpy_pair = _view(id(generator) + self._pair_at, _PAIR)
            self._seen = bits
        return _Raw(self._numpy_block.tobytes(), None if self._pair_at is None else self._numpy_pair.tobytes())

    def _python_fits(self) -> bool:
        """Compare Python's memory with what the official function says, at two positions."""
        probe = random.Random(1)  # noqa: S311 -- its memory is looked at, nothing is drawn for anybody
        for _ in range(2):
            probe.gauss(0.0, 1.0)
            memory = _view(id(probe) + self._header, _BLOCK).tobytes()
            if _of_python(_Raw(memory, probe.gauss_next)) != _of_python(probe.getstate()):  # type: ignore[attr-defined]  # undocumented, as old as the class
                return False
        return _of_python(self.python_now()) == _of_python(random.getstate())

    def _numpy_fits(self) -> bool:
        """Compare NumPy's memory with what the official function says, at two positions."""
        probe = sys.modules["numpy"].random.RandomState(1)
        for _ in range(2):
            probe.random_sample()
            memory = _view(probe._bit_generator.ctypes.state_address, _BLOCK).tobytes()  # noqa: SLF001 -- as above
            if memory != _of_numpy(probe.get_state(legacy=False)).block:
                return False
        return True


def _view(address: int, size: int) -> memoryview:
    """Return a view of memory; copying through a view that exists costs a third of `ctypes.string_at`."""
    return memoryview((ctypes.c_char * size).from_address(address)).cast("B")


def _agrees(test: Callable[[], bool]) -> bool:
    """Tell whether a look into memory gave what it should; a layout that is not known may raise anything of these."""
    try:
        return test()
    except (AttributeError, TypeError, ValueError, KeyError, struct.error):
        return False


def _pair_offset() -> int | None:
    """Return where a `RandomState` keeps the half pair: searched in the memory of several, and verified."""
    make = sys.modules["numpy"].random.RandomState
    found: set[int] = set()
    for seed in (1, 2, 3):
        probe = make(seed)
        probe.standard_normal()
        size = type(probe).__basicsize__
        number = struct.pack("d", probe.get_state(legacy=False)["gauss"])
        found.add(ctypes.string_at(id(probe), size).find(number) - 8)
        at = min(found)
        if len(found) != 1 or at < _HEADER or _pair(ctypes.string_at(id(probe) + at, _PAIR)) is None:
            return None
        probe.standard_normal()
        if _pair(ctypes.string_at(id(probe) + at, _PAIR)) is not None:
            return None
    return found.pop()


def _pair(memory: bytes) -> float | None:
    """Return the half pair of a `RandomState`, if one waits."""
    waits, number = struct.unpack("i4xd", memory)
    return number if waits else None


_layout: Layout | None = None


def layout() -> Layout:
    """Return what is known of the memory in this process; looked at once."""
    global _layout  # noqa: PLW0603 -- one memory per process
    if _layout is None:
        _layout = Layout()
    return _layout


def capture(*, gauss: bool = True) -> States:
    """Return the states of Python's, NumPy's global and torch's generators.

    Args:
        gauss: Whether NumPy's half pair of normal deviates is worth 36 µs where it cannot be read from memory.

    Returns:
        The states, to be restored with `restore`.

    Example:
        >>> states = capture()
        >>> first = random.random()
        >>> restore(states)
        >>> random.random() == first
        True
    """
    known = _layout or layout()
    python = known.python_now() if known.python else random.getstate()
    numpy = _numpy_state(known, gauss=gauss)
    if not torch.cuda.is_initialized() and not _other_accelerator():  # type: ignore[no-untyped-call]  # torch's
        return States(python, numpy, torch.default_generator.get_state())
    kind, devices = _devices()
    return States(python, numpy, torch.default_generator.get_state(), devices, kind)


def _numpy_state(known: Layout, *, gauss: bool) -> Any:  # noqa: ANN401 -- see States
    """Return the state of NumPy's global generator; None while NumPy is not loaded."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    generator = numpy.random.mtrand._rand  # noqa: SLF001 -- the global generator has no other name
    if not known.looked:
        known.look_at_numpy()
    if known.numpy and (known.pair or not gauss) and type(generator._bit_generator).__name__ == "MT19937":  # noqa: SLF001 -- `set_bit_generator` changes it
        return known.numpy_now(generator)
    return generator.get_state(legacy=False)


def _devices() -> tuple[str, tuple[Tensor, ...]]:
    """Return the kind of accelerator in use, and the state of each device; reading waits for none of them."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's
        return "cuda", tuple([generator.get_state() for generator in torch.cuda.default_generators])
    kind = _other_accelerator()
    module: Any = torch.get_device_module(kind)
    states = module.get_rng_state_all() if hasattr(module, "get_rng_state_all") else [module.get_rng_state()]
    return kind, tuple(states)


_other: list[str] = []


def _other_accelerator() -> str:
    """Return the kind of accelerator that is not CUDA and has generators, empty if there is none; asked once."""
    if not _other:
        device = torch.accelerator.current_accelerator() if hasattr(torch, "accelerator") else None
        kind = "" if device is None or device.type == "cuda" else device.type
        _other.append(kind if kind and hasattr(torch.get_device_module(kind), "get_rng_state") else "")
    return _other[0]


def restore(states: States, model: torch.nn.Module | None = None) -> None:
    """Set every generator to a state read before.

    Args:
        states: What `capture` returned, or `unpacked` read.
        model: The model whose private generators are set too, if `states` holds any.
    """
    python = _of_python(states.python)
    words = struct.unpack(f"={_WORDS}Ii", python.block)
    random.setstate((3, words, python.gauss))
    numpy = sys.modules.get("numpy")
    if numpy is not None and states.numpy is not None:
        _set_numpy(numpy, numpy.random.mtrand._rand, states.numpy)  # noqa: SLF001 -- see `_numpy_state`
    torch.default_generator.set_state(states.cpu)
    if states.devices:
        _set_devices(states)
    if model is not None and states.private:
        restore_private(model, states.private)


def _set_devices(states: States) -> None:
    """Set the generators of as many devices as this machine has."""
    module: Any = getattr(torch, states.kind)
    if not module.is_available():
        return
    if not hasattr(module, "device_count"):
        module.set_rng_state(states.devices[0])
        return
    for device, state in zip(range(module.device_count()), states.devices, strict=False):
        module.set_rng_state(state, device)


def _set_numpy(numpy: Any, generator: Any, state: Any) -> None:  # noqa: ANN401 -- see States
    """Set a `RandomState` of NumPy."""
    state = _of_numpy(state)
    if isinstance(state, Twister):
        words = numpy.frombuffer(state.block[: 4 * _WORDS], dtype=numpy.uint32).copy()
        position = struct.unpack("=i", state.block[4 * _WORDS :])[0]
        waits = state.gauss is not None
        state = {
            "bit_generator": "MT19937",
            "state": {"key": words, "pos": position},
            "has_gauss": int(waits),
            "gauss": state.gauss or 0.0,
        }
    generator.set_state(state)


# Decoding: one form for what came from memory, from the official functions, and from a file.


def _of_python(state: Any) -> Twister:  # noqa: ANN401 -- see States
    """Return a state of Python's generator in the one form; in memory the position comes first."""
    if isinstance(state, Twister):
        return state
    if isinstance(state, _Raw):
        return Twister(state.memory[4:] + state.memory[:4], state.rest)
    _, words, gauss = state
    return Twister(struct.pack(f"={_WORDS}Ii", *words), gauss)


def _of_numpy(state: Any) -> Any:  # noqa: ANN401 -- see States
    """Return a state of NumPy's generator in the one form; another bit generator's dictionary stays as it is."""
    if isinstance(state, _Raw):
        return Twister(state.memory, None if state.rest is None else _pair(state.rest))
    if isinstance(state, dict) and state.get("bit_generator") == "MT19937":
        inner = state["state"]
        block = inner["key"].tobytes() + struct.pack("=i", inner["pos"])
        return Twister(block, float(state["gauss"]) if state.get("has_gauss") else None)
    return state


# Generators that a model holds.

_NEVER = frozenset({dict, OrderedDict, set, list, tuple, bool, int, float, str, type(None), FunctionType})


def private_generators(model: torch.nn.Module) -> list[tuple[str, torch.nn.Module, str]]:
    """Return the generators that are attributes of a model or its modules: path, module, name of the attribute."""
    found = []
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if type(value) in _NEVER:  # nearly all attributes of a module, and torch's own check is slow
                continue
            if isinstance(value, (torch.Generator, random.Random)) or _is_of_numpy(value):
                found.append((f"{path}.{name}" if path else name, module, name))
    return found


def private(model: torch.nn.Module) -> dict[str, Any]:
    """Return the states of the generators that a model holds, by path.

    Args:
        model: Its own attributes and those of its modules are looked at; generators elsewhere are not found.

    Returns:
        Path → state, for `States.private` and `restore_private`.
    """
    return {path: state_of(getattr(module, name)) for path, module, name in private_generators(model)}


def state_of(generator: Any) -> Any:  # noqa: ANN401 -- of torch, NumPy or Python
    """Return the state of one generator, whatever library it is of."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return _of_python(generator.getstate())
    if hasattr(generator, "get_state"):
        return _of_numpy(generator.get_state(legacy=False))
    return getattr(generator, "bit_generator", generator).state


def restore_private(model: torch.nn.Module, states: Mapping[str, Any]) -> None:
    """Set the generators that a model holds; a path that is gone is left out."""
    for path, module, name in private_generators(model):
        if path in states:
            _set(getattr(module, name), states[path])


def _set(generator: Any, state: Any) -> None:  # noqa: ANN401 -- of torch, NumPy or Python
    """Set one generator."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate((3, struct.unpack(f"={_WORDS}Ii", state.block), state.gauss))
    elif hasattr(generator, "get_state"):
        _set_numpy(sys.modules["numpy"], generator, state)
    else:
        getattr(generator, "bit_generator", generator).state = state


def _is_of_numpy(value: object) -> bool:
    """Tell whether a value is a generator of NumPy."""
    kind = type(value)
    if kind.__module__.partition(".")[0] != "numpy":
        return False
    numpy = sys.modules["numpy"].random
    return isinstance(value, (numpy.Generator, numpy.RandomState, numpy.BitGenerator))


# In a file.


def packed(states: States) -> bytes:
    """Return states as bytes that need no trust to be read.

    Args:
        states: What `capture` returned.

    Returns:
        A line of JSON, a line break, and the blocks it speaks of.

    Example:
        >>> states = unpacked(packed(capture()))
        >>> restore(states)
    """
    blocks: list[bytes] = []
    head = {
        "python": _shown(_of_python(states.python), blocks),
        "numpy": _shown(_of_numpy(states.numpy), blocks),
        "cpu": _shown(states.cpu, blocks),
        "devices": [_shown(state, blocks) for state in states.devices],
        "kind": states.kind,
        "private": {path: _shown(state, blocks) for path, state in states.private.items()},
    }
    return json.dumps(head).encode() + b"\n" + b"".join(blocks)


def unpacked(data: bytes) -> States:
    """Return the states that `packed` wrote.

    Args:
        data: The bytes, whole.

    Returns:
        The states.

    Raises:
        ValueError: The bytes were not written by `packed`, or some are missing.
    """
    line, _, rest = data.partition(b"\n")
    try:
        head = json.loads(line)
        reader = _Reader(rest)
        python, numpy, cpu = (reader.value(head[name]) for name in ("python", "numpy", "cpu"))
        devices = tuple(reader.value(shown) for shown in head["devices"])
        private_states = {path: reader.value(shown) for path, shown in head["private"].items()}
        kind = str(head["kind"])
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        message = f"These {len(data)} bytes are no states of random generators ({error!r})."
        raise ValueError(message) from error
    if reader.left():
        message = f"The states of random generators are followed by {reader.left()} bytes that belong to nothing."
        raise ValueError(message)
    return States(python, numpy, cpu, devices, kind, private_states)


def _shown(state: Any, blocks: list[bytes]) -> Any:  # noqa: ANN401 -- see States
    """Return a state as JSON can hold it, its block set aside."""
    if isinstance(state, Twister):
        blocks.append(state.block)
        return {"twister": len(state.block), "gauss": None if state.gauss is None else state.gauss.hex()}
    if isinstance(state, Tensor):
        blocks.append(bytes(state.tolist()))  # of bytes, and NumPy may be absent
        return {"tensor": len(blocks[-1])}
    return {"value": _plain(state)}


def _plain(value: Any) -> Any:  # noqa: ANN401 -- see States
    """Return the dictionary of a bit generator with lists instead of arrays; their type is kept."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return {"dtype": str(value.dtype), "array": value.tolist()}
    return value


class _Reader:
    """Takes blocks one after the other.

    Args:
        data: All of them.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def left(self) -> int:
        """Return how many bytes nobody asked for."""
        return len(self._data) - self._at

    def value(self, shown: Any) -> Any:  # noqa: ANN401 -- see States
        """Return a state again."""
        if "twister" in shown:
            gauss = shown["gauss"]
            return Twister(self._block(shown["twister"], _BLOCK), None if gauss is None else float.fromhex(gauss))
        if "tensor" in shown:
            return torch.frombuffer(bytearray(self._block(shown["tensor"])), dtype=torch.uint8)
        return self._arrays(shown["value"])

    def _block(self, size: int, wanted: int | None = None) -> bytes:
        """Return the next block."""
        if not 0 < size <= self.left() or wanted not in (None, size):
            message = f"A block of {size} bytes is announced where {self.left()} are left: the states are damaged."
            raise ValueError(message)
        self._at += size
        return self._data[self._at - size : self._at]

    def _arrays(self, value: Any) -> Any:  # noqa: ANN401 -- see States
        """Return the dictionary of a bit generator with its arrays."""
        if isinstance(value, dict) and value.keys() == {"dtype", "array"}:
            import numpy as np  # a base dependency; only its own generators need it here

            return np.array(value["array"], dtype=value["dtype"])
        if isinstance(value, dict):
            return {key: self._arrays(part) for key, part in value.items()}
        return value


__all__ = [
    "Layout",
    "States",
    "Twister",
    "capture",
    "layout",
    "packed",
    "private",
    "private_generators",
    "restore",
    "restore_private",
    "state_of",
    "unpacked",
]
