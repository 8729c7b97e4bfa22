"""What the GPUs do: torch's allocator where the program uses CUDA already, NVIDIA's library where it is installed.

CUDA is never initialised here: a context costs memory and breaks later forks. Devices are found by their UUID, because
`CUDA_VISIBLE_DEVICES`, MIG and the order in which CUDA counts change every index.
"""

# ruff: noqa: ANN401 -- torch and NVIDIA's library, which have no types

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from tracer import clock
from tracer.capture.gpu_figures import figures_of
from tracer.sink import Guard

_GB = 1 << 30


class GPUs:
    """Figures per device, under the index the program knows it by; none at all is an answer too.

    Args:
        guard: Says once what cannot be asked.
    """

    def __init__(self, guard: Guard | None = None) -> None:
        self._guard = guard or Guard()
        self._library: Any = None
        self._looked = False
        self._before: dict[str, dict[str, float]] = {}  # UUID → counters of the sample before

    def figures(self) -> dict[str, dict[str, object]]:
        """Return by `gpu_0` …: what torch's allocator holds, and what `gpu_figures.py` lists.

        What a device does not tell is left out. After a reset of the driver the library is opened again.
        """
        found = _allocator()
        library = self._nvml()
        if library is None:
            return found
        try:
            for index, handle in _handles(library):
                uuid = _text(library.nvmlDeviceGetUUID(handle))
                said, counters = figures_of(library, handle, self._before.get(uuid, {}))
                self._before[uuid] = {**counters, "at": clock.monotonic()}
                found.setdefault(f"gpu_{index}", {}).update({"uuid": uuid, **said})
        except library.NVMLError as error:
            self._guard.say("GPU", f"the GPUs cannot be asked at present ({error}); they are asked again later.")
            self.close()
        return found

    def close(self) -> None:
        """Leave NVIDIA's library."""
        if self._library is not None:
            with contextlib.suppress(self._library.NVMLError):
                self._library.nvmlShutdown()
        self._library, self._looked = None, False

    def _nvml(self) -> Any:
        """Return NVIDIA's library, once it could be opened; a machine without it is looked at only once."""
        if not self._looked:
            self._looked = True
            try:
                import pynvml
            except ImportError:
                self._say_what_is_missing()
                return None
            try:
                pynvml.nvmlInit()
            except pynvml.NVMLError as error:  # no driver, no device, or no permission
                if os.path.exists("/dev/nvidiactl"):
                    self._guard.say("GPU", f"there is a GPU, but its driver does not answer ({error}).")
                return None
            self._library = pynvml
        return self._library

    def _say_what_is_missing(self) -> None:
        """Say once that there is a GPU nobody can ask; a machine without one needs no words."""
        if os.path.exists("/dev/nvidiactl"):
            self._guard.say("GPU", "GPU metrics need NVIDIA's library: pip install 'ml-tracer[gpu]'")


def _handles(library: Any) -> Iterator[tuple[int, Any]]:
    """Yield the devices this program may use, by its own numbering."""
    by_index, by_uuid = library.nvmlDeviceGetHandleByIndex, library.nvmlDeviceGetHandleByUUID
    uuids = _uuids_of_torch()
    for index, name in enumerate(uuids or _visible(library.nvmlDeviceGetCount())):
        with contextlib.suppress(library.NVMLError):  # fell off the bus, or the name is unknown: the others go on
            yield index, by_index(int(name)) if name.isdigit() else by_uuid(name)


def _visible(count: int) -> list[str]:
    """Return the devices that `CUDA_VISIBLE_DEVICES` leaves, in its order."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(index) for index in range(count)]
    names = []
    for part in named.split(","):
        name = part.strip()
        if name.startswith("-") or (name.isdigit() and int(name) >= count) or not name:
            break  # CUDA stops at the first that is none
        names.append(name)
    return names


def _running_cuda() -> Any:
    """Return torch's door to CUDA, if the program has it running."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    is_running = getattr(cuda, "is_initialized", None)
    return cuda if is_running is not None and is_running() else None


def _uuids_of_torch() -> list[str]:
    """Return the devices by torch's numbering, which is not always the driver's; empty where torch does not tell."""
    cuda = _running_cuda()
    if cuda is None or not hasattr(cuda, "get_device_properties"):
        return []
    found = []
    for index in range(cuda.device_count()):
        uuid = str(getattr(cuda.get_device_properties(index), "uuid", ""))
        if not uuid:
            return []
        found.append(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")
    return found


def _allocator() -> dict[str, dict[str, object]]:
    """Return what torch's allocator holds, if the program has CUDA running."""
    cuda = _running_cuda()
    if cuda is None:
        return {}
    return {
        f"gpu_{index}": {
            "name": cuda.get_device_name(index),
            "memory_allocated_gb": cuda.memory_allocated(index) / _GB,
            "memory_reserved_gb": cuda.memory_reserved(index) / _GB,
        }
        for index in range(cuda.device_count())
    }


def _text(value: Any) -> str:
    """Return what older versions of the library gave as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


__all__ = ["GPUs"]
