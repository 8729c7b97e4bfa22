"""What trackio holds: read by its own command and classes, each in a process of its own."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracer.backends import table, trackio_process
from tracer.backends.base import Backend, Refused, Rejected, Unreachable
from tracer.backends.trackio import TrackioBackend
from tracer.testing import check_backend
from tracer.transfer import Event, File, Histogram, LogLine, Media, Part, Points, RunInfo, Text, digest, settled

RUN = RunInfo(
    "r1", "demo", "first run", started=1_700_000_000_000_001, group="g", tags=("a", "b"), notes="so far",
    params={"lr": 0.1, "_hidden": math.nan, "deep": {"a": [1, None]}, "big": 2**70}, summary={"best": -math.inf},
    labels={"team": "x"},
)  # fmt: skip
NAMES = ["loss", "val/löss", "a b", "step", "time", "__x", "rank2/loss", "_x41_", "💥", '"', "a\nb", "", "x" * 5000]
VALUES = [math.nan, math.inf, -math.inf, -0.0, 1e-300, 1 / 3, 5e-324, 1.7976931348623157e308, 3.0]
STEPS = [5, 3, -(2**63), 2**63 - 1, 0, 7, 8, 9, 3]


def points(name: str, values: Sequence[float] = VALUES, steps: Sequence[int] = STEPS, rank: int = 0) -> Points:
    times = RUN.started + np.arange(len(values))
    return Points(name, np.array(steps[: len(values)]), times, np.array(values), rank)


def backend(folder: Path, **options: object) -> Backend:
    return table.backend("trackio", {"dir": str(folder), **options})


def written(folder: Path, *batches: Sequence[Event], run: RunInfo = RUN) -> dict[str, str]:
    """Write a run and return the project and the name that trackio knows it by."""
    made = backend(folder)
    remote = dict(made.open(run, {}))
    try:
        for batch in batches:
            made.write(batch)
    finally:
        made.close("completed", RUN.started + 99)
    return {"project": project_of(remote), **remote}


def project_of(remote: Mapping[str, str]) -> str:
    return remote["run"].partition("/")[0]


def python(folder: Path, program: str, *arguments: str) -> Any:  # noqa: ANN401 (JSON)
    """Run a program that uses trackio itself, and return the JSON that it prints last."""
    return _json(folder, [sys.executable, "-c", f"import json, sys, trackio\n{program}", *arguments])


def trackio(folder: Path, *arguments: str) -> Any:  # noqa: ANN401 (JSON)
    """Run trackio's own command and return its JSON."""
    return _json(folder, [sys.executable, "-m", "trackio.cli", *arguments, "--json"])


