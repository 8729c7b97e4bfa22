"""The examples in the docstrings run and give what they say."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = ("charts", "formats", "glyphs", "pictures", "png", "svg", "tables", "ticks")


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module(name: str) -> None:
    module = importlib.import_module(f"tracer.render.{name}")

    results = doctest.testmod(module)

    assert results.attempted > 0
    assert results.failed == 0
