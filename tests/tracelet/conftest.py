"""What the tests of experiments share: a quiet experiment, and reading back what was recorded."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

#: Settings of an experiment that only records what it is told.
CALM: dict[str, Any] = {
    "track_metrics": False,
    "track_system": False,
    "track_git": False,
    "track_env": False,
    "track_args": False,
    "track_stdout": False,
    "maintain": "off",
    "track_code": False,
    "quiet": True,
}


class Recorded:
    """What the store of this test holds of one run."""

    def __init__(self, name: str = "@last") -> None:
        from tracer.storage import Store

        self.store = Store.open(".tracer")
        self.row = self.store.run(name)
        self.facts: dict[str, Any] = json.loads(Path(".tracer", "runs", self.row.folder, "run.json").read_text())

    def series(self, metric: str) -> dict[int, float]:
        """Return step → value."""
        series = self.store.series(self.row.uid, metric)
        return dict(zip(series.step.tolist(), series.value.tolist(), strict=True))

    def lane(self, name: str) -> dict[str, Any]:
        """Return what is kept of a back end that the run goes to."""
        from tracer.cursors import Cursor

        return Cursor(str(Path(".tracer", "runs", self.row.folder)), name).said

    def lanes(self) -> dict[str, str]:
        """Return the back ends that the run goes to, and how each stands."""
        from tracer import cursors

        return {lane.name: lane.state for lane in cursors.of_run(str(Path(".tracer", "runs", self.row.folder)))}

    def metrics(self) -> set[str]:
        """Return the names of all metrics."""
        return {row.metric for row in self.store.metrics(self.row.uid)}


@pytest.fixture
def recorded() -> type[Recorded]:
    """Return what reads a run of this test's store, the newest unless it is named."""
    return Recorded


@pytest.fixture
def calm() -> dict[str, Any]:
    """Return settings of an experiment that only records what it is told."""
    return dict(CALM)


@pytest.fixture(autouse=True)
def _no_experiment_left() -> Iterator[None]:
    """End the experiment that a test leaves behind, and forget what it configured and registered."""
    yield
    from tracer.capture.patching import patches
    from tracer.experiment import starting, stop_logging
    from tracer.plugins import lifecycle

    stop_logging()
    starting._configured = None
    lifecycle._registered.clear()
    patches.stop()


@pytest.fixture
def plugin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that puts plugin files into a folder of `TRACELET_PLUGIN_PATH`."""

    def put(**sources: str) -> Path:
        folder = tmp_path / "plugins"
        folder.mkdir(exist_ok=True, mode=0o755)
        folder.chmod(0o755)
        for name, source in sources.items():
            path = folder / f"{name}.py"
            path.write_text(source, encoding="utf-8")
            path.chmod(0o644)
        monkeypatch.setenv("TRACELET_PLUGIN_PATH", str(folder))
        return folder

    return put


@pytest.fixture
def git_repository(tmp_path: Path) -> str:
    """Make a repository with one commit and one new file."""
    folder = tmp_path / "repository"
    folder.mkdir()
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    (folder / "train.py").write_text("lr = 1\n")
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", *who, *arguments], cwd=folder, check=True)
    (folder / "new.py").write_text("x = 1\n")
    return str(folder)