def _json(folder: Path, command: list[str]) -> Any:  # noqa: ANN401
    environment = os.environ | {"TRACKIO_DIR": str(folder), "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


ALL = """
from trackio.sqlite_storage import SQLiteStorage
project = sys.argv[1]
(run,) = trackio.Api().runs(project)
rows = SQLiteStorage.get_logs(project, run.name, run_id=run.id)
print(json.dumps({"name": run.name, "id": run.id, "config": run.config, "rows": rows}))
"""


ARTIFACT = """
from trackio import cas
from trackio.sqlite_storage import SQLiteStorage
project = sys.argv[1]
(one,) = SQLiteStorage.get_artifacts(project)
(entry,) = SQLiteStorage.get_artifact_manifest(project, one["name"], "latest")["manifest"]
blob = cas.blob_path(project, entry["digest"])
print(json.dumps([one["name"], one["num_versions"], entry["path"], str(blob)]))
"""


def bits(values: Sequence[float]) -> list[bytes]:
    return [struct.pack("<d", float(value)) for value in values]


def test_every_double_time_and_step_is_read_by_trackios_command(tmp_path: Path) -> None:
    remote = written(tmp_path, [points("val/löss"), points("val/löss", [7.0], rank=2)])

    told = ["--project", remote["project"], "--run", remote["name"], "--metric"]
    found = trackio(tmp_path, "get", "metric", *told, "val/löss")["values"]
    other = trackio(tmp_path, "get", "metric", *told, "rank2/val/löss")["values"]

    assert bits([row["value"] for row in found]) == bits(VALUES)
    assert [row["step"] for row in found] == STEPS
    assert [row["timestamp"] for row in found[:2]] == [
        "2023-11-14T22:13:20.000001+00:00",
        "2023-11-14T22:13:20.000002+00:00",
    ]
    assert [(row["step"], row["value"]) for row in other] == [(5, 7.0)]


def test_a_run_is_what_trackio_shows_it_to_be(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"\x00\xff" * 1000)
    art = File("mo/del", "model", "v1", (Part("deep/w.bin", str(tmp_path / "weights"), 2000, "x"),), RUN.started)
    batch = [
        points("loss"), Text("say", 1, RUN.started, "NaN"), Histogram("h", 2, RUN.started, (0.0, 1.0, 2.0), (3.0, 4.5)),
        Media("pic", "image", 3, RUN.started, data=b"\x89PNG\r\n\x1a\n...", suffix=".png", caption="one"),
        Media("rows", "table", 3, RUN.started, data=b'[{"a": 1}]', suffix=".json"),
        Media("net", "graph", 3, RUN.started, data=b"..."),
        LogLine("log", RUN.started, "careful", level="WARNING", step=4), LogLine("stdout", RUN.started, "epoch 1"),
        LogLine("event", RUN.started, name="saved", fields={"a": 1}), art,
    ]  # fmt: skip
    remote = written(tmp_path / "t", batch, batch, [points("loss")])

    found = python(tmp_path / "t", ALL, remote["project"])
    rows = {name: value for row in found["rows"] for name, value in row.items()}
    assert (found["name"], found["id"]) == ("first run", "r1")
    config = found["config"]
    assert (config["lr"], config["deep"], config["big"], config["_Group"]) == (0.1, {"a": [1, None]}, str(2**70), "g")
    ours = config["_Tracer"]
    assert (ours["status"], ours["ended"], ours["tags"]) == ("completed", RUN.started + 99, ["a", "b"])
    assert rows["say"] == {"_type": "trackio.markdown", "_value": "NaN"}
    assert rows["h"] == {"_type": "trackio.histogram", "bins": [0.0, 1.0, 2.0], "values": [3.0, 4.5]}
    assert rows["rows"]["_value"] == [{"a": 1}]
    assert "net" not in rows
    assert (tmp_path / "t" / "media" / rows["pic"]["file_path"]).read_bytes() == b"\x89PNG\r\n\x1a\n..."
    assert len(found["rows"]) == 1 + len(VALUES) + 4  # each once, and the one that begins the run
    alerts = trackio(tmp_path / "t", "list", "alerts", "--project", remote["project"])["alerts"]
    assert sorted((one["title"], one["level"], one["step"]) for one in alerts) == [
        ("careful", "warn", 4),
        ("saved", "info", None),
    ]
    name, versions, path, blob = python(tmp_path / "t", ARTIFACT, remote["project"])
    assert (name, versions, path) == ("mo_x2f_del", 1, "deep/w.bin")
    assert Path(blob).read_bytes() == b"\x00\xff" * 1000


def test_every_name_is_kept_apart_and_found_again(tmp_path: Path) -> None:
    made = backend(tmp_path)
    remote = made.open(RUN, {})
    made.write([points(name, [float(number)]) for number, name in enumerate(NAMES)])
    made.close("completed", None)

    found = python(tmp_path, ALL, project_of(remote))
    (row,) = [row for row in found["rows"] if "loss" in row]
    assert sorted(value for name, value in row.items() if name not in {"timestamp", "step"}) == list(range(len(NAMES)))
    assert made.renamed()["step"] == "_x73__x74__x65__x70_"


def test_a_run_goes_on_after_its_process_was_killed(tmp_path: Path) -> None:
    first = TrackioBackend({"dir": str(tmp_path)})
    remote = first.open(RUN, {})
    first.write([points("loss", [1.0])])
    assert first._process is not None
    first._process._process.kill()
    with pytest.raises(Unreachable):
        first.write([points("loss", [2.0], [2])])
    first.write([points("loss", [2.0], [2])])
    first.close("running", None)

    assert dict(backend_resumed(tmp_path, remote)) == remote
    found = python(tmp_path, ALL, project_of(remote))
    assert [row["loss"] for row in found["rows"] if "loss" in row] == [1.0, 2.0, 3.0]
    assert found["config"]["_Tracer"]["status"] == "failed"


def backend_resumed(folder: Path, remote: Any) -> Any:  # noqa: ANN401 (text to text)
    made = backend(folder)
    again = made.open(RUN, remote)
    made.write([points("loss", [1.0]), points("loss", [3.0], [3])])
    made.close("failed", 7)
    return again


def test_a_series_that_is_sent_again_by_itself_doubles_nothing(tmp_path: Path) -> None:
    many = [points(f"m{number}", [1.0, 2.0]) for number in range(5)]
    remote = written(tmp_path, many, many[2:3], many)

    found = python(tmp_path, ALL, project_of(remote))
    assert len([row for row in found["rows"] if "m2" in row]) == 2


def test_one_part_that_is_rejected_keeps_no_other(tmp_path: Path) -> None:
    gone = Media("film", "video", 3, RUN.started, path=str(tmp_path / "gone.mp4"), suffix=".mp4")
    made = backend(tmp_path)
    remote = made.open(RUN, {})
    with pytest.raises(Rejected, match="'film' at step 3 cannot be read") as found:
        made.write([gone, points("loss", [1.0]), Text("say", 1, RUN.started, "x")])
    made.close("completed", None)

    assert found.value.lost == 1
    assert made.readable() == str(tmp_path / f"{project_of(remote)}.db")
    _, series, others, _ = read(made.readable())
    assert set(series["first run"]) == {("loss", 0)}
    assert [type(event) for event in others] == [Text]


def test_a_process_that_was_stopped_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = TrackioBackend({"dir": str(tmp_path)})
    made.open(RUN, {})
    assert made._process is not None
    os.kill(made._process._process.pid, signal.SIGSTOP)
    with monkeypatch.context() as shorter:
        shorter.setattr(trackio_process, "ANSWER_S", 1.0)
        with pytest.raises(Unreachable, match="no answer within 1 s"):
            made.write([Text("say", 1, RUN.started, "x" * 1_000_000)])
    made.close("completed", None)


@pytest.mark.parametrize("package", ["raise ImportError('no numpy')", "class SQLiteStorage: pass"])
def test_a_trackio_that_does_not_work_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    (tmp_path / "old" / "trackio").mkdir(parents=True)
    (tmp_path / "old" / "trackio" / "__init__.py").write_text("")
    (tmp_path / "old" / "trackio" / "sqlite_storage.py").write_text(package)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "old"))
    with pytest.raises(Refused, match="pip install -U trackio"):
        backend(tmp_path).open(RUN, {})


