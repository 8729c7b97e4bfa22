"""What is said of the process and its surroundings."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracer.capture.environment import environment_facts, packages


def facts_of_a_process(*arguments: str, folder: Path, **variables: str) -> dict[str, object]:
    """Return the facts that a fresh process finds, without the start-up files of this one."""
    program = folder / "train.py"
    program.write_text(
        "import json, sys\nfrom tracer.capture.environment import environment_facts\n"
        "facts = environment_facts()\nfacts['loaded'] = sorted(sys.modules)\nprint(json.dumps(facts))\n"
    )
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **variables},
    )
    facts: dict[str, object] = json.loads(done.stdout)
    return facts


def test_the_facts_are_json_and_name_this_python() -> None:
    facts = environment_facts()

    assert json.loads(json.dumps(facts)) == facts
    assert facts["python"]["executable"] == sys.executable  # type: ignore[index]


def test_looking_imports_nothing_heavy_and_no_torch(tmp_path: Path) -> None:
    facts = facts_of_a_process(folder=tmp_path)

    assert facts["torch"] is None
    loaded = facts["loaded"]
    assert isinstance(loaded, list)
    assert not {"torch", "numpy", "psutil", "duckdb"} & set(loaded)


def test_secrets_of_command_line_and_variables_are_cut_and_listed(tmp_path: Path) -> None:
    facts = facts_of_a_process(
        "--api-key",
        "abc-planted",
        "--lr=0.1",
        folder=tmp_path,
        WANDB_API_KEY="planted-too",
        OMP_NUM_THREADS="2",
        MY_OWN="x",
    )

    text = json.dumps(facts)
    assert "planted" not in text
    assert "MY_OWN" not in text  # what steers no training stays unread
    assert facts["variables"]["OMP_NUM_THREADS"] == "2"  # type: ignore[index]
    assert facts["redacted"] == [
        "environment.command.argv.2", "environment.command.orig_argv.3", "environment.variables.WANDB_API_KEY",
    ]  # fmt: skip


def test_packages_are_those_that_the_standard_library_finds() -> None:
    found = {name.lower().replace("-", "_").replace(".", "_"): version for name, version in packages().items()}

    wanted = {
        distribution.name.lower().replace("-", "_").replace(".", "_"): distribution.version
        for distribution in reversed(list(importlib.metadata.distributions()))
    }
    assert found == wanted


def test_lock_files_beside_the_script_are_told_by_their_hash(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("numpy\n")

    facts = facts_of_a_process(folder=tmp_path)

    assert list(facts["lock_files"]) == ["requirements.txt"]  # type: ignore[call-overload]
    assert facts["script"] == str(tmp_path / "train.py")


def test_packages_say_where_they_come_from_if_not_from_an_index(tmp_path: Path) -> None:
    said = {"url": "https://me:pl4nted@example.org/part.git", "vcs_info": {"vcs": "git", "commit_id": "abc123"}}
    (tmp_path / "part-1.0.dist-info").mkdir()
    (tmp_path / "part-1.0.dist-info" / "direct_url.json").write_text(json.dumps(said))
    (tmp_path / "odd-1.0.dist-info").mkdir()
    (tmp_path / "odd-1.0.dist-info" / "direct_url.json").write_text("[]")

    facts = facts_of_a_process(folder=tmp_path)

    assert facts["direct_urls"]["part"] == "https://[redacted, 9 to 16 characters]@example.org/part.git@abc123"  # type: ignore[index]
    assert "odd" not in facts["direct_urls"]  # type: ignore[operator]


def test_how_many_threads_are_asked_for_and_which_program_runs_is_told(tmp_path: Path) -> None:
    facts = facts_of_a_process(folder=tmp_path, OMP_NUM_THREADS="3", MKL_NUM_THREADS="2")

    assert facts["threads"] == {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "2", "start_method": None}
    assert facts["program"] == {"kind": "script", "module": None}
    assert "user" not in facts


def test_the_job_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")

    assert environment_facts()["jobs"] == {"slurm": "4711"}


@pytest.mark.torch
def test_torch_is_described_once_it_is_loaded() -> None:
    import torch

    described = environment_facts()["torch"]

    assert isinstance(described, dict)
    assert described["version"] == torch.__version__
    assert described["threads"] == torch.get_num_threads()
