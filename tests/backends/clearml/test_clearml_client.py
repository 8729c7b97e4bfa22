"""ClearML's own client on the other side: it reads a session of ours, and we read one of its, each in its process."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from clearml_fake_server import FakeServer

from tracer.backends.clearml import ClearMLBackend
from tracer.backends.clearml_reading import ClearMLSource
from tracer.transfer import File, Histogram, LogLine, Media, Part, Points, RunInfo

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("clearml") is None, reason="needs clearml"),
    pytest.mark.slow,  # the client waits for its own threads
]

WRITE = """
from clearml import Task
task = Task.init("their/project", "their name", tags=["t"], reuse_last_task_id=False, auto_connect_arg_parser=False,
                 auto_connect_frameworks=False, auto_connect_streams=False, auto_resource_monitoring=False)
logger = task.get_logger()
for step, value in enumerate([0.5, -0.0, 1e-300, float("nan"), float("inf")]):
    logger.report_scalar("train", "loss", value, step)
logger.report_scalar("steps", "steps", 1.0, -5)
logger.report_scalar("steps", "steps", 2.0, 2**62)
logger.report_text("said")
task.connect({"lr": 0.5, "name": "x", "on": True})
task.close()
"""

IMPORT = """
import sys
from clearml import Task
print("imported", Task.import_offline_session(sys.argv[1]))
"""


def client(program: str, folder: Path, *arguments: object, **more: str) -> str:
    """Run a program with the real client, far from this machine's settings."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("CLEARML_")}
    known |= {"CLEARML_CACHE_DIR": str(folder / "cache"), "HOME": str(folder), "TRACER_CAPTURE": "off", **more}
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], env=known, capture_output=True, text=True, timeout=90,
        check=False, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_session_of_the_client_is_read(tmp_path: Path) -> None:
    client(WRITE, tmp_path, CLEARML_OFFLINE_MODE="1")

    source = ClearMLSource(str(tmp_path / "cache"))
    (run,) = source.runs()
    read = list(source.events(run))

    assert (run.project, run.name, run.tags, run.status) == ("their/project", "their name", ("t",), "completed")
    assert run.params == {"lr": 0.5, "name": "x", "on": True}
    points = {one.name: one for one in read if isinstance(one, Points)}
    # The client itself writes what is not finite as 0.
    assert [value.hex() for value in points["train/loss"].values.tolist()] == [
        value.hex() for value in (0.5, -0.0, 1e-300, 0.0, 0.0)
    ]
    assert points["steps"].steps.tolist() == [-5, 2**62]
    assert "said" in [one.body for one in read if isinstance(one, LogLine)]
    assert run.started <= int(points["steps"].times[0]) <= (run.ended or 0)


def test_the_client_takes_a_session_of_ours_to_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARML_OFFLINE_MODE", "1")
    (tmp_path / "w").write_bytes(b"weights")
    backend = ClearMLBackend({"dir": str(tmp_path / "ours")})
    info = RunInfo("u", "team/vision", "a name", 1_700_000_000_000_000, tags=("t",), params={"lr": 0.5}, notes="note")
    remote = backend.open(info, {})
    steps = np.arange(100)
    backend.write([
        Points("train/loss", steps, 1_700_000_000_000_000 + 1000 * steps, steps / 2),
        LogLine("line", 1_700_000_000_000_000, "said"),
        Histogram("h", 1, 1_700_000_000_000_000, (0.0, 1.0, 4.0), (2.0, 3.0)),
        Media("sample", "image", 2, 1_700_000_000_000_000, data=b"\x89PNG", suffix=".png"),
        File("model", "model", "v1", (Part("deep/w", str(tmp_path / "w"), 7, "d"),)),
    ])  # fmt: skip
    backend.close("completed", 1_700_000_001_000_000)

    with FakeServer() as server:
        hosts = {f"CLEARML_{name}_HOST": server.url for name in ("API", "WEB", "FILES")}
        keys = {"CLEARML_API_ACCESS_KEY": "key", "CLEARML_API_SECRET_KEY": "secret"}
        said = client(IMPORT, tmp_path, remote["zip"], **hosts, **keys)

    assert "imported task0" in said
    scalars = [event for event in server.events() if event.get("type") == "training_stats_scalar"]
    assert [(event["iter"], event["value"], event["timestamp"]) for event in scalars] == [
        (step, step / 2, 1_700_000_000_000 + step) for step in range(100)
    ]
    assert {(event["task"], event["metric"], event["variant"]) for event in scalars} == {("task0", "train", "loss")}
    kinds = {event.get("type") for event in server.events()}
    assert {"log", "plot", "training_debug_image"} <= kinds
    task = server.tasks["task0"]
    assert (task["name"], task["comment"], task["tags"]) == ("a name", "note", ["t"])
    assert task["hyperparams"]["General"]["lr"]["value"] == "0.5"
    assert json.loads(task["configuration"]["tracer"]["value"])["uid"] == "u"
    assert set(server.files.values()) == {b"\x89PNG", b"weights"}
    assert task["execution"]["artifacts"][0]["key"] == "model/deep/w"
