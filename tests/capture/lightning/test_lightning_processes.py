"""Two processes that Lightning starts itself, under `tracer run` and without a word of the program."""

from __future__ import annotations

import sys
from pathlib import Path

import journals  # type: ignore[import-not-found]  # found on the path of the suite
import programs  # type: ignore[import-not-found]  # as above
import pytest
from lit_programs import recorded, written


@pytest.mark.slow
def test_two_processes_under_tracer_run_are_one_run_with_the_values_of_the_csv_logger(tmp_path: Path) -> None:
    programs.run(
        f"""
        import sys, warnings
        warnings.simplefilter("ignore")
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import lightning.pytorch as L
        from lit_programs import QUIET, classifier, data_module

        L.Trainer(**QUIET, max_epochs=1, log_every_n_steps=1, enable_checkpointing=False, strategy="ddp", devices=2,
                  logger=L.loggers.CSVLogger("csv")).fit(classifier(L), datamodule=data_module(L))
        """,
        before=[str(Path(sys.prefix) / "bin" / "tracer"), "run"],
        env={"POSSIBLE_USER_WARNINGS": "off", "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"},
    )

    store = tmp_path / ".tracer"
    assert list(recorded(store)["train_loss_step"]) == [0, 1, 2, 3]
    assert recorded(store) == written(tmp_path / "csv")
    journals.only_run(store)
