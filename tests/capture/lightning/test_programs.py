"""Programs as Lightning's documents write them, recorded unasked: as in its own CSV files, and no different."""

# ruff: noqa: ANN401 -- the framework decides what it hands over, and of what type

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lit_programs import PROGRAMS, differences, repeated, run

OLDER = Path(sys.prefix) / "older/bin/python"


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_is_recorded_is_what_the_csv_logger_writes_and_the_training_is_the_same(
    framework: Any, program: str
) -> None:
    assert differences(framework, program) == []


@pytest.mark.skipif(not OLDER.exists(), reason="needs the environment with the older versions")
def test_the_same_holds_for_the_older_version() -> None:
    program = Path(__file__).with_name("lit_programs.py")

    done = subprocess.run(
        [OLDER, "-W", "ignore", program, "lightning.pytorch", "pytorch_lightning"],
        env={**os.environ, "POSSIBLE_USER_WARNINGS": "off"},
        capture_output=True,
        text=True,
        check=True,
    )

    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert said == [{"version": "2.4.0", "says": []}] * 2


def test_the_programs_log_each_kind_of_number_at_the_loggers_points(lightning: Any) -> None:
    series = run(lightning, "data module", captured=True)["recorded"]

    assert list(series["train_loss_step"]) == list(range(1, 16, 2))
    assert list(series["train_loss_epoch"]) == [7, 15]
    assert series["python"] == {step: float(step % 8) for step in range(1, 16, 2)}
    assert series["numpy"] == series["tensor"]
    assert list(series["test_loss"]) == [16]
    assert set(series["epoch"].values()) == {0.0, 1.0, 2.0}


def test_nothing_is_said_twice(lightning: Any) -> None:
    for program in ("autoencoder", "data module", "two optimizers"):
        assert repeated(run(lightning, program, captured=True)["events"]) == {}


def test_steps_are_those_of_the_loggers(lightning: Any) -> None:
    def steps(program: str) -> list[int]:
        events = run(lightning, program, captured=True)["events"]
        return [event.step for event in events if type(event).__name__ == "Steps"]

    assert steps("autoencoder") == list(range(1, 17))
    assert steps("two optimizers") == list(range(1, 9))  # as many batches, and twice as many optimizer steps
    assert steps("accumulation") == [1, 2, 3, 4, 5, 6]  # three batches are a step, and a second fit goes on counting
    assert steps("resumed") == list(range(1, 25))
