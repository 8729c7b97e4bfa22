"""What is recorded of a Trainer beside its metrics, when nothing is, and that it is left as it was."""

# ruff: noqa: ANN401 -- the framework decides what it hands over, and of what type

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from lit_programs import CALMLY, QUIET, autoencoder, classifier, data_module, images, train_autoencoder
from torch.utils.data import DataLoader

import tracer
from tracer import events
from tracer.capture.lightning_callback import CapturingCallback
from tracer.capture.patching import patches
from tracer.integrations import LightningCallback
from tracer.testing import capture_events


def trainer(framework: Any, **options: Any) -> Any:
    return framework.Trainer(**{**QUIET, "logger": False, "enable_checkpointing": False, "max_epochs": 1, **options})


def loader() -> DataLoader[Any]:
    return DataLoader(images(), batch_size=8)


def of(kind: type, heard: list[Any]) -> list[Any]:
    return [event for event in heard if type(event) is kind]


def scalars(heard: list[Any]) -> dict[str, dict[int, Any]]:
    found: dict[str, dict[int, Any]] = {}
    for event in of(events.Scalars, heard):
        for name, value in event.values.items():
            found.setdefault(name, {})[event.step] = value
    return found


@pytest.mark.usefixtures("captured")
def test_a_training_brings_model_optimizer_and_hyperparameters(framework: Any) -> None:
    module = classifier(framework, lr=0.5)
    with capture_events() as heard:
        trainer(framework).fit(module, datamodule=data_module(framework))

    training = of(events.Training, heard)[0]
    assert (training.origin, training.model, training.step) == ("lightning", module, 0)
    assert isinstance(training.optimizer, torch.optim.SGD)
    assert training.parameters == {"hidden": 8, "lr": 0.5, "act": "ReLU", "batch_size": 4, "folder": "data"}