def test_a_back_end_that_is_forgotten_leaves_no_process(tmp_path: Path) -> None:
    made = TrackioBackend({"dir": str(tmp_path)})
    made.open(RUN, {})
    assert made._process is not None
    pid = made._process._process.pid
    del made

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_folder_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unreachable, match="trackio"):
        backend(tmp_path / "file").open(RUN, {})


def test_an_artifact_that_reaches_out_of_its_folder_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    art = File("model", "model", "v1", (Part("../../evil", str(tmp_path / "secret"), 1, "x"),))
    with pytest.raises(Rejected, match="segments are not allowed"):
        written(tmp_path / "t", [art])
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("name", ["../../evil", "", "registry-x", "ü!"])
def test_names_of_runs_and_projects_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    run = RunInfo("r1", name, name, started=RUN.started)
    medium = Media("pic", "image", 3, RUN.started, data=b"\x89PNG\r\n\x1a\n...", suffix=".png")
    remote = written(tmp_path / "t", [points("loss", [1.0]), medium], run=run)

    assert {path.name for path in tmp_path.iterdir()} == {"t"}
    assert (tmp_path / "t" / f"{project_of(remote)}.db").is_file()
    source = table.source("trackio", str(tmp_path / "t"))
    assert [(found.project, found.name) for found in source.runs()] == [(name or "default", name or "r1")]


SERIES = """
from trackio.sqlite_storage import SQLiteStorage
project, _, run = sys.argv[1].partition("/")
found = {}
for row in SQLiteStorage.get_logs(project, None, run_id=run):
    step = row.pop("step")
    row.pop("timestamp")
    for name, value in row.items():
        found.setdefault(name, []).append([step, value])
print(json.dumps(found))
"""


