"""A repository that is asked, without running anything of its own.

Running git in a folder runs what its configuration names: hooks, monitors, filters, converters. All of that is switched
off here, nothing goes through a shell, every call is limited in time and in what it may return.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator

from tracer import clock

CALL_S, TOTAL_S = 5.0, 10.0
_TEXT_BYTES = 4 << 20
#: Settings that run programs, or that make the patch one that `git apply` does not take.
_OFF = (
    "core.fsmonitor=", "core.hooksPath=/dev/null", "core.quotePath=true", "log.showSignature=false",
    "diff.noprefix=false", "diff.mnemonicPrefix=false", "color.ui=false", "submodule.recurse=false",
    "format.noprefix=false", "diff.orderFile=/dev/null", "core.untrackedCache=false", "protocol.allow=never",
)  # fmt: skip
_LFS = "git-lfs "


class Repository:
    """A folder that git is asked about, with what is left of the time it may take."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._ends = clock.monotonic() + TOTAL_S
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        self._environ |= {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
        # Through the environment, because a key with `=` in it cannot be written after `-c`.
        for number, (key, value) in enumerate(filters := list(self._without_filters())):
            self._environ |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        self._environ["GIT_CONFIG_COUNT"] = str(len(filters))

    @property
    def is_late(self) -> bool:
        """Whether the time is up, so that an empty answer means nothing."""
        return self._ends <= clock.monotonic()

    def line(self, *arguments: str) -> str:
        """Return a one-line answer, or nothing."""
        return self.text(*arguments).strip("\n")

    def text(self, *arguments: str) -> str:
        """Return an answer as text; empty when git has none or it is too long."""
        data = self.read(*arguments, limit=_TEXT_BYTES) or b""
        return data.decode("utf-8", "replace")

    def read(self, *arguments: str, limit: int) -> bytes | None:
        """Return the first bytes of an answer; None when git failed or took too long."""
        settings = [part for setting in _OFF for part in ("-c", setting)]
        command = ["git", "--no-pager", "--no-optional-locks", *settings, "-C", self._folder, *arguments]
        seconds = min(CALL_S, self._ends - clock.monotonic())
        if seconds <= 0:
            return None
        try:
            process = subprocess.Popen(  # noqa: S603 -- our own arguments, no shell
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self._environ
            )
        except OSError:  # no git, or no such folder
            return None
        return _first_bytes(process, limit, seconds)

    def _without_filters(self) -> Iterator[tuple[str, str]]:
        """Yield the settings that switch off the filters which this repository's own configuration names."""
        names = self.text(
            "config", "--show-scope", "--null", "--get-regexp", r"^filter\..*\.(clean|smudge|process|required)$"
        )
        parts = names.split("\0")
        for scope, entry in zip(parts[::2], parts[1::2], strict=False):
            key, _, value = entry.partition("\n")
            if scope in ("local", "worktree") and not value.startswith(_LFS):
                yield key, "false" if key.endswith(".required") else ""


def _first_bytes(process: subprocess.Popen[bytes], limit: int, seconds: float) -> bytes | None:
    """Return what a process prints, up to a limit; it is killed when it prints more or takes too long."""
    late = threading.Event()

    def kill() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        with process:
            data = process.stdout.read(limit) if process.stdout else b""
            if len(data) == limit:
                process.kill()
            code = process.wait()
    finally:
        timer.cancel()
    return None if late.is_set() or (code and len(data) < limit) else data


__all__ = ["CALL_S", "TOTAL_S", "Repository"]
