"""Experiments in real programs: they end as the program ends, and settings come from a container's environment."""

# ruff: noqa: ANN401 -- what reads a run back is a class of `conftest.py`
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from programs import run

BEGIN = """
import tracelet
calm = {"track_metrics": False, "track_stdout": False, "track_code": False}
experiment = tracelet.start_logging("x", config=calm)
for step in range(50):
    experiment.log_metric("loss", step, step)
"""

PLUGIN = """
import tracelet
from tracelet.core.plugins import BackendPlugin, PluginMetadata, PluginType

class Lines(BackendPlugin):
    @classmethod
    def get_metadata(cls):
        return PluginMetadata("lines", "1", PluginType.BACKEND)

    def log_metric(self, name, value, iteration):
        with open("lines.txt", "a") as file:
            print(iteration, file=file)

calm = {"track_metrics": False, "track_stdout": False, "track_code": False}
experiment = tracelet.start_logging("x", backend=[Lines], config=calm)
for step in range(300):
    experiment.log_metric("loss", step, step)
"""


def test_a_program_that_forgets_to_stop_is_completed(recorded: Any) -> None:
    run(BEGIN)

    assert (recorded("x").row.status, len(recorded("x").series("loss"))) == ("completed", 50)


def test_a_program_that_raises_is_failed_with_its_reason(recorded: Any) -> None:
    run(BEGIN + "raise ValueError('bad rows')", code=1)

    assert (recorded("x").row.status, "bad rows" in str(recorded("x").facts["reason"])) == ("failed", True)
    assert len(recorded("x").series("loss")) == 50


def test_a_plugin_is_served_to_the_last_value_when_the_program_just_ends(recorded: Any) -> None:
    run(PLUGIN)

    assert [int(line) for line in Path("lines.txt").read_text().splitlines()] == list(range(300))
    assert recorded("x").lanes() == {"lines": "complete"}


def test_one_rank_speaks_for_the_job() -> None:
    ranks = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}

    run(PLUGIN, env=ranks)

    assert not Path("lines.txt").exists()


def test_a_container_says_everything_with_variables(recorded: Any) -> None:
    variables = {"TRACELET_PROJECT": "jobs", "TRACELET_EXPERIMENT_NAME": "seven", "TRACELET_TRACK_STDOUT": "0"}

    run("import tracelet\nwith tracelet.start_logging() as e: e.log_metric('a', 1.0, 0)", env=variables)

    assert (recorded().row.project, recorded().row.name) == ("jobs", "seven")


def test_under_tracer_run_the_experiment_takes_over_the_run_that_was_begun(recorded: Any) -> None:
    Path("train.py").write_text(BEGIN + "tracelet.stop_logging()\n", encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "tracer", "run", "train.py"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert len(recorded("x").series("loss")) == 50
    assert [json.loads(path.read_text())["name"] for path in Path(".tracer/runs").glob("*/run.json")] == ["x"]
