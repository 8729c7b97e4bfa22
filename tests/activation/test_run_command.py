"""`tracer run`: how a command is started, how its run ends, and what a program that begins runs itself gets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import QUIET, TEN, TRAIN, facts, only_run, recorded, tracer_run, write
from programs import PATIENCE_S, await_that

from tracer.cli import main
from tracer.storage import Store

SLEEPER = """
    import pathlib, signal, time
    from train import train
    train("loss")
    pathlib.Path("ready").touch()
    signal.pause()
"""


def start(*words: str) -> subprocess.Popen[str]:
    """Start a command under `tracer run` and wait until its program says that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tracer", "run", "-q", *words],
        env={**os.environ, **QUIET},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    await_that(lambda: Path("ready").exists() or process.poll() is not None, "the program is ready")
    return process


@pytest.mark.parametrize(
    ("name", "program", "code", "status", "reason"),
    [
        ("ends well", "print('fine')", 0, "completed", None),
        ("import", "import nothing.there", 1, "failed", "ModuleNotFoundError: No module named 'nothing'"),
        ("syntax", "x ==", 1, "failed", "SyntaxError: invalid syntax (program.py, line 1)"),
        ("exit", "import sys; sys.exit(3)", 3, "failed", "sys.exit(3)"),
        ("quit", "exit(4)", 4, "failed", "sys.exit(4)"),
        ("message", "import sys; sys.exit('no data')", 1, "failed", "sys.exit('no data')"),
        ("exception", "raise ValueError('bad\\n  data')", 1, "failed", "ValueError: bad data"),
        ("interrupt", "raise KeyboardInterrupt", -signal.SIGINT, "failed", "KeyboardInterrupt"),
    ],
)
def test_the_run_ends_as_its_program_ends(name: str, program: str, code: int, status: str, reason: str | None) -> None:
    write("program.py", program)

    done = subprocess.run(
        [sys.executable, "-m", "tracer", "run", "-q", "--name", name, "program.py"],
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        check=False,
    )

    run = only_run()
    assert done.returncode == code
    assert (run["name"], run["status"], run["reason"]) == (name, status, reason)


@pytest.mark.parametrize(
    ("script", "code", "status", "reason"),
    [
        ("exit 0", 0, "completed", None),
        ("exit 4", 4, "failed", "launch.sh ended with exit code 4"),
        ("kill -TERM $$", 143, "failed", "launch.sh was ended by SIGTERM"),
        (f"{sys.executable} train.py; exit 5", 5, "failed", "launch.sh ended with exit code 5"),
        (f"exec {sys.executable} train.py", 0, "completed", None),
    ],
)
def test_a_script_of_the_shell_gives_its_run_the_right_end(
    script: str, code: int, status: str, reason: str | None
) -> None:
    write("train.py", TRAIN)
    write("launch.sh", f"#!/bin/sh\n{script}\n").chmod(0o755)

    tracer_run("./launch.sh", code=code)

    run = only_run()
    assert (run["status"], run["reason"], run["exit_code"]) == (status, reason, code)
    assert recorded() == ({"loss": TEN} if "train.py" in script else {})


def test_programs_of_a_shell_script_go_on_with_the_run_one_after_the_other() -> None:
    write("train.py", TRAIN)
    write("launch.sh", f"#!/bin/sh\n{sys.executable} train.py first\n{sys.executable} train.py second\n").chmod(0o755)

    tracer_run("./launch.sh")

    assert (only_run()["status"], only_run()["attempt"]) == ("completed", 2)
    assert recorded() == {"first": TEN, "second": TEN}


def test_a_program_that_starts_itself_anew_goes_on_with_the_run() -> None:
    write("train.py", TRAIN)
    write(
        "program.py",
        """
        import os, sys
        from train import train
        train("before" if len(sys.argv) == 1 else "after")
        if len(sys.argv) == 1:
            os.execv(sys.executable, [sys.executable, *sys.argv, "again"])
        """,
    )

    tracer_run("program.py")

    assert (only_run()["status"], only_run()["attempt"]) == ("completed", 2)
    assert recorded() == {"before": TEN, "after": TEN}


def test_what_a_killed_program_recorded_is_kept() -> None:
    write("train.py", TRAIN)
    write("sleeper.py", SLEEPER)
    process = start("sleeper.py")

    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)

    assert process.returncode == -signal.SIGTERM
    with Store.open(".tracer") as store:
        (row,) = store.runs()
    assert (row.status, recorded()) == ("crashed", {"loss": TEN})


