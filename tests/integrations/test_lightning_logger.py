"""`TracerLogger` as the logger of a real Trainer, under both of Lightning's names, and of a Fabric."""

# ruff: noqa: ANN401 -- the framework decides what it hands over, and of what type

from __future__ import annotations

import copy
import importlib
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning", reason="needs lightning")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "capture" / "lightning"))

from lit_programs import CALMLY, QUIET, autoencoder, classifier, data_module, images, written
from torch.utils.data import DataLoader

import tracer
from tracer.errors import ConfigError, UsageError
from tracer.integrations import LightningCallback, TracerLogger

WARNINGS = ("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings(*WARNINGS)]


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def framework(request: pytest.FixtureRequest) -> Any:
    """Return Lightning by either name."""
    return importlib.import_module(request.param)


@pytest.fixture
def lightning() -> Any:
    """Return Lightning."""
    return importlib.import_module("lightning.pytorch")


def series_of(run: Any) -> dict[str, dict[int, float]]:
    """Return what was logged in a run: name → step → value."""
    return {name: run.series(name) for name in run.metrics() if not name.startswith("tracer/")}


def trainer(framework: Any, *loggers: Any, **options: Any) -> Any:
    return framework.Trainer(**{**QUIET, "logger": list(loggers), "max_epochs": 1, "log_every_n_steps": 1, **options})


def test_it_records_what_the_csv_logger_writes_and_ends_its_run(framework: Any, recorded: Any, tmp_path: Path) -> None:
    logger = TracerLogger(project="mine", run_name="first", **CALMLY)
    assert isinstance(logger, framework.loggers.Logger)
    made = trainer(framework, logger, framework.loggers.CSVLogger("csv"), max_epochs=2, log_every_n_steps=3)
    made.fit(classifier(framework, lr=0.5), datamodule=data_module(framework))

    run = recorded()
    assert (run.row.project, run.row.name, run.row.status) == ("mine", "first", "completed")
    assert run.row.config == {"hidden": 8, "lr": 0.5, "act": "ReLU", "batch_size": 4, "folder": "data"}
    assert series_of(run) == written(tmp_path / "csv")
    assert made.checkpoint_callback.dirpath == str(Path("mine/first/checkpoints").resolve())


def test_a_test_afterwards_continues_the_run(framework: Any, recorded: Any) -> None:
    made = trainer(framework, TracerLogger("p", **CALMLY))
    module, data = classifier(framework), data_module(framework)
    made.fit(module, datamodule=data)
    with pytest.raises(UsageError):
        tracer.get_run_id()
    made.test(module, datamodule=data, verbose=False)

    run = recorded()
    assert (run.runs(), run.row.status) == (1, "completed")
    assert list(run.series("test_loss")) == [8]
    assert list(run.series("train_loss_step")) == list(range(8))


def test_an_exception_fails_the_run_with_its_reason(framework: Any, recorded: Any) -> None:
    class Breaking(framework.Callback):  # type: ignore[misc, name-defined]  # known at run time only
        def on_train_batch_end(self, *_: Any) -> None:
            message = "the loader broke"
            raise OSError(message)

    with pytest.raises(OSError, match="the loader broke"):
        trainer(framework, TracerLogger("p", **CALMLY), callbacks=[Breaking()]).fit(
            autoencoder(framework), DataLoader(images(), batch_size=8)
        )

    run = recorded()
    assert (run.row.status, run.row.reason) == ("failed", "OSError: the loader broke")


def test_a_run_of_the_program_is_joined_and_left_open(lightning: Any, recorded: Any) -> None:
    with tracer.init(project="mine", config={"lr": 7}, **CALMLY) as run:
        logger = TracerLogger("other")
        trainer(lightning, logger).fit(classifier(lightning), datamodule=data_module(lightning))
        assert tracer.get_run_id() == run.run_id
        assert logger.experiment is run

    found = recorded()
    assert (found.runs(), found.row.project, found.row.config["lr"], found.row.config["hidden"]) == (1, "mine", 7, 8)


def test_with_our_callback_beside_it_each_value_is_recorded_once(lightning: Any, recorded: Any) -> None:
    callback = LightningCallback("p", **CALMLY)
    trainer(lightning, TracerLogger("p", **CALMLY), callbacks=[callback]).fit(
        classifier(lightning), datamodule=data_module(lightning)
    )

    run = recorded()
    assert run.runs() == 1
    assert list(run.series("train_loss_step")) == list(range(8))
    assert run.norms() != {}


def test_several_optimizers_several_fits_and_a_checkpoint_keep_the_loggers_steps(lightning: Any, recorded: Any) -> None:
    module, data = classifier(lightning), data_module(lightning)
    logger = TracerLogger("p", **CALMLY)
    first = trainer(lightning, logger, accumulate_grad_batches=2)
    first.fit(module, datamodule=data)
    path = first.checkpoint_callback.best_model_path
    trainer(lightning, logger, accumulate_grad_batches=2, max_epochs=2).fit(module, datamodule=data, ckpt_path=path)

    run = recorded()
    assert (run.runs(), list(run.series("train_loss_step"))) == (1, list(range(8)))


def test_the_callback_that_follows_the_loggers_records_what_they_are_told(
    framework: Any, recorded: Any, tmp_path: Path
) -> None:
    callback = LightningCallback("p", capture_every_step=False, **CALMLY)
    made = trainer(framework, framework.loggers.CSVLogger("csv"), callbacks=[callback], log_every_n_steps=3)
    module, data = classifier(framework), data_module(framework)
    made.fit(module, datamodule=data)
    made.test(module, datamodule=data, verbose=False)

    run = recorded()
    assert series_of(run) == written(tmp_path / "csv")
    assert (run.runs(), run.row.steps) == (1, 8)
    assert len(made.loggers) == 1


def test_a_callback_goes_on_at_the_step_of_a_checkpoint(lightning: Any, recorded: Any) -> None:
    module, data = classifier(lightning), data_module(lightning)
    first = trainer(lightning, default_root_dir="first")
    first.fit(module, datamodule=data)
    path = first.checkpoint_callback.best_model_path
    trainer(lightning, callbacks=[LightningCallback("p", checkpoint_interval=4, **CALMLY)], max_epochs=2).fit(
        module, datamodule=data, ckpt_path=path
    )

    run = recorded()
    assert (run.row.steps, list(run.series("train_loss_step"))) == (16, list(range(9, 17)))
    assert set(run.norms()) >= {12, 16}


def test_a_setting_that_is_not_known_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="chekpoint_interval"):
        TracerLogger("p", chekpoint_interval=5)


