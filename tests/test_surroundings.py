"""A run records its surroundings, each part if its setting says so, and holds up nobody for it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from programs import await_line, kill, run, start

import tracer
from tracer.storage import Store

PROGRAM = """
    import argparse, sys, tracer
    parser = argparse.ArgumentParser(); parser.add_argument("--lr", default=0.1); args = parser.parse_args()
    with tracer.init(project="demo", quiet=True) as r:
        print("hello")
        r.log({"loss": 1.0})
"""
SETTINGS = {
    "TRACER_TRACK_SYSTEM_METRICS": "1",
    "TRACER_TRACK_GIT": "1",
    "TRACER_TRACK_ENVIRONMENT": "1",
    "TRACER_TRACK_ARGUMENTS": "1",
    "TRACER_TRACK_CODE": "1",
    "TRACER_TRACK_OUTPUT": "wrap",
}


def seen() -> dict[str, bool]:
    """Return which parts the last run recorded."""
    with Store.open(".tracer") as store:
        row = store.run("@last")
        facts = json.loads(Path(".tracer/runs", row.folder, "run.json").read_text())
        return {
            "TRACER_TRACK_SYSTEM_METRICS": any(m.metric.startswith("system/") for m in store.metrics(row.uid)),
            "TRACER_TRACK_GIT": "git_available" in facts["git"],
            "TRACER_TRACK_ENVIRONMENT": "python" in facts["environment"],
            "TRACER_TRACK_ARGUMENTS": "arguments" in facts,
            "TRACER_TRACK_CODE": "code" in facts,
            "TRACER_TRACK_OUTPUT": bool(store.log_lines(row.uid)),
        }


@pytest.mark.parametrize("name", SETTINGS)
def test_each_part_is_recorded_only_if_its_setting_says_so(name: str) -> None:
    run(PROGRAM, env={**SETTINGS, name: "0"})

    assert seen() == {**dict.fromkeys(SETTINGS, True), name: False}


def test_all_parts_are_recorded_together() -> None:
    run(PROGRAM, env=SETTINGS)

    assert seen() == dict.fromkeys(SETTINGS, True)


def test_only_the_first_rank_describes_the_program() -> None:
    shared = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "4711"}

    run(PROGRAM, env={**SETTINGS, **shared})

    (facts,) = Path(".tracer/runs").glob("*/run.json")
    assert json.loads(facts.read_text())["environment"] == {}
    assert not list(Path(".tracer/runs").glob("*/code"))


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_git_that_hangs_delays_neither_the_beginning_nor_the_end(tmp_path: Path) -> None:
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 1000\n")
    slow.chmod(0o755)

    run(PROGRAM, env={**SETTINGS, "PATH": f"{slow.parent}:{os.environ['PATH']}"})

    assert seen() == {**dict.fromkeys(SETTINGS, True), "TRACER_TRACK_GIT": False}


def test_what_was_learned_survives_a_kill() -> None:
    process = start(
        """
        import os, sys, tracer
        r = tracer.init(project="demo", quiet=True)
        print("hello")
        while not any("environment" in r.facts and r.facts["environment"] for _ in "x") or not r.facts.get("code"):
            pass
        print("ready", flush=True)
        while "hello" not in [row.body for row in r.storage.store.log_lines(r.run_id)]:
            pass
        print("kept", file=sys.__stderr__, flush=True)
        print("kept", flush=True)
        sys.stdin.read()
        """,
        env={**SETTINGS, "TRACER_TRACK_GIT": "0", "TRACER_TRACK_SYSTEM_METRICS": "0"},
    )
    while await_line(process) != "kept":
        pass
    process.send_signal(signal.SIGKILL)
    kill(process)

    assert seen()["TRACER_TRACK_OUTPUT"]
    (copy,) = Path(".tracer/runs").glob("*/code/files/*.py")
    assert "tracer.init" in copy.read_text()


def test_the_config_of_the_program_is_searched_for_secrets() -> None:
    with tracer.init(project="demo", quiet=True, track_git=False, config={"lr": 1, "api_key": "pl4nted"}) as active:
        active.change({"notes": "see https://me:pl4nted@example.org", "config": {"hf_token": "pl4nted"}})

    text = (Path(active.folder) / "run.json").read_text()
    assert "pl4nted" not in text
    assert {"config.api_key", "config.hf_token", "notes"} <= set(json.loads(text)["redacted"])


def test_names_can_be_added_and_taken_away() -> None:
    chosen = {"redact": ["^internal"], "redact_allow": ["api_key"], "track_git": False, "quiet": True}
    with tracer.init(project="demo", config={"internal_host": "h1", "api_key": "k1"}, **chosen) as active:
        assert active.facts["config"] == {"internal_host": "[redacted, 1 to 8 characters]", "api_key": "k1"}


def test_it_can_be_switched_off_by_writing_so() -> None:
    with tracer.init(project="demo", config={"api_key": "k1"}, redact=["off"], track_git=False, quiet=True) as active:
        assert active.facts["config"] == {"api_key": "k1"}


CORPUS = {
    "AWS": "AKIA" + "PL4NTED0PL4NTED0",
    "GitHub": "ghp_" + "Pl4nted0" * 5,
    "GitLab": "glpat-" + "Pl4nted0" * 3,
    "Hugging Face": "hf_" + "Pl4nted" * 5,
    "OpenAI": "sk-" + "Pl4nted0" * 5,
    "Slack": "xoxb-" + "123456789012-Pl4nted0Pl4nted0",
    "W&B": "wandb_v1_" + "Pl4nted0" * 4,
    "JWT": "eyJ" + "Pl4nted0Pl4nted0" + "." + "eyJ" + "Pl4nted0Pl4nted0" + "." + "Pl4nted0",
    "ours": "trc_" + "Pl4nted0" * 3,
}


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_no_planted_secret_is_found_in_the_run_or_its_exports(ask_export: list[Path]) -> None:
    folder = Path("project")
    folder.mkdir()
    names = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@b"}
    for arguments in (
        ["init", "-q"],
        ["commit", "-q", "--allow-empty", "-m", f"use {CORPUS['GitLab']}"],
        ["remote", "add", "hub", "https://me:pl4nted-password@example.org/x.git"],
    ):
        subprocess.run(["git", "-C", folder, *arguments], check=True, env={**os.environ, **names})
    (folder / "settings.yaml").write_text("database_password: pl4nted-password\n")
    (folder / "keys.py").write_text(
        "".join(f'SECRET_{n} = "{secret}"\n' for n, secret in enumerate(CORPUS.values()))
        + 'KEY = """-----BEGIN RSA PRIVATE KEY-----\npl4ntedkeyline\n-----END RSA PRIVATE KEY-----"""\n'
    )
    (folder / "train.py").write_text(
        f"""
