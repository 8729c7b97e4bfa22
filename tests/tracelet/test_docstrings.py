"""The examples in the docstrings of experiments, plugins and the router show what really happens."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import tracer
import tracer.experiment
import tracer.plugins


def modules() -> Iterator[str]:
    """Yield the modules of the rooms."""
    yield "tracer.routing"
    for room in (tracer.experiment, tracer.plugins):
        for found in pkgutil.iter_modules(room.__path__):
            yield f"{room.__name__}.{found.name}"


@pytest.mark.parametrize("name", list(modules()))
def test_the_examples_of_a_module_are_true(name: str) -> None:
    module = importlib.import_module(name)

    found = doctest.testmod(module, extraglobs={"tracer": tracer}, optionflags=doctest.NORMALIZE_WHITESPACE)

    assert found.failed == 0
