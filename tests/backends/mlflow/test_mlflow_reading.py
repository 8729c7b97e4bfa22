"""Runs that a user of MLflow logged are read from a server, a database and the files of a folder."""

from __future__ import annotations

import math
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mlflow", reason="needs mlflow")

from tracer.backends.base import Rejected, Unreachable
from tracer.backends.mlflow import MLflowBackend
from tracer.backends.mlflow_found import Found, typed
from tracer.backends.mlflow_reading import MLflowSource
from tracer.transfer import Event, File, Histogram, Media, Part, Points, RunInfo, Text, digest

PROGRAM = Path(__file__).with_name("mlflow_writing_program.py")
START = 1_700_000_000_000_000
UID = "ab" * 16


def fill(uri: str, folder: Path) -> None:
    environment = os.environ | {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}
    arguments = [sys.executable, "-W", "ignore", str(PROGRAM), uri, str(folder)]
    subprocess.run(arguments, check=True, env=environment, cwd=folder, capture_output=True, timeout=240)


@pytest.fixture(scope="module", params=["database", "server", "folder"])
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Give the address of an MLflow with runs, and below which folder their artifacts lie."""
    folder = tmp_path_factory.mktemp(f"filled-{request.param}")
    if request.param == "folder":
        fill(f"file://{folder}/mlruns", folder)
        return str(folder / "mlruns"), folder
    if request.param == "database":
        (folder / "mlflow.db").write_bytes(request.getfixturevalue("mlflow_tables").read_bytes())
    uri = f"sqlite:///{folder}/mlflow.db" if request.param == "database" else request.getfixturevalue("mlflow_server")
    fill(uri, folder)
    return uri, folder


def runs_of(source: MLflowSource, project: str = "vision") -> dict[str, RunInfo]:
    return {run.name: run for run in source.runs() if run.project == project}


def points_of(events: list[Event]) -> dict[str, Points]:
    return {event.name: event for event in events if isinstance(event, Points)}


def content(file: File) -> dict[str, bytes]:
    return {part.path: Path(part.local).read_bytes() for part in file.parts}


def test_a_run_is_read_whole(filled: tuple[str, Path]) -> None:
    uri, folder = filled
    source = MLflowSource(uri, {"artifact_root": str(folder)})
    runs = runs_of(source)
    assert sorted(runs) == ["first", "nested"]
    first, nested = runs["first"], runs["nested"]
    assert (first.status, first.started, first.ended) == ("failed", START, START + 9_000_000)
    assert (first.notes, first.labels, first.git) == ("a note", {"team": "vision"}, {"commit_hash": "abc"})
    assert first.params == {"lr": 0.1, "layers": 12, "name": "007", "shuffle": True}
    assert first.origin.startswith("mlflow:")
    assert (nested.status, nested.labels["parent"]) == ("crashed", first.origin.partition(":")[2])
    seen, files = [], {}
    for event in source.events(first):
        seen.append(event)
        if isinstance(event, File):
            files[event.name] = content(event)
    points = points_of(seen)
    loss = points["train/loss"]
    assert loss.steps.tolist() == list(range(1200))
    assert loss.values.tolist() == [step / 8 for step in range(1200)]
    assert loss.times.tolist() == [START + step * 1000 for step in range(1200)]
    assert math.isnan(points["odd"].values[0])
    assert points["odd"].values.tolist()[2:] == [1e-300, -5.0]
    assert points["unnumbered"].steps.tolist() == [0, 1, 2]
    assert points["unnumbered"].values.tolist() == [0.0, 1.5, 3.0]
    assert any("numbered by time: unnumbered" in note for note in source.notes)
    infinite = points["odd"].values[1]  # MLflow's own files keep it
    assert infinite == (math.inf if uri.endswith("mlruns") else sys.float_info.max)
    assert any("MLflow writes ±Inf so: odd" in note for note in source.notes) is bool(infinite != math.inf)
    assert files == {
        "data": {"weights.bin": b"\0\1\2", "deep/ä.txt": "ü".encode()},
        "weights.bin": {"weights.bin": b"\0\1\2"},
    }


def test_deleted_runs_are_read_when_asked_for(filled: tuple[str, Path]) -> None:
    everything = {run.name: run for run in MLflowSource(filled[0], {"include_deleted": True}).runs()}
    assert {"first", "nested", "gone", "in the trash"} <= set(everything)
    assert {run.name for run in MLflowSource(filled[0]).runs()}.isdisjoint({"gone", "in the trash"})


def test_a_mirrored_run_comes_back_as_it_was(mlflow_uri: str, tmp_path: Path) -> None:
    values = np.array([0.1, math.nan, math.inf, -math.inf, -0.0, 1e-300, 1.7976931348623157e308])
    steps = np.arange(7, dtype=np.int64) - 3
    sent = [Points(name, steps, START + steps * 1000, values, rank) for name in ("loss[0]", "../x") for rank in (0, 2)]
    info = RunInfo(
        "round-trip", "round trip", "there and back", START, status="running", group="g", job_type="j", notes="n",
        tags=("a b", "c?"), labels={"k?": "v"}, params={"lr": 1e-3, "optimizer": {"betas": [0.9, 0.99]}},
        summary={"best": 0.5}, environment={"python": {"version": "3"}}, git={"commit_hash": "abc", "dirty": True},
    )  # fmt: skip
    blob = tmp_path / "blob"
    blob.write_bytes(b"weights")
    file = File("net/best", "dataset", "v3", (Part("a/w#.bin", str(blob), 7, "d"),), START, 4, ("best",), {"k": 1})
    backend = MLflowBackend({"tracking_uri": mlflow_uri})
    run_id = backend.open(info, {})["run_id"]
    histogram, text = Histogram("h[1]", 1, START, (0.0, 1.0), (3.0,), 2), Text("said[0]", 5, START, "ü", 2)
    backend.write([*sent, file, histogram, text])
    backend.close("crashed", START + 5_000_000)
    source = MLflowSource(mlflow_uri)
    back = runs_of(source, "round trip")["there and back"]
    assert (back.uid, back.origin, back.status, back.ended) == (
        run_id,
        "tracer:round-trip",
        "crashed",
        START + 5_000_000,
    )
    for name in ("group", "job_type", "notes", "tags", "labels", "params", "summary", "environment", "git"):
        assert getattr(back, name) == getattr(info, name), name
    points: dict[tuple[str, int], Points] = {}
    others: list[Event] = []
    for event in source.events(back):
        if isinstance(event, Points):
            points[event.name, event.rank] = event
        elif isinstance(event, File):
            assert (event.name, event.type, event.version, event.aliases) == ("net/best", "dataset", "v3", ("best",))
            assert (content(event), event.metadata, event.step) == ({"a/w#.bin": b"weights"}, {"k": 1}, 4)
            others.append(file)
        else:
            others.append(event)
    assert {key: digest([one]) for key, one in points.items()} == {(one.name, one.rank): digest([one]) for one in sent}
    assert others == [histogram, Text("said[0]", 5, START, "ü", 2), file]
    assert source.notes == []


def test_a_picture_that_was_logged_is_a_picture(mlflow_database: str, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs pillow")
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_database)
    experiment = client.create_experiment("pictures", artifact_location=(tmp_path / "arts").as_uri())
    run_id = client.create_run(experiment).info.run_id
    client.log_image(run_id, image.new("RGB", (4, 4)), key="val/a", step=7, timestamp=1_700_000_000_000)
    source = MLflowSource(mlflow_database)
    (run,) = source.runs()
    (found,) = source.events(run)
    assert isinstance(found, Media)
    assert (found.name, found.kind, found.step, found.time) == ("val/a", "image", 7, START)


def test_models_are_artifacts(mlflow_uri: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_uri)
    location = None if mlflow_uri.startswith("http") else (tmp_path / "arts").as_uri()
    experiment = client.create_experiment(f"models {mlflow_uri[:4]}", artifact_location=location)
    run_id = client.create_run(experiment).info.run_id
    model = client.create_logged_model(experiment, "net", run_id)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_bytes(b"flavors: {}")
    client.log_model_artifacts(model.model_id, str(tmp_path / "model"))
    source = MLflowSource(mlflow_uri)
    run = next(run for run in source.runs() if run.uid == run_id)
    found = [(event.name, event.type, content(event)) for event in source.events(run) if isinstance(event, File)]
    assert found == [("net", "model", {"MLmodel": b"flavors: {}"})]


def made(path: Path, artifacts: str = "", tags: dict[str, str] | None = None) -> sqlite3.Connection:
    """Put one run into a database, by hand."""
    database = sqlite3.connect(path)
    database.execute(
        "INSERT INTO experiments (experiment_id, name, lifecycle_stage, workspace) VALUES (7, 'e', 'active', 'default')"
    )
    row = (UID, "run", "FINISHED", 1_700_000_000_000, 1_700_000_001_000, "active", artifacts, 7)
    columns = "run_uuid, name, status, start_time, end_time, lifecycle_stage, artifact_uri, experiment_id"
    database.execute(f"INSERT INTO runs ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608
    database.executemany(
        "INSERT INTO tags VALUES (?, ?, ?)", [(name, value, UID) for name, value in (tags or {}).items()]
    )
    database.commit()
    return database


def test_a_hundred_thousand_points_take_a_second(mlflow_database: str, tmp_path: Path) -> None:
    database = made(tmp_path / "mlflow.db")
    rows = ((f"m{turn % 4}", turn * 0.37, turn, UID, turn // 4, 0) for turn in range(200_000))
    database.executemany(
        "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)", rows
    )
    database.commit()
    database.close()
    source = MLflowSource(mlflow_database)
    (run,) = source.runs()
    began = time.process_time()
    points = points_of(list(source.events(run)))
    spent = time.process_time() - began
    assert {name: len(one) for name, one in points.items()} == {f"m{turn}": 50_000 for turn in range(4)}
    assert points["m3"].values[-1] == 199_999 * 0.37
    assert spent < 2  # 200,000 points; measured: 300,000 a second and more


def test_files_are_read_without_mlflow(mlflow_database: str, tmp_path: Path) -> None:
    made(tmp_path / "mlflow.db").close()
    program = (
        "import sys; from tracer.backends.mlflow_reading import MLflowSource as S; "
        f"print(len(list(S({mlflow_database!r}).runs())), 'mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["1", "False"]


def test_columns_that_hold_nonsense_are_left_out(mlflow_database: str, tmp_path: Path) -> None:
    tags = {"tracer.run_id": "x", "tracer.nonfinite": '{"a": "b", "loss": [[1]]}', "tracer.tags": '{"a": 1}'}
    database = made(tmp_path / "mlflow.db", tags=tags)
    rows = [
        ("loss", 1.5, 1, 0),
        ("loss", "text", 2, 1),
        ("loss", b"blob", 3, 2),
        ("loss", 2.5, 2**62, 3),
        ("loss", 1, 5, "x"),
    ]
    database.executemany(
        f"INSERT INTO metrics (key, value, timestamp, step, run_uuid, is_nan) VALUES (?, ?, ?, ?, '{UID}', 0)",  # noqa: S608
        rows,
    )
    database.commit()
    database.close()
    source = MLflowSource(mlflow_database)
    (run,) = source.runs()
    assert (run.tags, run.origin) == ((), "tracer:x")
    assert points_of(list(source.events(run)))["loss"].values.tolist() == [1.5, 2.5]
    assert source.notes == ["run: 3 values of 'loss' are no numbers; left out."]


@pytest.mark.parametrize(
    "place",
    [
        "file:///etc",
        "/etc",
        "../outside",
        "file://{root}/../outside",
        "{root}/linked",
        "mlflow-artifacts:/../../outside",
    ],
)
def test_artifacts_elsewhere_are_not_read(mlflow_database: str, tmp_path: Path, place: str) -> None:
    inside, outside = tmp_path / "store", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (inside / "linked").symlink_to(outside)
    (tmp_path / "mlflow.db").rename(inside / "mlflow.db")
    made(inside / "mlflow.db", place.format(root=inside)).close()
    source = MLflowSource(str(inside / "mlflow.db"))
    (run,) = source.runs()
    assert list(source.events(run)) == []
    assert "Set `artifact_root` to allow it." in source.notes[0]
    assert mlflow_database.endswith("mlflow.db")


def test_links_among_artifacts_are_not_followed(mlflow_database: str, tmp_path: Path) -> None:
    arts = tmp_path / "arts"
    arts.mkdir()
    (arts / "kept").write_bytes(b"kept")
    (arts / "link").symlink_to("/etc/passwd")
    (arts / "folder").symlink_to("/etc")
    os.mkfifo(arts / "pipe")
    made(tmp_path / "mlflow.db", str(arts)).close()
    source = MLflowSource(mlflow_database)
    (run,) = source.runs()
    assert [event.name for event in source.events(run) if isinstance(event, File)] == ["kept"]


def test_a_list_of_ours_names_no_path_outside(mlflow_database: str, tmp_path: Path) -> None:
    lists = tmp_path / "arts" / "tracer" / "artifacts"
    lists.mkdir(parents=True)
    (lists / "a.json").write_text(
        '{"name": "a", "folder": "../..", "parts": [{"path": "../x", "sent": "mlflow.db"}, 7]}'
    )
    (lists / "b.json").write_text("[" * 100_000)
    made(tmp_path / "mlflow.db", str(tmp_path / "arts"), {"tracer.run_id": "x"}).close()
    source = MLflowSource(mlflow_database)
    (run,) = source.runs()
    assert list(source.events(run)) == []


def test_what_is_not_there_or_no_mlflow_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="There is no database"):
        MLflowSource(str(tmp_path / "nowhere.db"))
    (tmp_path / "text.db").write_text("this is no database, whatever its name says" * 100)
    with pytest.raises(Rejected, match="cannot be read as a database of MLflow"):
        list(MLflowSource(str(tmp_path / "text.db")).runs())
    assert list(MLflowSource(str(tmp_path)).runs()) == []


def test_a_damaged_folder_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    run = tmp_path / "mlruns" / "1" / UID
    (run / "metrics").mkdir(parents=True)
    (run / "metrics" / "loss").write_bytes(
        b"1 0.5 0\nnonsense\n2 nan 1\n3 1.5\n4 2.5 3 name digest\n\xff\xfe 1 2\n5 1 99999999999999999999\n"
    )
    (run.parent / "meta.yaml").write_text("name: vision\nlifecycle_stage: active\n")
    (run / "meta.yaml").write_text(f"run_id: {UID}\nstatus: 3\nstart_time: 1700000000000\nend_time: [\n")
    assert list(MLflowSource(str(tmp_path / "mlruns")).runs()) == []
    (run / "meta.yaml").write_text(
        f"run_id: {UID}\nstatus: 3\nstart_time: 1700000000000\nend_time: soon\nartifact_uri: /etc\n"
    )
    source = MLflowSource(str(tmp_path / "mlruns"))
    (found,) = source.runs()
    assert (found.status, found.started, found.ended) == ("completed", START, None)
    (points,) = source.events(found)
    assert isinstance(points, Points)
    assert points.steps.tolist() == [0, 1, 0, 3]
    assert "3 lines of the metric 'loss' cannot be read" in source.notes[0]


def test_a_server_cannot_name_a_folder_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    source = MLflowSource("http://127.0.0.1:1")
    found = Found(UID, "e", "run", "FINISHED", 0, None, "file:///etc")
    monkeypatch.setattr(source._reader, "runs", lambda **_: iter([found]))
    monkeypatch.setattr(source._reader, "series", lambda _: iter(()))
    (run,) = source.runs()
    assert list(source.events(run)) == []
    assert "is a folder of this machine" in source.notes[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e-3", 0.001),
        ("True", True),
        ("None", None),
        ("007", 7.0),
        ("+1", "+1"),
        ("1_000", "1_000"),
        ("", ""),
        ("nan ", "nan "),
    ],
)
def test_text_becomes_what_it_was_only_where_that_is_certain(text: str, value: object) -> None:
    if text == "007":
        value = "007"
    assert typed(text) == value
    assert type(typed(text)) is type(value)
