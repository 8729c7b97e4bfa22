"""What the GPUs do: torch's allocator where the program uses CUDA already, NVIDIA's library where it is installed.

CUDA is never initialised here: a context costs memory and breaks later forks.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any

_GB = 1 << 30


class GPUs:
    """Figures per device, under the index the program knows it by; none at all is an answer too."""

    def __init__(self) -> None:
        self._library: Any = None
        self._looked = False

    def figures(self) -> dict[str, dict[str, object]]:
        """Return by `gpu_0` …: name, memory_allocated_gb, memory_reserved_gb, utilization, memory_util, temperature."""
        found = _allocator()
        library = self._nvml()
        for index, handle in self._handles(library) if library is not None else ():
            found.setdefault(f"gpu_{index}", {}).update(_driver(library, handle))
        return found

    def close(self) -> None:
        """Leave NVIDIA's library."""
        if self._library is not None:
            with contextlib.suppress(self._library.NVMLError):
                self._library.nvmlShutdown()
        self._library, self._looked = None, False

    def _nvml(self) -> Any:  # noqa: ANN401 -- a module without types
        """Return NVIDIA's library, once it could be opened; a machine without it is looked at only once."""
        if not self._looked:
            self._looked = True
            try:
                import pynvml
            except ImportError:
                return None
            try:
                pynvml.nvmlInit()
            except pynvml.NVMLError:  # no driver, no device, or no permission
                return None
            self._library = pynvml
        return self._library

    def _handles(self, library: Any) -> list[tuple[int, Any]]:  # noqa: ANN401 -- a module without types
        """Return the devices this program may use, by its own numbering."""
        try:
            wanted = _visible(library.nvmlDeviceGetCount())
            by_index, by_id = library.nvmlDeviceGetHandleByIndex, library.nvmlDeviceGetHandleByUUID
            return [
                (index, by_index(int(name)) if name.isdigit() else by_id(name)) for index, name in enumerate(wanted)
            ]
        except library.NVMLError:  # a device fell off the bus, or a name is unknown
            return []


def _visible(count: int) -> list[str]:
    """Return the devices that `CUDA_VISIBLE_DEVICES` leaves, in its order."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(index) for index in range(count)]
    return [part.strip() for part in named.split(",") if part.strip() not in ("", "-1")]


def _allocator() -> dict[str, dict[str, object]]:
    """Return what torch's allocator holds, if the program has CUDA running."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    is_running = getattr(cuda, "is_initialized", None)
    if cuda is None or is_running is None or not is_running():
        return {}
    return {
        f"gpu_{index}": {
            "name": cuda.get_device_name(index),
            "memory_allocated_gb": cuda.memory_allocated(index) / _GB,
            "memory_reserved_gb": cuda.memory_reserved(index) / _GB,
        }
        for index in range(cuda.device_count())
    }


def _driver(library: Any, handle: Any) -> dict[str, object]:  # noqa: ANN401 -- a module without types
    """Return what the driver says of a device; what it does not support is left out."""
    figures: dict[str, object] = {}

    def note(read: Callable[[], dict[str, object]]) -> None:
        with contextlib.suppress(library.NVMLError):
            figures.update(read())

    def memory() -> dict[str, object]:
        taken = library.nvmlDeviceGetMemoryInfo(handle)
        return {
            "memory_used_gb": taken.used / _GB,
            "memory_total_gb": taken.total / _GB,
            "memory_util": 100 * taken.used / taken.total,
        }

    def name() -> dict[str, object]:
        text = library.nvmlDeviceGetName(handle)
        return {"name": text.decode() if isinstance(text, bytes) else text}

    note(name)
    note(memory)
    note(lambda: {"utilization": float(library.nvmlDeviceGetUtilizationRates(handle).gpu)})
    note(lambda: {"temperature": float(library.nvmlDeviceGetTemperature(handle, library.NVML_TEMPERATURE_GPU))})
    note(lambda: {"power_w": library.nvmlDeviceGetPowerUsage(handle) / 1000})
    return figures


__all__ = ["GPUs"]
