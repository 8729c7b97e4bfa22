"""Values on a device are gathered in the call and read by another thread; `log` never waits for a device."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from journals import only_run, rows
from programs import CALMLY, await_that
from torch.utils._python_dispatch import TorchDispatchMode

import tracer

MAIN = threading.main_thread()


class FarTensor(torch.Tensor):
    """A tensor that says it lies on a device, and cannot be read on the training thread."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Say that it is far away."""
        return torch.device("xpu")

    def _refuse(self, *_: object) -> float:
        message = "reading this would wait for the device"
        raise AssertionError(message)

    __float__ = __int__ = __bool__ = __index__ = item = __repr__ = _refuse  # type: ignore[assignment]

    def tolist(self) -> list[float]:  # type: ignore[override]
        """Arrive, for whoever is not training."""
        assert threading.current_thread() is not MAIN or self.may_wait
        return self.as_subclass(torch.Tensor).tolist()

    may_wait = False


def far(value: object, **options: object) -> FarTensor:
    """Return a tensor on the device."""
    return torch.tensor(value, **options).as_subclass(FarTensor)  # type: ignore[arg-type]


def test_a_device_value_is_read_by_another_thread_with_its_step(tmp_path: Path) -> None:
    with tracer.init(project="devices", **CALMLY) as run:
        run.log({"loss": far(0.5), "lr": 0.1, "acc": far([0.25])}, step=7)
        run.log({"loss": far(1.5, dtype=torch.bfloat16)}, step=8)
        run.step()
        await_that(lambda: not run._recorder.devices.pending(), "the values have arrived")

    found = {row.step: {} for row in rows(only_run(tmp_path / ".tracer"))}
    for row in rows(only_run(tmp_path / ".tracer")):
        found[row.step].update(row.values)
    assert found == {7: {"loss": 0.5, "lr": 0.1, "acc": 0.25}, 8: {"loss": 1.5}}


def test_an_update_in_place_does_not_change_what_was_logged(tmp_path: Path) -> None:
    total = far(1.0)

    with tracer.init(project="devices", **CALMLY) as run:
        run.log({"total": total}, step=0)
        total += 1
        run.log({"total": total}, step=1)
        run.step()
        await_that(lambda: not run._recorder.devices.pending(), "the values have arrived")

    assert [(row.step, row.values) for row in rows(only_run(tmp_path / ".tracer"))] == [
        (0, {"total": 1.0}),
        (1, {"total": 2.0}),
    ]


def test_what_has_not_arrived_is_waited_for_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FarTensor, "may_wait", True)

    with tracer.init(project="devices", **CALMLY) as run:
        for step in range(200):
            run.log({"loss": far(float(step))}, step=step)

    assert [row.step for row in rows(only_run(tmp_path / ".tracer"))] == list(range(200))


def test_no_scalar_is_read_and_each_call_gathers_once(tmp_path: Path) -> None:
    class Count(TorchDispatchMode):
        """Counts the operations that the training thread starts."""

        def __init__(self) -> None:
            super().__init__()
            self.names: list[str] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
            self.names.append(str(func))
            return func(*args, **(kwargs or {}))

    metrics = {f"m{key}": far(float(key), requires_grad=True) for key in range(20)}
    with tracer.init(project="devices", **CALMLY) as run:
        with Count() as counted:
            run.log(metrics)
        run.step()
        await_that(lambda: not run._recorder.devices.pending(), "the values have arrived")

    assert [name for name in counted.names if "scalar" in name or "item" in name] == []
    assert counted.names.count("aten.stack.default") == 1
    assert len(rows(only_run(tmp_path / ".tracer"))) == 1


def test_a_device_that_fails_costs_its_values_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        message = "device-side assert triggered"
        raise RuntimeError(message)

    with tracer.init(project="devices", **{**CALMLY, "strict": False, "quiet": False}) as run:
        with monkeypatch.context() as patch:
            patch.setattr(torch, "stack", fail)
            run.log({"loss": far(0.5), "acc": far(0.5), "lr": 0.1}, step=1)
        with monkeypatch.context() as patch:
            patch.setattr(FarTensor, "tolist", fail)
            run.log({"loss": far(0.5)}, step=2)
            run.step()
            await_that(lambda: not run._recorder.devices.pending(), "the upkeep thread has tried")
        run.log({"loss": far(0.75)}, step=3)
        run.step()
        await_that(lambda: not run._recorder.devices.pending(), "the value has arrived")
        lost = run._recorder.counters.nonzero()

    assert lost["device_values_lost"] == 3
    assert {row.step: row.values for row in rows(only_run(tmp_path / ".tracer"))} == {1: {"lr": 0.1}, 3: {"loss": 0.75}}
    said = capsys.readouterr().err
    assert said.count("device-side assert triggered") == 2  # once in the call, once in the background
    assert "3 values that never arrived from the device" in said


def test_an_array_of_another_library_is_read_in_the_background(tmp_path: Path) -> None:
    class FarArray:
        """An array on a device, as JAX and CuPy have them."""

        dtype, size, shape = np.dtype("float32"), 1, ()

        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, 0)

        def __float__(self) -> float:
            assert threading.current_thread() is not MAIN
            return 0.5

    with tracer.init(project="devices", **CALMLY) as run:
        run.log({"loss": FarArray()}, step=1)  # type: ignore[dict-item]
        await_that(lambda: not run._recorder.devices.pending(), "the value has arrived")

    assert [(row.step, row.values) for row in rows(only_run(tmp_path / ".tracer"))] == [(1, {"loss": 0.5})]


def test_a_step_on_a_device_is_refused() -> None:
    with tracer.init(project="devices", **CALMLY), pytest.raises(TypeError, match="lies on a device"):
        tracer.log({"loss": 1.0}, step=far(3))  # type: ignore[arg-type]
