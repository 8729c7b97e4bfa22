"""A run written to a real Aim repository and read back with Aim's own reader; all of it in processes of their own."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tracer.backends.aim_files import inside
from tracer.backends.base import Rejected

pytestmark = pytest.mark.skipif(importlib.util.find_spec("aim") is None, reason="needs aim")

HERE = Path(__file__).parent
BEGAN = 1_700_000_000_123_456


def program(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run one of the programs beside this file."""
    command = [sys.executable, str(HERE / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def read(repository: Path) -> dict[str, dict[str, Any]]:
    """Return what Aim reads."""
    done = program("aim_reading_program.py", repository)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with a run that was written three times, the last time after it had ended."""
    folder = tmp_path_factory.mktemp("aim")
    done = program("aim_writing_program.py", folder, "whole")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return folder


@pytest.fixture(scope="module")
def kept(repository: Path) -> dict[str, Any]:
    """Return the one run that Aim finds."""
    (run,) = read(repository).values()
    return run


def of(run: dict[str, Any], name: str, context: dict[str, object] | None = None) -> tuple[Sequence[Any], ...]:
    """Return steps, values and times of one series."""
    (found,) = [tuple(one[2:]) for one in run["points"] if one[:2] == [name, context or {}]]
    return found


def test_every_value_comes_back_bit_for_bit(kept: dict[str, Any]) -> None:
    steps, values, times = of(kept, "values")

    told = [float.fromhex(value) for value in values]
    assert math.isnan(told[0])
    assert told[1:] == [math.inf, -math.inf, 0.0, 1e-300, 1.7976931348623157e308, 5e-324, 0.1]
    assert math.copysign(1, told[3]) == -1
    assert steps == list(range(8))
    assert [round(time * 1e6) for time in times] == [BEGAN + at for at in range(8)]


def test_steps_of_64_bits_come_back(kept: dict[str, Any]) -> None:
    assert of(kept, "steps")[0] == [-(2**63), -5, 0, 7, 2**31, 2**53 + 1, 2**62, 2**63 - 1]


def test_the_last_value_of_a_step_is_kept(kept: dict[str, Any]) -> None:
    steps, values, _ = of(kept, "disordered")

    assert (steps, [float.fromhex(value) for value in values]) == ([1, 2, 3], [4.0, 2.0, 3.0])


def test_a_rank_is_a_context(kept: dict[str, Any]) -> None:
    assert of(kept, "loss")[0] == [0]
    assert of(kept, "loss", {"rank": 2})[0] == [0, 1]


def test_names_are_told_apart_and_back(kept: dict[str, Any]) -> None:
    names = {one[0] for one in kept["points"]} - {"values", "steps", "disordered", "loss"}

    assert {"plain", "a/b/c", "a:b?c", "a[0]", "ä ß 中", "../up", "line_x0a_break", "nul_x00_"} < names
    assert len(names) == 11
    assert set(kept["tracer"]["names"].values()) == {"line\nbreak", "nul\0", "_x5b_", "x" * 600}


def test_facts_are_where_aim_shows_them(kept: dict[str, Any]) -> None:
    assert (kept["name"], kept["experiment"], kept["description"]) == ("a name", "a project", "some notes")
    assert (kept["created"], kept["ended"]) == (BEGAN / 1e6, (BEGAN + 61_000_000) / 1e6)
    assert sorted(kept["tags"]) == ["one", "two"]
    assert kept["params"]["lr"] == 0.1
    assert kept["params"]["deep"] == {"_x00_": 1, "list": [1, {"z": True}]}
    assert (kept["tracer"]["status"], kept["tracer"]["group"]) == ("completed", "g")


def test_lines_stand_once_each(kept: dict[str, Any]) -> None:
    assert kept["lines"] == ["twice", "twice"]
    assert [(one["message"], one["log_level"]) for one in kept["records"]] == [
        ("careful", "WARNING"),
        ("evaluated", "INFO"),
    ]


def test_objects_are_aims_own(kept: dict[str, Any]) -> None:
    told = {(name, json.dumps(context)): rows for name, context, rows in kept["objects"]}

    assert told["loss", '{"kind": "text"}'][0][:2] == [3, "text beside numbers"]
    assert told["prompt", '{"step": -3}'][0][:2] == [0, "before the start é"]
    assert told["weights", "{}"][0][:2] == [1, [2.0, 3.5]]
    assert told["sample", "{}"][0][:2] == [2, [[1, 2, 3], "first"]]


def test_files_are_copied_byte_for_byte(kept: dict[str, Any]) -> None:
    assert kept["artifacts"] == {
        "model/deep/w.bin": "\0weights",
        "media/page/2.html": "<p>",
        "media/sample/2.json": '{"rows": [[1, 2]]}',
    }


def test_it_keeps_the_contract(tmp_path: Path) -> None:
    done = program("aim_conformance_program.py", tmp_path)

    assert done.returncode == 0, done.stderr
    assert "values stay what they are" in done.stdout


def test_a_killed_mirror_resumes_without_gap_or_double(tmp_path: Path) -> None:
    assert program("aim_writing_program.py", tmp_path, "killed").returncode == -9
    resumed = program("aim_writing_program.py", tmp_path, "resumed")

    assert resumed.returncode == 0, resumed.stderr
    (run,) = read(tmp_path).values()
    steps, values, _ = of(run, "loss")
    assert steps == list(range(500))
    assert float.fromhex(values[499]) == 249.5
    assert run["lines"] == [f"line {at}" for at in range(20)]
    assert run["tracer"]["status"] == "crashed"


def test_a_process_that_may_write_no_more_says_so_and_ends(tmp_path: Path) -> None:
    done = program("aim_writing_program.py", tmp_path, "full")  # the time limit is the test

    assert json.loads(done.stdout)["error"] == "Unreachable"


@pytest.mark.slow  # a server of Aim's needs some seconds to start
def test_a_server_takes_the_same(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    aim = str(Path(sys.executable).with_name("aim"))
    serving = subprocess.Popen(
        [aim, "server", "--repo", str(tmp_path), "--host", "127.0.0.1", "--port", str(port), "-y"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while not _listens(port):
            assert time.monotonic() < until
            assert serving.poll() is None
        done = program("aim_writing_program.py", f"aim://127.0.0.1:{port}", "remote")
        assert done.returncode == 0, done.stderr
        assert "asks no one who they are" in done.stderr
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(serving.pid, signal.SIGKILL)
        serving.wait()
    # Nobody keeps the index of a server's repository but `aim up`.
    subprocess.run([aim, "storage", "--repo", str(tmp_path), "reindex", "-y"], capture_output=True, check=True)

    (run,) = read(tmp_path).values()
    assert of(run, "steps")[0] == [-(2**63), -5, 0, 7, 2**31, 2**53 + 1, 2**62, 2**63 - 1]
    assert run["lines"] == ["twice", "twice"]
    assert (run["name"], run["artifacts"], run["tracer"]["status"]) == ("a name", {}, "completed")


def _listens(port: int) -> bool:
    """Tell whether something listens on a port."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"remote_uri": "aim://127.0.0.1:9"}, "Unreachable"),
        ({"remote_uri": "http://name:secret@there"}, "Refused"),
        ({"repo_path": "FILE"}, "Refused"),
    ],
)
def test_what_cannot_be_opened_is_told(options: dict[str, str], error: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = {name: value.replace("FILE", str(tmp_path / "file")) for name, value in options.items()}
    source = (
        "import json, sys\nfrom tracer.backends.aim import AimBackend\nfrom tracer.backends.base import BackendError\n"
        "from tracer.transfer import RunInfo\n"
        "try:\n    AimBackend(json.loads(sys.argv[1])).open(RunInfo('u', 'p', 'n', 1), {})\n"
        "except BackendError as error:\n    print(type(error).__name__, error)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", source, json.dumps(told)], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.stdout.startswith(f"{error} "), done.stderr
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "a\0b", "", "C:/x", "..\\x"])
def test_a_path_that_leads_out_is_refused(path: str) -> None:
    with pytest.raises(Rejected, match="leads out"):
        inside(path)
