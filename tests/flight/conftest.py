"""What the tests of the flight room share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))  # models with planted faults, steps to run again


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Give every test the same random numbers."""
    torch.manual_seed(0)
