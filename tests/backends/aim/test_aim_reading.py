"""Aim repositories read without an index and without changing a file in them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("aim") is None, reason="needs aim")

HERE = Path(__file__).parent

READ = """
import json, sys
import numpy as np
from tracer.backends import aim_reading
from tracer.backends.aim_reading import AimSource
aim_reading._CHUNK = 500
source = AimSource(sys.argv[1])
for run in source.runs():
    told = {"run": [run.origin, run.project, run.name, run.started, run.ended, run.status, list(run.tags)],
            "params": run.params, "events": []}
    for one in source.events(run):
        row = [type(one).__name__, getattr(one, "name", None)]
        if row[0] == "Points":
            row += [one.rank, one.steps.tolist(), one.times.tolist(), [value.hex() for value in one.values.tolist()]]
        elif row[0] == "File":
            row += [one.version, one.type, [[p.path, p.size, p.digest] for p in one.parts], list(one.aliases), one.step]
        elif row[0] == "LogLine":
            row += [one.kind, one.time, one.body, one.level, one.step, one.fields]
        elif row[0] == "Histogram":
            row += [one.step, one.time, one.edges, one.counts]
        elif row[0] == "Media":
            row += [one.kind, one.step, one.time, one.suffix, one.caption, one.fields]
        else:
            row += [one.step, one.time, one.body]
        told["events"].append(row)
    told["notes"] = source.notes
    print(json.dumps(told))
"""

FOREIGN = """
import sys
import numpy as np
from aim import Audio, Image, Run
run = Run(repo=sys.argv[1], experiment="theirs", system_tracking_interval=None, capture_terminal_logs=False)
run["lr"] = 0.5
run.name = "foreign"
for step in range(1_001):
    run._tracker._track(step / 2, 1.5, "loss", step, None, context={"subset": "train"})
run.track([Image(np.zeros((2, 2), np.uint8)), Image(np.ones((2, 2), np.uint8))], name="pictures", step=1)
run.track(Audio(np.zeros(10, np.int16), format="wav", rate=10), name="sound", step=1)
run.close()
"""


WRITE = """
import sys
import numpy as np
from tracer.backends.aim import AimBackend
from tracer.transfer import Points, RunInfo
backend = AimBackend({"repo_path": sys.argv[1]})
backend.open(RunInfo("u", "p", "n", 1, status="running"), {})
steps = np.arange(3000)
backend.write([Points("loss", steps, steps, steps / 2)])
print("written", flush=True)
sys.stdin.readline()
backend.write([Points("loss", steps + 3000, steps, steps / 2)])
backend.close("completed", 5)
"""


def python(source: str, *arguments: object) -> str:
    """Run a program and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", source, *map(str, arguments)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def stood(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of every file, but for logs and locks, which Aim's own reader writes too."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith(("LOG", "structured_db_lock")):
            told = path.stat()
            found[str(path.relative_to(folder))] = (told.st_size, told.st_mtime_ns)
    return found


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with a run of ours."""
    folder = tmp_path_factory.mktemp("aim")
    subprocess.run([sys.executable, str(HERE / "aim_writing_program.py"), str(folder), "whole"], check=True)
    return folder


def test_what_was_written_is_read_as_it_was(repository: Path) -> None:
    before = stood(repository)

    told = json.loads(python(READ, repository))

    assert stood(repository) == before
    assert told["run"][1:] == [
        "a project", "a name", 1_700_000_000_123_456, 1_700_000_061_123_456, "completed", ["one", "two"],
    ]  # fmt: skip
    assert told["params"]["deep"] == {"": 1, "list": [1, {"z": True}]}
    assert told["notes"] == []
    events = {(kind, name): rest for kind, name, *rest in told["events"]}
    assert events["Points", "steps"][1] == [-(2**63), -5, 0, 7, 2**31, 2**53 + 1, 2**62, 2**63 - 1]
    values = [float("nan"), float("inf"), float("-inf"), -0.0, 1e-300, 1.7976931348623157e308, 5e-324, 0.1]
    assert events["Points", "values"][3] == [value.hex() for value in values]
    assert events["Points", "loss"][0] == 2
    assert {name for kind, name in events if kind == "Points"} > {"x" * 600, "_x5b_", "line\nbreak", "nul\0"}
    assert events["Text", "prompt"][0] == -3
    assert events["Text", "loss"][2] == "text beside numbers"
    assert events["LogLine", "trainer"] == ["log", 1_700_000_000_123_460, "careful", "WARNING", 3, {"a": 1}]
    assert events["LogLine", "evaluated"][2] is None
    assert events["Histogram", "weights"][2:] == [[0.0, 1.0, 4.0], [2.0, 3.5]]
    assert events["Media", "page"] == ["html", 2, 1_700_000_000_123_465, ".html", None, {}]
    assert [row[2] for row in told["events"] if row[:2] == ["Media", "sample"]] == ["image", "table"]
    assert events["File", "model"] == ["v1", "model", [["deep/w.bin", 8, "digest"]], ["best"], 5]


def test_runs_of_others_are_read_without_an_index(tmp_path: Path) -> None:
    python(FOREIGN, tmp_path)

    told = json.loads(python(READ, tmp_path / ".aim"))

    assert told["run"][1:3] == ["theirs", "foreign"]
    assert told["params"] == {"lr": 0.5}
    points = [row for row in told["events"] if row[0] == "Points"]
    assert {row[1] for row in points} == {"loss/subset=train"}
    assert [len(row[3]) for row in points] == [500, 500, 1]
    assert [step for row in points for step in row[3]] == list(range(1_001))
    assert [row[:3] for row in told["events"] if row[0] == "Media"] == [
        ["Media", "pictures", "image"], ["Media", "pictures", "image"], ["Media", "sound", "audio"],
    ]  # fmt: skip
    assert any("subset" in note for note in told["notes"])


def test_a_run_that_is_being_written_is_read_beside_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITE, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writing:
        assert writing.stdout is not None
        assert writing.stdout.readline() == "written\n"
        during = json.loads(python(READ, tmp_path))
        writing.communicate("\n", timeout=60)
    after = json.loads(python(READ, tmp_path))

    assert writing.returncode == 0
    assert [sum(len(row[3]) for row in told["events"]) for told in (during, after)] == [3000, 6000]
    assert [told["run"][5] for told in (during, after)] == ["crashed", "completed"]


def test_damage_is_left_out_and_told(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository / ".aim", tmp_path / ".aim")
    for chunk in (tmp_path / ".aim" / "seqs" / "chunks").rglob("*.sst"):
        size = os.path.getsize(chunk)
        chunk.write_bytes(b"\xff" * size)
    (tmp_path / ".aim" / "artifacts").rename(tmp_path / "elsewhere")

    told = json.loads(python(READ, tmp_path))

    assert told["run"][2] == "a name"
    assert [row for row in told["events"] if row[0] in ("File", "Points")] == []
    assert len(told["notes"]) > 5
