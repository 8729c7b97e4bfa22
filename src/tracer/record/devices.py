"""Values that lie on a device: gathered in the call, copied without waiting, written when they have arrived.

The gather (`stack` of the detached tensors) happens in `log`, so that an in-place update afterwards cannot change what
was logged. Nothing here ever waits for a device on the caller's thread; a value that never arrives is counted.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

import sys
import threading
from collections import deque

#: Calls gathered before a copy is begun even though no step ended.
_COPY_AFTER = 64
#: Longest wait for another thread that is reading values of the device.
_PATIENCE_S = 5.0


class Gathered:
    """The device values of one `log` call."""

    __slots__ = ("names", "stacked", "step", "time")

    def __init__(self, names: tuple[str, ...], stacked: object, step: int, time: float) -> None:
        self.names, self.stacked, self.step, self.time = names, stacked, step, time


class Copying:
    """Gathered calls on their way to host memory; `event` says when they are there."""

    __slots__ = ("calls", "event", "host")

    def __init__(self, calls: list[Gathered], host: object, event: object) -> None:
        self.calls, self.host, self.event = calls, host, event


class DeviceValues:
    """All device values of one recorder that have not been written yet."""

    __slots__ = ("_copying", "_foreign", "_gathered", "_lost", "_reader", "_reading", "_write_row")

    def __init__(
        self, write_row: Callable[[Mapping[str, float], int, float], None], lost: Callable[[int], None]
    ) -> None:
        self._write_row = write_row  # into the segment of whichever thread finds the values arrived
        self._gathered: list[Gathered] = []
        self._copying: deque[Copying] = deque()
        self._foreign: deque[tuple[str, object, int, float]] = deque()
        self._lost = lost
        self._reading = threading.Lock()
        self._reader = 0

    def hold(self, values: Mapping[str, object], step: int, time: float) -> None:
        """Gather the values of one call; nothing is copied yet."""
        torch = sys.modules.get("torch")
        tensors = {n: v for n, v in values.items() if torch is not None and isinstance(v, torch.Tensor)}
        for name, value in values.items():
            if name not in tensors:
                self._foreign.append((name, value, step, time))
        if torch is None or not tensors:
            return
        if _is_capturing(torch):  # inside a CUDA graph nothing may be launched that is not part of it
            self._lost(len(tensors))
            return
        by_device: dict[object, dict[str, object]] = {}
        for name, tensor in tensors.items():
            by_device.setdefault(tensor.device, {})[name] = tensor
        with torch.no_grad():
            for group in by_device.values():
                stacked = torch.stack([tensor.to(torch.float64) for tensor in group.values()])  # type: ignore[attr-defined]
                self._gathered.append(Gathered(tuple(group), stacked, step, time))
        if len(self._gathered) >= _COPY_AFTER:
            self.copy()

    def copy(self) -> None:
        """Begin one copy to the host for everything gathered; called at each step, and never waits."""
        if not self._gathered:
            return
        torch = sys.modules["torch"]
        gathered, self._gathered = self._gathered, []
        by_device: dict[object, list[Gathered]] = {}
        for call in gathered:
            by_device.setdefault(call.stacked.device, []).append(call)  # type: ignore[attr-defined]  # a tensor
        for device, calls in by_device.items():
            with torch.no_grad():
                joined = torch.cat([call.stacked for call in calls])
                if device.type == "cuda":  # type: ignore[attr-defined]  # a torch device
                    host = torch.empty(joined.shape, dtype=joined.dtype, pin_memory=True)
                    host.copy_(joined, non_blocking=True)
                    event = torch.cuda.Event()
                    event.record(torch.cuda.current_stream(device))
                else:
                    host, event = joined, None  # no asynchronous read there: the background thread reads it
            self._copying.append(Copying(calls, host, event))

    def write_arrived(self, *, background: bool = False, wait: bool = False) -> None:
        """Write what has arrived as rows with the step and time of the call they came from.

        Args:
            background: The caller is not the training thread, so reading may wait for the device.
            wait: Also wait for copies under way; only at the end of a run.
        """
        # Another thread is at it: its business, except at the end. This thread is: we are in a signal handler.
        if self._reader == threading.get_ident() or not self._reading.acquire(timeout=_PATIENCE_S if wait else 0):
            return
        self._reader = threading.get_ident()
        try:
            self._write_copies(background=background, wait=wait)
        finally:
            self._reader = 0
            self._reading.release()

    def _write_copies(self, *, background: bool, wait: bool) -> None:
        """Write what has arrived; one thread at a time."""
        while self._copying:
            first = self._copying[0]
            if first.event is None and not (background or wait):
                return
            written = False
            try:
                if first.event is not None and not first.event.query():  # type: ignore[attr-defined]  # a CUDA event
                    if not wait:
                        return
                    first.event.synchronize()  # type: ignore[attr-defined]
                self._write(first)
                written = True
            finally:
                if written or sys.exc_info()[0] is not None:
                    self._copying.popleft()  # what the device refuses once it refuses for ever
                if not written and sys.exc_info()[0] is not None:
                    self._lost(sum(len(call.names) for call in first.calls))
        while self._foreign and (background or wait):
            name, value, step, time = self._foreign.popleft()
            try:
                self._write_row({name: float(value)}, step, time)  # type: ignore[arg-type]  # another library's array
            except Exception:  # noqa: BLE001 -- another library's conversion failed: the value is lost, and counted
                self._lost(1)

    def pending(self) -> bool:
        """Tell whether anything has not been written yet."""
        return bool(self._gathered or self._copying or self._foreign)

    def _write(self, arrived: Copying) -> None:
        """Write the rows of one copy."""
        values: list[float] = arrived.host.tolist()  # type: ignore[attr-defined]  # a tensor in host memory
        for call in arrived.calls:
            taken, values = values[: len(call.names)], values[len(call.names) :]
            self._write_row(dict(zip(call.names, taken, strict=True)), call.step, call.time)


def _is_capturing(torch: object) -> bool:
    """Tell whether a CUDA graph is being captured on this thread."""
    cuda = torch.cuda  # type: ignore[attr-defined]  # the torch module
    return bool(cuda.is_available() and cuda.is_current_stream_capturing())
