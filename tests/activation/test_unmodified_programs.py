"""Programs as the frameworks' own pages write them, unmodified, under `tracer run`, beside an independent recording.

What each framework writes itself is read by its own reader: TensorBoard's event files, Lightning's CSV, the Trainer's
history, the file of W&B, the store of MLflow. Keras, scikit-learn and the boosting packages have the same in their own
folders.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from programs import run as run_program

from tracer.storage import Store

HF = Path(__file__).resolve().parent.parent / "capture" / "hf" / "programs"
RUN = [sys.executable, "-m", "tracer", "run"]
Curves = dict[str, dict[int, float]]

CURVES = """
from {package} import SummaryWriter
import numpy as np

writer = SummaryWriter("runs/curves")
for n_iter in range(50):
    writer.add_scalar("Loss/train", np.random.random(), n_iter)
    writer.add_scalar("Loss/test", np.random.random(), n_iter)
writer.close()
"""
REGRESSION = """
import torch
from {package} import SummaryWriter
writer = SummaryWriter("runs/line")

x = torch.arange(-5, 5, 0.1).view(-1, 1)
y = -5 * x + 0.1 * torch.randn(x.size())
model = torch.nn.Linear(1, 1)
criterion = torch.nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

for epoch in range(10):
    loss = criterion(model(x), y)
    writer.add_scalar("Loss/train", loss, epoch)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
writer.flush()
writer.close()
"""
LIT = """
import torch
from torch import nn
import {package} as L
from {package}.loggers import CSVLogger

class LitAutoEncoder(L.LightningModule):
    def __init__(self, width=8, lr=1e-3):
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 3))
        self.decoder = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 16))

    def training_step(self, batch, batch_idx):
        (x,) = batch
        loss = nn.functional.mse_loss(self.decoder(self.encoder(x)), x)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        (x,) = batch
        self.log("val_loss", nn.functional.mse_loss(self.decoder(self.encoder(x)), x))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)

data = torch.utils.data.TensorDataset(torch.randn(64, 16))
loader = torch.utils.data.DataLoader(data, batch_size=8)
trainer = L.Trainer(
    max_epochs=2, accelerator="cpu", logger=CSVLogger("csv"), log_every_n_steps={every}, enable_progress_bar=False
)
trainer.fit(LitAutoEncoder(), loader, loader)
"""
WANDB_RUN = """
import random
import wandb

with wandb.init(project="my-first-project", config={"learning_rate": 0.02, "epochs": 10}) as run:
    for epoch in range(2, 10):
        run.log({"acc": 1 - 2**-epoch - random.random() / epoch, "loss": 2**-epoch + random.random() / epoch})
"""
WANDB_MODULE = """
import wandb

wandb.init(project="module", config={"lr": 0.1})
for epoch in range(6):
    wandb.log({"epoch": epoch, "val": {"accuracy": epoch / 6}})
wandb.finish()
"""
MLFLOW_RUN = """
import mlflow

mlflow.set_experiment("quick start")
with mlflow.start_run():
    mlflow.log_params({"lr": 0.01})
    for epoch in range(6):
        mlflow.log_metrics({"train_loss": 1.0 / (epoch + 1), "accuracy": epoch / 6}, step=epoch)
"""
MLFLOW_CLIENT = """
from mlflow import MlflowClient

client = MlflowClient()
run = client.create_run("0")
for step in range(6):
    client.log_metric(run.info.run_id, "loss", 1.0 / (step + 1), step=step)
client.set_terminated(run.info.run_id)
"""


def tensorboard() -> Curves:
    """Return what TensorBoard reads in the event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: Curves = {}
    for folder in {path.parent for path in Path().rglob("*tfevents*")}:
        reader = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        for tag in reader.Tags()["scalars"]:
            found.setdefault(tag, {}).update({event.step: event.value for event in reader.Scalars(tag)})
    return found


def lightning() -> Curves:
    """Return what Lightning's CSV holds; the epoch is no metric."""
    (path,) = Path("csv").rglob("metrics.csv")
    found: Curves = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, text in row.items():
                if text and name not in ("step", "epoch"):
                    found.setdefault(name, {})[int(row["step"])] = float(text)
    return found


def trainer() -> Curves:
    """Return what the Trainer remembers, without the final values that stand in the summary."""
    (path,) = Path().glob("*/trainer_state.json")
    found: Curves = {}
    for entry in json.loads(path.read_text(encoding="utf-8"))["log_history"]:
        for name, value in entry.items():
            if name not in ("step", "epoch"):
                found.setdefault(name, {})[entry["step"]] = value
    return found


