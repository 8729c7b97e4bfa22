"""Statistics on a GPU: the same figures, without waiting for it; where Triton is, kernels are checked without one."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from tracer.capture import arrivals, tables
from tracer.capture.histograms import ExponentCounts, exponent_histograms
from tracer.capture.reductions import Reduction, norms, total_norm
from tracer.events import Axis

pytestmark = pytest.mark.torch

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
with_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="no Triton here, which comes with PyTorch for GPUs"
)

TENSORS = {
    "plain": torch.linspace(-1, 2, 1000),
    "several chunks": torch.sin(torch.arange(200_001.0)),
    "squares overflow": torch.tensor([1e25, -2e25]),
    "squares vanish": torch.tensor([1e-30, -2e-30, 0.0]),
    "nearly constant": 100 + 1e-3 * torch.sin(torch.arange(1000.0)),
    "NaN and infinite": torch.tensor([1.0, math.nan, -3.0, math.inf, 0.0]),
    "zeros": torch.zeros(100),
    "empty": torch.empty(0),
    "no dimension": torch.tensor(-2.5),
    "bfloat16": torch.linspace(-1, 2, 3000).bfloat16(),
    "half": torch.linspace(-1, 2, 3000).half(),
    "double": torch.linspace(-1, 2, 1000, dtype=torch.float64) * 1e100,
    "not contiguous": torch.arange(12.0).reshape(3, 4)[:, ::2],
    "transposed": torch.arange(12.0).reshape(3, 4).t(),
}

_INTERPRETED = """
import math, torch, warnings
warnings.simplefilter("ignore")  # numpy's, of overflows that are the case
from test_cuda import TENSORS
from tracer.capture import tables, triton_pass
tensors = [tensor.contiguous() for tensor in TENSORS.values()]
for _ in range(2):  # the second time with what the first has kept
    found = triton_pass.table(tensors)
    torch.testing.assert_close(found, tables.wide_table(tensors), rtol=1e-5, atol=1e-3, equal_nan=True)
variance = lambda column: (column[2] - column[1] ** 2 / column[0]) / (column[0] - 1)
near = list(TENSORS).index("nearly constant")
assert math.isclose(variance(found[:, near]), TENSORS["nearly constant"].double().var(), rel_tol=1e-4)
"""

_COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from tracer.capture import triton_pass
numbers = {name: "*i64" for name in ("addresses", "sizes", "owners", "starts")}
for element, wide in triton_pass.TYPES.values():
    constants = {"ELEMENT": element, "WIDE": wide, "CHUNK": triton_pass._CHUNK, "LANES": triton_pass._LANES}
    constants |= {"LEAST_SQUARES": 1e-27, "DROWNED": 1e-3}
    signature = numbers | {"partials": "*fp64", "first": "i32"} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(triton_pass._reduce, signature, constexprs=constants)
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8}).asm["cubin"]
signature = {"partials": "*fp64", "sizes": "*i64", "firsts": "*i64", "ends": "*i64", "joined": "*fp64"}
source = ASTSource(triton_pass._join, signature | {"tensors": "i32", "LANES": "constexpr"}, constexprs={"LANES": 128})
assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]
"""


@pytest.fixture
def _never_waiting() -> Iterator[None]:
    """Let torch refuse every operation that waits for the GPU."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def run(program: str, **environment: str) -> None:
    """Run a program that may import this file; its failure fails the test with its words."""
    paths = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def assert_same(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found.cpu().double(), wanted.cpu().double(), rtol=1e-4, atol=1e-3, equal_nan=True)


@with_triton
def test_the_pass_computes_what_double_precision_does() -> None:
    run(_INTERPRETED, TRITON_INTERPRET="1")


@with_triton
def test_the_pass_compiles_for_a_gpu_that_is_not_there() -> None:
    run(_COMPILED)


def test_a_table_that_lies_on_the_host_has_arrived() -> None:
    arrival = arrivals.sent(torch.ones(2, 3))

    assert arrival.is_there()
    assert arrival.values().tolist() == [[1.0] * 3] * 2


@on_gpu
@pytest.mark.parametrize("way", ["triton", "operations"])
@pytest.mark.usefixtures("_never_waiting")
def test_the_figures_are_those_of_the_cpu(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "operations":
        monkeypatch.setattr(tables, "_has_triton", lambda: False)
    tensors = [tensor.pin_memory().cuda(non_blocking=True) for tensor in TENSORS.values()]

    reduction = Reduction(tensors, torch.full((1,), 2.0, device="cuda"), later=True)

    torch.cuda.set_sync_debug_mode("default")
    wanted = Reduction(list(TENSORS.values()), torch.tensor(2.0)).figures()
    assert_same(torch.from_numpy(reduction.figures()), torch.from_numpy(wanted))
    assert reduction.arrived()


@on_gpu
@with_triton
def test_what_was_sent_is_not_overwritten_by_what_follows() -> None:
    reductions = [Reduction([torch.full((1000,), float(n), device="cuda")], later=True) for n in range(20)]

    assert [reduction.rows()[0].max for reduction in reductions] == [float(n) for n in range(20)]


@on_gpu
def test_gradients_may_be_freed_as_soon_as_the_pass_was_asked_for() -> None:
    gradients = [torch.full((1 << 20,), 3.0, device="cuda") for _ in range(8)]

    reduction = Reduction(gradients, later=True)
    del gradients
    others = [torch.full((1 << 20,), 5.0, device="cuda") for _ in range(8)]

    assert [row.max for row in reduction.rows()] == [3.0] * 8
    assert len(others) == 8


@on_gpu
@with_triton
def test_a_captured_graph_measures_again_each_time_it_runs() -> None:
    from tracer.capture import triton_pass

    gradient = torch.ones(100_000, device="cuda")
    triton_pass.table([gradient])  # compiles, and puts the addresses in place
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        table = triton_pass.table([gradient])

    gradient.fill_(2.0)
    graph.replay()

    assert table[tables.SUM].tolist() == [200_000.0]


@on_gpu
def test_norms_and_histograms_are_those_of_the_cpu() -> None:
    tensors = [tensor for tensor in TENSORS.values() if tensor.isfinite().all()]
    there = [tensor.cuda() for tensor in tensors]
    axis = Axis("gradients", tuple(map(str, range(len(tensors)))), ("histogram",))

    found, wanted = exponent_histograms(there, axis), exponent_histograms(tensors, axis)

    assert norms(there) == pytest.approx(norms(tensors), rel=1e-5)
    assert total_norm(there) == pytest.approx(total_norm(tensors), rel=1e-5)
    assert (found.lowest, found.bins, bytes(found.counts)) == (wanted.lowest, wanted.bins, bytes(wanted.counts))


@on_gpu
@pytest.mark.usefixtures("_never_waiting")
def test_counting_exponents_does_not_wait() -> None:
    ExponentCounts([torch.linspace(-1, 2, 1000, device="cuda")])
