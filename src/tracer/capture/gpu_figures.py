"""What the driver says of one GPU: load, memory, heat, power, clocks, errors, traffic, processes.

The driver keeps a history of the load itself, so the mean since the last sample is read, and nothing is polled.
"""

# ruff: noqa: ANN401 -- NVIDIA's library has no types

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from tracer import clock

_GB, _MB, _KB = 1 << 30, 1 << 20, 1 << 10
#: Reasons to run slower → what they are called in the library.
_REASONS = {
    "power": ("nvmlClocksThrottleReasonSwPowerCap", "nvmlClocksThrottleReasonHwPowerBrakeSlowdown"),
    "heat": ("nvmlClocksThrottleReasonSwThermalSlowdown", "nvmlClocksThrottleReasonHwThermalSlowdown"),
    "hardware": ("nvmlClocksThrottleReasonHwSlowdown",),
}
Figures = dict[str, object]


def figures_of(library: Any, handle: Any, before: Mapping[str, float]) -> tuple[Figures, dict[str, float]]:
    """Return the figures of a device, and the counters that the next sample is compared with.

    Args:
        library: NVIDIA's library.
        handle: The device.
        before: The counters of the sample before, with its time `at`; empty at first.

    Returns:
        `name`; `utilization`, `memory_utilization` and `memory_util` in percent; `memory_used_gb memory_total_gb
        temperature power_w power_limit_w energy_j clock_mhz memory_clock_mhz pcie_received_mb_per_s pcie_sent_mb_per_s
        nvlink_mb_per_s ecc_errors throttled_by_power throttled_by_heat throttled_by_hardware processes
        process_memory_gb`; only what the device tells.
    """
    figures: Figures = {}
    counters: dict[str, float] = {}

    def note(read: Callable[[], Figures]) -> None:
        # Older libraries lack a function, and older devices say that they do not support it.
        with contextlib.suppress(library.NVMLError, AttributeError):
            figures.update(read())

    note(lambda: {"name": _text(library.nvmlDeviceGetName(handle))})
    note(lambda: _memory(library, handle))
    note(lambda: _load(library, handle, before, counters))
    note(lambda: {"temperature": float(library.nvmlDeviceGetTemperature(handle, library.NVML_TEMPERATURE_GPU))})
    note(lambda: {"power_w": library.nvmlDeviceGetPowerUsage(handle) / 1000})
    note(lambda: {"power_limit_w": library.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000})
    note(lambda: _energy(library, handle, before, counters))
    note(lambda: {"clock_mhz": float(library.nvmlDeviceGetClockInfo(handle, library.NVML_CLOCK_SM))})
    note(lambda: {"memory_clock_mhz": float(library.nvmlDeviceGetClockInfo(handle, library.NVML_CLOCK_MEM))})
    note(lambda: _throttled(library, handle))
    note(lambda: {"ecc_errors": float(_ecc(library, handle))})
    note(lambda: {"pcie_received_mb_per_s": _pcie(library, handle, "NVML_PCIE_UTIL_RX_BYTES")})
    note(lambda: {"pcie_sent_mb_per_s": _pcie(library, handle, "NVML_PCIE_UTIL_TX_BYTES")})
    note(lambda: _links(library, handle, before, counters))
    note(lambda: _processes(library, handle))
    return figures, counters


def _memory(library: Any, handle: Any) -> Figures:
    """Return how full the memory is."""
    taken = library.nvmlDeviceGetMemoryInfo(handle)
    return {
        "memory_used_gb": taken.used / _GB,
        "memory_total_gb": taken.total / _GB,
        "memory_util": 100 * taken.used / taken.total,
    }


def _load(library: Any, handle: Any, before: Mapping[str, float], counters: dict[str, float]) -> Figures:
    """Return the load, as the mean of what the driver has sampled since the last time; else that of now."""
    now = library.nvmlDeviceGetUtilizationRates(handle)
    figures: Figures = {"utilization": float(now.gpu)}
    if hasattr(now, "memory"):
        figures["memory_utilization"] = float(now.memory)
    with contextlib.suppress(library.NVMLError, AttributeError):
        since = int(before.get("sampled", 0))
        _, samples = library.nvmlDeviceGetSamples(handle, library.NVML_GPU_UTILIZATION_SAMPLES, since)
        values = [sample.sampleValue.uiVal for sample in samples]
        counters["sampled"] = max([since, *(sample.timeStamp for sample in samples)])
        if values:
            figures["utilization"] = sum(values) / len(values)
    return figures


def _energy(library: Any, handle: Any, before: Mapping[str, float], counters: dict[str, float]) -> Figures:
    """Return the joules since the first sample."""
    now = counters["energy"] = library.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
    counters["energy_first"] = before.get("energy_first", now)
    return {"energy_j": now - counters["energy_first"]}


def _throttled(library: Any, handle: Any) -> Figures:
    """Return 1 for each reason for which the device runs slower than it could, else 0."""
    reasons = library.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    return {
        f"throttled_by_{name}": int(any(reasons & getattr(library, mask, 0) for mask in masks))
        for name, masks in _REASONS.items()
    }


def _ecc(library: Any, handle: Any) -> int:
    """Return how many memory errors could not be corrected since the driver was loaded."""
    kind, since = library.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, library.NVML_VOLATILE_ECC
    return int(library.nvmlDeviceGetTotalEccErrors(handle, kind, since))


def _pcie(library: Any, handle: Any, counter: str) -> float:
    """Return the traffic over PCIe, which the driver measures over 20 ms."""
    return float(library.nvmlDeviceGetPcieThroughput(handle, getattr(library, counter))) * _KB / _MB


def _links(library: Any, handle: Any, before: Mapping[str, float], counters: dict[str, float]) -> Figures:
    """Return the traffic over NVLink since the last sample."""
    fields = [
        (field, 0xFFFFFFFF)  # the sum of all links
        for name in ("NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX", "NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX")
        if (field := getattr(library, name, None)) is not None
    ]
    values = library.nvmlDeviceGetFieldValues(handle, fields)
    if not values or any(value.nvmlReturn for value in values):
        return {}
    counters["links"] = sum(float(value.value.ullVal) for value in values) * _KB
    seconds = clock.monotonic() - before.get("at", clock.monotonic())
    if "links" not in before or seconds <= 0:
        return {}
    return {"nvlink_mb_per_s": (counters["links"] - before["links"]) / seconds / _MB}


def _processes(library: Any, handle: Any) -> Figures:
    """Return how many processes compute on the device, and what memory this one has there."""
    running = library.nvmlDeviceGetComputeRunningProcesses(handle)
    own = sum(process.usedGpuMemory or 0 for process in running if process.pid == os.getpid())
    return {"processes": len(running), "process_memory_gb": own / _GB}


def _text(value: Any) -> str:
    """Return what older versions of the library gave as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


__all__ = ["figures_of"]
