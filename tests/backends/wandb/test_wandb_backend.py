"""What stands in W&B's files after a run was mirrored, as W&B's own reader and ours tell it."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tracer import transfer
from tracer.backends import table

pytest.importorskip("wandb")

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import wandb_program as program  # noqa: E402 -- stands beside this file

PATIENCE_S = 120


@dataclass(frozen=True)
class Done:
    """What a program said, and where its files are."""

    folder: Path
    said: dict[str, Any]
    shown: str

    def files(self) -> list[Path]:
        """Return the `.wandb` files, oldest first."""
        return sorted((self.folder / "there" / "wandb").glob("offline-run-*/*.wandb"))


def done(folder: Path, what: str, **told: object) -> Done:
    """Run the program in a folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment |= {"HOME": str(folder / "home"), "PYTHONPATH": str(HERE.parents[2] / "src")}
    ended = subprocess.run(
        [sys.executable, str(HERE / "wandb_program.py"), what, json.dumps(told)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == (-signal.SIGKILL if what == "kill" else 0), ended.stderr
    return Done(folder, json.loads(ended.stdout), ended.stderr)


@cache
def official(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file as W&B's own reader prints them."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    return [json.loads(line) for line in ended.stdout.splitlines()]


def history(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file."""
    return [one["history"]["item"] for one in official(path) if one["type"] == "history"]


def config(path: Path) -> dict[str, Any]:
    """Return the config as it is at the end."""
    found: dict[str, Any] = {}
    for one in official(path):
        record = one["run"].get("config") if one["type"] == "run" else one.get("config")
        found |= (record or {}).get("update", {})
    return found


def read(folder: Path) -> tuple[transfer.RunInfo, list[transfer.Event], list[str]]:
    """Return the one run of a folder as our reader tells it."""
    source = table.source("wandb", str(folder))
    (run,) = source.runs()
    return run, list(source.events(run)), source.notes


def digests(events: list[transfer.Event]) -> dict[tuple[str, int], str]:
    """Return what two sides have to agree on, by series."""
    series: dict[tuple[str, int], list[transfer.Points]] = {}
    for event in events:
        if isinstance(event, transfer.Points):
            series.setdefault((event.name, event.rank), []).append(event)
    return {name: transfer.digest(points) for name, points in series.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A run with everything, each batch written twice."""
    return done(tmp_path_factory.mktemp("whole"), "whole")


def test_every_number_comes_back_from_our_reader_bit_for_bit(whole: Done) -> None:
    run, events, notes = read(whole.folder / "there")

    assert digests(events) == digests(list(program.corpus()))
    times = {event.name: event.times.tolist() for event in events if isinstance(event, transfer.Points)}
    assert times["a.b"] == program.corpus()[0].times.tolist()
    assert notes == []
    assert run.origin == "wandb:vision-net/run0uid"


def test_wandbs_own_reader_tells_the_same_numbers(whole: Done) -> None:
    (path,) = whole.files()
    rows = [row for row in history(path) if "loss" in row]

    assert [row["tracer_step"] for row in rows] == program.STEPS.tolist()
    told = [float(row["loss"]) for row in rows]
    assert [math.isnan(one) or one for one in told] == [math.isnan(one) or one for one in program.VALUES.tolist()]
    assert [round(row["_timestamp"] * 1e6) for row in rows] == program.corpus()[0].times.tolist()
    assert [row["_step"] for row in rows] == sorted(row["_step"] for row in rows)


def test_names_that_wandb_would_take_for_its_own_are_changed_and_mapped_back(whole: Done) -> None:
    (path,) = whole.files()
    names = set().union(*history(path))
    names |= {name.removesuffix("._type") for name in names}

    assert {"loss", "a/b c[0]: ü", "a.b", "-9"} <= names
    assert set(whole.said["renamed"]) >= {"_step", "tracer_step", "*", "..", "a/../b", "tab\t", ""}
    assert set(whole.said["renamed"].values()) <= names
    assert config(path)["tracer.names"] == whole.said["renamed"]


def test_steps_that_go_backwards_are_kept_by_an_axis_of_our_own(whole: Done) -> None:
    (path,) = whole.files()
    metrics = [one["metric"] for one in official(path) if one["type"] == "metric"]

    assert {one["glob_name"]: one["step_metric"] for one in metrics if "glob_name" in one} == {"*": "tracer_step"}


def test_what_describes_the_run_is_there(whole: Done) -> None:
    (path,) = whole.files()
    runs = [one["run"] for one in official(path) if one["type"] == "run"]
    first, last = runs[0], runs[-1]

    assert (first["project"], first["display_name"], first["run_group"]) == ("vision-net", "first try", "g")
    assert (first["job_type"], first["notes"], first["tags"]) == ("train", "as it was", ["a", "b"])
    assert (last["notes"], last["tags"]) == ("changed", ["a", "c"])
    found = config(path)
    assert (found["lr"], found["deep"], found["dotted.name"], found["new"]) == (0.2, {"a": [1, 2]}, 5, 1)
    assert [one["exit"]["exit_code"] for one in official(path) if one["type"] == "exit"] == [0]


def test_our_reader_gives_back_the_run_as_it_was(whole: Done) -> None:
    run, _, _ = read(whole.folder / "there")

    assert (run.uid, run.project, run.name, run.status) == ("run0uid", "vision/net", "first try", "completed")
    assert (run.started, run.ended) == (program.STARTED, program.STARTED + 10_000_000)
    assert (run.group, run.job_type, run.notes, run.tags) == ("g", "train", "changed", ("a", "c"))
    assert run.params == {"lr": 0.2, "deep": {"a": [1, 2]}, "dotted.name": 5, "new": 1}
    assert (run.summary, run.labels, run.git) == ({"best": 0.125}, {"team": "x"}, {"commit": "abc"})


def test_media_texts_and_histograms_are_shown_by_wandb_and_come_back(whole: Done) -> None:
    (path,) = whole.files()
    rows = history(path)
    kinds = {name.removesuffix("._type"): row[name] for row in rows for name in row if name.endswith("._type")}
    assert {kinds[name] for name in kinds} == {
        "histogram", "image-file", "audio-file", "html-file", "video-file", "table-file",
    }  # fmt: skip

    _, events, _ = read(whole.folder / "there")
    texts = {event.name: event.body for event in events if isinstance(event, transfer.Text)}
    assert texts["answer"] == "forty-two\n“ü”"
    histograms = {event.name: event for event in events if isinstance(event, transfer.Histogram)}
    assert (histograms["weights"].edges, histograms["weights"].counts) == ((0.0, 1.0, 2.0), (3.0, 4.0))
    assert len(histograms["wide"].counts) == 501
    assert sum(histograms["wide"].counts) == 1001
    media = {event.name: event for event in events if isinstance(event, transfer.Media)}
    assert {name: event.kind for name, event in media.items()} == {
        "picture/../one": "image", "sound": "audio", "page": "html", "film": "video", "table": "table",
    }  # fmt: skip
    assert Path(media["picture/../one"].path or "").read_bytes() == program.png()
    assert json.loads(media["table"].data or b"")["rows"] == [[1, "x"], [2.5, None]]
    assert all((event.step, event.time) == (7, program.STARTED + 77) for event in media.values())
    files = (path.parent / "files").resolve()
    assert (files / "media" / "shape" / "7.obj").read_bytes() == b"v 1 2 3"


def test_nothing_is_written_outside_the_folder(whole: Done) -> None:
    outside = [path for path in whole.folder.rglob("*") if path.is_file() and "there" not in path.parts]

    assert [path.name for path in outside] == ["weights.bin"]


def test_log_lines_stand_in_the_runs_output(whole: Done) -> None:
    (path,) = whole.files()

    lines = (path.parent / "files" / "output.log").read_text(encoding="utf-8").splitlines()
    assert lines == ["2020-09-13T12:26:40.000005 first line", "2020-09-13T12:26:40.000006 WARNING torch careful"]
    _, events, _ = read(whole.folder / "there")
    logs = [event for event in events if isinstance(event, transfer.LogLine)]
    assert [(event.time - program.STARTED, event.body) for event in logs] == [
        (5, "first line"), (6, "WARNING torch careful"),
    ]  # fmt: skip


def test_an_artifact_is_logged_once_and_comes_back_byte_for_byte(whole: Done) -> None:
    (path,) = whole.files()
    logged = [one["artifact"] for one in official(path) if one["type"] == "artifact"]
    (ours,) = [one for one in logged if one["type"] == "model"]
    assert ours["name"] == "my_x20_model"
    assert set(ours["aliases"]) == {"latest", "best"}
    assert ours["manifest"]["contents"][0]["path"] == "sub/weights.bin"

    _, events, _ = read(whole.folder / "there")
    (file,) = [event for event in events if isinstance(event, transfer.File)]
    assert (file.name, file.type, file.version, file.step) == ("my model", "model", "v3", 7)
    assert file.metadata == {"f1": 0.5}
    assert Path(file.parts[0].local).read_bytes() == bytes(range(256)) * 40


def test_nothing_of_wandb_is_left_after_close(whole: Done) -> None:
    assert whole.shown == ""
    assert whole.said["threads"] == ["MainThread"]
    assert whole.said["variables"] == []
    assert whole.said["run"] == "None"
    assert whole.said["url"] is None
    assert _processes(whole.folder) == []


def test_without_a_key_it_is_offline_and_says_how_to_upload(tmp_path: Path) -> None:
    offline = done(tmp_path, "plain", options={"mode": ""})

    assert offline.said["remote"]["mode"] == "offline"
    assert "wandb sync" in offline.said["remote"]["note"]
    (run,) = table.source("wandb", offline.said["remote"]["folder"] + "#run0uid").runs()
    assert run.uid == "run0uid"


def test_a_batch_that_comes_twice_doubles_nothing(tmp_path: Path) -> None:
    twice = done(tmp_path, "twice")
    (path,) = twice.files()

    assert len([row for row in history(path) if "loss" in row]) == len(program.STEPS)


def test_after_kill_9_everything_written_is_there_and_a_resumed_run_doubles_nothing(tmp_path: Path) -> None:
    killed = done(tmp_path, "kill")
    run, events, _ = read(tmp_path / "there")
    assert run.status == "crashed"
    assert digests(events) == digests(list(program.corpus()))

    resumed = done(tmp_path, "whole", remote=killed.said["remote"])
    first, second = resumed.files()
    assert len([row for row in history(first) if "loss" in row]) == len(program.STEPS)
    assert [row for row in history(second) if "loss" in row] == []
    assert min(row["_step"] for row in history(second)) > max(row["_step"] for row in history(first))
    run, events, _ = read(tmp_path / "there")
    assert run.status == "completed"
    assert digests(events) == digests(list(program.corpus()))
    counts = [len(event) for event in events if isinstance(event, transfer.Points) and event.name == "loss"]
    assert counts == [len(program.STEPS), 3]


@pytest.mark.parametrize(("status", "code"), [("failed", 1), ("crashed", 255)])
def test_how_it_ended_is_told(tmp_path: Path, status: str, code: int) -> None:
    ended = done(tmp_path, "plain", status=status)
    (path,) = ended.files()

    assert [one["exit"]["exit_code"] for one in official(path) if one["type"] == "exit"] == [code]
    assert read(tmp_path / "there")[0].status == status


def test_an_artifact_that_leads_out_of_its_folder_is_rejected(tmp_path: Path) -> None:
    assert done(tmp_path, "evil").said["error"] == "Rejected"


def test_a_server_that_is_not_there_is_unreachable_and_the_key_is_not_told(tmp_path: Path) -> None:
    key = "0123456789abcdef" * 2 + "01234567"
    options = {"mode": "online", "base_url": "http://127.0.0.1:9", "api_key": key, "init_timeout_s": 3}
    refused = done(tmp_path, "plain", options=options)

    assert refused.said["error"] == "Unreachable"
    assert key not in json.dumps(refused.said) + refused.shown


def test_two_runs_and_one_of_the_programs_own_do_not_disturb_each_other(tmp_path: Path) -> None:
    beside = done(tmp_path, "beside")

    assert beside.said == {"is_still_theirs": True}
    (own,) = tmp_path.glob("own/wandb/offline-run-*/*.wandb")
    assert [row["mine"] for row in history(own)] == [1, 2]
    assert len(beside.files()) == 3
    source = table.source("wandb", str(tmp_path / "there"))
    found = {run.uid: (run.status, digests(list(source.events(run)))) for run in source.runs()}
    assert {uid: status for uid, (status, _) in found.items()} == {"run0": "completed", "run1": "completed"}
    counts = [len(event) for run in source.runs() for event in source.events(run) if isinstance(event, transfer.Points)]
    assert counts == [1, 2]


def test_it_keeps_the_contract(tmp_path: Path) -> None:
    assert done(tmp_path, "conform").said == {}


def _processes(folder: Path) -> list[str]:
    """Return the processes that work in a folder."""
    found = []
    for entry in Path("/proc").iterdir() if Path("/proc").is_dir() else []:
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                if Path(os.readlink(entry / "cwd")) == folder:
                    found.append(entry.name)
            except OSError:
                continue
    return found
