"""The companion: it folds while the trainer lives, and says how the run ended when the trainer is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from journal_builder import JournalBuilder, make_run, make_store

from tracer import clock
from tracer.storage import Store
from tracer.storage.companion import accompany


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


def start(base: Path, uid: str) -> subprocess.Popen[bytes]:
    """Start a companion with a pipe as its standard input."""
    return subprocess.Popen(
        [sys.executable, "-m", "tracer.storage.companion", str(base), uid], stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def test_when_the_trainer_is_gone_the_run_is_folded_and_crashed(base: Path) -> None:
    trainer = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    folder = make_run(
        base, "run", status="running", ended=None, pid=trainer.pid, process_started=clock.process_started(trainer.pid)
    )
    builder = JournalBuilder(folder)
    for step in range(30):
        builder.row({"loss": float(step)}, step)
    builder.write(room=4096, steps=30)
    companion = start(base, "run")
    trainer.kill()
    trainer.wait()
    assert companion.stdin is not None
    companion.stdin.close()

    assert companion.wait(timeout=20) == 0
    said = json.loads((folder / "run.json").read_text())
    assert (said["status"], said["steps"]) == ("crashed", 30)
    assert list((folder / "journal").iterdir()) == []
    with Store.open(base) as store:
        assert store.run("run").points == 30
        assert len(store.series("run", "loss")) == 30


def test_while_the_trainer_lives_it_folds_again_and_again(base: Path) -> None:
    folder = make_run(base, "run", status="running")
    builder = JournalBuilder(folder)
    reading, writing = os.pipe()
    with Store.open(base) as store, Store.open(base) as mine, os.fdopen(reading, "rb", buffering=0) as pipe:
        thread = threading.Thread(target=accompany, args=(mine, "run", pipe), kwargs={"interval_s": 0.02})
        thread.start()
        for part in range(3):
            builder.row({"loss": float(part)}, part)
            builder.next_segment()
            _until(lambda part=part: store.catalog.value("SELECT points FROM run") == part + 1)
        os.close(writing)
        thread.join(timeout=20)
        assert not thread.is_alive()
        assert store.series("run", "loss").value.tolist() == [0.0, 1.0, 2.0]


def test_a_wrong_call_says_how_it_is_used(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tracer.storage.companion"]

    without = subprocess.run(command, capture_output=True, env=environment, check=False)
    nowhere = subprocess.run([*command, str(tmp_path), "run"], capture_output=True, env=environment, check=False)

    assert (without.returncode, without.stderr) == (2, b"usage: python -m tracer.storage.companion STORE RUN\n")
    assert nowhere.returncode == 1
    assert b"There is no store" in nowhere.stderr


def _until(is_true: object) -> None:
    """Wait until something is true, at most ten seconds."""
    pause = threading.Event()
    for _ in range(1000):
        if is_true():  # type: ignore[operator]
            return
        pause.wait(0.01)
    pytest.fail("it did not become true")
