"""`tracer info` and `tracer doctor`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tracer
from tracer.cli.doctor import Line, _numbers

#: Runs a command or records a run; see conftest.py.
Ask = Callable[..., Any]


def test_info_tells_version_store_and_packages(ask: Ask, record: Ask, tmp_path: Path) -> None:
    record("run", [{"loss": 1.0}] * 10)

    answer = ask("info")
    document = ask("info", "--json").json

    assert answer.lines[:2] == ["Tracer", f"version   {tracer.__version__}"]
    assert document["tracer"] == tracer.__version__
    assert document["store"]["path"] == str(tmp_path / ".tracer")
    assert document["store"]["runs"] == {"all": 1, "completed": 1}
    assert document["packages"]["click"] is not None


def test_info_without_a_store_says_so(ask: Ask, tmp_path: Path) -> None:
    answer = ask("info")

    assert answer.code == 0
    assert "state  not there yet; the first tracer.init makes it" in answer.lines
    assert not (tmp_path / ".tracer").exists()


def test_info_finds_out_without_importing(loaded: Callable[..., list[str]], record: Ask) -> None:
    record("run", [{"loss": 1.0}])

    modules = set(loaded("info"))

    assert not {"numpy", "duckdb", "torch", "rich", "psutil", "pyarrow"} & modules


def test_a_healthy_installation(ask: Ask, record: Ask) -> None:
    record("run", [{"loss": 1.0}])

    answer = ask("doctor")
    document = ask("doctor", "--json").json

    assert answer.code == 0
    assert answer.lines[-1] == "Nothing is wrong."
    assert document["healthy"] is True
    assert {line["subject"] for line in document["lines"]} >= {
        "python",
        "packages",
        "names",
        "limits",
        "disk",
        "clock",
        "store",
    }


def test_another_distribution_that_owns_our_name_is_found(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "layerclaw-0.1.0.dist-info").mkdir(parents=True)
    (site / "layerclaw-0.1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: layerclaw\nVersion: 0.1.0\n"
    )
    (site / "layerclaw-0.1.0.dist-info" / "top_level.txt").write_text("tracer\n")
    monkeypatch.setenv("PYTHONPATH", str(site))

    answer = ask("doctor")

    assert answer.code == 1
    line = next(line for line in answer.lines if line.startswith("wrong"))
    assert "layerclaw installs a package 'tracer' too. pip uninstall layerclaw, then" in line
    assert answer.lines[-1] == "1 thing is wrong."


def test_a_mistyped_setting_is_noted(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACER_PROJEKT", "x")

    lines = ask("doctor", "--json").json["lines"]

    assert {
        "verdict": "note",
        "subject": "settings",
        "fact": "TRACER_PROJEKT is set, and no setting has that name",
        "remedy": "Did you mean TRACER_PROJECT?",
    } in lines


def test_small_limits_are_wrong(record: Ask) -> None:
    record("run", [{"loss": 1.0}])

    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 1024; ulimit -n 100; exec {sys.executable} -m tracer doctor --csv"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 1
    wrong = [line.split(",", 3)[1:3] for line in done.stdout.splitlines() if line.startswith("wrong")]
    assert wrong == [["limits", "only 100 open files are allowed"], ["limits", "files may not be larger than 1.0 MiB"]]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_wrong(ask: Ask, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    answer = ask("doctor")

    assert answer.code == 1
    assert any("cannot be written" in line for line in answer.lines)


def test_a_store_that_cannot_be_read_is_wrong(ask: Ask, record: Ask, tmp_path: Path) -> None:
    record("run", [{"loss": 1.0}])
    (tmp_path / ".tracer" / "store.json").write_text('{"format": 999}')

    answer = ask("doctor")

    assert answer.code == 1
    assert any(line.startswith("wrong  store") for line in answer.lines)


def test_versions_are_compared_by_their_numbers() -> None:
    assert (_numbers("2.13.0+cpu"), _numbers("1.26rc1"), _numbers("1.5") < _numbers("1.10")) == (
        (2, 13, 0),
        (1, 26),
        True,
    )
    assert Line("ok", "a", "b").remedy == ""
