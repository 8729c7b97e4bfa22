"""The program's own source is kept with the run, and which program it is is known."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from programs import CALM

from tracer.capture.code import CodeKeeper
from tracer.capture.program import Program, _from_words
from tracer.capture.redaction import Redactor

TRAIN = """
import tracer
import part.layers
with tracer.init(project="demo", quiet=True) as r:
    r.log({"loss": 1.0})
    import late
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a program of several files, one of them imported late and one never."""
    folder = tmp_path / "project"
    (folder / "part").mkdir(parents=True)
    (folder / "train.py").write_text(TRAIN)
    (folder / "part" / "__init__.py").touch()
    (folder / "part" / "layers.py").write_text('WIDTH = 3\napi_key = "planted1planted"\n')
    (folder / "late.py").write_text("x = 1\n")
    (folder / "never.py").write_text("y = 1\n")
    return folder


#: A run that records nothing by itself but its code.
WITH_CODE = {**CALM, "TRACER_TRACK_CODE": "1"}


def record(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> tuple[Path, dict[str, object]]:
    """Run the program and return the run's folder and facts."""
    command = [sys.executable, *(arguments or ("train.py",))]
    subprocess.run(command, cwd=folder, check=True, env={**os.environ, **WITH_CODE, **(env or {})})
    (run,) = (folder / ".tracer" / "runs").iterdir()
    return run, json.loads((run / "run.json").read_text())


@pytest.mark.parametrize("arguments", [("train.py",), ("-m", "train")])
def test_the_script_and_its_own_modules_are_kept(project: Path, arguments: tuple[str, ...]) -> None:
    run, facts = record(project, *arguments)

    kept = run / "code" / "files"
    names = ["late.py", "part/__init__.py", "part/layers.py", "train.py"]
    assert sorted(str(path.relative_to(kept)) for path in kept.rglob("*.py")) == names
    assert (kept / "train.py").read_text() == TRAIN
    code = facts["code"]
    assert isinstance(code, dict)
    assert (code["main"], code["root"], sorted(code["files"])) == ("train.py", str(project), names)
    assert code["files"]["train.py"] == hashlib.sha256(TRAIN.encode()).hexdigest()


def test_secrets_are_cut_from_the_copies(project: Path) -> None:
    run, facts = record(project)

    assert "planted1planted" not in (run / "code" / "files" / "part" / "layers.py").read_text()
    assert facts["redacted"] == ["code.part/layers.py"]


def test_the_setting_rules_it(project: Path) -> None:
    run, facts = record(project, env={"TRACER_TRACK_CODE": "0"})

    assert not (run / "code").exists()
    assert "code" not in facts


def test_a_file_that_changed_in_a_later_part_of_the_run_is_kept_beside_the_first(tmp_path: Path) -> None:
    keeper = CodeKeeper(str(tmp_path), Redactor())
    keeper._write("train.py", b"x = 1\n")
    again = CodeKeeper(str(tmp_path), Redactor())
    again._write("train.py", b"x = 2\n")
    again._write("train.py", b"x = 2\n")

    assert sorted(path.read_text() for path in (tmp_path / "code" / "files").iterdir()) == ["x = 1\n", "x = 2\n"]


@pytest.mark.parametrize(
    ("words", "kind", "name"),
    [
        (["python", "train.py", "--lr", "1"], "script", "train.py"),
        (["python", "-u", "-W", "ignore", "-X", "dev", "train.py"], "script", "train.py"),
        (["python", "-m", "pkg.train", "-x"], "module", "pkg.train"),
        (["python", "-um", "pkg.train"], "module", "pkg.train"),
        (["python", "-c", "print(1)"], "command", None),
        (["python"], "interactive", None),
    ],
)
def test_the_program_is_known_before_it_begins(words: list[str], kind: str, name: str | None) -> None:
    Path("train.py").touch()

    found = _from_words(words)

    assert found == Program(
        kind, os.path.abspath("train.py") if kind == "script" else None, name if kind == "module" else None
    )


def test_the_cells_of_a_notebook_are_kept() -> None:
    pytest.importorskip("ipykernel")
    program = """
import sys
from IPython.core.interactiveshell import InteractiveShell
import __main__
shell = InteractiveShell.instance(user_module=__main__)
shell.run_cell("import tracer; r = tracer.init(project='demo', quiet=True)", store_history=True)
shell.run_cell("r.log({'loss': 1.0}); width = 3", store_history=True)
shell.run_cell("r.finish()", store_history=True)
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, **WITH_CODE})

    (cells,) = Path(".tracer/runs").glob("*/code/files/cells.py")
    assert "# In [2]\nr.log({'loss': 1.0}); width = 3" in cells.read_text()
