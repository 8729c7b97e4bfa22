"""Artifacts: what is put in comes out again byte for byte, and what leads elsewhere is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tracelet
from tracelet import ArtifactType, Experiment, TraceletArtifact
from tracelet.core.artifact_manager import ArtifactManager
from tracelet.core.artifacts import ArtifactFile, ArtifactHandler, ArtifactObject, ArtifactReference, ArtifactResult


@pytest.fixture
def experiment(calm: dict[str, Any]) -> Iterator[Experiment]:
    """Begin an experiment that only records what it is told."""
    with tracelet.start_logging("artifacts", project="p", config=calm) as begun:
        yield begun


def read(artifact: TraceletArtifact) -> dict[str, bytes]:
    """Return the bytes of an artifact's files."""
    return {file.artifact_path: Path(file.local_path).read_bytes() for file in artifact.files}


def test_files_folders_and_objects_come_back(experiment: Experiment) -> None:
    Path("out/deep").mkdir(parents=True)
    Path("out/deep/a.txt").write_text("a")
    Path("weights.bin").write_bytes(bytes(range(256)))
    artifact = experiment.create_artifact("all", ArtifactType.MODEL, "everything")
    artifact.add_file("weights.bin", metadata={"epoch": 3}).add_file("out", "folder")
    artifact.add_object({"f1": 0.5}, "scores.json", "json").add_object([1], "o.pkl").add_object(
        {"a": 1}, "c.yaml", "yaml"
    )

    result = experiment.log_artifact(artifact)["local"]
    found = experiment.get_artifact("all")

    assert (result.version, result.backend, result.size_bytes > 256) == ("v0", "local", True)
    bytes_of = read(found)
    assert set(bytes_of) == {"weights.bin", "folder/deep/a.txt", "scores.json", "o.pkl", "c.yaml"}
    assert bytes_of["weights.bin"] == bytes(range(256))
    assert (json.loads(bytes_of["scores.json"]), pickle.loads(bytes_of["o.pkl"])) == ({"f1": 0.5}, [1])  # noqa: S301
    assert (found.type, found.description, found.version) == (ArtifactType.MODEL, "everything", "v0")
    assert found.metadata["files"] == {"weights.bin": {"epoch": 3}}


def test_the_same_name_again_is_the_next_version(experiment: Experiment) -> None:
    for text in ("one", "two"):
        Path("model.txt").write_text(text)
        experiment.log_file_artifact("model.txt")

    assert read(experiment.get_artifact("model.txt"))["model.txt"] == b"two"
    assert read(experiment.get_artifact("model.txt", "v0"))["model.txt"] == b"one"


@pytest.mark.parametrize("call", ["log_file_artifact", "upload_artifact", "log_artifact"])
def test_a_path_is_an_artifact_of_its_own(call: str, experiment: Experiment) -> None:
    Path("a.txt").write_text("a")

    assert getattr(experiment, call)("a.txt", "named.txt")["local"].version == "v0"
    assert [one.name for one in experiment.list_artifacts()] == ["named.txt"]


def test_artifacts_are_listed_by_type_and_found_after_the_end(calm: dict[str, Any]) -> None:
    with tracelet.start_logging("x", project="p", config=calm) as experiment:
        experiment.log_artifact(TraceletArtifact("a", ArtifactType.REPORT).add_object("a", "a.json", "json"))
        experiment.log_artifact(TraceletArtifact("b", ArtifactType.VISUALIZATION).add_object("b", "b.json", "json"))

    assert {one.name: one.type for one in experiment.list_artifacts()} == {
        "a": ArtifactType.REPORT,
        "b": ArtifactType.VISUALIZATION,
    }
    assert [one.name for one in experiment.list_artifacts(ArtifactType.REPORT)] == ["a"]
    assert read(experiment.get_artifact("a")) == {"a.json": b'"a"'}


def test_a_reference_is_kept_without_what_it_refers_to(experiment: Experiment) -> None:
    artifact = experiment.create_artifact("far", ArtifactType.DATASET)
    artifact.add_reference("s3://bucket/rows.parquet", 123, {"split": "train"})

    experiment.log_artifact(artifact)
    found = experiment.get_artifact("far")

    assert [(one.uri, one.size_bytes) for one in found.references] == [("s3://bucket/rows.parquet", 123)]
    assert found.files == []


