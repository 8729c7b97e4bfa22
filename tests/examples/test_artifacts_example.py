"""The example of artifacts runs as it stands, from an empty folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "examples" / "artifacts.py"

pytestmark = pytest.mark.torch


def test_versions_are_kept_used_and_compared() -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:4] == [f"step {20 * version}: kept line:v{version}" for version in range(4)]
    assert lines[4].startswith("using line:v3, loss 0.0000: [[2.0, -1.0]]")
    assert [line.split()[0] for line in lines[5:]] == ["bias", "weight"]