def test_it_keeps_the_contract(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_backend(
        TrackioBackend,
        read=lambda remote: python(tmp_path / "t", SERIES, remote["run"]),
        options={"dir": str(tmp_path / "t")},
        dead={"dir": str(tmp_path / "file")},
    )


# -------------------------------------------------- reading


def read(
    uri: Path | str,
) -> tuple[list[RunInfo], dict[str, dict[tuple[str, int], list[Points]]], list[Event], list[str]]:
    """Return what a source yields: runs, points by run and series, everything else, notes."""
    source = table.source("trackio", str(uri))
    runs = list(source.runs())
    series: dict[str, dict[tuple[str, int], list[Points]]] = {}
    others: list[Event] = []
    for run in runs:
        mine = series.setdefault(run.name, {})
        for event in source.events(run):
            if isinstance(event, Points):
                mine.setdefault((event.name, event.rank), []).append(event)
            else:
                others.append(event)
    return runs, series, others, source.notes


def test_there_and_back_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"\x00\xff" * 1000)
    sent = [points(name) for name in NAMES] + [points(name, [7.0], rank=3) for name in NAMES]
    said = [
        Text("say", 1, RUN.started, "NaN"), Histogram("h", 2, RUN.started, (-math.inf, 1.0, 2.0), (3.0, 4.5)),
        Media("pic", "image", 3, RUN.started, data=b"\x89PNG\r\n\x1a\n...", suffix=".png", caption="one", rank=1),
        LogLine("event", RUN.started, "at once", "saved", "WARN", 4),
        File("mo/del", "model", "v7", (Part("deep/w.bin", str(tmp_path / "weights"), 2000, "x"),), 5, 6, (), {"a": 1}),
    ]  # fmt: skip
    written(tmp_path / "t", [*sent, *said])
    before = sorted(path.name for path in (tmp_path / "t").iterdir())

    (run,), series, others, notes = read(tmp_path / "t")

    assert run.origin == "trackio:demo/r1"
    assert math.isnan(float(str(run.params["_hidden"])))
    known = {key: value for key, value in run.params.items() if key != "_hidden"}
    assert known == {"lr": 0.1, "deep": {"a": [1, None]}, "big": str(2**70)}
    assert (run.project, run.name, run.group, run.tags, run.notes) == ("demo", "first run", "g", ("a", "b"), "so far")
    assert (run.started, run.ended, run.summary) == (RUN.started, RUN.started + 99, {"best": -math.inf})
    assert (run.status, run.labels) == ("completed", {"team": "x"})
    found = series["first run"]
    assert {key: digest(chunks) for key, chunks in found.items()} == {
        (one.name, one.rank): digest([one]) for one in sent
    }
    assert settled(found["loss", 0])[1].tolist() == settled([sent[0]])[1].tolist()
    text, histogram, picture, alert, art = others
    assert (text, histogram) == (said[0], said[1])
    assert isinstance(picture, Media)
    assert (picture.name, picture.rank, picture.caption, picture.kind) == ("pic", 1, "one", "image")
    assert Path(picture.path or "").read_bytes() == b"\x89PNG\r\n\x1a\n..."
    assert alert == said[3]
    assert isinstance(art, File)
    assert (art.name, art.version, art.time, art.step, art.metadata) == ("mo/del", "v7", 5, 6, {"a": 1})
    assert Path(art.parts[0].local).read_bytes() == b"\x00\xff" * 1000
    assert notes == []
    files = table.source("trackio", str(tmp_path / "t"), {"files_only": True, "project": "demo"})
    assert [type(event) for one in files.runs() for event in files.events(one)] == [File]
    assert list(table.source("trackio", str(tmp_path / "t"), {"project": "another"}).runs()) == []
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == before


OTHERS = """
import io, sys
out, sys.stdout = sys.stdout, io.StringIO()
from trackio.sqlite_storage import SQLiteStorage
for name in ("one", "two"):
    trackio.init(project="theirs", name=name, config={"lr": 0.5, "bad": float("inf")}, group="g")
    for step in range(4):
        trackio.log({"loss": float("nan") if step == 2 else step / 3, "rank1/x": 1, "say": "plain", "n": 3}, step=step)
    trackio.log({"h": trackio.Histogram([1.0, 2.0, 2.0], num_bins=2)}, step=9)
    trackio.log_system({"gpu/power": 250.5})
    trackio.alert("watch out", "it burns", level=trackio.AlertLevel.WARN)
    trackio.finish()
SQLiteStorage._dataset_import_attempted = True
SQLiteStorage.export_to_parquet()
print(1, file=out)
"""