@pytest.mark.torch
def test_a_model_is_kept_as_its_weights(experiment: Experiment) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    model = torch.nn.Linear(2, 1)

    artifact = experiment.create_artifact("net", ArtifactType.MODEL).add_model(model, description="tiny")
    experiment.log_artifact(artifact)
    found = experiment.get_artifact("net")

    state = torch.load(found.files[0].local_path, weights_only=True)
    assert torch.equal(state["weight"], model.weight)
    assert found.metadata["model"] == {"framework": "pytorch", "description": "tiny"}


@pytest.mark.parametrize("name", ["../escape.json", "/etc/escape.json", "a/../../escape.json"])
def test_what_leads_out_of_the_artifact_is_refused(name: str, experiment: Experiment) -> None:
    artifact = experiment.create_artifact("bad", ArtifactType.CUSTOM).add_object(1, name, "json")

    with pytest.raises(ValueError, match="leads out of the artifact"):
        experiment.log_artifact(artifact)
    assert list(Path.cwd().glob("**/escape.json")) == []


def test_what_cannot_be_meant_is_refused(experiment: Experiment) -> None:
    with pytest.raises(FileNotFoundError, match="There is no file 'nowhere'"):
        experiment.create_artifact("a", "model").add_file("nowhere")
    with pytest.raises(ValueError, match="serializer='toml' is not known"):
        experiment.create_artifact("a", "model").add_object(1, "a", "toml")
    with pytest.raises(ValueError, match="'modell' is not a valid ArtifactType"):
        experiment.create_artifact("a", "modell")
    with pytest.raises(ValueError, match="needs a name"):
        experiment.create_artifact("", "model")
    with pytest.raises(RuntimeError, match="backend='mlflow' holds no artifacts"):
        experiment.get_artifact("a", backend="mlflow")


def test_nothing_is_left_behind_while_artifacts_are_made(experiment: Experiment) -> None:
    experiment.log_artifact(experiment.create_artifact("a", "config").add_object(1, "a.json", "json"))

    assert [path for path in Path(experiment.run.folder).iterdir() if path.name.startswith(".artifact-")] == []


def test_several_places_keep_an_artifact_and_one_that_fails_stops_none() -> None:
    class Kept(ArtifactHandler):
        """Keeps what it gets."""

        def log_artifact(self, artifact: TraceletArtifact) -> ArtifactResult:
            """Keep it."""
            return ArtifactResult("1", f"kept://{artifact.name}", 0, "kept")

        def get_artifact(self, name: str, version: str = "latest") -> TraceletArtifact:
            """Return it."""
            return TraceletArtifact(f"{name}:{version}", "custom")

    manager = ArtifactManager({"broken": ArtifactHandler(), "kept": Kept()})

    results = manager.log_artifact(TraceletArtifact("a", "model"))

    assert {name: result.uri for name, result in results.items()} == {"kept": "kept://a"}
    assert "NotImplementedError" in manager.errors["broken"]
    assert manager.get_artifact("a", backend="kept").name == "a:latest"
    assert (manager.get_stats()["artifacts_logged"], manager.get_stats()["backends"]) == (1, ["broken", "kept"])
    manager.clear_cache()
    assert manager.get_stats()["artifacts_logged"] == 0
    with pytest.raises(RuntimeError, match="no back end 'nowhere'"):
        manager.get_artifact("a", backend="nowhere")


def test_parts_say_what_they_are() -> None:
    Path("a.txt").write_text("abc")
    artifact = TraceletArtifact("n", ArtifactType.CODE, "d", {"k": 1}).add_file("a.txt").add_object(1, "o", "json")

    told = artifact.to_dict()
    assert {key: told[key] for key in ("name", "type", "description", "metadata", "files", "objects")} == {
        "name": "n",
        "type": "code",
        "description": "d",
        "metadata": {"k": 1},
        "files": ["a.txt"],
        "objects": ["o"],
    }
    assert ArtifactFile("a.txt").size_bytes == 3
    assert ArtifactReference("s3://b/c/d.bin").name == "d.bin"
    assert artifact.serialize_object(ArtifactObject({"a": 1}, "x", "json")) == b'{\n  "a": 1\n}'
