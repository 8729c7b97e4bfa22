"""A real Trainer of Lightning, under both of its names, recorded."""

# ruff: noqa: ANN401, ARG002 -- the framework decides what it hands over, and of what type

from __future__ import annotations

import copy
import importlib
import math
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip("lightning", reason="needs lightning")

import tracer
from tracer.integrations import LightningCallback

# What Lightning says of its own insides, such as the parts of torch it uses.
WARNINGS = ("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings(*WARNINGS)]


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def framework(request: pytest.FixtureRequest) -> Any:
    """Return Lightning by either name."""
    pytest.importorskip(request.param, reason=f"needs {request.param}")
    return importlib.import_module(request.param)


@pytest.fixture
def lightning() -> Any:
    """Return Lightning."""
    return importlib.import_module("lightning.pytorch")


def module(framework: Any, **options: Any) -> Any:  # noqa: C901 -- the methods of one class
    """Return a linear model: five batches an epoch."""

    class Linear(framework.LightningModule):  # type: ignore[misc, name-defined]  # known at run time only
        def __init__(self, lr: float = 0.1, break_at: int = -1, optimizers: int = 1) -> None:
            super().__init__()
            self.save_hyperparameters("lr")
            self.layer, self.break_at, self.optimizer_count = nn.Linear(4, 1), break_at, optimizers
            self.automatic_optimization = optimizers == 1
            self.losses: list[float] = []

        def loss(self, batch: list[torch.Tensor]) -> torch.Tensor:
            inputs, targets = batch
            return (self.layer(inputs) - targets).square().mean()

        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            if self.global_step == self.break_at:
                message = "the loader broke"
                raise OSError(message)
            loss = self.loss(batch)
            self.losses.append(loss.item())
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            if batch_idx % 2 == 0:
                self.log("rare", float(batch_idx))
            if not self.automatic_optimization:
                for optimizer in self.optimizers():
                    optimizer.zero_grad()
                    self.manual_backward(self.loss(batch))
                    optimizer.step()
            return loss

        def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
            self.log("val_loss", self.loss(batch))

        def test_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
            self.log("test_loss", self.loss(batch))

        def configure_optimizers(self) -> Any:
            made = [torch.optim.SGD(self.parameters(), lr=self.hparams["lr"]) for _ in range(self.optimizer_count)]
            return made[0] if len(made) == 1 else made

    return Linear(**options)


def loader() -> DataLoader[tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(40, 4, generator=generator), torch.randn(40, 1, generator=generator)
    return DataLoader(TensorDataset(inputs, targets), batch_size=8)


def trainer(framework: Any, callback: object, **options: Any) -> Any:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return framework.Trainer(**{"max_epochs": 2, "accelerator": "cpu", **quiet, "callbacks": [callback], **options})


def test_the_callback_is_one_of_the_framework_and_has_its_other_name(framework: Any) -> None:
    from tracer.integrations.lightning import TracerCallback

    callback = LightningCallback("p")

    assert TracerCallback is LightningCallback
    assert isinstance(callback, framework.Callback)
    assert isinstance(callback, LightningCallback)
    assert type(callback).__name__ == "LightningCallback"


def test_every_step_of_what_the_module_logs_is_recorded_at_the_global_step(framework: Any, recorded: Any) -> None:
    model = module(framework)
    trainer(framework, LightningCallback("p", "lit", checkpoint_interval=5)).fit(model, loader(), loader())

    run = recorded()
    assert (run.row.name, run.row.status, run.row.steps) == ("lit", "completed", 10)
    assert run.row.config == {"lr": 0.1}
    assert list(run.series("train_loss_step")) == list(range(1, 11))
    assert list(run.series("train_loss_step").values()) == pytest.approx(model.losses)
    assert list(run.series("val_loss")) == [5, 10]
    assert run.series("train_loss_epoch") == pytest.approx(
        {5: sum(model.losses[:5]) / 5, 10: sum(model.losses[5:]) / 5}, rel=1e-5
    )
    assert run.series("rare") == {1: 0.0, 3: 2.0, 5: 4.0, 6: 0.0, 8: 2.0, 10: 4.0}
    assert set(run.series("lr").values()) == {0.1}
    assert "train_loss" not in run.metrics()  # now a step's value, now an epoch's: its two names say which


def test_gradients_are_measured_although_they_are_computed_inside_the_optimizers_step(
    framework: Any, recorded: Any
) -> None:
    trainer(framework, LightningCallback("p", checkpoint_interval=5)).fit(module(framework), loader())

    norms = recorded().norms()
    assert {5, 10} <= set(norms)
    assert all(norm > 0 for by_layer in norms.values() for norm in by_layer.values())


def test_accumulated_batches_are_one_step(lightning: Any, recorded: Any) -> None:
    model = module(lightning)
    trainer(lightning, LightningCallback("p"), accumulate_grad_batches=2, max_epochs=1).fit(model, loader())

    run = recorded()
    assert run.row.steps == 3
    assert list(run.series("train_loss_step")) == [0, 1, 2, 3]  # of the batches at one step the last


def test_two_optimizers_advance_the_step_by_two(lightning: Any, recorded: Any) -> None:
    trainer(lightning, LightningCallback("p", checkpoint_interval=5), max_epochs=1).fit(
        module(lightning, optimizers=2), loader()
    )

    run = recorded()
    assert run.row.steps == 10
    assert list(run.series("lr/1")) == [2, 4, 6, 8, 10]
    assert {5, 10} <= set(run.norms())


def test_an_exception_makes_the_run_failed_with_its_reason(framework: Any, recorded: Any) -> None:
    with pytest.raises(OSError, match="the loader broke"):
        trainer(framework, LightningCallback("p")).fit(module(framework, break_at=3), loader())

    run = recorded()
    assert run.row.status == "failed"
    assert "the loader broke" in run.row.reason
    assert list(run.series("train_loss_step")) == [1, 2, 3]


def test_a_test_afterwards_goes_to_the_same_run(lightning: Any, recorded: Any) -> None:
    model, training = module(lightning), trainer(lightning, LightningCallback("p"))
    training.fit(model, loader())
    training.test(model, loader(), verbose=False)

    run = recorded()
    assert run.runs() == 1
    assert list(run.series("test_loss")) == [10]
    assert run.row.status == "completed"


def test_a_run_of_the_program_is_joined_and_left_open(lightning: Any, recorded: Any) -> None:
    with tracer.init(project="mine", config={"lr": 7}, quiet=True) as run:
        trainer(lightning, LightningCallback("other")).fit(module(lightning), loader())
        assert tracer.get_run_id() == run.run_id

    found = recorded()
    assert (found.runs(), found.row.project, found.row.steps) == (1, "mine", 10)


def test_the_trial_validation_before_the_training_is_not_recorded(lightning: Any, recorded: Any) -> None:
    trainer(lightning, LightningCallback("p"), num_sanity_val_steps=2, max_epochs=1).fit(
        module(lightning), loader(), loader()
    )

    assert list(recorded().series("val_loss")) == [5]


def test_checkpoints_of_the_trainer_stay_where_they_were(lightning: Any, tmp_path: Path) -> None:
    for callback in (lightning.Callback(), LightningCallback("p", storage_path=str(tmp_path / "store"))):
        root = tmp_path / type(callback).__name__
        trainer(lightning, callback, default_root_dir=root, enable_checkpointing=True).fit(module(lightning), loader())

    files = [
        sorted(str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*"))
        for name in ("Callback", "LightningCallback")
    ]
    assert files[0] == files[1] != []


def test_a_nan_is_recorded_as_it_is(lightning: Any, recorded: Any) -> None:
    model = module(lightning)
    with torch.no_grad():
        model.layer.weight.fill_(math.nan)
    trainer(lightning, LightningCallback("p"), max_epochs=1).fit(model, loader())

    assert all(math.isnan(loss) for loss in recorded().series("train_loss_step").values())


def test_a_callback_can_be_copied_and_sent_to_another_process(framework: Any) -> None:
    callback = LightningCallback("p", "n", checkpoint_interval=7)

    for made in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):  # noqa: S301 -- our own bytes
        assert isinstance(made, framework.Callback)
        assert (made._session.project, made._session.run_name) == ("p", "n")
        assert made._session.settings == {"checkpoint_interval": 7}


def test_the_framework_the_program_has_loaded_is_the_one_that_is_used() -> None:
    program = """
import sys
from tracer.integrations import LightningCallback
assert not {"lightning", "pytorch_lightning", "torch"} & set(sys.modules)
import pytorch_lightning
print(isinstance(LightningCallback("p"), pytorch_lightning.Callback), "lightning" in sys.modules)
"""

    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "True False\n"


def test_without_lightning_the_command_that_brings_it_is_named() -> None:
    source = Path(tracer.__file__).parent.parent
    program = f"import sys; sys.path.insert(0, {str(source)!r})\n"
    program += "from tracer.integrations import LightningCallback; LightningCallback('p')"

    # Without `site` this Python has no packages at all.
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=False)

    assert "LightningCallback needs the lightning package, which is not installed." in done.stderr
    assert "pip install 'ml-tracer[lightning]'" in done.stderr
