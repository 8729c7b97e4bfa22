"""A back end that is served inside the training: what its client does there is no news of the training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import logging, time, tracer
run = tracer.init(
    project="own", run_name="words", quiet=True, capture=["auto"], backend="wandb", lane="thread",
    backend_options={"wandb": {"mode": "offline", "dir": "w"}}, track_system_metrics=False, finish_timeout_s=60,
)
for step in range(5):
    tracer.log({"loss": step / 2}, step=step)
until = time.monotonic() + 60
while run.backend("wandb").sent < 5 and time.monotonic() < until:
    time.sleep(0.05)
run.finish()
print(run.backend("wandb").state, run.run_id)
"""


@pytest.mark.slow
def test_a_client_in_the_training_is_not_listened_to(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="needs wandb")

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )

    assert done.returncode == 0, done.stderr
    state, run = done.stdout.split()
    facts = json.loads((tmp_path / ".tracer" / "runs" / run / "run.json").read_text())
    assert (state, facts["config"], facts["labels"]) == ("complete", {}, {})
    from tracer.storage import Store

    with Store.open(tmp_path / ".tracer") as store:
        assert {row.metric: row.n for row in store.metrics(run) if not row.metric.startswith("tracer/")} == {"loss": 5}
