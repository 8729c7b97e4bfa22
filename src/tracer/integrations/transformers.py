"""A callback for the Trainer of transformers: metrics at its global step, gradients at checkpoints."""

# ruff: noqa: ANN401, ARG002 -- the framework decides what it hands over, and of what type

from __future__ import annotations

from typing import Any

from tracer.integrations.session import Session
from tracer.plugins import needs

with needs("transformers", extra="hf", purpose="TransformersCallback"):
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class TransformersCallback(TrainerCallback):
    """Records what a `transformers.Trainer` reports.

    The run begins and ends with `train()`; a run that the program began itself is joined and left open. Values of an
    `evaluate()` afterwards go to the same run.

    Args:
        project: Project of the run.
        run_name: Name of the run; made from date and host when absent.
        checkpoint_interval: Optimizer steps between two checkpoints.
        **kwargs: Further arguments of `tracer.init`, such as `tags`, `storage_path` or `gradient_layers`.

    Example:
        >>> trainer = Trainer(model, arguments, train_dataset=data, callbacks=[TransformersCallback("my-project")])
        >>> trainer.train()  # doctest: +SKIP
    """

    def __init__(
        self,
        project: str,
        run_name: str | None = None,
        checkpoint_interval: int = 100,
        **kwargs: Any,
    ) -> None:
        self._session = Session(project, run_name, {"checkpoint_interval": checkpoint_interval, **kwargs})

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Begin the run."""
        config = args.to_dict()  # type: ignore[no-untyped-call]
        if hasattr(model, "config") and hasattr(model.config, "to_dict"):
            config["model"] = model.config.to_dict()
        self._session.begin(model, config, state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """End a step: one of the optimizer, however many batches it accumulated."""
        self._session.advance(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Record what the Trainer reports: training, evaluation and summary values alike."""
        if logs and state.is_world_process_zero:
            self._session.log(logs, state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Finish the run."""
        self._session.end()


TracerCallback = TransformersCallback

__all__ = ["TracerCallback", "TransformersCallback"]
