"""What the tests of transformers and accelerate begin with: a run that is listened to, and no hook left behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tracer
from tracer.capture.patching import patches

sys.path.insert(0, str(Path(__file__).resolve().parent))

from hf_trainings import Heard, listen_in


@pytest.fixture
def heard() -> Iterator[Heard]:
    """Begin a run and listen to what it is told."""
    with tracer.init(
        project="p", quiet=True, track_gradients=False, track_system_metrics=False, track_git=False, maintain="off"
    ):
        yield listen_in()


@pytest.fixture(autouse=True)
def _deaf() -> Iterator[None]:
    """Leave nothing in the frameworks."""
    yield
    patches.stop()
