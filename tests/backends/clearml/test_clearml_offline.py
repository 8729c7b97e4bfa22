"""A run written as an offline session of ClearML and read from its files as they are: a zip of JSON."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracer.backends.base import Rejected
from tracer.backends.clearml import ClearMLBackend
from tracer.backends.clearml_events import joined, parted
from tracer.backends.clearml_reading import ClearMLSource
from tracer.testing import check_backend
from tracer.transfer import Event, File, Histogram, LogLine, Media, Part, Points, RunInfo, Text, digest

BEGAN = 1_700_000_000_123_000
INFO = RunInfo(
    "u1", "team/vision", "n/../x", BEGAN, tags=("one", "two"), notes="some notes", group="g", labels={"team": "x"},
    params={"lr": 0.1, "none": None, "deep": {"": 1, "list": [1, {"z": True}]}, "big": 2**80},
    summary={"best": float("inf")}, job_type="train", steps=9,
)  # fmt: skip
FINITE = [-0.0, 1e-300, 1.7976931348623157e308, 5e-324, 0.1]
NAMES = [
    "plain", "a/b/c", "a/a", "a/_x2f_a", "/a", "a/", "//", "a:b?c", "a[0]", "ä ß 中", "../up", "line\nbreak", "nul\0",
    "_x5b_", "x" * 600, "$a.b", "tracer.text x", "rank1/a",
]  # fmt: skip


def points(name: str, steps: Sequence[int], values: Sequence[float], rank: int = 0) -> Points:
    """Return a series whose times are a millisecond apart."""
    times = BEGAN + 1000 * np.arange(len(steps), dtype=np.int64)
    return Points(name, np.array(steps, np.int64), times, np.array(values, np.float64), rank)


def everything(folder: Path) -> list[Event]:
    """Return a batch with everything in it."""
    part = folder / "weights.bin"
    part.write_bytes(b"\0weights")
    parts = (Part("deep/w.bin", str(part), 8, hashlib.sha256(b"\0weights").hexdigest()),)
    return [
        points("finite", range(5), FINITE),
        points("steps", [-(2**63), -5, 0, 2**53 + 1, 2**63 - 1], [0.0, 1.0, 2.0, 3.0, 4.0]),
        points("loss", [0, 1, 2, 3], [0.5, float("nan"), float("inf"), float("-inf")]),
        points("loss", [0, 1], [1.5, 2.5], rank=2),
        *(points(name, [1], [float(at)]) for at, name in enumerate(NAMES)),
        Text("prompt", -3, BEGAN + 2, "before the start é\u2028"),
        LogLine("line", BEGAN + 3000, "twice"),
        LogLine("line", BEGAN + 3000, "twice"),
        LogLine("line", BEGAN + 4000, 'tracer.text {"name": "forged"}', rank=1),
        LogLine("log", BEGAN + 4001, "careful", "trainer", "WARNING", 3, {"a": 1}),
        LogLine("event", BEGAN + 5002, None, "evaluated", fields={"score": 0.5}),
        Histogram("weights", 1, BEGAN + 6, (0.0, 1.0, 4.0), (2.0, 3.5)),
        Media("sample", "image", 2, BEGAN + 7, data=b"\x89PNG", suffix=".png", caption="first"),
        Media("sample", "table", 2, BEGAN + 8, fields={"rows": [[1, 2]]}),
        Media("../page", "html", 2, BEGAN + 9, data=b"<p>", suffix=".html", rank=1),
        File("model", "model", "v1", parts, BEGAN + 10, 5, ("best",), {"m": 1}),
    ]


def unpacked(path: str | Path) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Return task, events, console and file names of a session, read as the format says."""
    with zipfile.ZipFile(path) as zipped:
        names = zipped.namelist()
        told = [
            [event for line in zipped.read(name).splitlines() for event in json.loads(line)] if name in names else []
            for name in ("metrics.jsonl", "log.jsonl")
        ]
        return json.loads(zipped.read("task.json")), told[0], told[1], names


