"""Gradient accumulation with accelerate, reported to Tracer and TensorBoard by name."""

import json

import torch
from accelerate import Accelerator

accelerator = Accelerator(
    gradient_accumulation_steps=2, log_with=["tracer", "tensorboard"], project_dir="logs", cpu=True
)
accelerator.init_trackers("accumulation", config={"lr": 0.01}, init_kwargs={"tracer": {"tags": ["a"]}})

torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
dataloader = torch.utils.data.DataLoader(
    torch.utils.data.TensorDataset(torch.randn(32, 4), torch.randn(32, 1)), batch_size=4
)
model, optimizer, dataloader, scheduler = accelerator.prepare(model, optimizer, dataloader, scheduler)

completed_steps, said = 0, {}
for batch in dataloader:
    with accelerator.accumulate(model):
        inputs, targets = batch
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        accelerator.backward(loss)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    if accelerator.sync_gradients:
        completed_steps += 1
        said[completed_steps] = loss.item()
        accelerator.log({"train_loss": loss.item(), "lr": scheduler.get_last_lr()[0]}, step=completed_steps)
accelerator.log({"final": loss.item()})
accelerator.end_training()

with open("said.json", "w") as file:
    json.dump(said, file)
