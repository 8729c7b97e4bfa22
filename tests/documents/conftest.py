"""The Python blocks of the two documents that Tracer promises to serve, read where they lie and run as they are."""

# ruff: noqa: ANN401 -- what a document makes, and what the frameworks pass, has no type here
from __future__ import annotations

import inspect
import os
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

# Read before the environment is cleared for a test.
_DOCUMENTS = Path(os.environ.get("TRACER_DOCUMENTS") or Path(__file__).parents[2].parent / "shared" / "seeds")
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker that ties a test to the block it runs."""
    config.addinivalue_line("markers", "block(number): the Python block of the document, counted from 0")


@pytest.fixture(scope="session")
def blocks() -> Callable[[str], list[str]]:
    """Return a function from a document's name to its Python blocks."""

    def read(document: str) -> list[str]:
        path = _DOCUMENTS / f"{document}.md"
        if not path.is_file():
            pytest.skip(f"needs the Tracer documents: {path} is not there; TRACER_DOCUMENTS names their folder")
        return _BLOCK.findall(path.read_text(encoding="utf-8"))

    return read


@pytest.fixture
def block(request: pytest.FixtureRequest, blocks: Callable[[str], list[str]]) -> str:
    """Return the block that the test is marked with, letter for letter."""
    marker = request.node.get_closest_marker("block")
    return blocks(request.module.DOCUMENT)[marker.args[0]]


@pytest.fixture
def run_block(block: str) -> Callable[..., dict[str, Any]]:
    """Return a function that runs the block with the names it takes for granted, and returns what it left."""

    def run(**granted: Any) -> dict[str, Any]:
        namespace: dict[str, Any] = {"__name__": "__main__", **granted}
        exec(compile(block, "<a block of the document>", "exec"), namespace)  # noqa: S102 -- this is what is tested
        return namespace

    return run


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Any]:
    """Return a function that executes a block as a module of its own; its imports meet our package."""

    def load(name: str, code: str) -> Any:
        made = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, made)
        exec(compile(code, f"<{name}>", "exec"), made.__dict__)  # noqa: S102 -- this is what is tested
        return made

    return load


@pytest.fixture
def covered(request: pytest.FixtureRequest) -> set[int]:
    """Return the numbers of the blocks that the tests of this file run."""
    tests = [test for name, test in vars(request.module).items() if name.startswith("test_")]
    return {mark.args[0] for test in tests for mark in getattr(test, "pytestmark", ()) if mark.name == "block"}


@pytest.fixture
def same_signature() -> Callable[[str, Callable[..., object]], None]:
    """Return a function that holds a signature of the document against one of ours."""

    def check(written: str, ours: Callable[..., object]) -> None:
        theirs = _signature(written)
        found = inspect.signature(ours).parameters
        for name, parameter in theirs.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                assert any(one.kind is parameter.kind for one in found.values()), f"{ours} takes no **{name}"
                continue
            assert name in found, f"{ours} has no parameter {name}"
            assert list(found).index(name) == list(theirs).index(name)
            # What the document demands, ours may find by itself; what it leaves out must mean the same.
            assert parameter.default in (parameter.empty, found[name].default)
        unasked = [one for name, one in found.items() if name not in theirs]
        assert all(
            one.default is not one.empty or one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL) for one in unasked
        ), "what the document does not name must have a default"

    return check


def _signature(written: str) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a line such as `tracer.init(project: str, **kwargs) -> Run`."""
    names = {"TrainingTracer": object, "nn": types.SimpleNamespace(Module=object), "Optional": _Any(), "Dict": _Any()}
    code = "def written" + written.strip()[written.strip().index("(") :] + ": ..."
    scope: dict[str, Any] = {**names, "Any": object, "List": _Any()}
    exec(code, scope)  # noqa: S102 -- a line of the document, made a function
    return inspect.signature(scope["written"]).parameters


class _Any:
    """Stands for any generic type in a signature whose types are not compared."""

    def __getitem__(self, _: object) -> object:
        return object


@pytest.fixture(autouse=True)
def _no_warnings_from_text() -> Iterator[None]:
    """Let compiled blocks live on their own: nothing of them stays imported."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("seed_"):
            del sys.modules[name]
