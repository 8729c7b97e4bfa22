"""Tables on their way from a device to the host: copied behind the training's kernels, read when they have come."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_streams: dict[torch.device, Any] = {}


class Arrival:
    """A table that is being copied to the host, and what tells when it is there."""

    __slots__ = ("_event", "_host")

    def __init__(self, host: Tensor, event: Any = None) -> None:  # noqa: ANN401 -- torch.cuda.Event has no types
        self._host, self._event = host, event

    def is_there(self) -> bool:
        """Tell whether `values` returns without waiting."""
        return self._event is None or bool(self._event.query())

    def values(self) -> NDArray[np.float64]:
        """Return the table; waits for it where it must."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.to("cpu", torch.float64).numpy()


def sent(table: Tensor) -> Arrival:
    """Start the copy of a table to pinned memory, on a stream of its own behind the kernels that fill it.

    The training's own stream goes on at once. torch keeps the pinned memory and takes it again once a copy into it is
    done, so a few small pieces serve for good. Where a library has no asynchronous copy the table stays on its device
    until it is read.
    """
    if table.device.type != "cuda":
        return Arrival(table)
    with torch.cuda.device(table.device):
        side = _streams.get(table.device)
        if side is None:
            side = _streams[table.device] = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        host = torch.empty(table.shape, dtype=table.dtype, pin_memory=True)
        with torch.cuda.stream(side):
            host.copy_(table, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(side)
        table.record_stream(side)  # its memory is not given to others before the copy has read it
    return Arrival(host, done)


__all__ = ["Arrival", "sent"]
