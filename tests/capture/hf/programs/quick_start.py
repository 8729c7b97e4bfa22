"""The Trainer as its guide introduces it, with a model made of a configuration and data in memory."""

# ruff: noqa: ANN001, ANN204, D101 -- as a reader of the guide would write it

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments


class Tokens(Dataset):
    def __init__(self, rows):
        self.rows = torch.randint(0, 50, (rows, 16), generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return {"input_ids": self.rows[index], "labels": self.rows[index]}


torch.manual_seed(0)
model = GPT2LMHeadModel(
    GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
)

training_args = TrainingArguments(
    output_dir="my-model",
    learning_rate=2e-3,
    per_device_train_batch_size=4,
    gradient_accumulation_steps=2,
    num_train_epochs=2,
    logging_steps=1,
    save_steps=3,
    report_to="none",
    use_cpu=True,
)

trainer = Trainer(model=model, args=training_args, train_dataset=Tokens(32))
trainer.train()
trainer.save_state()
