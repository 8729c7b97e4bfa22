"""`tracer capsule`: list, show, now, rm, in processes of their own."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tracer

sys.path.insert(0, str(Path(__file__).resolve().parent))
from replay_programs import TRAIN, capsule_from, in_a_store

Ask = Callable[..., Any]
pytestmark = pytest.mark.torch

LIVE = (
    TRAIN.partition("if __name__")[0]
    + """
import glob, os, threading
import tracer
from tracer import clock

run = tracer.init(project="demo", run_name="live", quiet=True, track_system_metrics=False, track_git=False)
(folder,) = glob.glob(".tracer/runs/*")
model = build()
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
recorder = FlightRecorder(model, optimizer, FlightConfig(signal="off"), folder=os.path.join(folder, "capsules"))
print("ready", flush=True)
while not os.path.exists("stop"):
    model(torch.randn(3, 4)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    run.step()
    clock.wait(threading.Event(), 0.02)
recorder.stop()
run.finish()
"""
)


def test_capsules_of_a_run_are_listed(ask: Ask) -> None:
    name = in_a_store("twice")

    listed = ask("capsule", "list", name)
    document = ask("capsule", "list", name, "--json").json

    assert listed.code == 0, listed.err
    assert [line.split()[:3] for line in listed.text[1:3]] == [
        ["step-1-manual.trc", "1", "manual"],
        ["step-2-manual.trc", "2", "manual"],
    ]
    assert [one["step"] for one in document["capsules"]] == [1, 2]
    assert all(os.path.isfile(one["path"]) for one in document["capsules"])


def test_a_list_names_origins_and_what_cannot_be_read(ask: Ask) -> None:
    name = in_a_store("nan")
    (folder,) = glob.glob(".tracer/runs/*/capsules")
    Path(folder, "step-9-manual.trc").write_text("broken")

    lines = ask("capsule", "list", name).text

    assert "aten.log.default in the model train.py:" in lines[1]
    assert "is no capsule or was cut off" in " ".join(lines[2:])


def test_a_run_without_capsules_says_so(ask: Ask) -> None:
    with tracer.init(project="demo", run_name="bare", quiet=True, track_system_metrics=False):
        pass

    assert ask("capsule", "list", "bare").lines == ["no capsules"]
    assert "has no capsules. One is written when a step goes wrong" in ask("replay", "bare").err


def test_a_capsule_is_shown_without_torch(ask: Ask, loaded: Callable[..., list[str]]) -> None:
    path = capsule_from("nan")

    answer = ask("capsule", "show", path)

    assert answer.code == 0, answer.err
    assert "what     nan or inf (NaN)" in answer.text
    assert "trust    your own: its pickles are read" in answer.text
    assert "Origin" in answer.text
    assert "Steps before" in answer.text
    assert "Every entry has the SHA-256 of the manifest." in answer.text
    assert "torch" not in loaded("capsule", "show", path)


def test_damage_is_shown(ask: Ask) -> None:
    path = Path(capsule_from("plain"))
    data = path.read_bytes()
    place = data.index(b"tensors.safetensors") + 100
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])

    answer = ask("capsule", "show", str(path))

    assert answer.code == 3
    assert any("tensors.safetensors" in line and "is damaged" in line for line in answer.text)


def test_capsules_are_removed_only_after_asking(ask: Ask) -> None:
    path = capsule_from("plain")

    asked = ask("capsule", "rm", path)
    other = ask("capsule", "rm", "--yes", str(Path(path).with_name("train.py")))
    removed = ask("capsule", "rm", "--yes", path)

    assert (asked.code, other.code, removed.code) == (2, 2, 0)
    assert "Say so with --yes" in asked.err
    assert "is no capsule" in other.err
    assert not os.path.exists(path)
    assert Path(path).with_name("train.py").exists()


@pytest.fixture
def live() -> Iterator[subprocess.Popen[str]]:
    """Run a training that goes on until it is told to stop."""
    Path("live.py").write_text(LIVE)
    process = subprocess.Popen([sys.executable, "live.py"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    Path("stop").touch()
    assert process.wait(timeout=60) == 0
    process.stdout.close()


@pytest.mark.usefixtures("live")
def test_a_running_program_is_asked_for_a_capsule(ask: Ask) -> None:
    answer = ask("capsule", "now", "live", "--wait", "40")

    (path,) = glob.glob(".tracer/runs/*/capsules/*.trc")
    assert answer.code == 0, answer.err
    assert os.path.basename(path) in answer.out
    assert not glob.glob(".tracer/runs/*/capsule.request")


def test_a_run_that_has_ended_is_not_asked(ask: Ask) -> None:
    with tracer.init(project="demo", run_name="over", quiet=True, track_system_metrics=False):
        pass

    answer = ask("capsule", "now", "over")

    assert answer.code == 1
    assert "is not recording any more (completed)" in answer.err


def test_a_program_without_a_recorder_takes_no_request(ask: Ask) -> None:
    with tracer.init(project="demo", run_name="deaf", quiet=True, track_system_metrics=False):
        answer = ask("capsule", "now", "deaf", "--wait", "0.5")

    assert answer.code == 1
    assert "Nobody took the request" in answer.err
    assert not glob.glob(".tracer/runs/*/capsule.request")
