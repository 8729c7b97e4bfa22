"""What keeps the house in order and no other tool checks."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
TRACER = SOURCE / "tracer"
MODULES = sorted(SOURCE.rglob("*.py"))

#: Each costs more of the 30 ms that `import tracer` may take than it is worth there.
TOO_HEAVY_TO_IMPORT = {
    "asyncio",
    "concurrent.futures",
    "dataclasses",
    "duckdb",
    "http",
    "importlib.metadata",
    "inspect",
    "logging",
    "multiprocessing",
    "numpy",
    "pathlib",
    "subprocess",
    "tomllib",
    "typing",
    "uuid",
}

#: So few that each can be known by name: the guard, and the loops of our threads.
BROAD_EXCEPTS_ALLOWED = 10


def name_of(path: Path) -> str:
    """Return the place of a module below src/."""
    return str(path.relative_to(SOURCE))


def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def loaded_by(statement: str, *, site: bool) -> list[str]:
    """Return the modules that a fresh interpreter has loaded after a statement and had not before."""
    program = (
        "import sys; before = set(sys.modules)\n"
        f"sys.path.insert(0, {str(SOURCE)!r})\n"
        f"{statement}\n"
        "new = sorted(set(sys.modules) - before)\n"
        "import json; sys.__stdout__.write('\\n' + json.dumps(new))"
    )
    # Without `site`, nothing that this environment's start-up files load is taken for bare Python's.
    arguments = [sys.executable, *(() if site else ("-S", "-E")), "-c", program]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    modules: list[str] = json.loads(done.stdout.rpartition("\n")[2])
    return modules


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(tree_of(path))


def test_importing_tracer_loads_the_standard_library_only() -> None:
    loaded = loaded_by("import tracer", site=False)

    foreign = {name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names | {"tracer"}}
    assert foreign == set()
    assert TOO_HEAVY_TO_IMPORT & set(loaded) == set()


def test_importing_tracer_starts_nothing_and_writes_nothing(tmp_path: Path) -> None:
    program = (
        "import threading, os, tracer; print(threading.active_count(), os.listdir('.'), os.listdir(os.environ['HOME']))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)

    assert (done.stdout, done.stderr) == ("1 [] []\n", "")


@pytest.mark.parametrize(
    ("command", "unwanted"),
    [
        (["--help"], {"torch", "duckdb", "numpy", "rich", "psutil", "yaml", "sqlite3"}),
        (["list"], {"torch", "duckdb", "numpy"}),
        (["info"], {"torch", "duckdb"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_quick_commands_load_nothing_slow(command: list[str], unwanted: set[str]) -> None:
    run = (
        f"sys.argv = ['tracer', *{command!r}]\n"
        "from tracer.cli import main\n"
        "import contextlib\n"
        "with contextlib.suppress(SystemExit): main()"
    )

    assert unwanted & set(loaded_by(run, site=True)) == set()


def test_only_doors_and_pictures_print() -> None:
    printing = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        if not name_of(path).startswith(("tracer/cli/", "tracer/render/"))
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]

    assert printing == []


@pytest.mark.parametrize(
    "path", sorted([*(TRACER / "core").rglob("*.py"), *(SOURCE / "tracelet").rglob("*.py")]), ids=name_of
)
def test_a_facade_only_renames(path: Path) -> None:
    logic = [node for node in tree_of(path).body if not is_renaming(node)]

    assert [ast.unparse(node) for node in logic] == []


def is_renaming(node: ast.stmt) -> bool:
    """Whether a statement is a docstring, an import, an alias, or a list of names."""
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Assign(value=ast.Name() | ast.Attribute()):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
        case ast.Assign(targets=[ast.Name(id="TYPE_CHECKING")], value=ast.Constant(value=False)):
            return True
    return False


def test_broad_excepts_are_few_and_each_has_its_reason() -> None:
    found = [(path, line) for path in MODULES for line in broad_excepts(tree_of(path))]
    unexplained = [
        f"{name_of(path)}:{line}"
        for path, line in found
        if not any("#" in text for text in path.read_text(encoding="utf-8").splitlines()[line - 1 : line + 1])
    ]

    assert unexplained == []
    assert len(found) <= BROAD_EXCEPTS_ALLOWED, [f"{name_of(path)}:{line}" for path, line in found]


def broad_excepts(tree: ast.Module) -> Iterator[int]:
    """Yield the lines that catch everything."""
    for node in ast.walk(tree):
        match node:
            case ast.ExceptHandler(type=None):
                yield node.lineno
            case ast.ExceptHandler(type=caught) if caught is not None and is_broad(caught):
                yield node.lineno
            case ast.Call(func=ast.Name(id="suppress") | ast.Attribute(attr="suppress"), args=arguments):
                if any(is_broad(argument) for argument in arguments):
                    yield node.lineno


def is_broad(caught: ast.expr) -> bool:
    """Whether an expression after `except` names everything."""
    if isinstance(caught, ast.Tuple):
        return any(is_broad(part) for part in caught.elts)
    return isinstance(caught, ast.Name) and caught.id in {"Exception", "BaseException"}


def test_broad_excepts_are_recognised() -> None:
    source = """
try:
    pass
except (ValueError, Exception):
    pass
except OSError:
    pass
try:
    pass
except:
    pass
with contextlib.suppress(BaseException):
    pass
"""

    assert sorted(broad_excepts(ast.parse(source))) == [4, 10, 12]
