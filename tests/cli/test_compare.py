"""`tracer compare` as a person and as a program meets it."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tracer

#: Runs a command or records a run; see conftest.py.
Ask = Callable[..., Any]


def curve(leap: float, count: int = 60) -> list[dict[str, float]]:
    """Return a loss that leaps at step 30, and an accuracy that is its opposite."""
    rows = []
    for step in range(count):
        loss = 1 + 0.01 * (step % 2) + (leap if step >= 30 else 0.0)
        rows.append({"loss": loss, "accuracy": 1 - loss / 4})
    return rows


@pytest.fixture
def two(record: Ask) -> tuple[str, str]:
    """Two runs that part at step 30."""
    return (
        record("base", curve(0.0), config={"lr": 0.1, "seed": 1}),
        record("worse", curve(0.5), config={"lr": 0.2, "seed": 1, "warmup": True}),
    )


@pytest.mark.usefixtures("two")
def test_two_runs_are_compared(ask: Ask) -> None:
    answer = ask("compare", "base", "worse")

    assert answer.code == 0
    assert answer.lines == [
        "Parameters",
        "        base      worse",
        "lr      0.1       0.2",
        "warmup  (absent)  true",
        "",
        "accuracy (higher is better)",
        "run     final  best (max)  at step  difference  verdict  parts at step  points",
        "base   0.7475        0.75        0                                          60",
        "worse  0.6225        0.75        0      -16.7%  worse               30      60",
        "best: base",
        "",
        "loss (lower is better)",
        "run    final  best (min)  at step  difference  verdict  parts at step  points",
        "base    1.01           1        0                                          60",
        "worse   1.51           1        0      +49.5%  worse               30      60",
        "best: base",
    ]


@pytest.mark.usefixtures("two")
def test_the_first_run_is_what_the_others_are_measured_against(ask: Ask) -> None:
    document = ask("compare", "worse", "base", "-m", "loss", "--json").json

    assert [run["name"] for run in document["runs"]] == ["worse", "base"]
    [loss] = document["metrics"]
    assert (loss["goal"], loss["best_run"]) == ("min", 1)
    assert loss["runs"][0]["difference"] is None
    other = loss["runs"][1]
    assert (other["better"], other["within_noise"]) == (True, False)
    assert other["difference"] == pytest.approx(-0.5)
    assert other["relative"] == pytest.approx(-0.5 / loss["runs"][0]["final"])
    assert (other["parting"]["step"], other["first_difference"], other["overlap"]) == (30, 30, [0, 59])


def test_equal_runs_are_within_noise_and_never_part(ask: Ask, record: Ask) -> None:
    record("one", curve(0.0), config={"lr": 1})
    record("two", curve(0.0), config={"lr": 1})

    answer = ask("compare", "one", "two", "-m", "loss", "--check")

    assert answer.code == 0
    assert answer.lines[:2] == ["Parameters", "the same in all runs"]
    assert answer.lines[-1].split() == ["two", "1.01", "1", "0", "+0%", "within", "noise", "never", "60"]


@pytest.mark.usefixtures("two")
def test_check_answers_no_when_runs_differ(ask: Ask) -> None:
    assert ask("compare", "base", "worse", "--check").code == 1


def test_unequal_steps_are_aligned(ask: Ask, record: Ask) -> None:
    record("every", curve(0.0))
    with tracer.init(project="demo", run_name="sparse", quiet=True) as run:
        for step in range(0, 60, 3):
            run.log({"loss": curve(0.5)[step]["loss"]}, step=step)

    document = ask("compare", "every", "sparse", "-m", "loss", "--json").json

    sparse = document["metrics"][0]["runs"][1]
    assert (sparse["points"], sparse["overlap"]) == (20, [0, 57])
    assert 27 <= sparse["parting"]["step"] <= 30


def test_a_declared_goal_wins_over_the_name(ask: Ask, record: Ask) -> None:
    goals = {"custom_metrics": {"loss": {"goal": "max"}}}
    record("low", [{"loss": 1.0}] * 20, **goals)
    record("high", [{"loss": 2.0}] * 20, **goals)

    [loss] = ask("compare", "low", "high", "--json").json["metrics"]

    assert (loss["goal"], loss["best_run"], loss["runs"][1]["better"]) == ("max", 1, True)


def test_an_unknown_direction_is_not_guessed(ask: Ask, record: Ask) -> None:
    record("a", [{"zeta": 1.0}] * 20)
    record("b", [{"zeta": 2.0}] * 20)

    answer = ask("compare", "a", "b")

    assert "zeta (which is better is not known)" in answer.lines
    assert answer.lines[-1].split() == ["b", "2", "-", "-", "+100%", "differs", "0", "20"]


def test_negative_and_zero_values_have_the_right_sign(ask: Ask, record: Ask) -> None:
    record("a", [{"loss": -2.0, "zero_loss": 0.0}] * 20)
    record("b", [{"loss": -3.0, "zero_loss": 1.0}] * 20)

    loss, zero = ask("compare", "a", "b", "--json").json["metrics"]

    assert (loss["runs"][1]["relative"], loss["runs"][1]["better"]) == (-0.5, True)
    assert (zero["runs"][1]["relative"], zero["runs"][1]["difference"], zero["runs"][1]["better"]) == (None, 1.0, False)


def test_a_run_that_ends_in_nan_loses(ask: Ask, record: Ask) -> None:
    record("fine", [{"loss": 2.0}] * 20)
    record("broken", [{"loss": 1.0}] * 10 + [{"loss": float("nan")}] * 10)

    [loss] = ask("compare", "fine", "broken", "--json").json["metrics"]

    assert (loss["runs"][1]["final"], loss["best_run"]) == ("NaN", 0)
    assert loss["runs"][1]["parting"]["step"] == 0


def test_metrics_that_not_all_have_are_named(ask: Ask, record: Ask) -> None:
    record("a", [{"loss": 1.0, "extra": 1.0}] * 5)
    record("b", [{"loss": 1.0}] * 5)

    answer = ask("compare", "a", "b")
    refused = ask("compare", "a", "b", "-m", "extra")

    assert answer.lines[-2:] == ["Not in all runs", "extra"]
    assert (refused.code, refused.out) == (2, "")
    assert "Not all of these runs have 'extra'" in refused.err


@pytest.mark.usefixtures("two")
def test_three_runs_and_csv(ask: Ask, record: Ask) -> None:
    record("third", curve(0.25))

    rows = list(csv.DictReader(io.StringIO(ask("compare", "base", "worse", "third", "-m", "loss", "--csv").out)))

    assert [(row["run"], row["parts_at_step"], row["better"]) for row in rows] == [
        ("base", "", ""),
        ("worse", "30", "false"),
        ("third", "30", "false"),
    ]


def test_one_run_cannot_be_compared(ask: Ask, two: tuple[str, str]) -> None:
    answer = ask("compare", "base", two[0])

    assert answer.code == 2
    assert "Comparing takes two runs or more; only 'base' is meant by all the names." in answer.err


def test_code_and_environment_are_compared(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # some frameworks set it in their process
    code = tmp_path / "code"
    code.mkdir()
    program = code / "train.py"
    program.write_text(
        "import tracer, sys\nwith tracer.init(run_name=sys.argv[1], quiet=True) as run:\n    run.log({'loss': 1.0})\n"
    )

    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-C", str(code), "-c", "user.name=t", "-c", "user.email=t@t", *arguments],
            check=True,
            capture_output=True,
        )

    def train(name: str) -> None:
        subprocess.run([sys.executable, str(program), name], check=True, timeout=60)

    git("init", "-b", "main")
    git("add", ".")
    git("commit", "-m", "first")
    train("clean")
    program.write_text(program.read_text().replace("1.0", "2.0"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    train("dirty")

    answer = ask("compare", "clean", "dirty")

    assert "is_dirty  false  true" in answer.lines
    assert any(line.split() == ["variables.OMP_NUM_THREADS", "(absent)", "1"] for line in answer.lines)
    assert "uncommitted changes, clean against dirty:" in answer.lines
    assert "+-    run.log({'loss': 1.0})" in answer.lines
    assert "++    run.log({'loss': 2.0})" in answer.lines


@pytest.mark.usefixtures("two")
def test_comparing_loads_no_framework(loaded: Callable[..., list[str]]) -> None:
    assert not {"torch", "transformers", "lightning", "matplotlib", "pandas", "scipy"} & set(
        loaded("compare", "base", "worse")
    )
