"""What we ship: the wheel holds the package and nothing else, and works where nothing of ours is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
NATIVE = "tracer/capture/native/statistics.so"
CARRIERS = {"tracer.pth", "tracer.start"}

pytestmark = pytest.mark.slow


def run(*arguments: str | Path, **environment: str) -> str:
    """Run a program and return what it printed; its failure fails the test with its words."""
    done = subprocess.run(
        [str(argument) for argument in arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(folder: Path, **environment: str) -> tuple[Path, Path]:
    """Build wheel and source distribution offline, from a copy: a build must not litter the tree."""
    tree = folder / "tree"
    tree.mkdir(parents=True)
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Makefile",
        "constraints.txt",
        "hatch_build.py",
    ):
        shutil.copy(ROOT / name, tree)
    for name in ("src", "tests", "docs", "changelog.d"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "*.so"))
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder / "dist")],
        cwd=tree,
        env=os.environ | environment,
        check=True,
        capture_output=True,
    )
    (wheel,), (sdist,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give wheel and source distribution to all tests of this file."""
    return build(tmp_path_factory.mktemp("built"))


def test_the_wheel_holds_the_packages_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as archive:
        names = archive.namelist()

    shipped = sorted(name for name in names if ".dist-info/" not in name and name not in (NATIVE, *CARRIERS))
    assert shipped == sorted(
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so" and path.name not in CARRIERS
    )
    assert {"tracer/py.typed", "tracelet/py.typed"} <= set(shipped)
    assert set(names) >= CARRIERS
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_a_wheel_with_the_native_kernel_is_for_this_platform_and_any_python(built: tuple[Path, Path]) -> None:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")

    with zipfile.ZipFile(built[0]) as archive:
        assert NATIVE in archive.namelist()
    assert built[0].name.endswith(f"-py3-none-manylinux_2_17_{os.uname().machine}.whl")


def test_without_the_native_kernel_the_wheel_is_for_any_platform(tmp_path: Path) -> None:
    wheels = [
        build(tmp_path / "off", TRACER_BUILD_NATIVE="off")[0],
        build(tmp_path / "broken", CC="/bin/false")[0],
    ]

    for wheel in wheels:
        assert wheel.name.endswith("-py3-none-any.whl")
        with zipfile.ZipFile(wheel) as archive:
            assert NATIVE not in archive.namelist()


def test_the_wheel_says_what_it_is(built: tuple[Path, Path]) -> None:
    import tracer

    with zipfile.ZipFile(built[0]) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()

    assert {"Name: ml-tracer", f"Version: {tracer.__version__}", "Requires-Python: >=3.11"} <= set(lines)
    required = {line for line in lines if line.startswith("Requires-Dist: ") and "extra ==" not in line}
    assert {line.split()[1].partition(">")[0].lower() for line in required} == {
        "click",
        "duckdb",
        "numpy",
        "psutil",
        "pyyaml",
        "rich",
    }


def test_the_source_distribution_can_be_built_and_tested(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert {"pyproject.toml", "README.md", "LICENSE", "Makefile", "constraints.txt", "src/tracer/__init__.py"} <= names
    assert {"hatch_build.py", "src/tracer/capture/native/statistics.c", "src/tracer/capture/native/kernel.h"} <= names
    assert {"tests/conftest.py", "docs/index.md", "docs/pictures/flow.svg"} <= names
    assert [name for name in names if name.startswith((".venv", ".git/", "site/")) or name.endswith(".pyc")] == []


def test_building_twice_gives_the_same_bytes(built: tuple[Path, Path], tmp_path: Path) -> None:
    again, _ = build(tmp_path)

    assert again.read_bytes() == built[0].read_bytes()


def test_the_wheel_works_in_an_environment_of_its_own(built: tuple[Path, Path], tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", built[0])

    # `import tracer` needs no dependency, so it works where none is installed.
    where = run(python, "-c", "import tracer; print(tracer.__file__)")
    assert where.startswith(str(tmp_path / "venv"))

    # The other name of it is there too, and needs as little.
    facade = run(python, "-c", "import tracelet; print(tracelet.__file__, tracelet.__version__)")
    assert facade.startswith(str(tmp_path / "venv"))

    # The native kernel is part of it, and tells so without torch or numpy.
    native = run(python, "-c", "from tracer.capture import native; print(native.reason())")
    assert native.startswith("in use" if shutil.which("cc") else "not part of this installation")

    # The command needs some, lent from here; our own Tracer is not lent, because its .pth file is not read this way.
    lent = next(path for path in sys.path if path.endswith("site-packages"))
    assert "Commands:" in run(tmp_path / "venv" / "bin" / "tracer", "--help", PYTHONPATH=lent)
