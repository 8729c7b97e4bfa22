"""A training loop of accelerate with trackers, as its guide on tracking writes it."""

import torch
from accelerate import Accelerator

accelerator = Accelerator(log_with="tensorboard", project_dir="logs", cpu=True)
hps = {"num_iterations": 5, "learning_rate": 1e-2, "loss_function": "mse"}
accelerator.init_trackers("my_project", config=hps)

torch.manual_seed(0)
my_model = torch.nn.Linear(4, 1)
my_optimizer = torch.optim.SGD(my_model.parameters(), lr=hps["learning_rate"])
my_training_dataloader = torch.utils.data.DataLoader(
    torch.utils.data.TensorDataset(torch.randn(40, 4), torch.randn(40, 1)), batch_size=8
)
my_model, my_optimizer, my_training_dataloader = accelerator.prepare(my_model, my_optimizer, my_training_dataloader)
loss_fn = torch.nn.MSELoss()

for iteration in range(hps["num_iterations"]):
    for step, batch in enumerate(my_training_dataloader):
        my_optimizer.zero_grad()
        inputs, targets = batch
        loss = loss_fn(my_model(inputs), targets)
        accelerator.backward(loss)
        my_optimizer.step()
        accelerator.log({"training_loss": loss.item()}, step=iteration * len(my_training_dataloader) + step)
    accelerator.log({"epoch_loss": loss.item(), "iteration": iteration}, step=iteration)
accelerator.end_training()
