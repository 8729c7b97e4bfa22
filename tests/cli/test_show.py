"""`tracer show` as a person and as a program meets it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")

#: Runs a command or records a run; see conftest.py.
Ask = Callable[..., Any]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tracer", *arguments]


@pytest.fixture
def run_id(record: Ask) -> str:
    """One run with a bit of everything."""
    values = [{"loss": 2.0 - index / 10, "val/acc": index / 10} for index in range(10)]
    values[4]["loss"] = float("nan")
    return str(
        record("first", values, config={"lr": 0.1, "model": {"dim": 8}}, tags=["a", "b"], notes="a note", group="fold")
    )


def sections(lines: list[str]) -> dict[str, list[str]]:
    """Return the lines below each heading."""
    found: dict[str, list[str]] = {}
    heading = ""
    for before, line in zip(["", *lines], lines, strict=False):
        if before == "" and line:
            heading = line
            found[heading] = []
        elif line:
            found[heading].append(line)
    return found


def test_a_run_is_shown_whole(ask: Ask, run_id: str) -> None:
    shown = sections(ask("show", "first").lines)

    assert list(shown) == [
        "first",
        "Parameters",
        "Metrics",
        *(["Findings"] if "Findings" in shown else []),  # the NaN among the losses, if the run lived long enough
        *(["Environment"] if "Environment" in shown else []),
        "Recording",
    ]
    facts = dict(line.split(None, 1) for line in shown["first"])
    assert facts["project"] == "demo"
    assert facts["id"] == run_id
    assert facts["status"] == "completed"
    assert facts["steps"] == "10"
    assert facts["tags"] == "a, b"
    assert facts["notes"] == "a note"
    assert shown["Parameters"] == ["lr         0.1", "model.dim  8"]
    assert [line.split() for line in shown["Metrics"]] == [
        ["metric", "last", "best", "min", "max", "points", "last", "step"],
        ["loss", "1.1", "1.1", "1.1", "2", "10", "1", "NaN", "9"],
        ["val/acc", "0.9", "0.9", "0", "0.9", "10", "9"],
    ]


@pytest.mark.parametrize("wanted", [["-m", "loss"], ["-m", "l*"], ["--metrics", "loss", "-m", "lo*"]])
@pytest.mark.usefixtures("run_id")
def test_metrics_of_choice(ask: Ask, wanted: list[str]) -> None:
    document = ask("show", "first", *wanted, "--json").json

    assert [row["metric"] for row in document["run"]["metrics"]] == ["loss"]


@pytest.mark.usefixtures("run_id")
def test_an_unknown_metric_names_the_near_ones(ask: Ask) -> None:
    answer = ask("show", "first", "-m", "los")

    assert (answer.code, answer.err) == (2, "tracer: Run 'first' has no metric 'los'. Near: loss.\n")


@pytest.mark.parametrize("name", ["{id}", "{id:.8}", "first", "demo/first", "@last", "@last:1"])
def test_a_run_has_many_names(ask: Ask, run_id: str, name: str) -> None:
    wanted = name.replace("{id:.8}", run_id[:8]).replace("{id}", run_id)

    assert ask("show", wanted, "--json").json["run"]["id"] == run_id


@pytest.mark.usefixtures("run_id")
def test_json_holds_the_summary(ask: Ask) -> None:
    run = ask("show", "first", "--json").json["run"]

    assert run["status"] == "completed"
    assert run["config"] == {"lr": 0.1, "model": {"dim": 8}}
    assert run["settings"]["checkpoint_interval"] == 1000
    loss = run["metrics"][0]
    assert (loss["metric"], loss["rank"], loss["points"], loss["nan"]) == ("loss", 0, 10, 1)
    assert (loss["first_step"], loss["last_step"], loss["last"], loss["min"], loss["max"]) == (0, 9, 1.1, 1.1, 2.0)


@pytest.mark.usefixtures("run_id")
def test_csv_is_the_summary_of_the_metrics(ask: Ask) -> None:
    lines = ask("show", "first", "--csv").lines

    assert lines[0].startswith("metric,rank,points,first_step,last_step,last,")
    assert lines[1].startswith("loss,0,10,0,9,1.1,")


def test_why_a_run_failed_is_said(ask: Ask, tmp_path: Path) -> None:
    program = tmp_path / "fails.py"
    program.write_text(
        "import tracer\n"
        "with tracer.init(project='p', run_name='bad', quiet=True) as run:\n"
        "    run.log({'loss': 1.0})\n"
        "    raise ValueError('it broke')\n"
    )
    subprocess.run([sys.executable, str(program)], capture_output=True, check=False, timeout=60)

    lines = ask("show", "bad").lines

    assert ["status", "failed"] in [line.split() for line in lines]
    assert any(line.startswith("reason") and "it broke" in line for line in lines)


@pytest.mark.usefixtures("run_id")
def test_showing_in_a_pipe_loads_neither_numpy_nor_duckdb_nor_torch(loaded: Callable[..., list[str]]) -> None:
    modules = set(loaded("show", "first"))

    assert not {"numpy", "duckdb", "torch", "rich", "pyarrow"} & modules


@pytest.mark.usefixtures("run_id")
def test_a_terminal_gets_the_course_of_each_metric(on_terminal: Ask) -> None:
    lines = on_terminal("show", "first").text

    course = next(line for line in lines if line.startswith("val/acc"))
    assert "▁" in course
    assert "█" in course


PROGRAM = """
import sys, tracer
run = tracer.init(project="p", run_name="live", quiet=True)
for line in sys.stdin:
    run.log({"loss": float(line)})
    run.step()
    print("logged", flush=True)
