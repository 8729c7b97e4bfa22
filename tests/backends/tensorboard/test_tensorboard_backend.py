"""What is written for TensorBoard is what its own readers find, once, whatever comes twice or is killed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util

from tracer import events
from tracer.backends.base import Unreachable
from tracer.backends.tensorboard import TensorBoardBackend
from tracer.backends.tensorboard_reading import TensorBoardSource
from tracer.testing import check_backend
from tracer.transfer import Event, Histogram, Media, Points, RunInfo, Text, digest

START = 1_767_225_600_123_456
RUN = RunInfo(
    "u-1", "vision", "first", START, status=events.RUNNING, notes="A note.", tags=("one", "zwei"),
    labels={"team": "a"}, params={"lr": 0.1, "model": {"depth": 2}, "amp": True, "opt": "sgd"}, origin="tracer:u-1",
)  # fmt: skip
VALUES = [0.5, 0.1, float("nan"), float("inf"), float("-inf"), -0.0, 1e-300, 1e300, 5e-324, 2.0**53, 16777217.0]
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000003000000020802000000129f0c1e"
)  # the head of a picture of 3 by 2
EVERYTHING = {"scalars": 0, "tensors": 0, "images": 0, "histograms": 0, "audio": 0}


def points(name: str = "loss", first: int = 0, count: int = len(VALUES), rank: int = 0) -> Points:
    steps = np.arange(first, first + count)
    values = np.array([VALUES[at % len(VALUES)] for at in steps.tolist()])
    return Points(name, steps, START + steps * 1_000_003, values, rank=rank)


def opened(
    folder: Path, remote: dict[str, str] | None = None, run: RunInfo = RUN
) -> tuple[TensorBoardBackend, dict[str, str]]:
    backend = TensorBoardBackend({"log_dir": str(folder)})
    return backend, dict(backend.open(run, remote or {}))


def theirs(folder: str) -> EventAccumulator:
    found = EventAccumulator(folder, size_guidance=EVERYTHING)
    found.Reload()
    return found


def series(found: EventAccumulator, tag: str) -> list[tuple[int, float, str]]:
    """Return step, time and value (as text, which tells -0.0 and NaN) of a series, of both ways of holding it."""
    tags = found.Tags()
    short = [(one.step, one.wall_time, one.value) for one in found.Scalars(tag)] if tag in tags["scalars"] else []
    long = found.Tensors(tag) if tag in tags["tensors"] else []
    exact = [(one.step, one.wall_time, tensor_util.make_ndarray(one.tensor_proto).item()) for one in long]
    return sorted((step, wall, repr(value)) for step, wall, value in short + exact)


def expected(*parts: Points) -> list[tuple[int, float, str]]:
    rows = [
        (step, at / 1_000_000, repr(value))
        for part in parts
        for step, at, value in zip(part.steps.tolist(), part.times.tolist(), part.values.tolist(), strict=True)
    ]
    return sorted(rows)


def test_every_value_step_and_time_is_read_back_by_tensorboard_bit_for_bit(tmp_path: Path) -> None:
    backend, remote = opened(tmp_path)
    far = Points("far", np.array([-(2**63), -1, 2**63 - 1]), np.array([START] * 3), np.array([1.0, 2.0, 0.3]))

    backend.write([points(), far, points("Größe/🙂 [x]", count=2), points(rank=3, count=2)])
    backend.close(events.COMPLETED, START + 9)

    found = theirs(remote["folder"])
    assert series(found, "loss") == expected(points())
    assert series(found, "far") == expected(far)
    assert series(found, "Größe/🙂 [x]") == expected(points(count=2))
    assert series(found, "rank3/loss") == expected(points(count=2))


def test_texts_histograms_pictures_and_sounds_are_read_back_by_tensorboard(tmp_path: Path) -> None:
    backend, remote = opened(tmp_path)

    backend.write(
        [
            Text("answer", 2, START, "forty-two"),
            Histogram("weights", 3, START, (-1.0, 0.0, 2.0), (4.0, 5.0)),
            Media("picture", "image", 4, START, data=PNG, suffix=".png", caption="three by two"),
            Media("sound", "audio", 5, START, data=b"RIFFxxxx", suffix=".wav", fields={"sample_rate": 8000}),
            Media("mesh", "mesh", 5, START, data=b"?"),
        ]
    )
    backend.close(events.COMPLETED, START)

    found = theirs(remote["folder"])
    histogram = found.Histograms("weights")[0].histogram_value
    picture = found.Images("picture")[0]
    assert found.Tensors("answer")[0].tensor_proto.string_val[:] == [b"forty-two"]
    assert (histogram.bucket_limit, histogram.bucket, histogram.num) == ([-1.0, 0.0, 2.0], [0.0, 4.0, 5.0], 9.0)
    assert (picture.step, picture.width, picture.height, picture.encoded_image_string) == (4, 3, 2, PNG)
    assert found.Audio("sound")[0].encoded_audio_string == b"RIFFxxxx"


def test_parameters_begin_a_session_and_the_end_closes_it(tmp_path: Path) -> None:
    backend, remote = opened(tmp_path)
    backend.close(events.FAILED, START + 2_500_000)

    said = {
        tag: plugin_data_pb2.HParamsPluginData.FromString(content)
        for tag, content in theirs(remote["folder"]).PluginTagToContent("hparams").items()
    }
    begun = said["_hparams_/session_start_info"].session_start_info
    ended = said["_hparams_/session_end_info"].session_end_info
    held = begun.hparams
    assert (held["lr"].number_value, held["model/depth"].number_value) == (0.1, 2)
    assert (held["amp"].bool_value, held["opt"].string_value) == (True, "sgd")
    assert (ended.status, ended.end_time_secs) == (2, (START + 2_500_000) / 1e6)


def test_a_batch_that_comes_again_after_a_kill_is_written_once_whole_or_in_parts(tmp_path: Path) -> None:
    first, remote = opened(tmp_path)
    first.write([points(count=5)])
    first.write([points(first=5, count=5), Text("note", 1, START, "x")])
    # Killed: nothing is closed, and half of a batch stands behind what was acknowledged.
    path = Path(remote["folder"]) / remote["file"]
    with path.open("ab") as file:
        file.write(path.read_bytes()[-70:-10])

    again, known = opened(tmp_path, remote)
    again.write([points(first=5, count=3)])
    again.write([points(first=8, count=2), points(first=10, count=4), Text("note", 1, START, "x")])
    again.write([points(first=10, count=4)])
    again.close(events.CRASHED, None)

    found = theirs(remote["folder"])
    assert known == remote
    assert series(found, "loss") == expected(points(count=14))
    assert len(found.Tensors("note")) == 1


_WRITER = """
import sys, numpy as np
from tracer.backends.tensorboard import TensorBoardBackend
from tracer.transfer import Points, RunInfo
backend = TensorBoardBackend({"log_dir": sys.argv[1]})
backend.open(RunInfo("u-1", "vision", "first", 1767225600123456), {})
for batch in range(int(sys.argv[2]), 100000):
    steps = np.arange(batch * 10, batch * 10 + 10)
    backend.write([Points("loss", steps, steps + 1767225600123456, steps * 0.1)])
    print(batch, flush=True)