import argparse, logging, os, sys, tracer, keys
parser = argparse.ArgumentParser(); parser.add_argument("--api-key"); args = parser.parse_args()
r = tracer.init(project="demo", quiet=True, storage_path={str(Path(".tracer").resolve())!r}, track_output="wrap",
    config={{"password": "pl4nted-password", "db": {{"url": "postgres://me:pl4nted-password@host/db"}},
             "list": [os.environ["HF_TOKEN"]]}}, notes="key " + keys.SECRET_0)
r.log({{"loss": 1.0}})
print("login failed")
print(open("keys.py").read())
print(keys.SECRET_1, file=sys.stderr); logging.warning("got %s", keys.SECRET_4)
sys.exit("no access with " + keys.SECRET_3)
"""
    )
    command = [sys.executable, "train.py", "--api-key", "pl4nted-password"]
    done = subprocess.run(
        command,
        cwd=folder,
        check=False,
        capture_output=True,
        env={
            **os.environ,
            "HF_TOKEN": CORPUS["Hugging Face"],
            "WANDB_API_KEY": "pl4nted-password",
            "TRACER_STRICT": "1",
        },
    )
    assert (done.returncode, b"no access" in done.stderr) == (1, True), done.stderr

    journal = b"".join(path.read_bytes() for path in Path(".tracer").rglob("*.trj"))
    assert (b"pl4nted" in journal.lower(), b"login failed" in journal) == (False, True)
    folders = [Path(".tracer"), *ask_export]
    for target in ask_export:
        form = target.suffix.removeprefix(".") or "run"
        exported = subprocess.run(
            [sys.executable, "-m", "tracer", "export", "@last", "--format", form, "-o", target],
            capture_output=True,
            check=False,
        )
        assert exported.returncode == 0, exported.stderr
    files = [path for one in folders for path in ([one] if one.is_file() else one.rglob("*")) if path.is_file()]
    assert [str(path) for path in files if b"pl4nted" in path.read_bytes().lower()] == []
    with Store.open(".tracer") as store:  # Parquet is compressed: its bytes alone would say nothing
        assert "pl4nted" not in str(store.sql("SELECT * FROM logs").rows).lower()
    (facts,) = Path(".tracer/runs").glob("*/run.json")
    found = json.loads(facts.read_text())["redacted"]
    assert {place.split(".")[0] for place in found} >= {
        "config",
        "environment",
        "git",
        "code",
        "output",
        "notes",
        "reason",
    }


@pytest.fixture
def ask_export(tmp_path: Path) -> list[Path]:
    """Return where the run is exported to, in each form."""
    return [tmp_path / "out.csv", tmp_path / "out.json"]
