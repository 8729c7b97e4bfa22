"""A lane on a thread; the same in a mirror process and in the training's own."""

from __future__ import annotations

import threading

from tracer import clock, sink
from tracer.mirroring.lane import Lane
from tracer.mirroring.locks import serving
from tracer.routing import Attempt

_LOCK_S = 0.5


def serve(lane: Lane, ending: threading.Event) -> None:
    """Wait until nobody else serves a lane, then serve it.

    Args:
        lane: The lane.
        ending: Set once nothing more is recorded.
    """
    sink.own_threads.add(threading.get_ident())  # what its client says is no news of the training
    try:
        _serve(lane, ending)
    finally:
        sink.own_threads.discard(threading.get_ident())


def _serve(lane: Lane, ending: threading.Event) -> None:
    """Wait for the lane's lock, then serve."""
    while not lane.leaving.is_set():
        with serving(lane.folder, lane.name) as is_ours:
            if is_ours:
                with Attempt() as attempt:
                    lane.serve(ending)
                if attempt.error is not None:  # a fault of ours: it is told, and `tracer sync` tries again
                    lane.say(reason=attempt.said)
                return
        clock.wait(lane.leaving, _LOCK_S)


class Server:
    """Serves a lane of a mirror process on a daemon thread.

    Args:
        lane: The lane.
        ending: Set once nothing more is recorded.
    """

    def __init__(self, lane: Lane, ending: threading.Event) -> None:
        self.lane = lane
        self.thread = threading.Thread(target=serve, args=(lane, ending), name=f"tracer-lane-{lane.name}", daemon=True)

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return not self.thread.is_alive()


__all__ = ["Server", "serve"]
