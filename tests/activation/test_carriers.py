"""What brings capture into an interpreter, and how little it takes of one that was not asked."""

from __future__ import annotations

import json
import site
import subprocess
import sys
from pathlib import Path

import pytest
from commands import TEN, TRAIN, facts, plain, recorded, tracer_run, write

from tracer.activation.carriers import BOOT, carriers, put_in
from tracer.activation.programs import program_of
from tracer.cli import main

SOURCE = Path(BOOT).parent.parent
CLEAN = {"PYTHONPATH": "", "TRACER_STORAGE": ".tracer"}


@pytest.fixture(scope="session")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the Python of a new environment that finds Tracer, with the carriers that an install puts there."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "a_first.pth").write_text("\n".join([str(SOURCE), *site.getsitepackages()]), encoding="utf-8")
    for name in ("tracer.pth", "tracer.start"):
        (packages / name).write_bytes(Path(BOOT, name).read_bytes())
    return folder / "bin" / "python"


@pytest.mark.parametrize("flags", [[], ["-I"], ["-E"], ["-s"]])
def test_the_line_in_site_packages_reaches_every_python_of_the_environment(venv: Path, flags: list[str]) -> None:
    write("train.py", TRAIN)

    plain([str(venv), *flags, "train.py"], TRACER_AUTO="1", **CLEAN)

    # With -I and -E the settings in the environment are Tracer's own and are read all the same.
    assert recorded() == {"loss": TEN}


def test_both_carriers_together_listen_once(venv: Path) -> None:
    write(
        "train.py",
        TRAIN + "    from tracer.capture import importing\n    print(sys.meta_path.count(importing._finder))\n",
    )

    done = plain([str(venv), "train.py"], TRACER_AUTO="1", **{**CLEAN, "PYTHONPATH": BOOT})

    assert done.stdout.strip() == "1"
    assert recorded() == {"loss": TEN}


def test_an_environment_that_was_not_asked_imports_nothing_of_ours(venv: Path) -> None:
    program = "import sys; print([name for name in sys.modules if name.startswith('tracer')], sys.meta_path)"
    with_line = plain([str(venv), "-c", program], **CLEAN)
    without = plain([str(venv), "-S", "-c", program], **CLEAN)

    assert with_line.stdout.startswith("[] ")
    assert with_line.stdout.count("Finder") >= without.stdout.count("Finder")
    assert "tracer" not in with_line.stdout


@pytest.mark.parametrize(
    "broken", ["raise RuntimeError('ours')", "def (:", "import nothing_of_this_name", "raise SystemError"]
)
def test_an_interpreter_starts_with_a_broken_tracer(venv: Path, broken: str) -> None:
    write("broken/tracer/__init__.py", broken)

    for path in (BOOT, ""):
        line = {"PYTHONPATH": ":".join(filter(None, [path, str(Path("broken").resolve())]))}
        done = plain([str(venv), "-c", "print('fine')"], TRACER_AUTO="1", **{**CLEAN, **line})
        assert done.stdout == "fine\n"
        assert "Traceback" not in done.stderr


def test_a_foreign_sitecustomize_still_runs() -> None:
    write("company/sitecustomize.py", "import sys\nsys.company = __name__, __file__\n")
    write("program.py", "import sys, sitecustomize\nprint(sys.company, sitecustomize.__file__)")

    done = tracer_run("program.py", PYTHONPATH=str(Path("company").resolve()))

    theirs = str(Path("company/sitecustomize.py").resolve())
    assert done.stdout.strip() == f"('sitecustomize', {theirs!r}) {theirs}"


def test_a_foreign_sitecustomize_fails_as_it_does_without_us() -> None:
    write("company/sitecustomize.py", "raise ValueError('company')")
    write("program.py", "print('fine')")

    done = tracer_run("program.py", PYTHONPATH=str(Path("company").resolve()))

    assert done.stdout == "fine\n"
    assert "ValueError: company" in done.stderr


def test_python_path_keeps_its_parts_and_gets_no_empty_one() -> None:
    environments = [{}, {"PYTHONPATH": ""}, {"PYTHONPATH": "a::b"}, {"PYTHONPATH": f"{BOOT}:a"}]
    for environment in environments:
        put_in(environment)

    assert [one["PYTHONPATH"] for one in environments] == [BOOT, BOOT, f"{BOOT}:a:b", f"{BOOT}:a"]


def test_carriers_are_told_with_what_they_reach() -> None:
    found = {carrier.name: carrier for carrier in carriers()}

    assert found["sitecustomize"].is_there
    assert found["tracer.pth"].is_there == Path(found["tracer.pth"].place).is_file()


@pytest.mark.parametrize(
    ("command", "name", "launches", "isolated"),
    [
        ("python train.py --x", "train.py", False, False),
        ("python -u -X dev -W error train.py", "train.py", False, False),
        ("python -m torch.distributed.run --nproc-per-node 2 t.py", "torch.distributed.run", True, False),
        ("python /venv/bin/torchrun t.py", "/venv/bin/torchrun", True, False),
        ("python /venv/bin/accelerate launch t.py", "/venv/bin/accelerate", True, False),
        ("python -Im pack.train", "pack.train", False, True),
        ("python -mpack.train", "pack.train", False, False),
        ("python -I train.py", "train.py", False, True),
        ("python -c pass -m x", "", False, False),
        ("python", "", False, False),
        ("python -", "", False, False),
    ],
)
def test_a_command_line_of_python_is_understood(command: str, name: str, launches: bool, isolated: bool) -> None:  # noqa: FBT001
    program = program_of(command.split())

    assert (program.name, program.is_launcher, program.is_isolated) == (name, launches, isolated)


def test_an_isolated_python_without_the_line_gives_its_run_an_end() -> None:
    write("program.py", "raise SystemExit(3)")

    tracer_run(sys.executable, "-S", "program.py", code=3)

    (run,) = facts()
    assert (run["status"], run["exit_code"]) == ("failed", 3)


def test_the_doctor_tells_carriers_and_places(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"])

    lines = json.loads(capsys.readouterr().out)["lines"]
    (carried,) = [line["fact"] for line in lines if line["subject"] == "capture"]
    places = {line["subject"]: line["fact"] for line in lines}
    assert carried.startswith("carried by PYTHONPATH from `tracer run`")
    assert "places, waiting for import" in places["lightning"]
    assert not any("TRACER_AUTO" in line["fact"] and "no setting" in line["fact"] for line in lines)
