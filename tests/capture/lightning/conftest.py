"""What the tests of Lightning begin with: both of its names, programs, and no hook left behind."""

# ruff: noqa: ANN401 -- the framework decides what it hands over, and of what type

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning", reason="needs lightning")

from tracer.capture.patching import patches
from tracer.capture.trainings import trainings

sys.path.insert(0, str(Path(__file__).resolve().parent))

# Two cores are shared by all workers of the suite, and tiny models gain nothing from threads.
torch.set_num_threads(1)
# Lightning's hints about data loaders and cores, which are no facts about us.
os.environ.setdefault("POSSIBLE_USER_WARNINGS", "off")
WARNINGS = ("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let Lightning say what it likes of its own insides, such as the parts of torch it uses."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("torch")
            for warning in WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def framework(request: pytest.FixtureRequest) -> Any:
    """Return Lightning by either name."""
    return importlib.import_module(request.param)


@pytest.fixture
def lightning() -> Any:
    """Return Lightning."""
    return importlib.import_module("lightning.pytorch")


@pytest.fixture
def captured() -> Iterator[None]:
    """Listen to Lightning."""
    patches.start(["lightning"])
    yield
    patches.stop()


@pytest.fixture(autouse=True)
def _deaf() -> Iterator[None]:
    """Leave nothing in the frameworks, and count trainings from one."""
    trainings.forget()
    yield
    patches.stop()
