"""A run sent to a server with ClearML's API: what is asked of it, in which order, and what its answers mean."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from clearml_fake_server import FakeServer

from tracer.backends.base import Refused, Rejected, Throttled, Unreachable
from tracer.backends.clearml import ClearMLBackend
from tracer.transfer import File, LogLine, Media, Part, Points, RunInfo

BEGAN = 1_700_000_000_000_000
INFO = RunInfo("u", "team/vision", "a name", BEGAN, tags=("t",), params={"lr": 0.5}, notes="note")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """Return a server that the variables name."""
    monkeypatch.delenv("CLEARML_OFFLINE_MODE", raising=False)
    monkeypatch.setenv("CLEARML_API_ACCESS_KEY", "key")
    monkeypatch.setenv("CLEARML_API_SECRET_KEY", "very secret")
    with FakeServer() as running:
        for name in ("API", "WEB", "FILES"):
            monkeypatch.setenv(f"CLEARML_{name}_HOST", running.url)
        yield running


def points(name: str, *values: float) -> Points:
    """Return a series."""
    steps = np.arange(len(values))
    return Points(name, steps, BEGAN + 1000 * steps, np.array(values))


def test_a_run_becomes_a_task(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"weights")
    backend = ClearMLBackend({"tags": ["mine"]})

    remote = backend.open(INFO, {})
    assert remote == {"task": "task0", "url": f"{server.url}/projects/project0/experiments/task0/output/log"}
    assert backend.url() == remote["url"]
    backend.write([
        points("train/loss", 0.5, float("nan"), 2.5),
        LogLine("line", BEGAN, "said"),
        Media("sample", "image", 2, BEGAN, data=b"\x89PNG", suffix=".png"),
        File("model", "model", "v1", (Part("deep/w", str(tmp_path / "w"), 7, "d"),)),
    ])  # fmt: skip
    backend.close("failed", BEGAN + 5)

    names = [name for name, *_ in server.calls]
    assert names[:5] == ["auth.login", "projects.get_all", "projects.create", "tasks.create", "tasks.started"]
    assert names[-1] == "tasks.failed"
    pair = base64.b64encode(b"key:very secret").decode()
    assert server.calls[0][2] == f"Basic {pair}"
    task = server.tasks["task0"]
    assert (task["name"], task["project"], task["tags"], task["status"]) == (
        "a name",
        "project0",
        ["t", "mine"],
        "failed",
    )
    scalars = [event for event in server.events() if event["type"] == "training_stats_scalar"]
    assert [(event["iter"], event["value"]) for event in scalars] == [(0, 0.5), (2, 2.5)]
    assert {event["task"] for event in server.events()} == {"task0"}
    said = [event["msg"] for event in server.events() if event["type"] == "log"]
    assert said[0].startswith("tracer.values ")
    assert "said" in said
    (sample,) = [event for event in server.events() if event["type"] == "training_debug_image"]
    assert server.files[sample["key"]] == b"\x89PNG"
    (listed,) = [body["artifacts"][0] for name, body, _ in server.calls if name == "tasks.add_or_update_artifacts"]
    assert listed["hash"] == hashlib.sha256(b"weights").hexdigest()
    assert b"weights" in server.files.values()


def test_a_resumed_task_is_the_same_task(server: FakeServer) -> None:
    remote = ClearMLBackend({}).open(INFO, {})
    again = ClearMLBackend({})

    assert again.open(INFO, remote)["task"] == "task0"
    again.write([points("loss", 1.0)])
    again.write([points("loss", 1.0)])
    again.close("completed", BEGAN)
    assert list(server.tasks) == ["task0"]


@pytest.mark.usefixtures("server")
def test_a_task_on_a_server_never_goes_on_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    remote = ClearMLBackend({}).open(INFO, {})
    monkeypatch.delenv("CLEARML_API_SECRET_KEY")

    with pytest.raises(Refused, match=r"task0.*no credentials"):
        ClearMLBackend({}).open(INFO, remote)


@pytest.mark.parametrize(
    ("status", "error"), [(500, Rejected), (503, Unreachable), (429, Throttled), (403, Refused), (413, Rejected)]
)
def test_an_answer_says_what_the_lane_does(status: int, error: type[Exception], server: FakeServer) -> None:
    backend = ClearMLBackend({})
    backend.open(INFO, {})
    server.answer_with = [status]

    with pytest.raises(error, match=r"127\.0\.0\.1") as told:
        backend.write([points("loss", 1.0)])
    assert "secret" not in str(told.value)
    backend.write([points("loss", 1.0)])


def test_a_token_that_ran_out_is_renewed(server: FakeServer) -> None:
    backend = ClearMLBackend({})
    backend.open(INFO, {})
    server.answer_with = [401]

    backend.write([points("loss", 1.0)])

    assert [name for name, *_ in server.calls].count("auth.login") == 2
    assert len(server.events()) == 1


def test_lines_that_come_again_after_an_error_are_sent(server: FakeServer) -> None:
    backend = ClearMLBackend({})
    backend.open(INFO, {})
    server.answer_with = [503]
    batch = [LogLine("line", BEGAN, "said"), points("loss", 1.0)]

    with pytest.raises(Unreachable):
        backend.write(batch)
    backend.write(batch)
    backend.write(batch)

    assert [event["msg"] for event in server.events() if event["type"] == "log"] == ["said"]


def test_wrong_credentials_close_the_lane(server: FakeServer) -> None:
    server.answer_with = [401]

    with pytest.raises(Refused, match="credentials"):
        ClearMLBackend({}).open(INFO, {})


def test_a_dead_server_is_unreachable_at_once(monkeypatch: pytest.MonkeyPatch, server: FakeServer) -> None:
    monkeypatch.setenv("CLEARML_API_HOST", "http://127.0.0.1:9")

    with pytest.raises(Unreachable):
        ClearMLBackend({}).open(INFO, {})
    assert server.calls == []


@pytest.mark.skipif(importlib.util.find_spec("clearml") is None, reason="needs clearml")
def test_the_clients_own_file_names_the_server(tmp_path: Path) -> None:
    told = {"api_server": "http://there:8008", "credentials": {"access_key": "a", "secret_key": "b"}}
    (tmp_path / "clearml.conf").write_text(f"api {json.dumps(told)}")
    program = (
        "from tracer.backends.clearml_server import credentials\n"
        "found = credentials({})\nprint(found.api, found.files, found.web, found.key, found.secret, found)"
    )
    known = {**os.environ, "HOME": str(tmp_path)}

    done = subprocess.run([sys.executable, "-c", program], env=known, capture_output=True, text=True, check=False)

    said = done.stdout.split()
    assert said[:5] == ["http://there:8008", "http://there:8081", "http://there:8080", "a", "b"], done.stderr
    assert "secret" not in " ".join(said[5:])
