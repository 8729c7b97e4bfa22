"""Where the mirror process' output goes: `mirrors/mirror.log`, bounded, without secrets.

Clients print banners, progress and their keys' first letters; none of it belongs into the terminal of a training.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterable

from tracer import cursors
from tracer.capture.redaction import Redactor

NAME = "mirror.log"
_LARGEST = 1 << 20
_PIECE = 1 << 16
#: What is shorter is no secret, and would cut every line to pieces.
_SHORTEST_SECRET = 6


class Output:
    """Takes the place of standard output and error of this process and of those that its clients start.

    Args:
        folder: The run's folder.
        secrets: Texts that are never written.
    """

    def __init__(self, folder: str, secrets: Iterable[str]) -> None:
        self._path = os.path.join(folder, cursors.FOLDER, NAME)
        self._secrets = sorted({one for one in secrets if len(one) >= _SHORTEST_SECRET}, key=len, reverse=True)
        self._redactor = Redactor()

    def begin(self) -> None:
        """Redirect, from now on until the process ends."""
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        reading, writing = os.pipe()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.close(writing)
        threading.Thread(target=self._keep, args=(reading,), name="tracer-mirror-log", daemon=True).start()

    def add(self, secrets: Iterable[str]) -> None:
        """Know of further secrets."""
        found = {*self._secrets, *(one for one in secrets if len(one) >= _SHORTEST_SECRET)}
        self._secrets = sorted(found, key=len, reverse=True)

    def clean(self, line: str) -> str:
        """Return a line without secrets."""
        for secret in self._secrets:
            line = line.replace(secret, "[redacted]")
        return self._redactor.line(line, "mirror")

    def _keep(self, reading: int) -> None:
        """Write line by line; the half that is older goes when the file is full."""
        left = b""
        with open(reading, "rb", buffering=0) as pipe:
            while data := pipe.read(_PIECE):
                whole, _, left = (left + data).rpartition(b"\n")
                if not whole and len(left) < _PIECE:
                    continue
                if not whole:  # a progress bar that never ends its line
                    whole, left = left, b""
                self._write([self.clean(line) for line in whole.decode("utf-8", "replace").split("\n")])
        if left:
            self._write([self.clean(left.decode("utf-8", "replace"))])

    def _write(self, lines: list[str]) -> None:
        """Append lines to the file."""
        with contextlib.suppress(OSError):
            if os.path.exists(self._path) and os.path.getsize(self._path) > _LARGEST:
                with open(self._path, "rb+") as file:
                    file.seek(-_LARGEST // 2, os.SEEK_END)
                    newer = file.read()
                    file.seek(0)
                    file.write(newer)
                    file.truncate()
            with open(self._path, "a", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")


__all__ = ["NAME", "Output"]