def test_it_can_be_copied_and_sent_to_another_process(framework: Any) -> None:
    logger = TracerLogger("p", "n", save_dir="here", **CALMLY)

    for made in (copy.deepcopy(logger), pickle.loads(pickle.dumps(logger))):  # noqa: S301 -- our own bytes
        assert isinstance(made, framework.loggers.Logger)
        assert (made.name, made.version, made.save_dir) == ("p", "n", "here")


def test_fabric_takes_it_too(recorded: Any) -> None:
    fabric = importlib.import_module("lightning.fabric").Fabric(
        accelerator="cpu", loggers=TracerLogger("p", track_gradients=False, **CALMLY)
    )
    for step in range(3):
        fabric.log("loss", 1.0 / (step + 1), step=step)
    fabric.logger.experiment.log({"mine": 2.0})
    fabric.logger.finalize("success")

    run = recorded()
    assert run.series("loss") == {0: 1.0, 1: 0.5, 2: 1 / 3}
    assert run.metrics() == {"loss", "mine"}


#: The first of Lightning's processes starts the others, so they have no parent in common from which an id could follow.


@pytest.mark.parametrize("listener", ["callback", "logger"])
def test_two_processes_are_one_run(listener: str, recorded: Any, tmp_path: Path) -> None:
    import journals  # type: ignore[import-not-found]  # found on the path of the suite
    import programs

    here = str(Path(__file__).resolve().parent.parent / "capture" / "lightning")
    programs.run(
        f"""
        import sys, warnings
        warnings.simplefilter("ignore")
        sys.path.insert(0, {here!r})
        import lightning.pytorch as L
        from lit_programs import CALMLY, QUIET, classifier, data_module
        from tracer.integrations import LightningCallback, TracerLogger

        ours = {{"callback": {{"callbacks": [LightningCallback("p", **CALMLY)], "logger": False}},
                 "logger": {{"logger": [L.loggers.CSVLogger("csv"), TracerLogger("p", **CALMLY)]}}}}[{listener!r}]
        L.Trainer(**QUIET, max_epochs=1, log_every_n_steps=1, enable_checkpointing=False, strategy="ddp", devices=2,
                  **ours).fit(classifier(L), datamodule=data_module(L))
        """,
        env={"POSSIBLE_USER_WARNINGS": "off", "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"},
    )

    folder = journals.only_run(tmp_path / ".tracer")
    points = [(name, step) for name, step, _ in journals.points(folder) if not name.startswith("tracer/")]
    steps = [step for name, step in points if name == "train_loss_step"]
    assert steps == ([1, 2, 3, 4] if listener == "callback" else [0, 1, 2, 3])
    assert len(points) == len(set(points))
    ranks = {one["rank"] for one in journals.identities(folder)}
    assert ranks == ({0, 1} if listener == "callback" else {0})
    if listener == "logger":
        assert series_of(recorded()) == written(tmp_path / "csv")
