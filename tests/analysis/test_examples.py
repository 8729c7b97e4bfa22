"""The examples in the docstrings run and give what they say."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest

MODULES = (
    "activations", "causes", "courses", "curves", "differences", "explanations", "finiteness", "goals", "gradients",
    "groups", "kinds", "losses", "memory", "pace", "reduction", "severities", "statistics", "subjects", "tensors",
    "windows",
)  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name: str) -> None:
    module = importlib.import_module(f"tracer.analysis.{name}")

    results = doctest.testmod(module, extraglobs={"np": np})

    assert results.attempted > 0
    assert results.failed == 0
