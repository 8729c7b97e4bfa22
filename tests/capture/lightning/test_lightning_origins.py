"""One value, one row: whatever else Lightning feeds, and whoever of ours listens."""

# ruff: noqa: ANN401 -- the framework decides what it hands over, and of what type

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import journals  # type: ignore[import-not-found]  # found on the path of the suite
import pytest
from lit_programs import CALMLY, QUIET, classifier, data_module

import tracer
from tracer.capture.origins import fed_by
from tracer.capture.patching import patches
from tracer.integrations import LightningCallback, TracerLogger

LISTENERS = ("zero-code", "callback", "both", "logger", "logger and zero-code", "following callback")


def train(framework: Any, listener: str, *, board: bool, beside: bool, **options: Any) -> None:
    """Train with a TensorBoard writer or none, and with one of our listeners or several."""

    class Beside(framework.Callback):  # type: ignore[misc, name-defined]  # known at run time only
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            tracer.log({"mine": 1.0}, step=trainer.global_step)

    zero = listener in ("zero-code", "both", "logger and zero-code")
    patches.start(["tensorboard", *(["lightning"] if zero else [])])
    callbacks: list[Any] = [Beside()] if beside else []
    if listener in ("callback", "both", "following callback"):
        callbacks.append(LightningCallback("p", capture_every_step=listener != "following callback"))
    loggers: list[Any] = [framework.loggers.TensorBoardLogger("board")] if board else []
    if "logger" in listener:
        loggers.append(TracerLogger("p"))
    with tracer.init(project="p", track_gradients=False, **CALMLY):
        framework.Trainer(
            **{**QUIET, "max_epochs": 2, "log_every_n_steps": 2, "enable_checkpointing": False, **options},
            logger=loggers,
            callbacks=callbacks,
        ).fit(classifier(framework), datamodule=data_module(framework))


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "with tracer.log"])
@pytest.mark.parametrize("board", [False, True], ids=["no writer", "a writer"])
@pytest.mark.parametrize("listener", LISTENERS)
def test_each_name_and_step_has_one_row(
    lightning: Any,
    tmp_path: Path,
    listener: str,
    board: bool,  # noqa: FBT001 -- the case
    beside: bool,  # noqa: FBT001 -- as above
) -> None:
    train(lightning, listener, board=board, beside=beside)

    points = journals.points(journals.only_run(tmp_path / ".tracer"))
    rows = Counter((name, step) for name, step, _ in points if not name.startswith("tracer/"))
    assert {where: count for where, count in rows.items() if count > 1} == {}
    steps = sorted(step for name, step in rows if name == "train_loss_step")
    by_hand = listener in ("callback", "both")
    assert steps == (list(range(1, 17)) if by_hand else list(range(1, 16, 2)))
    assert [step for name, step in rows if name == "mine"] == (list(range(1, 17)) if beside else [])


def test_without_capture_of_lightning_the_copy_is_kept(lightning: Any, tmp_path: Path) -> None:
    train(lightning, "nobody", board=True, beside=False)

    points = journals.points(journals.only_run(tmp_path / ".tracer"))
    assert [step for name, step, _ in points if name == "train_loss_step"] == list(range(1, 16, 2))


def test_what_a_program_itself_gives_its_writer_is_no_copy(framework: Any, tmp_path: Path) -> None:
    class Writes(framework.Callback):  # type: ignore[misc, name-defined]  # known at run time only
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.logger.log_metrics({"given": 1.0}, step=trainer.global_step)
            trainer.logger.experiment.add_scalar("written", 2.0, trainer.global_step)

    patches.start(["tensorboard", "lightning"])
    with tracer.init(project="p", track_gradients=False, **CALMLY):
        made = framework.Trainer(
            **QUIET,
            max_epochs=1,
            limit_train_batches=3,
            enable_checkpointing=False,
            logger=framework.loggers.TensorBoardLogger("board"),
            callbacks=[Writes()],
        )
        made.fit(classifier(framework), datamodule=data_module(framework))

    points = journals.points(journals.only_run(tmp_path / ".tracer"))
    assert [point[1:] for point in points if point[0] == "given"] == [(1, 1.0), (2, 1.0), (3, 1.0)]
    assert [point[1:] for point in points if point[0] == "written"] == [(1, 2.0), (2, 2.0), (3, 2.0)]


def test_every_logger_of_a_trainer_is_fed_under_the_mark(framework: Any) -> None:
    fed: set[str | None] = set()

    class Elsewhere(framework.loggers.CSVLogger):  # type: ignore[misc, name-defined]  # known at run time only
        def log_metrics(self, metrics: Any, step: Any = None) -> None:  # noqa: ARG002 -- as Lightning calls it
            fed.add(fed_by())

    patches.start(["lightning"])
    made = framework.Trainer(
        **QUIET, max_epochs=1, log_every_n_steps=1, enable_checkpointing=False, logger=Elsewhere("csv")
    )
    made.fit(classifier(framework), datamodule=data_module(framework))

    assert fed == {"lightning"}
    assert fed_by() is None
