"""What every test starts with: an empty folder, an empty home, no settings, no network, no run left over."""

from __future__ import annotations

import ipaddress
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tracer.testing import FakeClock

FAULTS = Path(__file__).resolve().parent / "faults"
sys.path.insert(0, str(FAULTS))  # programs to kill, and what journals hold: shared by several rooms' tests

# Read before the environment is cleared: these steer the suite, not Tracer.
_CI_REQUIRED = bool(os.environ.get("TRACER_CI_REQUIRED"))
_STORM_SECONDS = float(os.environ.get("TRACER_STORM_SECONDS") or 20)
_STORM_SEED = int(os.environ.get("TRACER_STORM_SEED") or random.SystemRandom().randrange(2**32))

# Whoever starts the suite in the background ignores these two, and programs that the tests start would inherit that.
for _signal, _action in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, _action)

_SETTINGS = ("TRACER_", "_TRACER_", "TRACELET_", "ENABLE_")
_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
_LOOK = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "PAGER")


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Shut the test off from this machine's settings, home and network, and end the run it leaves behind."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for kind, folder in (
        ("CONFIG", ".config"),
        ("CACHE", ".cache"),
        ("DATA", ".local/share"),
        ("STATE", ".local/state"),
    ):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(home / folder))
    for name in list(os.environ):
        if name.startswith(_SETTINGS) or name in _RANKS or name in _LOOK:
            monkeypatch.delenv(name)
    monkeypatch.setenv("TRACER_STRICT", "1")  # our own failures raise here; a test of the guard says strict=False
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", str(FAULTS))  # programs that tests start find the same
    monkeypatch.setattr(socket.socket, "connect", _only_here(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", _only_here(socket.socket.connect_ex))
    monkeypatch.chdir(tmp_path)
    yield
    _finish_leftover_run()
    programs = sys.modules.get("programs")
    if programs is not None:
        programs.end_leftovers()


def _only_here(connect: Callable[[socket.socket, object], object]) -> Callable[[socket.socket, object], object]:
    """Return a `connect` that refuses every address outside this machine."""

    def guarded(self: socket.socket, address: object) -> object:
        if self.family in {socket.AF_INET, socket.AF_INET6} and isinstance(address, tuple):
            host = str(address[0])
            if host != "localhost" and not _is_loopback(host):
                message = f"A test tried to reach {host!r}; tests talk to this machine only."
                raise OSError(message)
        return connect(self, address)

    return guarded


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _finish_leftover_run() -> None:
    """Finish the active run, if the test loaded Tracer and left one."""
    tracer = sys.modules.get("tracer")
    finish = getattr(tracer, "finish", None)
    if finish is not None:
        try:
            finish()
        except RuntimeError:  # no run is active, as it should be
            return


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    """Give the test all of Tracer's clocks, to be moved by hand."""
    from tracer.testing import FakeClock

    with FakeClock() as fake:
        yield fake


@pytest.fixture(scope="session")
def storm_seconds() -> float:
    """How long a storm test may rage; `make storm` says longer."""
    return _STORM_SECONDS


@pytest.fixture
def storm_seed() -> int:
    """Return the seed of a random test, printed so that a failure can be repeated."""
    print(f"repeat with: TRACER_STORM_SEED={_STORM_SEED}")  # noqa: T201 (pytest shows it with a failure)
    return _STORM_SEED


# -------------------------------------------------- in CI, a test that lacks a tool fails


def _is_want(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the reason of a skip that CI does not accept, or nothing."""
    if not (_CI_REQUIRED and report.skipped and isinstance(report.longrepr, tuple)) or hasattr(report, "wasxfail"):
        return ""
    reason = str(report.longrepr[2]).removeprefix("Skipped: ")
    return reason if reason.startswith("needs ") else ""


def _refuse(report: pytest.TestReport | pytest.CollectReport, reason: str) -> None:
    report.outcome = "failed"
    report.longrepr = f"Skipped with {reason!r}, but with TRACER_CI_REQUIRED a missing component is a failure."


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip that "needs" something into a failure where everything has to be there."""
    report = yield
    if reason := _is_want(report):
        _refuse(report, reason)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Do the same for a whole file that is skipped while it is collected."""
    report = yield
    if reason := _is_want(report):
        _refuse(report, reason)
    return report
