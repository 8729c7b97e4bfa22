"""The companion of a long run: a niced process that turns its journal into Parquet while it lives.

Started by the upkeep thread when a run has lived ten seconds or written four megabytes, so short runs never have one.
It holds the read end of a pipe: end of file means that the trainer is gone.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tracer.record.recorder import Recorder

import contextlib
import os
import sys
import threading

from tracer import clock

_AFTER_S = 10.0
_AFTER_BYTES = 4 * 1024 * 1024


class Companion:
    """Starts the process once it is worth it, and lets go of it at the end."""

    def __init__(self, recorder: Recorder, store: str) -> None:
        self._recorder, self._store = recorder, store
        self._born = clock.monotonic()
        self._pipe = -1
        self._started = False

    def look(self) -> None:
        """Start the companion when the run has become long; called once a second off the caller's thread."""
        if self._started or (clock.monotonic() - self._born < _AFTER_S and self._written() < _AFTER_BYTES):
            return
        self._started = True
        import subprocess  # loaded in long runs only

        reading, self._pipe = os.pipe()
        command = [sys.executable, "-m", "tracer.storage.companion", self._store, self._recorder.uid]
        try:
            process = subprocess.Popen(  # noqa: S603 -- our own module by the same interpreter, as a list of arguments
                command,
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is for the trainer; the companion sees the pipe close
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        finally:
            os.close(reading)
        # It may end long before this process does, in a notebook say: somebody must take note of that.
        threading.Thread(target=process.wait, name="tracer-companion", daemon=True).start()

    def leave(self) -> None:
        """Let the companion see that the trainer is gone; it folds the rest and ends by itself."""
        if self._pipe >= 0:
            with contextlib.suppress(OSError):
                os.close(self._pipe)
            self._pipe = -1

    def _written(self) -> int:
        """Return about how many bytes this process has written into its journal."""
        return sum(writer.at + sum(segment.end for segment in writer.retired) for writer in self._recorder.writers)