def test_what_trackio_itself_recorded_is_read_from_database_and_parquet(tmp_path: Path) -> None:
    python(tmp_path, OTHERS)

    runs, series, others, notes = read(tmp_path)
    alone, exported, others_exported, _ = read(tmp_path / "theirs.parquet")

    assert [(run.project, run.name, run.group) for run in runs] == [("theirs", "one", "g"), ("theirs", "two", "g")]
    assert runs[0].params == {"lr": 0.5, "bad": math.inf}
    assert [run.origin for run in alone] == [run.origin for run in runs]
    assert alone[0].params == runs[0].params
    for found in (series, exported):
        assert bits(settled(found["two"]["loss", 0])[2].tolist()) == bits([0.0, 1 / 3, math.nan, 1.0])
        assert set(found["two"]) == {("loss", 0), ("rank1/x", 0), ("n", 0), ("system/gpu/power", 0)}
        assert found["one"]["system/gpu/power", 0][0].values.tolist() == [250.5]
    assert [type(event).__name__ for event in others] == [*(["Text"] * 4), "Histogram", "LogLine"] * 2
    assert [type(event).__name__ for event in others_exported] == [*(["Text"] * 4), "Histogram"] * 2
    assert notes == []


def test_a_database_from_before_runs_had_ids_is_read_by_name(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "old.db") as database:
        database.execute("CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp TEXT, run_name TEXT, step INTEGER,"
                         " metrics TEXT)")  # fmt: skip
        database.execute("INSERT INTO metrics VALUES (1, '2025-01-01T00:00:00', 'a', 3, '{\"loss\": 0.5}')")
    database.close()

    (run,), series, _, _ = read(tmp_path / "old.db")
    assert (run.name, run.origin, run.started) == ("a", "trackio:old/a", 1_735_689_600_000_000)
    assert series["a"]["loss", 0][0].steps.tolist() == [3]


def test_hostile_databases_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    written(tmp_path / "t", [Media("pic", "image", 3, RUN.started, data=b"\x89PNG\r\n\x1a\n...", suffix=".png")])
    place = tmp_path / "t" / "demo.db"
    (tmp_path / "secret.png").write_bytes(b"secret")
    rows = [
        "not json", "[1]", "{}", "[" * 100_000, '{"loss": "NaN"}', '{"h": {"_type": "trackio.histogram"}}',
        '{"pic": {"_type": "trackio.image", "file_path": "../../secret.png"}}',
        '{"odd": {"_type": "trackio.quantum"}, "none": null, "list": [1]}',
    ]  # fmt: skip
    with sqlite3.connect(place) as database:
        database.executemany(
            "INSERT INTO metrics (run_id, run_name, timestamp, step, metrics) VALUES ('r1', 'first run', ?, 7, ?)",
            [("never", row) for row in rows],
        )
    database.close()
    (tmp_path / "t" / "noise.db").write_bytes(os.urandom(4096))
    (tmp_path / "t" / "empty.db").write_bytes(b"")
    (tmp_path / "t" / "more.parquet").write_bytes(b"PAR1" + os.urandom(400))

    _, series, others, notes = read(tmp_path / "t")

    assert bits(series["first run"]["loss", 0][0].values.tolist()) == bits([math.nan])
    assert [Path(event.path or "").suffix for event in others if isinstance(event, Media)] == [".png"]
    assert "secret" not in str(others)
    assert sorted(note.split()[0] for note in notes if "was left out" in note) == [
        "'h'", "'list'", "'odd'", "'pic'", "empty.db", "more.parquet", "noise.db",
    ]  # fmt: skip
    assert "3 damaged rows of demo/r1 were left out." in notes


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_database_ends_in_a_note_or_in_rows(tmp_path: Path, seed: int) -> None:
    place = _sample(tmp_path)
    data = bytearray(place.read_bytes())
    noise = np.random.default_rng(seed)
    for at in noise.integers(16, len(data), 40):
        data[at] = noise.integers(256)
    place.write_bytes(bytes(data[: len(data) - (seed % 3) * 1000]))

    read(place)


def _sample(folder: Path) -> Path:
    with sqlite3.connect(folder / "sample.db") as database:
        database.execute(
            "CREATE TABLE metrics (id INTEGER PRIMARY KEY, run_id TEXT, run_name TEXT, timestamp TEXT, step INTEGER,"
            " metrics TEXT)"
        )
        database.execute("CREATE TABLE configs (id INTEGER PRIMARY KEY, run_id TEXT, config TEXT, created_at TEXT)")
        row = ("r", "n", "2025-01-01T00:00:00", json.dumps({"loss": 0.5, "x" * 50: 1}))
        database.executemany("INSERT INTO metrics (run_id, run_name, timestamp, step, metrics) VALUES (?, ?, ?, 1, ?)",
                             [row] * 200)  # fmt: skip
    database.close()
    return folder / "sample.db"