def test_signals_reach_the_program_behind_a_shell_script_and_its_end_is_that_of_the_run() -> None:
    write("train.py", TRAIN)
    write("sleeper.py", SLEEPER)
    write(
        "launch.sh",
        "#!/bin/sh\n"
        "trap 'kill $child; wait $child; exit 9' TERM\n"
        f"{sys.executable} sleeper.py & child=$!\n"
        "wait $child\n",
    )
    process = start("sh", "launch.sh")

    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 9, err
    assert (only_run()["status"], only_run()["reason"]) == ("failed", "sh ended with exit code 9")
    assert recorded() == {"loss": TEN}


def test_an_interrupt_is_the_programs_to_handle() -> None:
    write("train.py", TRAIN)
    write("sleeper.py", SLEEPER)
    process = start("sleeper.py")

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)

    assert "KeyboardInterrupt" in err
    assert (only_run()["status"], only_run()["reason"]) == ("failed", "KeyboardInterrupt")
    assert recorded() == {"loss": TEN}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "There is nothing to run."),
        (["train.py"], "There is no file 'train.py' in"),
        (["no-such-command"], "There is no command 'no-such-command' on PATH."),
        (["./no/such"], "There is no file './no/such'."),
        (["-m", "no_such_module.x"], "There is no module 'no_such_module' for"),
        (["-m"], "`-m` needs the name of a module"),
        (["./notes.txt"], "'./notes.txt' is there but cannot be executed."),
        (["--capture", "lightnin", "ls"], "Did you mean 'lightning'?"),
    ],
)
def test_a_command_that_cannot_be_started_is_refused_before_a_run_is_made(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write("notes.txt", "no program")

    assert main(["run", *words]) == 2

    assert message in capsys.readouterr().err
    assert facts() == []


def test_the_programs_own_options_are_left_alone() -> None:
    write("program.py", "import sys; print(sys.argv[1:])")

    done = tracer_run("--tag", "a", "--tag", "b", "--notes", "n", "program.py", "--name", "x", "-m", "y", "--", "-q")

    assert done.stdout.strip() == "['--name', 'x', '-m', 'y', '--', '-q']"
    assert (only_run()["tags"], only_run()["notes"]) == (["a", "b"], "n")


def test_a_dry_run_says_what_would_be_captured_and_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    write("train.py", "")

    assert main(["run", "--dry-run", "--json", "--capture", "-wandb", "train.py"]) == 0

    said = json.loads(capsys.readouterr().out)
    found = {row["framework"]: row["captured"] for row in said["frameworks"]}
    assert (found["tensorboard"], found["wandb"], said["command"]["how"]) == (True, False, "in place")
    assert {"sitecustomize", "tracer.pth", "tracer.start"} == {row["name"] for row in said["carriers"]}
    assert facts() == []


def test_a_program_that_begins_a_run_itself_gets_the_one_that_was_begun_for_it() -> None:
    write(
        "program.py",
        """
        import tracer
        run = tracer.init(project="gpt", run_name="mine", config={"lr": 0.1}, tags=["a"], checkpoint_interval=7)
        tracer.log({"loss": 1.0}, step=0)
        print(run.config.checkpoint_interval, run.name)
        tracer.finish()
        with tracer.init(project="gpt", run_name="second"):
            tracer.log({"loss": 2.0}, step=0)
        """,
    )

    done = tracer_run("--name", "given", "program.py")

    assert done.stdout.split() == ["7", "mine"]
    first, second = facts()
    assert (first["project"], first["name"], first["tags"], first["config"]) == ("gpt", "mine", ["a"], {"lr": 0.1})
    assert (second["name"], first["status"], second["status"]) == ("second", "completed", "completed")


def test_a_child_that_begins_a_run_itself_has_one_of_its_own() -> None:
    write(
        "sweep.py",
        """
        import subprocess, sys
        for number in range(2):
            subprocess.run([sys.executable, "trial.py", str(number)], check=True)
        """,
    )
    write(
        "trial.py",
        """
        import sys, tracer
        with tracer.init(run_name="trial" + sys.argv[1]):
            tracer.log({"loss": 1.0}, step=0)
        """,
    )

    tracer_run("--name", "sweep", "sweep.py")

    assert sorted(run["name"] for run in facts()) == ["sweep", "trial0", "trial1"]


def test_log_alone_is_enough_under_the_command() -> None:
    write("program.py", "import tracer\ntracer.log({'loss': 1.5}, step=0)\ntracer.log({'loss': 2.5}, step=1)")

    tracer_run("program.py")

    assert recorded() == {"loss": [1.5, 2.5]}


def test_the_output_is_kept() -> None:
    write("program.py", "print('epoch 1'); import sys; print('careful', file=sys.stderr); raise ValueError('over')")

    done = tracer_run("program.py", code=1)

    assert (done.stdout, done.stderr.splitlines()[0]) == ("epoch 1\n", "careful")
    shown = subprocess.run(
        [sys.executable, "-m", "tracer", "query", "SELECT body FROM logs"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "epoch 1" in shown.stdout, shown.stderr