"""


def test_a_writer_that_is_killed_at_any_time_and_goes_on_leaves_each_point_once(tmp_path: Path) -> None:
    acknowledged = -1
    for _ in range(3):
        command = [sys.executable, "-c", _WRITER, str(tmp_path), str(max(acknowledged, 0))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(7):
                acknowledged = int(process.stdout.readline())
            process.kill()
            for line in process.stdout:
                acknowledged = int(line) if line.endswith("\n") else acknowledged

    backend, remote = opened(tmp_path)
    backend.close(events.CRASHED, None)
    steps = [step for step, _, _ in series(theirs(remote["folder"]), "loss")]
    assert steps[: (acknowledged + 1) * 10] == list(range((acknowledged + 1) * 10))
    assert len(steps) in {(acknowledged + 1) * 10, (acknowledged + 2) * 10}


def test_two_runs_of_one_name_stand_in_two_folders_and_no_name_leads_out(tmp_path: Path) -> None:
    folders = [
        opened(tmp_path, run=replace(RUN, uid=uid, name=name, project=project))[1]["folder"]
        for uid, name, project in (("a", "x", "p"), ("b", "x", "p"), ("a", "x", "p"), ("c", "../../evil", ".."))
    ]

    assert folders[0] == folders[2] != folders[1]
    assert all(Path(folder).resolve().is_relative_to(tmp_path.resolve()) for folder in folders)
    assert not (tmp_path.parent / "evil").exists()


def test_a_folder_that_cannot_be_made_is_said_and_tried_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(Unreachable, match="cannot be written"):
        opened(tmp_path / "file" / "below")


def test_what_was_written_is_read_back_by_our_own_source_as_it_was(tmp_path: Path) -> None:
    backend, _ = opened(tmp_path)
    sent: list[Event] = [
        points(), points(rank=2), Text("answer", 2, START, "forty-two"),
        Histogram("weights", 3, START, (-1.0, 0.0, 2.0), (4.0, 5.0)),
        Media("picture", "image", 4, START, data=PNG, suffix=".png", caption="c", fields={"width": 3, "height": 2}),
    ]  # fmt: skip
    backend.write(sent)
    backend.write([replace(RUN, tags=("three",), summary={"loss": 1.0}, status=events.RUNNING)])
    backend.close(events.COMPLETED, START + 77)

    source = TensorBoardSource(backend.readable())
    [info] = list(source.runs())
    got = list(source.events(info))

    assert (info.name, info.project, info.started, info.status, info.ended) == (
        "first", "vision", START, events.COMPLETED, START + 77,
    )  # fmt: skip
    assert (info.params, info.notes, info.tags, info.labels) == (RUN.params, RUN.notes, ("three",), RUN.labels)
    assert [(one.name, one.rank, digest([one])) for one in got if isinstance(one, Points)] == [
        ("loss", rank, digest([points()])) for rank in (0, 2)
    ]
    assert [one for one in got if not isinstance(one, Points)] == sent[2:]
    assert source.notes == []


def _asked(url: str, body: dict[str, object] | None = None) -> object:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 -- loopback
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
        return json.load(answer)


def test_tensorboard_itself_serves_the_series_and_the_parameters(tmp_path: Path) -> None:
    backend, _ = opened(tmp_path)
    whole = Points("loss", np.arange(30), START + np.arange(30), np.arange(30) * 0.1)
    backend.write([whole])
    backend.close(events.COMPLETED, START + 30)
    program = "import sys; from tensorboard.main import run_main; sys.argv[0] = 'tensorboard'; run_main()"
    options = ["--logdir", str(tmp_path), "--port", "0", "--host", "127.0.0.1", "--load_fast", "false"]
    environment = {**os.environ, "TB_TELEMETRY": "0"}

    with subprocess.Popen(
        [sys.executable, "-c", program, *options], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stderr is not None
            address = next(found[0] for line in process.stderr if (found := re.search(r"http://[^ ]+/", line)))
            threading.Thread(target=process.stderr.read, daemon=True).start()
            deadline = time.monotonic() + 30
            while "vision/first" not in _asked(f"{address}data/runs") and time.monotonic() < deadline:  # type: ignore[operator]
                threading.Event().wait(0.1)
            scalars = _asked(f"{address}data/plugin/scalars/scalars?run=vision%2Ffirst&tag=loss")
            experiment = _asked(f"{address}data/plugin/hparams/experiment", {"experimentName": ""})
        finally:
            process.kill()

    assert [(row[1], row[2]) for row in scalars] == [  # type: ignore[attr-defined]
        (step, pytest.approx(step * 0.1)) for step in range(30)
    ]
    assert [one["name"] for one in experiment["hparamInfos"]] == ["amp", "lr", "model/depth", "opt"]  # type: ignore[index]


def _plugin(found: EventAccumulator, tag: str) -> str:
    return str(found.SummaryMetadata(tag).plugin_data.plugin_name)


def test_the_contract_is_kept(tmp_path: Path) -> None:
    def found(remote: Mapping[str, str]) -> dict[str, list[tuple[int, float]]]:
        events = theirs(remote["folder"])
        long = [tag for tag in events.Tags()["tensors"] if _plugin(events, tag) == "scalars"]
        tags = {*events.Tags()["scalars"], *long}
        return {tag: [(step, float(value)) for step, _, value in series(events, tag)] for tag in tags}

    (tmp_path / "file").write_text("x")
    options, dead = {"log_dir": str(tmp_path / "runs")}, {"log_dir": str(tmp_path / "file" / "x")}
    check_backend(TensorBoardBackend, read=found, options=options, dead=dead)
