"""Starts the mirror process, and starts it again when it dies, off the caller's thread."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping

import contextlib
import json
import os
import sys
import threading

from tracer import clock, cursors
from tracer.mirroring.output import NAME

_STARTS = 6
_LONGEST_S = 60.0
_LOOK_S = 1.0
#: Clients' own reports home, and what would take room on a device.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "AIM_ANALYTICS_DISABLED": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "CUDA_VISIBLE_DEVICES": "",
}
_OURS = ("TRACER_", "_TRACER_", "TRACELET_")


class Supervisor:
    """The mirror process of a run.

    Args:
        folder: The run's folder.
        store: The store's folder.
        told: Returns what the process is told at its start.
        look: Called about once a second, and when the process ended.
        say: Says a sentence to the user.
    """

    def __init__(
        self,
        folder: str,
        store: str,
        told: Callable[[], Mapping[str, object]],
        look: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._folder, self._store, self._told, self._look, self._say = folder, store, told, look, say
        self._talking = threading.Lock()
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        #: Whether nobody serves the lanes any more.
        self.has_given_up = False
        self._thread = threading.Thread(target=self._supervise, name="tracer-mirror", daemon=True)

    def start(self) -> None:
        """Start the process.

        On the caller's thread, 2 to 3 ms: a child that is forked meanwhile would hold the pipe on which the beginning
        of a process is waited for, and that wait would last as long as the child.
        """
        self._try()
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """The process; None while there is none."""
        return self._process.pid if self._process is not None else None

    def tell(self, message: Mapping[str, object]) -> None:
        """Tell the process something; one that is not there yet is told everything when it starts."""
        with self._talking:
            self._send(message)

    def leave(self) -> None:
        """Wait for the process no longer: it ends by itself."""
        self._over.set()
        with self._talking:
            self._send({"leave": True})
            if self._process is not None and self._process.stdin is not None:
                with contextlib.suppress(OSError):
                    self._process.stdin.close()

    def _supervise(self) -> None:
        """Start the process, and again after 1, 2, 4 … seconds while it dies and the run goes on."""
        for number in range(_STARTS):
            if number:
                if clock.wait(self._over, min(2.0 ** (number - 1), _LONGEST_S)):
                    return
                self._try()
            if self._process is not None and (self._watch() == 0 or self._over.is_set()):
                return
        self.has_given_up = True
        log = os.path.join(self._folder, cursors.FOLDER, NAME)
        self._say(
            f"the mirror process ended {_STARTS} times and is not started again; its last words are in {log}. "
            "Everything is recorded; `tracer sync` sends it."
        )

    def _try(self) -> None:
        """Start the process, if the system lets us."""
        try:
            self._start()
        except OSError as error:
            self._say(f"the mirror process does not start ({error}).")

    def _start(self) -> None:
        """Start the process and tell it what is wanted."""
        import subprocess

        command = [sys.executable, "-m", "tracer.mirroring.process", self._folder, self._store]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)} | _ENVIRONMENT
        with open(os.path.join(self._folder, cursors.FOLDER, NAME), "ab") as log:
            process = subprocess.Popen(  # noqa: S603 -- our own module by the same interpreter, as a list of arguments
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment
            )
        with self._talking:
            self._process = process
            self._send(self._told())
            if self._over.is_set():
                self._send({"leave": True})

    def _watch(self) -> int:
        """Wait for the end of the process; return its exit code."""
        import subprocess

        process = self._process
        assert process is not None  # noqa: S101 -- `_start` has just put it there
        while True:
            try:
                code = process.wait(_LOOK_S)
            except subprocess.TimeoutExpired:
                self._look()
                continue
            self._look()
            with self._talking, contextlib.suppress(OSError):
                self._process = None
                if process.stdin is not None:
                    process.stdin.close()
            return int(code)

    def _send(self, message: Mapping[str, object]) -> None:
        """Write one line into the pipe; a process that is gone is started again by who watches it."""
        if self._process is None or self._process.stdin is None:
            return
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()


__all__ = ["Supervisor"]
