"""Programs as Lightning's documents write them, on random data, each recorded by Tracer and by Lightning's `CSVLogger`.

Imported by the tests, and run as a program of its own with the name of a package: by the other version of Lightning.
"""

# ruff: noqa: ANN001, ANN202, ANN204, ANN401, ARG002 -- Lightning's own style; the framework is known at run time only
# mypy: ignore-errors

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import os
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

#: A run that only records.
CALMLY = {
    "quiet": True,
    "maintain": "off",
    "track_git": False,
    "track_environment": False,
    "track_system_metrics": False,
    "track_arguments": False,
    "track_code": False,
}
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


def images(count: int = 32, seed: int = 0) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.rand(count, 1, 4, 4, generator=generator), torch.arange(count) % 2)


def autoencoder(framework: Any) -> Any:
    encoder = nn.Sequential(nn.Linear(4 * 4, 8), nn.ReLU(), nn.Linear(8, 3))
    decoder = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4 * 4))

    class LitAutoEncoder(framework.LightningModule):
        def __init__(self, encoder, decoder):
            super().__init__()
            self.encoder = encoder
            self.decoder = decoder

        def training_step(self, batch, batch_idx):
            x, _ = batch
            x = x.view(x.size(0), -1)
            z = self.encoder(x)
            x_hat = self.decoder(z)
            loss = functional.mse_loss(x_hat, x)
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    return LitAutoEncoder(encoder, decoder)


def classifier(framework: Any, **options: Any) -> Any:
    class LitClassifier(framework.LightningModule):
        def __init__(self, hidden: int = 8, lr: float = 0.1, act: str = "ReLU"):
            super().__init__()
            self.save_hyperparameters()
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, hidden), getattr(nn, act)(), nn.Linear(hidden, 2))

        def loss_of(self, batch):
            x, y = batch
            logits = self.net(x)
            return functional.cross_entropy(logits, y), (logits.argmax(1) == y).float().mean()

        def training_step(self, batch, batch_idx):
            loss, accuracy = self.loss_of(batch)
            self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
            self.log_dict({"python": float(batch_idx), "numpy": accuracy.numpy()[()], "tensor": accuracy})
            if batch_idx % 2 == 0:
                self.log("rare", accuracy.numpy()[()])
            return loss

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            loss, accuracy = self.loss_of(batch)
            self.log_dict({"val_loss": loss, "val_acc": accuracy}, on_step=dataloader_idx == 0, on_epoch=True)

        def test_step(self, batch, batch_idx):
            self.log("test_loss", self.loss_of(batch)[0])

        def predict_step(self, batch, batch_idx):
            return self.net(batch[0])

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams.lr)
            return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1)}

    return LitClassifier(**options)


def data_module(framework: Any) -> Any:
    class RandomData(framework.LightningDataModule):
        def __init__(self, batch_size: int = 4, folder: str = "data"):
            super().__init__()
            self.save_hyperparameters()

        def train_dataloader(self):
            return DataLoader(images(), batch_size=self.hparams.batch_size)

        def val_dataloader(self):
            return DataLoader(images(8, seed=1), batch_size=4)

        test_dataloader = predict_dataloader = val_dataloader

    return RandomData()


