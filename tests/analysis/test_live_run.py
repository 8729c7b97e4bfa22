"""Live detection, reactions and rows as a program meets them: through `tracer.init`."""

from __future__ import annotations

import math
import os

import pytest
import torch

import tracer
from tracer.errors import TrainingAnomaly
from tracer.events import Finding
from tracer.storage import Store
from tracer.storage.fold import try_fold

QUIET = {
    "track_git": False,
    "track_environment": False,
    "track_system_metrics": False,
    "quiet": True,
    "maintain": "off",
}


def stored(run_id: str, *, folded: bool = False) -> list[tuple[str, int, int | None]]:
    """Return the findings of a run, from its journal or from the catalog."""
    with Store.open(os.path.join(os.getcwd(), ".tracer")) as store:
        if folded:
            try_fold(store, run_id)
        return [(one.kind, one.step, one.last_step) for one in store.findings(run_id)]


def test_a_training_is_stopped_at_the_step_whose_loss_is_no_number() -> None:
    steps: list[int] = []
    run = tracer.init(on_anomaly="raise", **QUIET)

    def train() -> None:
        for step in range(600):
            tracer.log({"loss": math.nan if step >= 40 else 0.5})
            steps.append(step)
            tracer.step()

    with pytest.raises(TrainingAnomaly, match="nan_or_inf"):
        train()
    tracer.finish()

    assert 40 <= steps[-1] <= 40 + 256  # steps of microseconds are not all looked at
    assert stored(run.id)[0][:2] == ("nan_or_inf", 40)


def test_a_function_is_called_and_the_training_goes_on() -> None:
    seen: list[Finding] = []
    with tracer.init(on_anomaly=seen.append, checkpoint_interval=7, **QUIET):
        for step in range(50):
            tracer.log({"loss": math.inf if step >= 20 else 0.5})
            tracer.step()

    assert [(one.kind, one.step) for one in seen] == [("nan_or_inf", 20)]
    assert tracer.get_step() == 0


@pytest.mark.parametrize("folded", [False, True])
def test_a_trouble_that_lasts_is_one_finding_from_its_first_to_its_last_step(*, folded: bool) -> None:
    with tracer.init(**QUIET) as run:
        for step in range(50):
            tracer.log({"loss": math.nan if step >= 20 else 0.5})
            tracer.step()

    assert stored(run.id, folded=folded) == [("nan_or_inf", 20, 49)]


def test_rows_of_a_loader_are_told_and_the_broken_one_is_found() -> None:
    torch.manual_seed(0)
    inputs, targets = torch.randn(512, 4), torch.randint(0, 3, (512,))
    inputs[88] *= 1000
    model = torch.nn.Linear(4, 3)
    data = torch.utils.data.TensorDataset(inputs, targets)
    loader = tracer.with_rows(torch.utils.data.DataLoader(data, batch_size=32, shuffle=True))
    with tracer.init(**QUIET) as run:
        for batch, labels in loader:
            losses = torch.nn.functional.cross_entropy(model(batch), labels, reduction="none")
            tracer.rows(loss=losses)
            tracer.log({"loss": losses.mean()})
            tracer.step()

    with Store.open(os.path.join(os.getcwd(), ".tracer")) as store:
        [found] = [one for one in store.findings(run.id) if one.kind == "bad_rows"]
    assert [row["row"] for row in found.details["rows"]] == [88]


def test_live_detection_can_be_switched_off() -> None:
    with tracer.init(detect_anomalies=False, **QUIET) as run:
        for step in range(30):
            tracer.log({"loss": math.nan if step >= 20 else 0.5})
            tracer.rows([step])
            tracer.step()

    assert stored(run.id) == []
