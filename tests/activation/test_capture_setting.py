"""The setting `capture`: what a run listens to, from its beginning to its end and no longer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from programs import CALMLY

import tracer
from tracer.capture.patching import patches
from tracer.errors import ConfigError
from tracer.storage import Store

tensorboardX = pytest.importorskip("tensorboardX", reason="needs tensorboardX")  # noqa: N816 -- its name

from tensorboardX.writer import FileWriter  # noqa: E402 -- what may be missing comes first


def begin(name: str, **settings: object) -> Any:  # noqa: ANN401 -- a run
    """Begin a run that listens to writers."""
    return tracer.init(
        project="p", run_name=name, **{"capture": ["tensorboard"], **CALMLY, "track_code": False, **settings}
    )


def losses() -> dict[str, list[float]]:
    """Return the losses of all runs by name."""
    with Store.open(".tracer") as store:
        return {row.name: store.series(row.uid, "loss").value.tolist() for row in store.runs()}


def test_each_run_hears_what_is_written_while_it_lives_and_nothing_else() -> None:
    original = vars(FileWriter)["add_event"]
    writer = tensorboardX.SummaryWriter("logs")  # before anything listens

    writer.add_scalar("loss", 0.0, 0)
    for number in range(100):
        with begin(f"run{number}"):
            assert FileWriter.add_event.__wrapped__ is original
            writer.add_scalar("loss", float(number), number)
        assert vars(FileWriter)["add_event"] is original
        writer.add_scalar("loss", -1.0, number)
    writer.close()

    assert losses() == {f"run{number}": [float(number)] for number in range(100)}


def test_a_run_that_was_not_asked_patches_nothing() -> None:
    original, finders = vars(FileWriter)["add_event"], list(sys.meta_path)

    with begin("deaf", capture=[]) as run:
        assert vars(FileWriter)["add_event"] is original
        assert sys.meta_path == finders
        assert (run.capture_report(), patches.is_on("tensorboard")) == ([], False)


def test_an_unknown_framework_is_refused_before_anything_is_made() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'tensorboard'"):
        begin("none", capture=["tensorbord"])

    assert not Path(".tracer").exists()


def test_the_report_of_a_run_stays_after_its_end() -> None:
    with begin("told", capture=["tensorboard", "lightgbm"]) as run:
        writer = tensorboardX.SummaryWriter("logs")
        writer.add_scalar("loss", 1.0, 0)
        writer.close()

    rows = {(row["module"], row["attribute"]): row for row in run.capture_report()}
    heard = rows["tensorboardX.writer", "FileWriter.add_event"]
    assert (heard["state"], heard["untested"], heard["version"]) == ("active", False, tensorboardX.__version__)
    assert heard["events"] >= 1
    assert {row["framework"] for row in run.capture_report()} >= {"tensorboard", "lightgbm"}


def test_a_finished_run_captures_nothing_while_its_program_goes_on() -> None:
    run = begin("ended")
    writer = tensorboardX.SummaryWriter("logs")
    writer.add_scalar("loss", 1.0, 0)
    run.finish()
    writer.add_scalar("loss", 2.0, 1)
    writer.close()

    assert losses() == {"ended": [1.0]}
