"""The shortest complete program: a small network learns a function, and every step is recorded.

python examples/basic_pytorch.py
tracer show simple-training
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import tracer

EPOCHS = 10


def main() -> None:
    """Train, and say how it went."""
    torch.manual_seed(0)
    tracer.init(
        project="basic-example",
        run_name="simple-training",
        config={"lr": 1e-3, "batch_size": 32, "optimizer": "Adam"},
        checkpoint_interval=100,  # gradient statistics and system figures every so many steps; values at every step
    )
    model = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    tracer.watch(model)

    inputs = torch.randn(1000, 10)
    targets = inputs[:, :3].sin().sum(dim=1, keepdim=True) + 0.1 * torch.randn(1000, 1)
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=32, shuffle=True)

    for epoch in range(EPOCHS):
        total = 0.0
        for batch, wanted in loader:
            loss = nn.functional.mse_loss(model(batch), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

            tracer.log({"loss": loss, "epoch": epoch})
            tracer.step()
            total += loss.item() * len(batch)
        print(f"epoch {epoch + 1:2}: mean loss {total / len(inputs):.4f}")
    tracer.finish()
    print("Look at it with: tracer show simple-training")


if __name__ == "__main__":
    main()
