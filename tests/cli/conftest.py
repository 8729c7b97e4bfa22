"""Real commands in real processes: piped, and on a pseudo-terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

import tracer

INTERRUPT = "\x03"  # what Ctrl-C types
ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """What it printed, line by line."""
        return self.out.splitlines()

    @property
    def json(self) -> Any:  # noqa: ANN401 -- whatever the command says
        """The one document it printed."""
        return json.loads(self.out, parse_constant=pytest.fail)

    @property
    def text(self) -> list[str]:
        """What it printed, line by line, without colours."""
        return [ANSI.sub("", line).rstrip() for line in self.out.splitlines()]


class Ask(Protocol):
    """Runs a command."""

    def __call__(self, *arguments: str, **options: Any) -> Answer:  # noqa: ANN401
        """Run `tracer` with these arguments."""


class Record(Protocol):
    """Records a run."""

    def __call__(self, name: str, values: Iterable[Mapping[str, object]], **settings: Any) -> str:  # noqa: ANN401
        """Record a step for each mapping, and return the run's id."""


def command(arguments: Iterable[str]) -> list[str]:
    """Return the command line that runs `tracer`."""
    return [sys.executable, "-m", "tracer", *arguments]


@pytest.fixture
def ask() -> Ask:
    """Run commands with their output in pipes and nobody at the keyboard."""

    def run(*arguments: str, env: Mapping[str, str] | None = None, stdin: str = "") -> Answer:
        done = subprocess.run(
            command(arguments),
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
            timeout=60,
            env={**os.environ, "TZ": "UTC", **(env or {})},
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def on_terminal() -> Ask:
    """Run commands on a pseudo-terminal, with someone at the keyboard."""

    def run(
        *arguments: str,
        typed: str = "",
        after: str = "",
        columns: int = 100,
        rows: int = 40,
        env: Mapping[str, str] | None = None,
    ) -> Answer:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        process = subprocess.Popen(
            command(arguments),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TZ": "UTC", "TERM": "xterm-256color", "PYTHONUTF8": "1", **(env or {})},
            start_new_session=True,
            preexec_fn=_take_terminal,  # noqa: PLW1509 -- the one way, and it does a single system call
        )
        os.close(theirs)
        said = read_all(ours, until=after) if after else ""
        os.write(ours, typed.encode())
        if typed == INTERRUPT:
            said += read_all(ours, until="^C")
            while not select.select([ours], [], [], 5.0)[0]:  # one between a question and the wait for it is lost
                os.write(ours, typed.encode())
        said += read_all(ours)
        os.close(ours)
        return Answer(process.wait(timeout=60), said.replace("\r\n", "\n"), "")

    return run


def _take_terminal() -> None:
    """Make the terminal the process' own, so that what is typed can interrupt it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def read_all(descriptor: int, *, until: str | None = None, timeout_s: float = 60.0) -> str:
    """Read from a pseudo-terminal until its end, or until a text was seen."""
    said = b""
    while until is None or until.encode() not in said:
        if not select.select([descriptor], [], [], timeout_s)[0]:
            break
        part = b""
        with contextlib.suppress(OSError):  # Linux says EIO when the last process left the terminal
            part = os.read(descriptor, 65536)
        if not part:
            break
        said += part
    return said.decode("utf-8", "replace")


@pytest.fixture
def read_terminal() -> Callable[..., str]:
    """Read from a pseudo-terminal, until its end or until a text was seen."""
    return read_all


@pytest.fixture
def record() -> Record:
    """Record real runs into the store of the working folder."""

    def make(name: str, values: Iterable[Mapping[str, object]], **settings: Any) -> str:  # noqa: ANN401
        chosen = {"project": "demo", "track_system_metrics": False, "track_git": False, "track_environment": False}
        with tracer.init(run_name=name, quiet=True, **{**chosen, **settings}) as run:
            for row in values:
                run.log(row)
                run.step()
            return str(run.run_id)

    return make


@pytest.fixture
def loaded() -> Callable[..., list[str]]:
    """Return the modules that a command has loaded at its end."""

    def run(*arguments: str) -> list[str]:
        program = (
            "import sys\n"
            "from tracer.cli import main\n"
            f"code = main({list(arguments)!r})\n"
            "sys.stderr.write('\\n'.join(sorted(sys.modules)))\n"
            "sys.exit(code)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
        return done.stderr.splitlines()

    return run
