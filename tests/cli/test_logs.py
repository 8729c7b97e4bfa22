"""`tracer logs` shows what a run printed and logged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from programs import await_line, run, start

PROGRAM = """
    import logging, sys, tracer
    with tracer.init(project="demo", run_name="talks", track_output="wrap", track_code=False):
        print("begin")
        for number in range(3):
            print("step", number)
            logging.getLogger("train").warning("slow %d", number)
            tracer.step()
        logging.getLogger("train").error("broken")
        print("oops", file=sys.stderr)
"""


@pytest.fixture
def recorded() -> None:
    """Record a run that prints and logs."""
    run(PROGRAM)


def texts(answer: object) -> list[str]:
    """Return the lines without their time."""
    return [line.split(maxsplit=2)[2].strip() for line in answer.out.splitlines()]  # type: ignore[attr-defined]


@pytest.mark.usefixtures("recorded")
def test_everything_is_shown_in_order(ask: Callable[..., Any]) -> None:
    answer = ask("logs", "talks")

    assert (answer.code, answer.err) == (0, "")
    assert texts(answer) == [
        "0  stdout  begin", "0  stdout  step 0", "0  WARNING train  slow 0",
        "1  stdout  step 1", "1  WARNING train  slow 1",
        "2  stdout  step 2", "2  WARNING train  slow 2",
        "3  ERROR train  broken", "3  stderr  oops",
    ]  # fmt: skip


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--level", "error"], ["3  ERROR train  broken"]),
        (["--stream", "stderr"], ["3  stderr  oops"]),
        (["--grep", "step [12]"], ["1  stdout  step 1", "2  stdout  step 2"]),
        (["--step", "1:2"], ["1  stdout  step 1", "1  WARNING train  slow 1"]),
        (["--step", "3:", "--stream", "log"], ["3  ERROR train  broken"]),
        (["--tail", "1"], ["3  stderr  oops"]),
        (["--tail", "0"], []),
        (["--rank", "1"], []),
    ],
)
def test_lines_can_be_chosen(ask: Callable[..., Any], options: list[str], shown: list[str]) -> None:
    assert texts(ask("logs", "talks", *options)) == shown


@pytest.mark.usefixtures("recorded")
def test_json_holds_every_field(ask: Callable[..., Any]) -> None:
    (line,) = ask("logs", "talks", "--level", "error", "--json").json["lines"]

    assert line | {"time": 0} == {
        "time": 0, "step": 3, "rank": 0, "kind": "log", "level": "ERROR", "name": "train", "body": "broken",
        "fields": None,
    }  # fmt: skip


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("options", "said"), [(["--grep", "("], "no regular expression"), (["--step", "x:y"], "no range of steps")]
)
def test_what_cannot_be_meant_is_said(ask: Callable[..., Any], options: list[str], said: str) -> None:
    answer = ask("logs", "talks", *options)

    assert answer.code == 2
    assert said in answer.err


def test_a_run_that_kept_nothing_says_how_to(ask: Callable[..., Any]) -> None:
    run('import tracer\nwith tracer.init(project="demo", run_name="silent"): tracer.log({"loss": 1.0})')

    answer = ask("logs", "silent")

    assert (answer.code, answer.out) == (0, "")
    assert "track_output='wrap'" in answer.err


def test_following_shows_lines_as_they_come_and_ends_with_the_run() -> None:
    talking = start(
        """
        import sys, tracer
        with tracer.init(project="demo", run_name="live", track_output="wrap", track_code=False) as r:
            print("first", flush=True)
            sys.stdin = open(0)
            input()
            print("second", flush=True)
        """,
        env={"PYTHONUNBUFFERED": "1"},
        before=["sh", "-c", 'mkfifo gate; exec "$0" "$@" 0<>gate'],
    )
    assert await_line(talking) == "first"

    with subprocess.Popen(
        [sys.executable, "-m", "tracer", "logs", "live", "-f", "--json"], stdout=subprocess.PIPE, text=True,
        env={**os.environ},
    ) as following:  # fmt: skip
        assert following.stdout is not None
        shown = [json.loads(following.stdout.readline())["body"]]
        with open("gate", "w", encoding="utf-8") as gate:
            gate.write("go\n")
        shown += [json.loads(line)["body"] for line in following.stdout]

    assert shown == ["first", "second"]
    assert following.returncode == 0
    talking.communicate()
