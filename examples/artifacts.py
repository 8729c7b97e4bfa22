"""Keep the weights of a training as versions, take the best in another run, and compare it with the last."""

from __future__ import annotations

import torch

import tracer
from tracer.storage import Store
from tracer.storage.artifact_diff import difference


def train() -> None:
    """Fit a line, and keep the weights every 20 steps; the best so far has the alias `best`."""
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs = torch.randn(64, 2)
    targets = inputs @ torch.tensor([[2.0], [-1.0]])
    best = float("inf")
    with tracer.init(project="lines", run_name="train") as run:
        for step in range(61):
            loss = torch.nn.functional.mse_loss(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log({"loss": loss})
            if step % 20 == 0:
                is_best = loss.item() < best
                best = min(best, loss.item())
                aliases = ["best"] if is_best else []
                kept = run.log_artifact(model.state_dict(), "line", aliases=aliases, metadata={"loss": loss.item()})
                print(f"step {step}: kept {kept.reference}")
            run.step()


def evaluate() -> None:
    """Load the best weights, and note that this run used them."""
    with tracer.init(project="lines", run_name="evaluate") as run:
        kept = run.use_artifact("line:best")
        print(f"using {kept.reference}, loss {kept.metadata['loss']:.4f}: {kept.arrays()['weight'].round(2).tolist()}")


def compare() -> None:
    """Say how far the first and the last version are apart."""
    with Store.open(".tracer") as store:
        for file in difference(store.artifact("line:v0"), store.artifact("line:latest")).files:
            for tensor in file.tensors or ():
                print(f"{tensor.name} moved by {tensor.largest:.3f}")


if __name__ == "__main__":
    train()
    evaluate()
    compare()
