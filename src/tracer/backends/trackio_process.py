"""The other process, seen from this one: asked and answered in lines of JSON, with a time limit, ended with its run."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import weakref
from collections.abc import Mapping

from tracer import clock
from tracer.backends.base import Refused, Rejected, Unreachable

#: trackio waits 10 s for another writer's lock, and its import takes seconds on a busy machine.
ANSWER_S, END_S = 60.0, 10.0
_ANSWER_BYTES = 1 << 24
#: What would lead trackio to its hub: this back end writes to a folder.
_AWAY = (
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "TRACKIO_SPACE_ID", "TRACKIO_DATASET_ID", "TRACKIO_BUCKET_ID",
    "TRACKIO_SERVER_URL", "TRACKIO_REGISTRY_BUCKET_ID", "SPACE_ID", "TRACER_AUTO",
)  # fmt: skip


class Trackio:
    """trackio in a process of its own.

    Args:
        folder: Where it keeps its databases; empty for where it would by itself.
    """

    def __init__(self, folder: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in _AWAY}
        environment |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"}
        if folder:
            environment["TRACKIO_DIR"] = os.path.abspath(folder)
        self._process = subprocess.Popen(
            # -P: a file of the training's folder must not stand in for a module
            [sys.executable, "-P", "-m", "tracer.backends.trackio_writer"],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self._left = b""
        # A back end that is forgotten without `close`, as after an error, leaves no process behind.
        self._forgotten = weakref.finalize(self, _killed, self._process, os.getpid())

    def ask(self, do: str, **arguments: object) -> object:
        """Have something done, and return what came of it.

        Raises:
            Rejected: trackio will never take it.
        Refused: The package is too old, or does not load.
            Unreachable: It could not now; the process is ended, and another one may be started.
        """
        line = json.dumps({"do": do, "with": arguments}).encode() + b"\n"
        deadline = clock.monotonic() + ANSWER_S
        try:
            self._send(line, deadline)
            answer: Mapping[str, object] = json.loads(self._line(deadline))
        except (OSError, ValueError):
            self.end(wait=False)
            message = f"trackio's writer gave no answer within {ANSWER_S:g} s, or ended."
            raise Unreachable(message) from None
        if "rejected" in answer:
            message = f"trackio does not take it: {answer['rejected']}"
            raise Rejected(message)
        if "broken" in answer:
            message = f"This trackio cannot be used: {answer['broken']}. `pip install -U trackio` brings one that can."
            raise Refused(message)
        if "failed" in answer:
            message = f"trackio cannot write now: {answer['failed']}"
            raise Unreachable(message)
        return answer.get("done")

    def end(self, *, wait: bool = True) -> None:
        """End the process; its work is committed with each answer."""
        self._forgotten.detach()
        with self._process as process:
            try:
                if process.stdin is not None:
                    process.stdin.close()
                process.wait(END_S if wait else 0)
            except (OSError, subprocess.TimeoutExpired):
                process.kill()

    def _send(self, line: bytes, deadline: float) -> None:
        """Write one line to its input, or raise when the time is over: a process that was stopped reads nothing."""
        pipe = self._process.stdin
        if pipe is None:
            raise BrokenPipeError
        os.set_blocking(pipe.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_WRITE)
            left = memoryview(line)
            while left:
                if not selector.select(max(deadline - clock.monotonic(), 0.0)):
                    raise TimeoutError
                left = left[os.write(pipe.fileno(), left) :]

    def _line(self, deadline: float) -> bytes:
        """Return one line of its answers, or raise when the time is over."""
        pipe = self._process.stdout
        if pipe is None:
            raise BrokenPipeError
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self._left:
                if not selector.select(max(deadline - clock.monotonic(), 0.0)):
                    raise TimeoutError
                piece = os.read(pipe.fileno(), 65536)
                if not piece or len(self._left) > _ANSWER_BYTES:
                    raise BrokenPipeError
                self._left += piece
        line, _, self._left = self._left.partition(b"\n")
        return line


def _killed(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() == owner:  # a forked child forgets it too, and it is none of its affair
        with process:
            process.kill()


__all__ = ["Trackio"]
