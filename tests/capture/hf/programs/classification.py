"""Sequence classification with metrics and an evaluation per epoch, TensorBoard beside it, and a test at the end."""

# ruff: noqa: ANN001, ANN201 -- as a reader of the guide would write it

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments


def examples(rows, seed):
    tokens = torch.randint(2, 60, (rows, 12), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": row, "labels": int(row[0] > 30)} for row in tokens]


def compute_metrics(eval_pred):
    predictions, labels = eval_pred
    return {"accuracy": float((np.argmax(predictions, axis=1) == labels).mean())}


torch.manual_seed(0)
config = BertConfig(
    vocab_size=60,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=16,
    num_labels=2,
)

trainer = Trainer(
    model=BertForSequenceClassification(config),
    args=TrainingArguments(
        output_dir="classifier",
        num_train_epochs=3,
        per_device_train_batch_size=8,
        per_device_eval_batch_size=16,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        logging_steps=2,
        report_to="tensorboard",
        use_cpu=True,
        disable_tqdm=True,
    ),
    train_dataset=examples(40, seed=1),
    eval_dataset=examples(16, seed=2),
    compute_metrics=compute_metrics,
)
trainer.train()
trainer.evaluate()
trainer.predict(examples(16, seed=3))
trainer.save_state()
