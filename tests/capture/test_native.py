"""The native kernel: on every instruction set the same as its portable twin and as numpy in double precision."""

from __future__ import annotations

import ctypes
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tracer.capture import native, tables

pytestmark = pytest.mark.torch

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
COUNTS = slice(tables.ZEROS, tables.INFS + 1)


@pytest.fixture(autouse=True, params=range(len(native.INSTRUCTIONS)), ids=native.INSTRUCTIONS)
def _instructions(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run every test with each instruction set that this processor has."""
    if not native.available():
        pytest.skip("needs the native kernel, which is built where a C compiler is")
    if not native.choose(request.param):
        pytest.skip("this processor has other instructions")
    yield
    assert any(native.choose(number) for number in range(len(native.INSTRUCTIONS)))


def reference(tensor: torch.Tensor) -> list[float]:
    """Return the column of a table as numpy finds it in double precision."""
    values = tensor.double().numpy().reshape(-1)
    known = values[~np.isnan(values)]
    with np.errstate(all="ignore"):
        return [
            values.size,
            float(np.sum(values)),
            float(np.sum(np.square(values))),
            float(np.min(known, initial=math.inf)),
            float(np.max(known, initial=-math.inf)),
            int(np.count_nonzero(values == 0)),
            int(np.count_nonzero(np.isnan(values))),
            int(np.count_nonzero(np.isinf(values))),
        ]


def assert_same(tensor: torch.Tensor) -> None:
    """Hold the native column against the portable one and the reference."""
    column = tables.table_now([tensor])[:, 0].tolist()
    with native.switched_off():
        portable = tables.table_now([tensor])[:, 0].tolist()
    wanted = reference(tensor)
    finite = tensor.double()[tensor.isfinite()]
    room = 1e-6 * finite.abs().sum().item() if finite.numel() else 0.0
    for found in (column, portable):
        assert found[tables.COUNT] == wanted[tables.COUNT]
        assert found[COUNTS] == wanted[COUNTS]
        assert found[tables.LOW : tables.HIGH + 1] == wanted[tables.LOW : tables.HIGH + 1]
        assert found[tables.SUM] == pytest.approx(wanted[tables.SUM], rel=1e-6, abs=room, nan_ok=True)
        assert found[tables.SQUARES] == pytest.approx(wanted[tables.SQUARES], rel=1e-5, nan_ok=True)


floats = st.floats(width=32)
patterns = st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 1e-45, -1e-40, 1e-30, 1e25, -3e38, 1.0, -2.5])


@settings(max_examples=150, deadline=None)
@given(st.lists(floats | patterns, max_size=80), st.integers(0, 3), st.sampled_from(sorted(DTYPES)))
@example([], 0, "float32")
@example([0.0] * 33, 1, "float16")
@example([math.nan] * 40, 3, "bfloat16")
def test_any_values_at_any_place_in_memory(values: list[float], offset: int, dtype: str) -> None:
    stored = torch.tensor([7.0] * offset + values, dtype=torch.float32).to(DTYPES[dtype])

    assert_same(stored[offset:])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9000), st.integers(-40, 37), st.integers(0, 2**31), patterns, st.sampled_from(sorted(DTYPES)))
def test_any_size_and_magnitude_with_something_odd_in_it(
    size: int, power: int, seed: int, odd: float, dtype: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(size, generator=generator) * 10.0**power
    if size:
        values[seed % size] = odd

    assert_same(values.to(DTYPES[dtype]))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (7, 5, 3), (4096,), (4097,), (127, 129)], ids=str)
def test_any_shape(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    assert_same(torch.linspace(-3, 5, math.prod(shape)).reshape(shape).to(dtype))


def test_all_sixteen_bit_values_are_read_as_torch_reads_them() -> None:
    patterns_of_bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.bfloat16, torch.float16):
        values = patterns_of_bits.view(dtype)

        columns = tables.table_now(list(values.split(1)))

        wide = values.double().numpy()
        known = ~np.isnan(wide)
        assert np.array_equal(columns[tables.LOW][known], wide[known])
        assert np.array_equal(columns[tables.SQUARES], np.square(wide), equal_nan=True)
        assert np.array_equal(columns[tables.NANS] == 1, ~known)


def test_a_deviation_that_drowns_in_the_mean_is_computed_in_double() -> None:
    tensor = 100 + 1e-3 * torch.sin(torch.arange(10_000.0))

    count, total, squares = tables.table_now([tensor])[:3, 0].tolist()

    variance = (squares - total * total / count) / (count - 1)
    assert variance == pytest.approx(tensor.double().var().item(), rel=1e-4)


def test_denormals_are_no_zeros_even_where_torch_flushes_them() -> None:
    tensor = torch.tensor([1e-40, 0.0, -1e-45])
    flushes = torch.set_flush_denormal(True)
    try:
        column = tables.table_now([tensor])[:, 0].tolist()
    finally:
        torch.set_flush_denormal(False)

    assert flushes
    assert (column[tables.ZEROS], column[tables.HIGH]) == (1, pytest.approx(1e-40, rel=1e-3))


def test_the_caller_s_rounding_of_small_numbers_is_left_as_it_was() -> None:
    native.statistics(tables.native_table([torch.ones(10)])[0] or pytest.fail("no table"))

    small = np.float32(1e-30) * np.array([1e-10], np.float32)
    assert small[0] > 0


def test_two_threads_count_at_once() -> None:
    tensors = [torch.full((100_000,), float(number)) for number in range(1, 9)]
    found: dict[int, list[float]] = {}

    def count(number: int) -> None:
        found[number] = tables.table_now(tensors)[tables.SUM].tolist()

    threads = [threading.Thread(target=count, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert list(found.values()) == [[100_000.0 * number for number in range(1, 9)]] * 4


def test_tensors_that_the_kernel_cannot_read_take_the_other_way_one_by_one() -> None:
    tensors = [torch.ones(4), torch.arange(12.0).reshape(3, 4)[:, ::2], torch.ones(2, dtype=torch.float64)]

    table, readable = tables.native_table(tensors)

    assert (table.count if table else 0, readable) == (2, [0, 2])
    assert tables.table_now(tensors)[tables.SUM].tolist() == [4.0, 30.0, 2.0]


def test_a_tensor_without_memory_is_not_read() -> None:
    zeros = torch._efficientzerotensor((3,))

    assert tables.native_table([zeros])[1] == []


def test_it_says_which_instructions_are_in_use() -> None:
    assert native.available()
    assert native.reason().removeprefix("in use, with ") in (*native.INSTRUCTIONS, "plain vectors")


def test_switched_off_it_says_so_and_refuses_calls() -> None:
    with native.switched_off():
        assert not native.available()
        with pytest.raises(RuntimeError, match="switched off"):
            native.squares(native.Table([], [], []))
    assert native.available()


@pytest.mark.parametrize("word", ["off", "0", "False"])
def test_the_environment_switches_it_off(word: str) -> None:
    program = "from tracer.capture import native; print(native.available(), native.reason())"

    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"TRACER_NATIVE": word},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == f"False switched off by TRACER_NATIVE={word}\n"


def test_a_library_that_is_not_ours_is_told_and_not_used(tmp_path: Path) -> None:
    broken = tmp_path / "statistics.so"
    broken.write_bytes(b"no library")

    assert native._load(str(broken))[0] is None
    assert native._load(str(broken))[1].startswith("not usable here: ")
    assert native._load(str(tmp_path / "none.so")) == (
        None,
        "not part of this installation, because there was no C compiler when it was built",
    )


def test_a_library_of_another_version_is_told_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_INTERFACE", 0)

    library, why_not = native._load(native._LIBRARY)

    assert library is None
    assert "install Tracer again" in why_not


def test_it_needs_no_other_library() -> None:
    library = ctypes.CDLL(native._LIBRARY)

    assert library.tracer_interface() == native._INTERFACE
    listed = subprocess.run(["ldd", native._LIBRARY], capture_output=True, text=True, check=False).stdout
    assert "libc" not in listed