def wandb() -> Curves:
    """Return what W&B's own reader finds in its file."""
    (file,) = Path("wandb").glob("offline-run-*/*.wandb")
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(file)]
    found: Curves = {}
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        record = json.loads(line) if line.startswith("{") else {"type": ""}
        if record["type"] == "history":
            said = record["history"].get("item", record["history"])
            flat = dict(_flat(said, ""))
            for name, value in flat.items():
                if not name.startswith("_"):
                    found.setdefault(name.replace(".", "/"), {})[int(flat["_step"])] = value  # nested names
    return found


def _flat(values: dict[str, object], prefix: str) -> list[tuple[str, float]]:
    """Return nested values by their path."""
    found: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            found.append((prefix + name, float(value)))
    return found


def mlflow() -> Curves:
    """Return what MLflow's client reads in its store."""
    read = (
        "import json, mlflow; c = mlflow.MlflowClient(); found = {}\n"
        "for one in c.search_runs(['0', '1']):\n"
        "    for name in one.data.metrics:\n"
        "        found[name] = {m.step: m.value for m in c.get_metric_history(one.info.run_id, name)}\n"
        "print(json.dumps(found))"
    )
    said = run_program(read, env=ENVIRONMENT).stdout.splitlines()[-1]
    return {name: {int(step): value for step, value in curve.items()} for name, curve in json.loads(said).items()}


ENVIRONMENT = {
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "WANDB_X_DISABLE_STATS": "true",
    "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
MATRIX = {
    "torch curves": (CURVES.format(package="torch.utils.tensorboard"), tensorboard),
    "torch regression": (REGRESSION.format(package="torch.utils.tensorboard"), tensorboard),
    "tensorboardX curves": (CURVES.format(package="tensorboardX"), tensorboard),
    "tensorboardX regression": (REGRESSION.format(package="tensorboardX"), tensorboard),
    "lightning": (LIT.replace("{package}", "lightning.pytorch").replace("{every}", "1"), lightning),
    "lightning, every third": (LIT.replace("{package}", "lightning.pytorch").replace("{every}", "3"), lightning),
    "pytorch_lightning": (LIT.replace("{package}", "pytorch_lightning").replace("{every}", "1"), lightning),
    "pytorch_lightning, third": (LIT.replace("{package}", "pytorch_lightning").replace("{every}", "3"), lightning),
    "transformers quick start": ((HF / "quick_start.py").read_text(encoding="utf-8"), trainer),
    "transformers classification": ((HF / "classification.py").read_text(encoding="utf-8"), trainer),
    "accelerate tracking": ((HF / "tracking.py").read_text(encoding="utf-8"), tensorboard),
    "accelerate accumulation": ((HF / "accumulation.py").read_text(encoding="utf-8"), tensorboard),
    "wandb run": (WANDB_RUN, wandb),
    "wandb module": (WANDB_MODULE, wandb),
    "mlflow": (MLFLOW_RUN, mlflow),
    "mlflow client": (MLFLOW_CLIENT, mlflow),
}


def ours() -> tuple[Curves, str]:
    """Return what the newest run holds of each metric but the machine's, and how it ended."""
    with Store.open(".tracer") as store:
        row = store.run("@last")
        names = {one.metric for one in store.metrics(row.uid) if not one.metric.startswith(("system/", "tracer/"))}
        found = {name: store.series(row.uid, name) for name in names}
        status = row.status
    return {name: dict(zip(one.step.tolist(), one.value.tolist(), strict=True)) for name, one in found.items()}, status


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("name", MATRIX)
def test_what_is_recorded_is_what_the_framework_records_itself(name: str) -> None:
    program, theirs = MATRIX[name]
    reader: Callable[[], Curves] = theirs

    run_program(program, before=RUN, env=ENVIRONMENT, calm=False)

    recorded, status = ours()
    expected = reader()
    assert expected
    if name.startswith("accelerate"):  # TensorBoard keeps 32 bits, and puts at step 0 what is given no step
        only = {metric for metric, curve in expected.items() if list(curve) == [0]}
        recorded = {one: {0: curve.popitem()[1]} if one in only else curve for one, curve in recorded.items()}
        assert recorded == {metric: pytest.approx(curve) for metric, curve in expected.items()}
    else:
        assert {metric: recorded[metric] for metric in expected} == expected
        more = {one for one in recorded if one not in expected}
        assert {one for one in more if not one.startswith(("epoch", "test_"))} == set()
    assert status == "completed"
