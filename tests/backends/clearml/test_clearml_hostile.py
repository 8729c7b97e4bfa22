"""Offline sessions that are damaged or made to do harm: an error or a part with a report, and nothing outside."""

from __future__ import annotations

import json
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracer.backends.base import Refused
from tracer.backends.clearml import ClearMLBackend
from tracer.backends.clearml_reading import ClearMLSource
from tracer.transfer import Event, File, LogLine, Media, Part, Points, RunInfo, Text

TASK = {"id": "offline-1", "name": "n", "project_name": "p", "execution": {"artifacts": []}}


def session(path: Path, files: dict[str, Any]) -> Path:
    """Return a zip with files; what is no text is JSON."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, told in {"task.json": TASK, **files}.items():
            zipped.writestr(name, told if isinstance(told, (str, bytes)) else json.dumps(told))
    return path


def read(path: Path) -> tuple[list[RunInfo], list[Event], list[str]]:
    """Return all that can be read."""
    source = ClearMLSource(str(path))
    runs = list(source.runs())
    return runs, [event for run in runs for event in source.events(run)], source.notes


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a good session."""
    monkeypatch.setenv("CLEARML_OFFLINE_MODE", "1")
    (tmp_path / "w").write_bytes(b"weights" * 100)
    backend = ClearMLBackend({"dir": str(tmp_path)})
    remote = backend.open(RunInfo("u", "p", "n", 1, params={"a": 1}), {})
    steps = np.arange(300)
    for name in "abc":
        backend.write([Points(name, steps, steps, steps / 3), Text(name, 1, 1, "text"), LogLine("log", 1, "x" * 99)])
    backend.write([
        Media("m", "image", 1, 1, data=b"data" * 50, suffix=".png"),
        File("f", "file", "v0", (Part("w", str(tmp_path / "w"), 700, "d"),)),
    ])  # fmt: skip
    backend.close("completed", 5)
    return Path(remote["zip"])


def test_mutated_zips_are_read_in_part_or_refused(whole: Path, tmp_path: Path) -> None:
    good, chance = whole.read_bytes(), random.Random(7)  # noqa: S311 -- which bytes are hit
    bad = tmp_path / "bad.zip"
    for _ in range(150):
        changed = bytearray(good)
        for _ in range(chance.choice([1, 4, 40])):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        bad.write_bytes(changed[: chance.choice([len(changed), chance.randrange(len(changed))])])

        runs, events, notes = read(bad)

        assert len(runs) <= 1
        assert notes or events


def test_mutated_json_is_read_in_part(whole: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(whole) as zipped:
        files = {name: zipped.read(name) for name in zipped.namelist()}
    chance = random.Random(8)  # noqa: S311 -- see above
    for _ in range(150):
        name = chance.choice(["task.json", "metrics.jsonl", "log.jsonl"])
        changed = bytearray(files[name])
        for _ in range(chance.choice([1, 10])):
            at = chance.randrange(len(changed))
            changed[at : at + chance.randrange(3)] = chance.choice(
                [b"", b"9", b"-", b"null", b"{}", b"[", b"\xff", b'"']
            )

        runs, events, notes = read(session(tmp_path / "bad.zip", {**files, name: bytes(changed)}))

        assert (runs and events) or notes


@pytest.mark.parametrize(
    "value",
    [None, True, "x", [], {}, 1e400, -1, 10**40, "9" * 400, "\0", [[]], {"a": 1}, float("nan")],
    ids=lambda value: str(value)[:20],
)
def test_fields_of_any_kind_do_no_harm(value: object, tmp_path: Path) -> None:
    event = {"type": "training_stats_scalar", "task": "t", "iter": 1, "metric": "m", "variant": "v", "value": 1.0}
    events = [{**event, name: value} for name in (*event, "timestamp")]
    events += [{**event, "type": kind, name: value} for kind in ("plot", "training_debug_image")
               for name in ("key", "url", "plot_str", "iter", "metric")]  # fmt: skip
    task = {**TASK, **dict.fromkeys(("tags", "hyperparams", "configuration", "comment", "type", "started"), value)}
    task["execution"] = {"artifacts": value}
    lines = [{"type": "log", name: value} for name in ("msg", "timestamp", "level")]

    for changed in (task, {**TASK, "id": value}, {**TASK, "execution": value}, value):
        read(session(tmp_path / "s.zip", {"task.json": changed, "metrics.jsonl": events, "log.jsonl": lines}))


def test_no_path_leads_out(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    room = tmp_path / "room"
    room.mkdir()
    (room / "data").mkdir()
    (room / "data" / "link").symlink_to(secret)
    keys = ["../../secret", str(secret), "link", "a/../../../secret", "..\\secret"]
    samples = [{"type": "training_debug_image", "metric": "m", "variant": "m", "iter": 1, "key": key} for key in keys]
    artifacts = [{"key": key, "uri": f"/x/data/{key}"} for key in keys] + [{"key": "k", "uri": f"file://{secret}"}]
    files = {"task.json": {**TASK, "execution": {"artifacts": artifacts}}, "metrics.jsonl": samples}
    for name, told in files.items():
        (room / name).write_text(json.dumps(told))
    zipped = session(tmp_path / "s.zip", {**files, "../escaped": "x", "data/../../escaped": "x", "/escaped": "x"})

    for place in (room, zipped):
        runs, events, notes = read(place)
        assert len(runs) == 1
        assert events == []
        assert len(notes) >= len(keys) * 2
    assert not list(tmp_path.parent.rglob("escaped"))


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as zipped:
        zipped.writestr("task.json", json.dumps(TASK))
        with zipped.open("metrics.jsonl", "w", force_zip64=True) as opened:
            for _ in range(64):
                opened.write(b" " * 2**20)

    runs, events, notes = read(path)

    assert (runs, events) == ([], [])
    assert "more than a session holds" in notes[0]


def test_deep_json_is_left_out(tmp_path: Path) -> None:
    deep = "[" * 200_000
    runs, events, notes = read(session(tmp_path / "s.zip", {"metrics.jsonl": deep, "log.jsonl": '{"a":' * 200_000}))

    assert (len(runs), events) == (1, [])
    assert len(notes) == 2


def test_a_place_without_sessions_is_told(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no offline session"):
        list(ClearMLSource(str(tmp_path / "none")).runs())
    assert list(ClearMLSource(str(tmp_path)).runs()) == []
