"""Real programs for tests: started, awaited, killed."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

PATIENCE_S = 60.0
_STARTED: list[subprocess.Popen[str]] = []

#: A program that only records: nothing watches the machine, and nothing is printed.
CALM = {
    "TRACER_TRACK_GIT": "0",
    "TRACER_TRACK_ENVIRONMENT": "0",
    "TRACER_TRACK_SYSTEM_METRICS": "0",
    "TRACER_TRACK_ARGUMENTS": "0",
    "TRACER_TRACK_CODE": "0",
    "TRACER_MAINTAIN": "off",
    "TRACER_QUIET": "1",
    "OMP_NUM_THREADS": "1",
}
#: The same as keywords of `tracer.init`.
CALMLY = {
    "track_git": False,
    "track_environment": False,
    "track_system_metrics": False,
    "track_arguments": False,
    "track_code": False,
    "maintain": "off",
    "quiet": True,
}


def write_program(source: str) -> Path:
    """Put a program into the working directory; the same one again is the same file."""
    text = textwrap.dedent(source)
    path = Path(f"program_{zlib.crc32(text.encode()):08x}.py").resolve()
    if not path.exists():
        path.write_text(text, encoding="utf-8")
    return path


def start(
    source: str,
    *arguments: object,
    calm: bool = True,
    strict: bool = True,
    before: Sequence[str] = (),
    env: dict[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start a program in a session of its own, so that it can be killed with all its children.

    Args:
        source: The program.
        arguments: What it finds in `sys.argv`.
        calm: Only record.
        strict: Raise Tracer's own failures.
        before: A command that starts it, such as `strace`.
        env: Further environment.
    """
    settings = {**(CALM if calm else {}), "TRACER_STRICT": "1" if strict else "0", **(env or {})}
    process = subprocess.Popen(
        [*before, sys.executable, str(write_program(source)), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **settings},
        start_new_session=True,
    )
    _STARTED.append(process)
    return process


def end_leftovers() -> None:
    """Kill what a failed test left running: a storm would rage on for ever."""
    while _STARTED:
        process = _STARTED.pop()
        if process.poll() is None:
            kill(process)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def run(source: str, *arguments: object, code: int = 0, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and see that it exits as expected."""
    process = start(source, *arguments, **options)  # type: ignore[arg-type]
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        message = f"the program did not end by itself:\n{out}\n{err}"
        raise AssertionError(message) from None
    assert process.returncode == code, f"exit code {process.returncode}, not {code}:\n{out}\n{err}"
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a program and all its children, as an out-of-memory kill of the tree does."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE_S)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def await_line(process: subprocess.Popen[str]) -> str:
    """Wait for the program's next line."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        _, err = process.communicate(timeout=PATIENCE_S)
        message = f"the program ended with {process.returncode} instead of going on:\n{err}"
        raise AssertionError(message)
    return line


def await_that(condition: Callable[[], object], what: str) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:.0f} s in vain: {what}"
        time.sleep(0.002)


class SharedCounts:
    """Numbers in memory that parent and child share; the child raises one *after* a call has returned.

    A program opens it as `SharedCounts(path)`: this folder is on its path by `PYTHONPATH`.
    """

    def __init__(self, path: Path | str, slots: int = 64) -> None:
        self.path = Path(path)
        if not self.path.exists():
            self.path.write_bytes(bytes(8 * slots))
        with self.path.open("r+b") as file:
            # A view and not `struct`, which writes zeros first: a kill between the two would show a count of 0.
            self._counts = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")

    def __getitem__(self, slot: int) -> int:
        """Return one count."""
        return int(self._counts[slot])

    def __setitem__(self, slot: int, count: int) -> None:
        """Publish one count; an aligned word is never seen half."""
        self._counts[slot] = count
