"""Reading generator states fast, and getting the very same numbers again."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from tracer.capture import randomness
from tracer.capture.randomness import Layout, States, Twister

pytestmark = pytest.mark.torch


def draws() -> tuple[object, ...]:
    """Draw from every global generator, from the caches of normal deviates first."""
    return (
        random.gauss(0, 1),
        random.random(),  # noqa: S311 -- the global generator is the subject
        float(np.random.standard_normal()),  # noqa: NPY002 -- the global generator is the subject
        np.random.random(700).tolist(),  # noqa: NPY002 -- as above
        torch.rand(3).tolist(),
    )


def official_python() -> Twister:
    _, words, gauss = random.getstate()
    return Twister(struct.pack("=624Ii", *words), gauss)


def official_numpy() -> Twister:
    state = np.random.get_state(legacy=False)  # noqa: NPY002 -- the global generator is the subject
    block = state["state"]["key"].tobytes() + struct.pack("=i", state["state"]["pos"])
    return Twister(block, state["gauss"] if state["has_gauss"] else None)


@pytest.mark.parametrize("count", [0, 1, 623, 624, 625])
@pytest.mark.parametrize("normals", [0, 1, 2])
def test_what_is_read_from_memory_is_what_the_official_functions_say(count: int, normals: int) -> None:
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002 -- the global generator is the subject
    for _ in range(count):
        random.getrandbits(32)
        np.random.bytes(4)  # noqa: NPY002 -- as above
    for _ in range(normals):
        random.gauss(0, 1)
        np.random.standard_normal()  # noqa: NPY002 -- as above

    states = randomness.capture()

    assert randomness.layout().python
    assert randomness.layout().numpy
    assert randomness.layout().pair
    assert randomness._of_python(states.python) == official_python()
    assert randomness._of_numpy(states.numpy) == official_numpy()
    assert torch.equal(states.cpu, torch.get_rng_state())


def test_restored_states_give_the_same_numbers() -> None:
    draws()
    states = randomness.capture()
    first = draws()

    randomness.restore(states)

    assert draws() == first


def test_states_survive_their_form_as_bytes() -> None:
    random.gauss(0, 1)
    np.random.standard_normal()  # noqa: NPY002 -- the global generator is the subject
    states = randomness.capture()
    first = draws()

    data = randomness.packed(states)
    randomness.restore(randomness.unpacked(data))

    assert draws() == first
    assert randomness.packed(randomness.unpacked(data)) == data


def test_capturing_draws_nothing() -> None:
    states = randomness.capture()
    first = draws()
    randomness.restore(states)

    for _ in range(5):
        randomness.packed(randomness.capture())

    assert draws() == first


@pytest.mark.parametrize("header", [8, 12, 20])
def test_a_wrong_layout_is_refused(header: int) -> None:
    assert not Layout(header).python


def test_without_a_known_layout_the_official_functions_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = Layout()
    unknown.python = unknown.numpy = False
    monkeypatch.setattr(randomness, "_layout", unknown)
    states = randomness.capture()
    first = draws()

    randomness.restore(randomness.unpacked(randomness.packed(states)))

    assert isinstance(states.python, tuple)
    assert isinstance(states.numpy, dict)
    assert draws() == first


def test_another_bit_generator_of_numpy_is_captured_too() -> None:
    before = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(3))
    try:
        states = randomness.unpacked(randomness.packed(randomness.capture()))
        first = draws()
        randomness.restore(states)
        assert draws() == first
    finally:
        np.random.set_bit_generator(before)


class Private(nn.Module):
    """Holds a generator of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.torch = torch.Generator().manual_seed(1)
        self.numpy = np.random.default_rng(1)
        self.old = np.random.RandomState(1)
        self.bits = np.random.PCG64(1)
        self.python = random.Random(1)  # noqa: S311 -- a generator to be found

    def draw(self) -> tuple[object, ...]:
        """Draw from each."""
        return (
            torch.rand(2, generator=self.torch).tolist(),
            self.numpy.standard_normal(3).tolist(),
            self.old.standard_normal(3).tolist(),
            self.bits.random_raw(),
            self.python.gauss(0, 1),
        )


def test_generators_of_a_models_modules_are_captured_and_restored() -> None:
    model = nn.Sequential(nn.Linear(2, 2), Private())
    held: Private = model[1]  # type: ignore[assignment]  # it is
    held.draw()
    states = randomness.capture()._replace(private=randomness.private(model))
    first = held.draw()

    randomness.restore(randomness.unpacked(randomness.packed(states)), model)

    assert sorted(states.private) == ["1.bits", "1.numpy", "1.old", "1.python", "1.torch"]
    assert held.draw() == first


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"{}" + data,
        lambda data: data.replace(b'"twister": 2500', b'"twister": 2499', 1),
        lambda _: b"[]\n",
    ],
)
def test_damaged_bytes_are_refused(damage: Callable[[bytes], bytes]) -> None:
    data = randomness.packed(randomness.capture())

    with pytest.raises(ValueError, match=r"states|Expecting|damaged"):
        randomness.unpacked(damage(data))


def test_states_without_numpy_leave_its_generator_alone() -> None:
    states = randomness.capture()
    without = States(states.python, None, states.cpu)
    first = float(np.random.random())  # noqa: NPY002 -- the global generator is the subject
    randomness.restore(states)

    randomness.restore(randomness.unpacked(randomness.packed(without)))

    assert float(np.random.random()) == first  # noqa: NPY002 -- as above
