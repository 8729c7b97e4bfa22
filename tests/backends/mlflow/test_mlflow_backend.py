"""What a mirror sends stands in MLflow, as MLflow's own client reads it: in a database and on a real server."""

from __future__ import annotations

import io
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("mlflow", reason="needs mlflow")

from mlflow import MlflowClient

from tracer.backends.base import Refused, Rejected
from tracer.backends.mlflow import MLflowBackend
from tracer.transfer import File, Histogram, LogLine, Media, Part, Points, RunInfo, Span, Text

if TYPE_CHECKING:
    from mlflow.entities import Run

START = 1_700_000_000_000_000
VALUES = [0.1, math.nan, math.inf, -math.inf, -0.0, 1e-300, 1.7976931348623157e308, -5.0]
NAMES = ["loss", "train/loss", "a:b?c", "a[0]", "../x", "ä/µ", "_x41_", ".", "a//b", "n" * 300, " ", "system/cpu"]


def points(name: str, values: list[float], first: int = 0, rank: int = 0) -> Points:
    steps = np.arange(first, first + len(values), dtype=np.int64)
    return Points(name, steps, START + steps * 1000, np.array(values), rank)


def info(uid: str, **more: Any) -> RunInfo:  # noqa: ANN401 -- fields of RunInfo
    return RunInfo(uid, f"project {uid}", "brave-sun-3", START, **({"status": "running"} | more))


def opened(uri: str, run: RunInfo, **options: object) -> tuple[MLflowBackend, str]:
    backend = MLflowBackend({"tracking_uri": uri, **options})
    return backend, backend.open(run, {})["run_id"]


def read(uri: str, run_id: str) -> Run:
    return MlflowClient(uri).get_run(run_id)


def content(uri: str, run_id: str, path: str, aside: Path) -> bytes:
    return Path(MlflowClient(uri).download_artifacts(run_id, path, str(aside))).read_bytes()


def listed(uri: str, run_id: str, folder: str | None = None) -> list[str]:
    client = MlflowClient(uri)
    found = client.list_artifacts(run_id, folder)
    return sorted(path for one in found for path in (listed(uri, run_id, one.path) if one.is_dir else [one.path]))


