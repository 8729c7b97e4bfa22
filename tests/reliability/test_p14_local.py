"""P14: local by default: no network call and no telemetry."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from journals import only_run, rows
from programs import run

TRAINING = """
    import sys
    import tracer

    with tracer.init(project="local", checkpoint_interval=5) as run:
        for step in range(20):
            tracer.log({"loss": 1 / (step + 1)})
            tracer.step()
    if len(sys.argv) > 1:
        from tracer.cli import main
        sys.argv = ["tracer", *sys.argv[1:]]
        main()
"""

#: A machine without a network, not even a loopback that is up.
ALONE = ("unshare", "--net", "--map-root-user")


def needs_unshare() -> None:
    """Skip where no namespace can be made."""
    if shutil.which("unshare") is None or subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to make a network namespace")


def test_p14_a_whole_run_works_without_any_network(tmp_path: Path) -> None:
    needs_unshare()

    run(TRAINING, before=ALONE, calm=False, env={"TRACER_QUIET": "1"})

    assert len([row for row in rows(only_run(tmp_path / ".tracer")) if "loss" in row.values]) == 20


@pytest.mark.parametrize("command", ["list", "show @last", "doctor", "info"])
def test_p14_commands_work_without_any_network(command: str) -> None:
    needs_unshare()

    run(TRAINING, *command.split(), before=ALONE, calm=False, env={"TRACER_QUIET": "1"})


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_p14_no_address_is_ever_asked_for(tmp_path: Path) -> None:
    run(
        TRAINING,
        before=("strace", "-f", "-qq", "-o", str(tmp_path / "calls"), "-e", "trace=connect,sendto,bind"),
        calm=False,
        env={"TRACER_QUIET": "1"},
    )

    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert [call for call in calls if "AF_INET" in call] == []


def test_p14_the_tests_themselves_are_shut_off() -> None:
    with socket.socket() as connection, pytest.raises(OSError, match="this machine only"):
        connection.connect(("192.0.2.1", 80))