def adversaries(framework: Any) -> Any:
    class GAN(framework.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.G, self.D = nn.Linear(2, 16), nn.Linear(16, 1)

        def training_step(self, batch, batch_idx):
            g_opt, d_opt = self.optimizers()
            real = batch[0].flatten(1)
            noise = torch.ones(real.size(0), 2)
            fake = self.G(noise)
            errD = -self.D(real).mean() + self.D(fake.detach()).mean()  # noqa: N806 -- as the documents name it
            d_opt.zero_grad()
            self.manual_backward(errD)
            d_opt.step()
            errG = -self.D(fake).mean()  # noqa: N806 -- as the documents name it
            g_opt.zero_grad()
            self.manual_backward(errG)
            g_opt.step()
            self.log_dict({"g_loss": errG, "d_loss": errD}, prog_bar=True)

        def configure_optimizers(self):
            return [torch.optim.SGD(part.parameters(), lr=1e-2) for part in (self.G, self.D)]

    return GAN()


def train_autoencoder(framework: Any, trainer: Callable[..., Any]) -> Any:
    module = autoencoder(framework)
    trainer(limit_train_batches=100, max_epochs=2, log_every_n_steps=3).fit(module, DataLoader(images(), batch_size=4))
    return module


def train_with_data_module(framework: Any, trainer: Callable[..., Any]) -> Any:
    module, data = classifier(framework), data_module(framework)
    made = trainer(max_epochs=2, log_every_n_steps=2, val_check_interval=0.5)
    made.fit(module, datamodule=data)
    made.test(module, datamodule=data, verbose=False)
    made.predict(module, datamodule=data)
    return module


def train_with_accumulation_twice(framework: Any, trainer: Callable[..., Any]) -> Any:
    module, data = classifier(framework), data_module(framework)
    for _ in range(2):
        trainer(max_epochs=1, log_every_n_steps=1, accumulate_grad_batches=3).fit(module, datamodule=data)
    return module


def train_with_several_loaders(framework: Any, trainer: Callable[..., Any]) -> Any:
    module = classifier(framework)
    made = trainer(max_epochs=2, log_every_n_steps=1, num_sanity_val_steps=2)
    validation = [DataLoader(images(8, seed), batch_size=4) for seed in (1, 2)]
    made.fit(module, DataLoader(images(), batch_size=8), validation)
    made.validate(module, validation, verbose=False)
    return module


def train_adversaries(framework: Any, trainer: Callable[..., Any]) -> Any:
    module = adversaries(framework)
    trainer(max_epochs=2, log_every_n_steps=1).fit(module, DataLoader(images(), batch_size=8))
    return module


def train_from_checkpoint(framework: Any, trainer: Callable[..., Any]) -> Any:
    module, data = classifier(framework), data_module(framework)
    trainer(max_epochs=1, log_every_n_steps=3).fit(module, datamodule=data)
    path = max(Path().rglob("*.ckpt"), key=lambda found: found.stat().st_mtime_ns)
    module = classifier(framework)
    trainer(max_epochs=3, log_every_n_steps=3).fit(module, datamodule=data, ckpt_path=str(path))
    return module


PROGRAMS = {
    "autoencoder": train_autoencoder,
    "data module": train_with_data_module,
    "accumulation": train_with_accumulation_twice,
    "several loaders": train_with_several_loaders,
    "two optimizers": train_adversaries,
    "resumed": train_from_checkpoint,
}


def weights_hash(module: nn.Module) -> str:
    """Return what two modules with the same weights have in common."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def random_hash() -> str:
    """Return what two programs have in common that drew as much of each of the three random streams."""
    state = repr((random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()))  # noqa: NPY002
    return hashlib.sha256(state.encode()).hexdigest()


def written(folder: Path) -> dict[str, dict[int, float]]:
    """Return what `CSVLogger` wrote: name → step → value, of all versions below a folder.

    Each version is a training of its own, unless it goes on where the one before ended.
    """
    found: dict[str, dict[int, float]] = {}
    for number, path in enumerate(sorted(folder.rglob("metrics.csv")), 1):
        goes_on = number == 1 or "resumed" in folder.parts
        for row in csv.DictReader(path.open(encoding="utf-8")):
            for name, value in row.items():
                if name != "step" and value:
                    name = name if goes_on else f"training_{number}/{name}"  # noqa: PLW2901 -- the name it has with us
                    found.setdefault(name, {})[int(row["step"])] = float(value)
    return found


def recorded(store: Path) -> dict[str, dict[int, float]]:
    """Return what the newest run of a store holds, but for what is recorded beside."""
    from tracer.storage import Store

    with Store.open(store) as opened:
        uid = opened.run("@last").uid
        names = [row.metric for row in opened.metrics(uid) if not row.metric.startswith(("system/", "tracer/"))]
        series = {name: opened.series(uid, name) for name in names}
        return {
            name: dict(zip(one.step.tolist(), one.value.tolist(), strict=True)) for name, one in sorted(series.items())
        }


def repeated(events: list[Any]) -> dict[str, int]:
    """Return what was said more than once: `name@step` → how often."""
    scalars = [event for event in events if type(event).__name__ == "Scalars"]
    said = Counter(
        f"{name}@{event.step}" for event in scalars for name in event.values if not name.startswith("system/")
    )
    return {where: count for where, count in said.items() if count > 1}


def run(framework: Any, name: str, *, captured: bool, **options: Any) -> dict[str, Any]:
    """Run one program in the present folder, by itself or captured, and say what became of it."""
    import tracer
    from tracer import sink
    from tracer.capture.patching import patches

    folder = Path("captured" if captured else "plain") / name.replace(" ", "_")
    store = folder / "store"
    events: list[Any] = []
    framework.seed_everything(7, verbose=False)

    def trainer(**chosen: Any) -> Any:
        logger = framework.loggers.CSVLogger(folder / "csv")
        return framework.Trainer(**{**QUIET, "logger": logger, "default_root_dir": folder, **chosen, **options})

    if not captured:
        module = PROGRAMS[name](framework, trainer)
    else:
        patches.start(["lightning"])
        try:
            with tracer.init(project="p", storage_path=str(store), track_gradients=False, **CALMLY):
                before = sink.listen(None)
                sink.listen(lambda event: (events.append(event), before(event)))
                module = PROGRAMS[name](framework, trainer)
        finally:
            patches.stop()
    drawn = random_hash()
    kept = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if store not in (path, *path.parents)]
    return {
        "weights": weights_hash(module),
        "random": drawn,
        "files": kept,
        "written": written(folder / "csv"),
        "recorded": recorded(store) if captured else {},
        "events": events,
    }


def differences(framework: Any, name: str) -> list[str]:
    """Return in what a captured program differs from the same by itself, and from its own CSV files; best nothing."""
    found, alone = run(framework, name, captured=True), run(framework, name, captured=False)
    says = [
        f"{name}: {what} differ" for what in ("weights", "random", "files", "written") if found[what] != alone[what]
    ]
    says += [
        f"{name}: {metric} is {found['recorded'].get(metric)}, not {found['written'].get(metric)}"
        for metric in sorted({*found["recorded"], *found["written"]})
        if found["recorded"].get(metric) != found["written"].get(metric)
    ]
    return says


def main(packages: list[str]) -> None:
    """Say in what the programs differ by this version of each package, as JSON."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    here = Path.cwd()
    for package in packages:
        framework = importlib.import_module(package)
        folder = here / package
        folder.mkdir()
        os.chdir(folder)
        says = [line for name in PROGRAMS for line in differences(framework, name)]
        print(json.dumps({"version": framework.__version__, "says": says}))  # noqa: T201 -- its parent reads it


if __name__ == "__main__":
    main(sys.argv[1:])