def test_points_keep_step_time_and_value(mlflow_uri: str) -> None:
    backend, run_id = opened(mlflow_uri, info("values"))
    backend.write([points("loss", VALUES), points("late", [1.0], first=-(2**62)), points("loss", [2.0], rank=3)])
    backend.write([points("many", [step / 8 for step in range(1100)])])  # more than MLflow takes at once
    history = sorted(MlflowClient(mlflow_uri).get_metric_history(run_id, "loss"), key=lambda one: one.step)
    assert [one.step for one in history] == list(range(8))
    assert [one.timestamp for one in history] == [START // 1000 + step for step in range(8)]
    assert [one.value for one in history if one.step not in (1, 2, 3)] == [0.1, 0.0, 1e-300, sys.float_info.max, -5.0]
    assert math.isnan(history[1].value)
    assert [history[2].value, history[3].value] == [sys.float_info.max, -sys.float_info.max]
    many = MlflowClient(mlflow_uri).get_metric_history(run_id, "many")
    assert sorted((one.step, one.value) for one in many) == [(step, step / 8) for step in range(1100)]
    assert MlflowClient(mlflow_uri).get_metric_history(run_id, "late")[0].step == -(2**62)
    assert MlflowClient(mlflow_uri).get_metric_history(run_id, "rank3/loss")[0].value == 2.0
    tags = read(mlflow_uri, run_id).data.tags
    assert json.loads(tags["tracer.nonfinite"]) == {"loss": [2, 3]}
    assert json.loads(tags["tracer.negative_zeros"]) == {"loss": [4]}


def test_a_repeated_batch_changes_nothing(mlflow_uri: str) -> None:
    backend, run_id = opened(mlflow_uri, info("again"))
    batch = [
        points("loss", [*VALUES, *map(float, range(40))]),
        LogLine("line", START, "out"),
        Text("t", 1, START, "a"),
    ]
    backend.write(batch)
    paths = listed(mlflow_uri, run_id)
    backend.write(batch)
    assert len(MlflowClient(mlflow_uri).get_metric_history(run_id, "loss")) == 48
    assert listed(mlflow_uri, run_id) == paths


def test_names_that_mlflow_refuses_are_sent_otherwise_and_told(mlflow_uri: str, tmp_path: Path) -> None:
    backend, run_id = opened(mlflow_uri, info("names", params={"b[0]": 1}))
    backend.write([points(name, [1.0]) for name in NAMES])
    metrics = read(mlflow_uri, run_id).data.metrics
    renamed = backend.renamed()
    assert sorted(metrics) == sorted(renamed.get(name, name) for name in NAMES)
    assert {name for name in NAMES if name not in renamed} == {"loss", "train/loss", "ä/µ", " ", "system/cpu"}
    assert read(mlflow_uri, run_id).data.params == {"b_x5b_0_x5d_": "1"}
    backend.close("completed", None)
    assert json.loads(content(mlflow_uri, run_id, "tracer/names.json", tmp_path)) == dict(renamed)


def test_facts_become_parameters_tags_and_a_note(mlflow_uri: str, tmp_path: Path) -> None:
    run = info(
        "facts", params={"lr": 0.1, "optimizer": {"name": "adam", "betas": [0.9, 0.99]}, "long": "x" * 9000},
        tags=("baseline", "v1?"), notes="a note", group="sweep", labels={"team": "vision"},
        git={"commit_hash": "abc123", "branch": "main"}, summary={"best": 0.9},
    )  # fmt: skip
    backend, run_id = opened(mlflow_uri, run, experiment_name="facts", run_name="other")
    found = read(mlflow_uri, run_id)
    assert MlflowClient(mlflow_uri).get_experiment(found.info.experiment_id).name == "facts"
    assert (found.info.run_name, found.info.start_time, found.info.status) == ("other", START // 1000, "RUNNING")
    expected = {"lr": "0.1", "optimizer.name": "adam", "optimizer.betas": "[0.9, 0.99]"}
    assert {name: value for name, value in found.data.params.items() if name != "long"} == expected
    assert found.data.params["long"].endswith("[cut: tracer/run.json has the whole]")
    tags = found.data.tags
    assert (tags["baseline"], tags["v1_x3f_"], tags["team"]) == ("true", "true", "vision")
    assert (tags["mlflow.note.content"], tags["mlflow.source.git.commit"]) == ("a note", "abc123")
    assert (tags["tracer.run_id"], tags["tracer.group"], tags["tracer.summary"]) == ("facts", "sweep", '{"best": 0.9}')
    backend.write([info("facts", params={"lr": 0.2, "new": True}, notes="another")])
    found = read(mlflow_uri, run_id)
    assert (found.data.params["lr"], found.data.params["new"]) == ("0.1", "True")
    assert (found.data.tags["tracer.param.lr"], found.data.tags["mlflow.note.content"]) == ("0.2", "another")
    whole = json.loads(content(mlflow_uri, run_id, "tracer/run.json", tmp_path))
    assert whole["config"] == {"lr": 0.2, "new": True}


def test_a_run_that_is_renamed_is_renamed_there(mlflow_database: str) -> None:
    backend, run_id = opened(mlflow_database, info("renamed"))
    backend.write([RunInfo("renamed", "project renamed", "calm-sea-1", START)])
    assert read(mlflow_database, run_id).info.run_name == "calm-sea-1"


def test_files_arrive_byte_for_byte(mlflow_uri: str, tmp_path: Path) -> None:
    backend, run_id = opened(mlflow_uri, info("files"))
    blob = tmp_path / "0a1b2c"
    blob.write_bytes(os.urandom(70_000))
    parts = tuple(Part(path, str(blob), 70_000, "d") for path in ("weights.bin", "deep/er/ä #1.bin"))
    backend.write([File("data", "dataset", "v2", parts, metadata={"rows": 3}), File("logs", "other", "v1", parts[:1])])
    for path in ("data/weights.bin", "data/deep/er/ä _x23_1.bin", "_logs/weights.bin"):
        assert content(mlflow_uri, run_id, path, tmp_path) == blob.read_bytes(), path
    told = json.loads(content(mlflow_uri, run_id, "tracer/artifacts/data/v2.json", tmp_path))
    assert (told["version"], told["metadata"], len(told["parts"])) == ("v2", {"rows": 3}, 2)


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "..", "a\\..\\evil", "\\evil"])
def test_no_path_leaves_its_artifact(mlflow_database: str, tmp_path: Path, path: str) -> None:
    backend, run_id = opened(mlflow_database, info("evil"))
    blob = tmp_path / "blob"
    blob.write_bytes(b"x")
    for sent in (
        File("a", "t", "v", (Part(path, str(blob), 1, "d"),)),
        File(path, "t", "v", (Part("a", str(blob), 1, "d"),)),
    ):
        with pytest.raises(Rejected, match="leaves its folder"):
            backend.write([sent])
    assert listed(mlflow_database, run_id) == ["tracer/run.json"]


