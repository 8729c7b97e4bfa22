"""A loop of one's own: accumulation, clipping, a schedule, validation, samples, and a run that ends by itself.

python examples/custom_training_loop.py
tracer show custom-loop
tracer plot custom-loop val/loss
"""

from __future__ import annotations

import math

import torch
from torch import nn

import tracer

STEPS, ACCUMULATED, WARMUP = 300, 2, 30
SETTINGS = {"lr": 1e-2, "steps": STEPS, "accumulated": ACCUMULATED, "clip": 1.0}


def make_batch(generator: torch.Generator, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points of two half-moons that reach into each other, and which moon each belongs to."""
    moon = torch.randint(0, 2, (size,), generator=generator)
    angle = math.pi * (torch.rand(size, generator=generator) + moon)
    points = torch.stack([angle.cos() + moon, angle.sin() + 0.5 * moon], dim=1)
    return points + 0.1 * torch.randn(size, 2, generator=generator), moon


@torch.no_grad()
def validate(run: tracer.Run, model: nn.Module) -> None:
    """Record how the model does on points it has not seen, and the five it finds hardest."""
    points, moons = make_batch(torch.Generator().manual_seed(1), size=512)
    scores = model(points)
    losses = nn.functional.cross_entropy(scores, moons, reduction="none")
    run.log({"val": {"loss": losses.mean(), "accuracy": (scores.argmax(1) == moons).float().mean()}})
    run.log_samples(inputs=points, targets=moons, predictions=scores.softmax(1), loss=losses)


def main() -> None:
    """Train, and say how it went."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=SETTINGS["lr"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP))
    generator = torch.Generator().manual_seed(0)

    # The end of the block finishes the run; an exception in it would mark the run failed and say why.
    with tracer.init(project="custom-example", run_name="custom-loop", config=SETTINGS, checkpoint_interval=50) as run:
        run.watch(model)
        for _ in range(STEPS):
            total = 0.0
            for _ in range(ACCUMULATED):
                points, moons = make_batch(generator)
                loss = nn.functional.cross_entropy(model(points), moons) / ACCUMULATED
                loss.backward()
                total += loss.item()
            norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm=SETTINGS["clip"])
            optimizer.step()
            run.log({"loss": total, "grad_norm": norm, "lr": schedule.get_last_lr()[0]})
            schedule.step()
            optimizer.zero_grad()
            run.step()
            if run.step_count % 50 == 0:
                validate(run, model)
                print(f"step {run.step_count:3}: loss {total:.4f}")
    print("Look at it with: tracer show custom-loop")


if __name__ == "__main__":
    main()