@pytest.mark.usefixtures("captured")
def test_hyperparameters_that_are_not_for_loggers_and_secrets_stay_out(lightning: Any) -> None:
    class Private(lightning.LightningModule):  # type: ignore[misc, name-defined]  # known at run time only
        def __init__(self, width: int, *, logger: bool) -> None:
            super().__init__()
            self.save_hyperparameters({"width": width, "api_key": "abcdefgh12345"}, logger=logger)
            self.layer = torch.nn.Linear(16, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Any:  # noqa: ARG002 -- as Lightning calls it
            return self.layer(batch[0].flatten(1)).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    with capture_events() as heard:
        trainer(lightning).fit(Private(3, logger=False), loader())
        trainer(lightning).fit(Private(4, logger=True), loader())

    hidden, shown = (one.parameters for one in of(events.Training, heard))
    assert hidden == {}
    assert shown["width"] == 4
    assert "abcdefgh" not in str(shown)


@pytest.mark.usefixtures("captured")
def test_checkpoints_come_with_monitor_and_score(framework: Any, tmp_path: Path) -> None:
    keeper = framework.callbacks.ModelCheckpoint(tmp_path / "kept", monitor="val_acc_epoch", mode="max", save_last=True)
    with capture_events() as heard:
        made = trainer(framework, enable_checkpointing=True, callbacks=[keeper])
        made.fit(classifier(framework), datamodule=data_module(framework))
        made.save_checkpoint(tmp_path / "mine.ckpt")

    best, last, mine = of(events.Artifact, heard)
    assert {one.type for one in (best, last, mine)} == {"checkpoint"}
    assert (best.path, best.aliases) == (keeper.best_model_path, ("best",))
    assert best.metadata == {
        "epoch": 0,
        "global_step": 8,
        "monitor": "val_acc_epoch",
        "mode": "max",
        "score": float(keeper.best_model_score),
    }
    assert (last.name, last.aliases) == ("last.ckpt", ("last",))
    assert (mine.path, mine.aliases, mine.metadata["global_step"]) == (str(tmp_path / "mine.ckpt"), (), 8)


@pytest.mark.usefixtures("captured")
def test_checkpoints_are_not_noted_where_that_is_switched_off(lightning: Any, tmp_path: Path) -> None:
    with tracer.init(project="p", track_checkpoints=False, **CALMLY), capture_events() as heard:
        made = trainer(lightning)
        made.fit(autoencoder(lightning), loader())
        made.save_checkpoint(tmp_path / "mine.ckpt")

    assert of(events.Artifact, heard) == []


@pytest.mark.usefixtures("captured")
def test_an_exception_is_noted_and_passes_through_unchanged(framework: Any) -> None:
    error = OSError("the loader broke")

    class Breaking(framework.Callback):  # type: ignore[misc, name-defined]  # known at run time only
        def on_train_batch_end(self, *_: Any) -> None:
            raise error

    made = trainer(framework, callbacks=[Breaking()])
    with capture_events() as heard, pytest.raises(OSError, match="the loader broke") as raised:
        made.fit(autoencoder(framework), loader())

    assert raised.value is error
    assert [(one.name, one.body) for one in of(events.Entry, heard)] == [("exception", "OSError: the loader broke")]
    assert made.loggers == []


def test_an_exception_that_ends_the_program_fails_the_run_and_keeps_its_step(tmp_path: Path) -> None:
    import journals  # type: ignore[import-not-found]  # found on the path of the suite
    import programs

    here = str(Path(__file__).parent)
    done = programs.run(
        f"""
        import sys
        sys.path.insert(0, {here!r})
        import lightning.pytorch as L
        import tracer
        from lit_programs import QUIET, autoencoder, images
        from torch.utils.data import DataLoader
        from tracer.capture.patching import patches

        patches.start(["lightning"])
        tracer.init(project="p")
        class Breaking(L.Callback):
            def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
                if batch_idx == 2:
                    raise OSError("the loader broke")
        made = L.Trainer(**QUIET, logger=False, enable_checkpointing=False, callbacks=[Breaking()])
        made.fit(autoencoder(L), DataLoader(images(), batch_size=8))
        """,
        code=1,
    )

    from tracer import runfile

    folder = journals.only_run(tmp_path / ".tracer")
    facts = runfile.read(str(folder))
    assert "OSError: the loader broke" in done.stderr
    assert (facts["status"], facts["reason"]) == ("failed", "OSError: the loader broke")
    assert list((folder / "capsules").iterdir()) != []


@pytest.mark.usefixtures("captured")
def test_every_step_is_recorded_where_that_is_asked_for(lightning: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.capture.lightning_callback.setting", lambda *_, **__: True)
    with capture_events() as heard:
        trainer(lightning, log_every_n_steps=3, accumulate_grad_batches=2).fit(
            classifier(lightning), datamodule=data_module(lightning)
        )
        module = autoencoder(lightning)
        trainer(lightning, log_every_n_steps=3).fit(module, loader())

    series = scalars(heard)
    assert list(series["train_loss_step"]) == [0, 1, 2, 3]
    assert list(series["training_2/train_loss"]) == [0, 1, 2, 3]
    assert len(of(events.Scalars, heard)) == len({(*one.values, one.step) for one in of(events.Scalars, heard)})


def test_a_callback_of_the_programs_own_wins(framework: Any, tmp_path: Path) -> None:
    import journals

    patches.start(["lightning"])
    ours = LightningCallback("p", checkpoint_interval=100, **CALMLY)
    made = trainer(framework, callbacks=[ours], log_every_n_steps=1)
    made.fit(autoencoder(framework), loader())

    points = [point[:2] for point in journals.points(journals.only_run(tmp_path / ".tracer"))]
    assert [step for name, step in points if name == "train_loss"] == [1, 2, 3, 4]
    assert made.loggers == []


@pytest.mark.usefixtures("captured")
def test_a_trainer_without_loggers_behaves_as_one(framework: Any, tmp_path: Path) -> None:
    seen: dict[str, object] = {}

    class Looks(framework.Callback):  # type: ignore[misc, name-defined]  # known at run time only
        def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            seen["logger"] = bool(pl_module.logger)
            seen["log_dir"] = trainer.log_dir
            pl_module.logger.experiment.add_image("a", None)
            pl_module.logger.log_image("a", None)

    made = trainer(framework, callbacks=[Looks()], default_root_dir=tmp_path, enable_checkpointing=True)
    with capture_events():
        made.fit(autoencoder(framework), loader())

    assert seen == {"logger": False, "log_dir": str(tmp_path)}
    assert made.checkpoint_callback.dirpath == str(tmp_path / "checkpoints")
    assert made.loggers == []


@pytest.mark.usefixtures("captured")
def test_the_search_for_a_learning_rate_is_not_recorded(lightning: Any) -> None:
    class Tunable(type(autoencoder(lightning))):  # type: ignore[misc]  # known at run time only
        lr = 0.01

    from lightning.pytorch.tuner import Tuner

    like = autoencoder(lightning)
    made = trainer(lightning)
    with capture_events() as heard:
        Tuner(made).lr_find(Tunable(like.encoder, like.decoder), loader(), num_training=8, update_attr=False)

    assert [event for event in heard if type(event) is not events.Metadata] == []


def test_a_trainer_made_before_is_heard_and_after_the_end_no_more(framework: Any) -> None:
    early = trainer(framework, log_every_n_steps=1)
    patches.start(["lightning"])
    with capture_events() as heard:
        early.fit(autoencoder(framework), loader())
    patches.stop()
    with capture_events() as after:
        trainer(framework, log_every_n_steps=1).fit(autoencoder(framework), loader())

    assert list(scalars(heard)["train_loss"]) == [0, 1, 2, 3]
    assert after == []


def test_a_hundred_starts_and_stops_leave_the_framework_as_it_was(framework: Any) -> None:
    from importlib import import_module

    package = framework.__name__
    places = [
        (framework.Trainer, "save_checkpoint"),
        (
            import_module(f"{package}.trainer.connectors.callback_connector")._CallbackConnector,
            "_attach_model_callbacks",
        ),
        (
            import_module(f"{package}.trainer.connectors.logger_connector.logger_connector")._LoggerConnector,
            "log_metrics",
        ),
    ]
    before = [vars(owner)[name] for owner, name in places]
    for _ in range(100):
        patches.start(["lightning"])
        assert [vars(owner)[name].__wrapped__ for owner, name in places] == before
        patches.stop()

    assert [vars(owner)[name] for owner, name in places] == before


def test_a_signature_that_changed_is_said_once_and_the_training_goes_on(
    lightning: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lightning.pytorch.trainer.connectors.callback_connector import _CallbackConnector
    from lightning.pytorch.trainer.connectors.logger_connector.logger_connector import _LoggerConnector

    attach, log = _CallbackConnector._attach_model_callbacks, _LoggerConnector.log_metrics

    def attach_otherwise(*given: Any) -> Any:
        return attach(*given)

    def log_otherwise(*given: Any, **named: Any) -> Any:
        return log(*given, **named)

    monkeypatch.setattr(_CallbackConnector, "_attach_model_callbacks", attach_otherwise)
    monkeypatch.setattr(_LoggerConnector, "log_metrics", log_otherwise)
    capsys.readouterr()
    patches.start(["lightning"])
    with capture_events() as heard:
        trainer(lightning, callbacks=[CapturingCallback()], log_every_n_steps=1).fit(autoencoder(lightning), loader())

    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tracer")]
    assert len(said) == 1
    assert "is not captured at _CallbackConnector._attach_model_callbacks" in said[0]
    assert "Your program is unaffected." in said[0]
    assert list(scalars(heard)["train_loss"]) == [0, 1, 2, 3]


@pytest.mark.usefixtures("captured")
def test_the_callback_can_be_copied_and_sent_to_another_process(framework: Any) -> None:
    callback = CapturingCallback()

    for made in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):  # noqa: S301 -- our own bytes
        assert isinstance(made, framework.Callback)
        assert isinstance(made, CapturingCallback)


@pytest.mark.usefixtures("captured")
def test_a_failure_of_ours_does_not_reach_the_training(lightning: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        message = "ours"
        raise ValueError(message)

    monkeypatch.setattr("tracer.capture.lightning_callback.hyperparameters", broken)
    with capture_events():
        module = train_autoencoder(lightning, lambda **options: trainer(lightning, **options))

    assert module.trainer.global_step == 16