def test_a_file_that_is_gone_is_rejected(mlflow_database: str) -> None:
    backend, _ = opened(mlflow_database, info("gone"))
    with pytest.raises(Rejected, match="does not take this"):
        backend.write([File("a", "t", "v", (Part("a", "/nowhere/blob", 1, "d"),))])


def test_a_model_is_shown_as_one(mlflow_uri: str, tmp_path: Path) -> None:
    backend, run_id = opened(mlflow_uri, info("model"), register_models="net")
    (tmp_path / "w").write_bytes(b"weights")
    file = File("net", "model", "v1", (Part("w.bin", str(tmp_path / "w"), 7, "d"),), step=7)
    backend.write([file])
    backend.write([file])
    client = MlflowClient(mlflow_uri)
    models = client.search_logged_models([read(mlflow_uri, run_id).info.experiment_id])
    assert [(one.name, one.source_run_id, one.tags["tracer.artifact"]) for one in models] == [("net-v1", run_id, "net")]
    assert "net/w.bin" in listed(mlflow_uri, run_id)
    assert [one.run_id for one in client.search_model_versions("name = 'net'")] == [run_id]


def test_media_texts_histograms_and_output_become_artifacts(mlflow_uri: str, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs pillow")
    held = io.BytesIO()
    image.new("RGB", (600, 300), "red").save(held, "PNG")
    backend, run_id = opened(mlflow_uri, info("media"))
    backend.write([
        Media("samples/a", "image", 4, START, data=held.getvalue(), suffix=".png", caption="a red one"),
        Media("clip", "audio", 5, START, data=b"RIFF", suffix=".wav"),
        Media("bad", "image", 5, START, data=b"no picture", suffix=".png"),
        Text("generated", 6, START, "once upon"), Text("generated", 6, START, "on rank 2", rank=2),
        Histogram("weights", 7, START, (0.0, 0.5, 1.0), (3.0, 4.0)),
        LogLine("log", START, "hello", name="app", level="INFO", fields={"a": 1}), LogLine("line", START, "again"),
    ])  # fmt: skip
    backend.write([LogLine("line", START + 1, "later")])
    found = listed(mlflow_uri, run_id)
    pictures = [path for path in found if path.startswith("images/samples~a+step+4+timestamp+1700000000000+")]
    assert [os.path.splitext(path)[1] for path in pictures] == [".webp", ".png"]
    assert content(mlflow_uri, run_id, pictures[1], tmp_path) == held.getvalue()
    assert read(mlflow_uri, run_id).data.tags["mlflow.loggedImages"] == "True"
    assert content(mlflow_uri, run_id, "media/clip/5.wav", tmp_path) == b"RIFF"
    assert content(mlflow_uri, run_id, "media/bad/5.png", tmp_path) == b"no picture"
    assert content(mlflow_uri, run_id, "text/generated/6.txt", tmp_path) == b"once upon"
    assert content(mlflow_uri, run_id, "text/rank2/generated/6.txt", tmp_path) == b"on rank 2"
    (histograms,) = [path for path in found if path.startswith("histograms/7-7-")]
    assert json.loads(content(mlflow_uri, run_id, histograms, tmp_path))["counts"] == [3.0, 4.0]
    (output,) = [path for path in found if path.startswith("logs/")]
    lines = content(mlflow_uri, run_id, output, tmp_path).decode().splitlines()
    assert [line.partition(" ")[2] for line in lines] == ['INFO app hello {"a": 1}', "again", "later"]


def test_spans_become_traces_of_the_run(mlflow_uri: str) -> None:
    backend, run_id = opened(mlflow_uri, info("spans"))
    trace = "5f" * 8 + ("00" * 7 + "01" if mlflow_uri.startswith("http") else "00" * 7 + "02")
    backend.write([
        Span("epoch", trace, "ab" * 8, START, START + 5_000_000, attributes={"lr": 0.1, "names": ["a", 1]}, step=3),
        Span("batch", trace, "ac" * 8, START, START + 1_000_000, parent="ab" * 8, status="error", message="no"),
    ])  # fmt: skip
    experiment = read(mlflow_uri, run_id).info.experiment_id
    (found,) = MlflowClient(mlflow_uri).search_traces(locations=[experiment], run_id=run_id)
    spans = {span.name: span for span in found.data.spans}
    assert found.info.trace_id.endswith(trace)
    assert spans["epoch"].start_time_ns == START * 1000
    assert spans["epoch"].end_time_ns == (START + 5_000_000) * 1000
    assert (spans["epoch"].attributes["lr"], spans["epoch"].attributes["tracer.step"]) == (0.1, 3)
    assert list(spans["epoch"].attributes["names"]) == ["a", 1]
    assert spans["batch"].parent_id == spans["epoch"].span_id
    assert spans["batch"].status.status_code == "ERROR"


def test_a_run_goes_on_where_it_was_left(mlflow_uri: str) -> None:
    backend, run_id = opened(mlflow_uri, info("resumed", params={"lr": 0.1}))
    backend.write([points("loss", [math.inf])])
    backend.close("crashed", START + 9_000_000)
    for remote in ({"run_id": run_id}, {}):  # by its id, and where the id was lost with the crash
        again = MLflowBackend({"tracking_uri": mlflow_uri})
        assert again.open(info("resumed", params={"lr": 0.1}), remote)["run_id"] == run_id
        assert read(mlflow_uri, run_id).info.status == "RUNNING"
        again.write([points("loss", [math.inf, math.inf])])
        again.close("completed", START + 10_000_000)
    assert json.loads(read(mlflow_uri, run_id).data.tags["tracer.nonfinite"]) == {"loss": [0, 1]}
    assert len(MlflowClient(mlflow_uri).get_metric_history(run_id, "loss")) == 2


@pytest.mark.parametrize(
    ("status", "theirs"),
    [("completed", "FINISHED"), ("failed", "FAILED"), ("crashed", "KILLED"), ("running", "RUNNING")],
)
def test_the_end_is_told(mlflow_database: str, status: str, theirs: str) -> None:
    backend, run_id = opened(mlflow_database, info("ended"))
    backend.close(status, START + 9_000_000)
    found = read(mlflow_database, run_id)
    assert (found.info.status, found.data.tags["tracer.status"]) == (theirs, status)
    assert found.info.end_time == (None if status == "running" else START // 1000 + 9000)


def test_what_is_deleted_there_is_not_made_again(mlflow_database: str) -> None:
    backend, run_id = opened(mlflow_database, info("deleted"))
    client = MlflowClient(mlflow_database)
    client.delete_run(run_id)
    with pytest.raises(Refused, match="mlflow runs restore"):
        backend.open(info("deleted"), {"run_id": run_id})
    with pytest.raises(Refused, match="has no run 'ffff' any more"):
        backend.open(info("deleted"), {"run_id": "ffff"})
    client.delete_experiment(client.get_experiment_by_name("project deleted").experiment_id)
    with pytest.raises(Refused, match="mlflow experiments restore"):
        backend.open(info("deleted"), {})


def test_without_a_target_a_database_stands_in_the_store(
    mlflow_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = tmp_path / "store"
    store.mkdir()
    (store / "mlflow.db").write_bytes(mlflow_tables.read_bytes())
    backend = MLflowBackend({"storage_path": str(store)})
    run_id = backend.open(info("own"), {})["run_id"]
    assert backend.url() is None
    assert read(f"sqlite:///{store}/mlflow.db", run_id).data.tags["tracer.run_id"] == "own"
    assert sorted(path.name for path in store.iterdir()) == ["mlartifacts", "mlflow.db"]


def test_nothing_of_the_process_changes_and_nothing_is_printed(
    mlflow_server: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    before = dict(os.environ), mlflow.get_tracking_uri(), mlflow.active_run()
    backend, run_id = opened(mlflow_server.replace("//", "//me:secret@"), info("quiet"))
    backend.write([points("loss", [1.0])])
    backend.close("completed", None)
    assert (dict(os.environ), mlflow.get_tracking_uri(), mlflow.active_run()) == before
    assert (
        backend.url() == f"{mlflow_server}/#/experiments/{read(mlflow_server, run_id).info.experiment_id}/runs/{run_id}"
    )
    assert capfd.readouterr() == ("", "")
