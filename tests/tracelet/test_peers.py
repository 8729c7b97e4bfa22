"""Back ends that a program holds by hand: values, parameters and artifacts go there, and artifacts come back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

#: Real clients, in a process of their own: they keep threads and change the process.
PROGRAM = """
import json, sys
from pathlib import Path
import tracelet.backends as backends
from tracelet.core.artifacts import ArtifactType, TraceletArtifact
name, config = sys.argv[1], json.loads(sys.argv[2])
classes = {
    "mlflow": (backends.MLflowBackend, "MLflowArtifactHandler"),
    "wandb": (backends.WandbBackend, "WANDBArtifactHandler"),
    "clearml": (backends.ClearMLBackend, "ClearMLArtifactHandler"), "aim": (backends.AimBackend, "AiMArtifactHandler"),
}
made, handler = classes[name]
peer = made()
peer.initialize({"project": "by-hand", "experiment_name": "first", **config})
peer.start()
for step in range(20):
    peer.log_metric("loss", step / 4, step)
peer.log_params({"lr": 0.5})
kept = getattr(__import__("tracer.experiment.backends", fromlist=[handler]), handler)(peer)
Path("weights.bin").write_bytes(b"\\0weights")
artifact = TraceletArtifact("model", ArtifactType.MODEL, metadata={"epoch": 3}).add_file("weights.bin")
result = kept.log_artifact(artifact)
peer.stop()
found = [one.name for one in kept.list_artifacts()]
back = kept.get_artifact("model")
texts = [Path(one.local_path).read_bytes().decode("latin-1") for one in back.files]
print(json.dumps({
    "result": [result.version, result.backend, result.size_bytes], "found": found, "texts": texts,
    "type": back.type.value, "status": peer.get_status()["active"], "remote": peer.remote,
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "option"),
    [("mlflow", "tracking_uri"), ("wandb", "dir"), ("clearml", "dir"), ("aim", "repo_path")],
)
def test_what_is_given_by_hand_arrives_and_artifacts_come_back(tmp_path: Path, name: str, option: str) -> None:
    where = f"sqlite:///{tmp_path}/ml.db" if name == "mlflow" else str(tmp_path / name)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("CLEARML_", "WANDB_", "MLFLOW_"))}

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, name, json.dumps({option: where})],
        cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert (found["result"], found["status"]) == (["v0", name, 8], False)
    assert "model" in found["found"]
    assert "\0weights" in found["texts"]
    assert found["remote"]
