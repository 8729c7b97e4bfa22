"""The Trainer of transformers with one more callback; model and data are made here, so no network is needed.

pip install 'ml-tracer[hf]'
python examples/huggingface_example.py
tracer show harbour-tales
"""

from __future__ import annotations

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from text import story
from tracer.integrations import TransformersCallback

LENGTH, STEPS = 32, 60


def make_examples(characters: int, seed: int) -> list[dict[str, torch.Tensor]]:
    """Return pieces of a story, a number for each character."""
    tokens = torch.tensor(list(story(characters, seed).encode("ascii")))
    return [{"input_ids": piece, "labels": piece} for piece in tokens[: len(tokens) // LENGTH * LENGTH].split(LENGTH)]


def main() -> None:
    """Train, and say how it went."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=128,
        n_positions=LENGTH,
        n_embd=48,
        n_layer=2,
        n_head=3,
        bos_token_id=0,
        eos_token_id=0,
        loss_type="ForCausalLM",
    )
    arguments = TrainingArguments(
        output_dir="results",
        max_steps=STEPS,
        per_device_train_batch_size=16,
        learning_rate=3e-3,
        logging_steps=5,
        eval_strategy="steps",
        eval_steps=20,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=arguments,
        train_dataset=make_examples(50_000, seed=0),
        eval_dataset=make_examples(5_000, seed=1),
        callbacks=[
            TransformersCallback(project="huggingface-example", run_name="harbour-tales", checkpoint_interval=20)
        ],
    )
    trainer.train()
    print("Look at it with: tracer show harbour-tales")


if __name__ == "__main__":
    main()