def written(folder: Path, events: Sequence[Event], info: RunInfo = INFO) -> Mapping[str, str]:
    """Write a session."""
    backend = ClearMLBackend({"dir": str(folder)})
    remote = backend.open(info, {})
    backend.write(events)
    backend.close("completed", BEGAN + 60_000_000)
    return remote


def test_without_credentials_it_stays_on_this_disk_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tracer"):
        remote = written(tmp_path, [])

    assert "no credentials were found" in remote["note"]
    assert caplog.messages == [remote["note"]]


@pytest.mark.parametrize(("name", "value"), [("CLEARML_API_HOST", ""), ("CLEARML_OFFLINE_MODE", "1")])
def test_it_stays_offline_where_that_is_asked(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEARML_API_ACCESS_KEY", "key")
    monkeypatch.setenv("CLEARML_API_SECRET_KEY", "secret")
    monkeypatch.setenv(name, value)

    assert name in written(tmp_path, [])["note"]


def test_scalars_stand_in_the_zip_as_the_format_says(tmp_path: Path) -> None:
    task, events, console, names = unpacked(written(tmp_path, everything(tmp_path))["zip"])

    scalars = [event for event in events if event["type"] == "training_stats_scalar"]
    finite = [event for event in scalars if event["metric"] == "finite"]
    assert [event["value"].hex() for event in finite] == [value.hex() for value in FINITE]
    assert [event["timestamp"] for event in finite] == [BEGAN // 1000 + at for at in range(5)]
    steps = [event["iter"] for event in scalars if event["metric"] == "steps"]
    assert steps == [-(2**63), -5, 0, 2**53 + 1, 2**63 - 1]
    assert [event["iter"] for event in scalars if event["metric"] == "loss"] == [0]
    assert [event["variant"] for event in scalars if event["metric"] == "rank2"] == ["loss", "loss"]
    assert {event["task"] for event in events + console} == {task["id"]}
    assert all(".." not in name.split("/") for name in names)
    assert (task["name"], task["project_name"], task["comment"]) == ("n/../x", "team/vision", "some notes")
    assert (task["tags"], task["type"]) == (["one", "two"], "training")
    assert task["hyperparams"]["General"]["deep/list"]["value"] == '[1, {"z": true}]'


def test_what_is_not_finite_is_never_a_scalar(tmp_path: Path) -> None:
    _, events, console, _ = unpacked(written(tmp_path, everything(tmp_path))["zip"])

    assert "NaN" not in json.dumps(events)
    (note,) = [event for event in console if event["msg"].startswith("tracer.values ")]
    told = json.loads(note["msg"].partition(" ")[2])
    assert (told["steps"], told["values"], note["level"]) == ([1, 2, 3], ["nan", "inf", "-inf"], "warning")


def test_everything_comes_back(tmp_path: Path) -> None:
    batch = everything(tmp_path)
    remote = written(tmp_path, batch)

    source = ClearMLSource(remote["zip"])
    (run,) = source.runs()
    read, contents = [], []
    for event in source.events(run):
        read.append(event)
        if isinstance(event, File):
            contents += [Path(part.local).read_bytes() for part in event.parts]

    wanted = replace(INFO, uid="", ended=BEGAN + 60_000_000, origin=f"clearml:{remote['task']}", job_type="train")
    assert run == wanted
    sent_points = {(one.name, one.rank): digest([one]) for one in batch if isinstance(one, Points)}
    read_points = {(one.name, one.rank): digest([one]) for one in read if isinstance(one, Points)}
    assert read_points == sent_points
    for kind in (Text, LogLine, Histogram):
        assert [one for one in read if isinstance(one, kind)] == [one for one in batch if isinstance(one, kind)]
    assert [one for one in read if isinstance(one, Media)] == [one for one in batch if isinstance(one, Media)]
    (file,) = [one for one in read if isinstance(one, File)]
    assert (file.name, file.version, file.aliases, file.metadata, file.step) == ("model", "v1", ("best",), {"m": 1}, 5)
    assert ([part.path for part in file.parts], contents) == (["deep/w.bin"], [b"\0weights"])
    assert source.notes == []


def test_a_batch_that_comes_again_changes_nothing(tmp_path: Path) -> None:
    batch = everything(tmp_path)
    once, more = tmp_path / "once", tmp_path / "more"
    first = unpacked(written(once, batch)["zip"])
    backend = ClearMLBackend({"dir": str(more)})
    remote = backend.open(INFO, {})
    backend.write(batch)
    backend.write(batch)
    backend.close("running", None)
    again = ClearMLBackend({"dir": str(tmp_path / "elsewhere")})

    assert again.open(INFO, remote)["zip"] == remote["zip"]
    again.write(batch)
    again.close("completed", BEGAN + 60_000_000)

    second = unpacked(remote["zip"])
    assert [len(part) for part in second] == [len(part) for part in first]


def test_a_killed_mirror_loses_nothing_that_was_written(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\nimport numpy as np\nfrom tracer.backends.clearml import ClearMLBackend\n"
        "from tracer.transfer import LogLine, Points, RunInfo\n"
        "backend = ClearMLBackend({'dir': sys.argv[1]})\nbackend.open(RunInfo('u1', 'p', 'n', 1), {})\n"
        "steps = np.arange(500)\n"
        "backend.write([Points('loss', steps, steps, steps / 2), LogLine('line', 1, 'said')])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == -9
    (folder,) = (tmp_path / "offline").iterdir()
    with (folder / "metrics.jsonl").open("a") as torn:
        torn.write('[{"type": "training_stats_sca')

    steps = np.arange(600)
    backend = ClearMLBackend({"dir": str(tmp_path)})
    remote = backend.open(RunInfo("u1", "p", "n", 1), {})
    backend.write([Points("loss", steps, steps, steps / 2), LogLine("line", 1, "said"), LogLine("line", 2, "more")])
    backend.close("crashed", 5)

    source = ClearMLSource(remote["zip"])
    (run,) = source.runs()
    read = list(source.events(run))
    assert [one.steps.tolist() for one in read if isinstance(one, Points)] == [list(range(600))]
    assert [one.body for one in read if isinstance(one, LogLine)] == ["said", "more"]
    assert (run.status, source.notes) == ("crashed", [])


def test_it_keeps_the_contract(tmp_path: Path) -> None:
    def read(remote: Mapping[str, str]) -> dict[str, list[tuple[int, float]]]:
        _, events, _, _ = unpacked(remote["zip"])
        found: dict[str, list[tuple[int, float]]] = {}
        for event in events:
            if event["type"] == "training_stats_scalar":
                told = found.setdefault(joined(event["metric"], event["variant"]), [])
                told.append((event["iter"], event["value"]))
        return found

    assert check_backend(ClearMLBackend, read=read, options={"dir": str(tmp_path)})


def test_facts_that_change_are_told_again(tmp_path: Path) -> None:
    backend = ClearMLBackend({"dir": str(tmp_path), "tags": ["mine"], "task_name": "called", "project_name": "where"})
    remote = backend.open(INFO, {})
    backend.write([replace(INFO, tags=("three",), params={"lr": 0.2}, summary={"best": 1.0})])
    backend.close("failed", BEGAN)

    task, *_ = unpacked(remote["zip"])
    assert (task["name"], task["project_name"], task["tags"]) == ("called", "where", ["three", "mine"])
    assert task["hyperparams"]["General"]["lr"]["value"] == "0.2"
    assert next(iter(ClearMLSource(remote["zip"]).runs())).status == "failed"


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "a\0b", "", "C:/x", "..\\x"])
def test_a_path_that_leads_out_is_refused(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    backend = ClearMLBackend({"dir": str(tmp_path)})
    remote = backend.open(INFO, {})

    with pytest.raises(Rejected, match="leads out") as told:
        backend.write([File("a", "file", "v0", (Part(path, str(tmp_path / "file"), 1, ""),)), points("loss", [1], [2])])

    assert told.value.lost == 1
    backend.close("completed", BEGAN)
    _, events, _, _ = unpacked(remote["zip"])
    assert len(events) == 1  # the rest of the batch is written


@pytest.mark.parametrize("name", NAMES)
def test_title_and_series_mean_one_name(name: str) -> None:
    assert joined(*parted(name)) == name
