"""Every Python block of the two Tracelet documents, read where it lies and run letter for letter."""

# ruff: noqa: ANN401 -- what a document makes has no type here; what reads a run back is a class of `conftest.py`
from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tracelet

# Read before the environment is cleared for a test.
_DOCUMENTS = Path(os.environ.get("TRACER_DOCUMENTS") or Path(__file__).parents[2].parent / "shared" / "seeds")
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
README, REQUIREMENTS = "tracelet-readme", "tracelet-requirements"

Run = Callable[..., dict[str, Any]]


def blocks(document: str) -> list[str]:
    """Return the Python blocks of a document."""
    path = _DOCUMENTS / f"{document}.md"
    if not path.is_file():
        pytest.skip(f"needs the Tracelet documents: {path} is not there; TRACER_DOCUMENTS names their folder")
    return _BLOCK.findall(path.read_text(encoding="utf-8"))


@pytest.fixture
def run_block(request: pytest.FixtureRequest) -> Run:
    """Return a function that runs the block a test is named for, with the names it takes for granted."""
    number = int(request.node.originalname.rpartition("_")[2])
    source = blocks(README)[number]

    def run(**granted: Any) -> dict[str, Any]:
        namespace: dict[str, Any] = {"__name__": "__main__", **granted}
        code = compile(source, f"<block {number} of the document>", "exec")
        exec(code, namespace)  # noqa: S102 -- this is what is tested
        return namespace

    return run


def arrived(run: Any, lane: str, seconds: float = 90.0) -> dict[str, Any]:
    """Wait until a back end has everything of a run; return what is kept of it."""
    until = time.monotonic() + seconds
    while run.lanes()[lane] != "complete":
        assert time.monotonic() < until, run.lane(lane)
        threading.Event().wait(0.1)
    found: dict[str, Any] = run.lane(lane)
    return found


def test_every_block_has_a_test() -> None:
    tests = {int(name.rpartition("_")[2]) for name in globals() if re.fullmatch(r"test_.*_block_\d+", name)}

    assert tests == set(range(len(blocks(README))))
    assert blocks(REQUIREMENTS) == []


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, of what it asks of SQLAlchemy
def test_the_basic_usage_records_every_scalar_block_0(run_block: Run, recorded: Any) -> None:
    pytest.importorskip("torch.utils.tensorboard", reason="needs torch and tensorboard")
    losses = iter(range(100))

    run_block(train_one_epoch=lambda: 1.0 / (1 + next(losses)))["writer"].close()

    run = recorded("my_experiment")
    assert (run.row.project, run.row.status) == ("my_project", "completed")
    points = run.series("Loss/train")
    assert list(points) == list(range(100))
    assert points[3] == 0.25
    from mlflow.tracking import MlflowClient

    client = MlflowClient("sqlite:///.tracer/mlflow.db")
    history = client.get_metric_history(arrived(run, "mlflow")["remote"]["run_id"], "Loss/train")
    assert {point.step: point.value for point in history} == points
    assert tracelet.get_active_experiment() is None


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_lightning_is_recorded_with_its_own_steps_block_1(run_block: Run, recorded: Any) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    pl = pytest.importorskip("pytorch_lightning", reason="needs pytorch_lightning")

    class Model(pl.LightningModule):  # type: ignore[misc, name-defined]  # a base that is known at run time only
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch: Any) -> Any:
            """Log the loss as a tensor at the end of each epoch."""
            loss = self.layer(batch[0]).pow(2).mean()
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            return loss

        def configure_optimizers(self) -> Any:
            """Return an optimizer."""
            return torch.optim.SGD(self.parameters(), lr=0.1)

    rows = torch.utils.data.TensorDataset(torch.randn(8, 4))

    run_block(model=Model(), datamodule=torch.utils.data.DataLoader(rows, batch_size=4))

    run = recorded("lightning_experiment")
    points = run.series("train_loss")
    assert (len(points), run.row.status) == (10, "completed")
    assert arrived(run, "clearml")["sent"] >= 10


def test_the_advanced_configuration_arrives_block_2(run_block: Run, recorded: Any) -> None:
    epochs = iter(range(10))

    def train_epoch() -> dict[str, float]:
        epoch = next(epochs)
        return {"acc": epoch / 10, "loss": 1.0 - epoch / 10}

    left = run_block(train_epoch=train_epoch)
    config = left["experiment"].run.config
    tracelet.stop_logging()

    assert (config.track_system_metrics, config.system_interval_s, config.capture) == (True, 5.0, ["auto"])
    assert (config.track_git, config.track_environment) == (True, True)
    run = recorded("advanced_example")
    assert run.facts["config"] == {"model": "resnet50", "batch_size": 32, "learning_rate": 0.001}
    assert run.series("accuracy") == {epoch: epoch / 10 for epoch in range(10)}
    assert list(run.series("loss")) == list(range(10))


def test_the_settings_are_what_they_were_told_block_3(run_block: Run) -> None:
    settings = run_block()["settings"]

    assert (settings.project, settings.project_name, settings.backend) == ("my_project", "my_project", ["mlflow"])
    assert (settings.track_system, settings.metrics_interval) == (True, 10.0)
    assert (settings.track_tensorboard, settings.track_lightning, settings.track_git, settings.track_env) == (True,) * 4


def test_the_plugin_gets_its_settings_and_every_value_block_4(run_block: Run, calm: dict[str, Any]) -> None:
    got: list[tuple[str, float, int]] = []

    class MyBackendClient:
        def __init__(self, api_key: str) -> None:
            self.api_key = api_key

        def log(self, name: str, value: float, iteration: int) -> None:
            """Keep a value."""
            got.append((name, value, iteration))

    plugin = run_block(MyBackendClient=MyBackendClient)["MyCustomBackend"]()

    with tracelet.start_logging("x", backend=[plugin], api_key="secret", config=calm) as experiment:
        for step in range(20):
            experiment.log_metric("loss", step / 2, step)

    assert plugin.client.api_key == "secret"
    assert got == [("loss", step / 2, step) for step in range(20)]


def test_clearml_is_told_to_stay_offline_block_5(run_block: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLEARML_WEB_HOST", "CLEARML_API_HOST", "CLEARML_FILES_HOST"):
        monkeypatch.setenv(name, "x")

    run_block()

    assert os.environ["CLEARML_API_HOST"] == ""


def test_less_is_tracked_where_that_is_asked_for_block_6(run_block: Run, recorded: Any) -> None:
    import tracelet as granted

    config = run_block(tracelet=granted)["experiment"].run.config
    tracelet.stop_logging()

    assert (config.track_system_metrics, config.track_git, config.system_interval_s) == (False, False, 30.0)
    assert not [name for name in recorded().metrics() if name.startswith("system/")]
    assert not recorded().facts["git"]
