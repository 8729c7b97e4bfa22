"""The suite's own rules hold: shut off, and in CI never green for want of a tool."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent


def run_suite(folder: Path, source: str, **environment: str) -> list[str]:
    """Run a suite of one file under our conftest; return what it printed."""
    shutil.copy(TESTS / "conftest.py", folder)
    (folder / "test_one.py").write_text(source, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.splitlines()


WANTING = "import pytest\n\n\ndef test_one():\n    pytest.skip('needs strace')\n"
WANTING_FILE = "import pytest\n\npytest.skip('needs strace', allow_module_level=True)\n"
WITHOUT_GPU = "import pytest\n\n\ndef test_one():\n    pytest.skip('no GPU on this machine')\n"


@pytest.mark.parametrize("source", [WANTING, WANTING_FILE])
def test_a_skip_for_want_of_a_tool_is_a_failure_in_ci(tmp_path: Path, source: str) -> None:
    printed = run_suite(tmp_path, source, TRACER_CI_REQUIRED="1")

    assert any("'needs strace'" in line for line in printed)
    assert any("1 failed" in line or "1 error" in line for line in printed)


@pytest.mark.parametrize(("source", "required"), [(WANTING, ""), (WITHOUT_GPU, "1")])
def test_other_skips_stay_skips(tmp_path: Path, source: str, required: str) -> None:
    printed = run_suite(tmp_path, source, TRACER_CI_REQUIRED=required)

    assert printed[-1].startswith("1 skipped")


def test_no_test_reaches_another_machine() -> None:
    with socket.socket() as outside, pytest.raises(OSError, match="this machine only"):
        outside.connect(("192.0.2.1", 80))  # an address that is reserved for documentation


def test_the_folder_is_empty_and_the_home_is_not_the_users(tmp_path: Path) -> None:
    assert Path.cwd() == tmp_path
    assert list(tmp_path.iterdir()) == []
    assert list(Path.home().iterdir()) == []


def test_no_setting_comes_from_outside_and_our_own_failures_raise() -> None:
    settings = {name: value for name, value in os.environ.items() if name.startswith(("TRACER_", "TRACELET_"))}

    assert settings == {"TRACER_STRICT": "1"}
