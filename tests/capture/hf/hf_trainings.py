"""Tiny trainings of transformers, and what a run was told of them."""

# ruff: noqa: ANN401 -- what the frameworks and the fixtures give has no types

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from tracer import events, sink

torch.set_num_threads(1)  # two cores are shared by all workers of the suite


class Heard(list[Any]):
    """The events that a run was told."""

    def rows(self) -> Counter[tuple[str, int | None]]:
        """Count the rows for each name and step, without those about the machine and about recording itself."""
        told = self.of(events.Scalars)
        named = ((name, event.step) for event in told for name in event.values)
        return Counter((name, step) for name, step in named if not name.startswith(events.BESIDE))

    def repeated(self) -> dict[tuple[str, int | None], int]:
        """Return the names and steps that were told more than once."""
        return {key: count for key, count in self.rows().items() if count != 1}

    def series(self, name: str) -> dict[int | None, Any]:
        """Return step → value."""
        return {event.step: event.values[name] for event in self.of(events.Scalars) if name in event.values}

    def names(self) -> set[str]:
        """Return the names of all metrics."""
        return {name for name, _ in self.rows()}

    def origins(self) -> set[str]:
        """Return who told of metrics."""
        named = ((name, event.origin) for event in self.of(events.Scalars) for name in event.values)
        return {origin for name, origin in named if not name.startswith(events.BESIDE)}

    def of(self, kind: type) -> list[Any]:
        """Return the events of one kind."""
        return [event for event in self if isinstance(event, kind)]


def listen_in() -> Heard:
    """Listen to what the active run is told, which still hears it."""
    heard = Heard()
    run = sink.listen(None)

    def both(event: object) -> None:
        heard.append(event)
        run(event)

    sink.listen(both)
    return heard


def trainer(callbacks: Any = (), cls: Any = None, **arguments: Any) -> Any:
    """Return a Trainer of a tiny language model: three steps of one batch each."""
    import transformers

    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    config = transformers.GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, loss_type="ForCausalLM")
    data = [{"input_ids": tokens, "labels": tokens} for tokens in torch.randint(0, 50, (16, 8))]
    settings = {
        "output_dir": "out", "max_steps": 3, "per_device_train_batch_size": 2, "logging_steps": 1,
        "save_strategy": "no", "use_cpu": True, "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip
    return (cls or transformers.Trainer)(
        transformers.GPT2LMHeadModel(config),
        transformers.TrainingArguments(**{**settings, **arguments}),
        train_dataset=data,
        eval_dataset=data[:4],
        callbacks=list(callbacks),
    )


def history(training: Any) -> dict[str, dict[int, Any]]:
    """Return what a Trainer remembers of what it reported: name → step → value, the last one wins."""
    series: dict[str, dict[int, Any]] = {}
    for entry in training.state.log_history:
        for name, value in entry.items():
            if name != "step":
                series.setdefault(name, {})[entry["step"]] = value
    return series