run.finish()
"""


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[[float], None]]:
    """A training in a process of its own, which logs what it is told."""
    program = tmp_path / "live.py"
    program.write_text(PROGRAM)
    with subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def log(value: float | None) -> None:
            if value is None:
                process.stdin.close()
                process.wait(timeout=60)
                return
            process.stdin.write(f"{value}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "logged\n"

        log.process = process
        log(3.0)
        yield log
        process.kill()


def test_a_live_run_is_followed_line_by_line_until_it_ends(live: Ask) -> None:
    with subprocess.Popen(command("show", "live", "--follow"), stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        first = follower.stdout.readline()
        live(2.0)
        second = follower.stdout.readline()
        live(None)
        rest = follower.stdout.read().splitlines()

    assert [first, second] == ["running  step 0  loss 3\n", "running  step 1  loss 2\n"]
    assert rest[-1] == "completed  step 1  loss 2"
    assert follower.returncode == 0


def test_a_live_run_is_followed_as_json_lines(live: Ask) -> None:
    with subprocess.Popen(command("show", "live", "-f", "--json"), stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        first = json.loads(follower.stdout.readline())
        live(None)
        last = json.loads(follower.stdout.read().splitlines()[-1])

    assert (first["run"]["status"], first["run"]["metrics"][0]["last"]) == ("running", 3.0)
    assert last["run"]["status"] == "completed"


def test_following_a_killed_run_ends_with_the_answer_no(live: Ask) -> None:
    with subprocess.Popen(command("show", "live", "-f"), stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        follower.stdout.readline()
        live.process.send_signal(signal.SIGKILL)
        live.process.wait(timeout=60)
        rest = follower.stdout.read().splitlines()

    assert rest[-1] == "crashed  step 0  loss 3"
    assert follower.returncode == 1


def test_a_live_run_is_redrawn_on_a_terminal(live: Ask, read_terminal: Ask) -> None:
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "PYTHONUTF8": "1", "COLUMNS": "100", "LINES": "40"}
    with subprocess.Popen(
        command("show", "live", "-f"), stdin=theirs, stdout=theirs, stderr=theirs, env=env
    ) as follower:
        os.close(theirs)
        said = read_terminal(ours, until="so far")
        live(2.0)
        live(None)
        said += read_terminal(ours)
        follower.wait(timeout=60)
    os.close(ours)

    assert "\x1b[" in said
    text = ANSI.sub("", said)
    assert text.index("running") < text.rindex("completed")
    assert follower.returncode == 0


@pytest.mark.usefixtures("run_id")
def test_following_a_run_that_ended_shows_it_once(ask: Ask) -> None:
    answer = ask("show", "first", "--follow", "-m", "loss")

    assert (answer.code, answer.lines) == (0, ["completed  step 9  loss 1.1"])
