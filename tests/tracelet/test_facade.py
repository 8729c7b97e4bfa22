"""The facade renames and does nothing else: no logic, no third-party import, nothing started."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
MODULES = sorted((SOURCE / "tracelet").rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_of_the_facade_holds_no_logic(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))

    assert ast.get_docstring(tree)
    assert [ast.unparse(node) for node in tree.body if not is_renaming(node)] == []


def is_renaming(node: ast.stmt) -> bool:
    """Whether a statement is a docstring, an import out of our own packages, an alias, or a list of names."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())) | ast.Assign(value=ast.Name()):
            return True
        case ast.ImportFrom(module=str(module), level=0):
            return module.partition(".")[0] in {"tracer", "tracelet"}
        case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List()):
            return True
    return False


def test_importing_tracelet_loads_the_standard_library_only() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); before = set(sys.modules)\n"
        "import tracelet, json; print(json.dumps(sorted(set(sys.modules) - before)))"
    )

    done = subprocess.run([sys.executable, "-S", "-E", "-c", program], capture_output=True, text=True, check=True)

    loaded = set(json.loads(done.stdout))
    ours = {"tracer", "tracelet"}
    assert {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names | ours} == set()
    too_heavy = {
        "typing",
        "dataclasses",
        "logging",
        "inspect",
        "importlib.metadata",
        "subprocess",
        "asyncio",
        "pathlib",
    }
    assert too_heavy & loaded == set()


def test_importing_tracelet_starts_nothing_and_writes_nothing() -> None:
    program = (
        "import threading, os, sys, tracelet; print(threading.active_count(), os.listdir('.'), len(sys.meta_path))"
    )
    bare = "import sys; print(len(sys.meta_path))"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    before = subprocess.run([sys.executable, "-c", bare], capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == (f"1 [] {before.stdout}", "")
