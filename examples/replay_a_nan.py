"""Train until a NaN is born, then run that very step again: where did it come from, and what would have helped?

    python examples/replay_a_nan.py

The model has a planted fault: it takes the square root of a variance, and one sample of one batch has none.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

import tracer

FAULTY_STEP, FAULTY_SAMPLE = 30, 5


class Scale(nn.Module):
    """Divides each sample by its spread; the spread of a constant sample is zero."""

    def forward(self, x: Tensor) -> Tensor:
        """Scale the samples."""
        spread = (x - x.mean(1, keepdim=True)).square().mean(1, keepdim=True).sqrt()
        return x / spread


class Classifier(nn.Module):
    """A small network behind the faulty layer."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.scale = Scale()
        self.body = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Classify the samples."""
        logits: Tensor = self.body(self.scale(x))
        return logits


def build() -> nn.Module:
    """Return the model; `tracer replay … --entry examples/replay_a_nan.py:build` calls this."""
    return Classifier()


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Return made-up samples and labels; one sample is constant."""
    x = torch.randn(16, 8)
    if step == FAULTY_STEP:
        x[FAULTY_SAMPLE] = 1.0
    return x, (x.sum(1) > 0).long()


def train(steps: int) -> list[Path]:
    """Train, and return the capsules that were written."""
    torch.manual_seed(0)
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with tracer.init(project="examples", run_name="replay-a-nan", on_anomaly="skip") as run:
        tracer.watch(model, optimizer)
        for step in range(steps):
            x, labels = batch(step)
            loss = nn.functional.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            tracer.log({"loss": loss})
            tracer.step()
    return sorted(Path(run.folder, "capsules").glob("*.trc"))


def main() -> None:
    """Train, replay, and say what to type."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    for path in train(parser.parse_args().steps):
        with tracer.load_capsule(path, entry=build) as capsule:
            print(f"\n{path.name}: {capsule.replay().text}")
            origin = capsule.origin()
            print(f"\n{origin.text if origin else 'No origin was found.'}")
            print(f"\n{capsule.what_if()}")
    print("\nTry it yourself:")
    for command in ("anomalies replay-a-nan", "replay replay-a-nan --origin", "replay replay-a-nan --html nan.html"):
        print(f"  tracer {command}")


if __name__ == "__main__":
    main()
