"""A callback for the Trainer of transformers: metrics at its global step, gradients at checkpoints.

Importing this module also makes `report_to="tracer"` known to transformers.
"""

# ruff: noqa: ANN401, ARG002 -- the framework decides what it hands over, and of what type

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tracer import events
from tracer.capture.patching import Hook
from tracer.capture.transformers import PASSING_ON, mark
from tracer.capture.transformers_reporter import ASKED, BY_HAND, ORIGIN, Listener, Reporter, described
from tracer.config import Config
from tracer.integrations.session import Session
from tracer.plugins import needs
from tracer.sink import emit
from tracer.state import _state

with needs("transformers", extra="hf", purpose="TransformersCallback"):
    from transformers import TrainerCallback
    from transformers.integrations import integration_utils

#: What transformers calls a project when nobody named one.
_NO_PROJECT = "huggingface"


class _Recording(Listener, TrainerCallback):
    """A callback that begins and ends a run where none is active."""

    _session: Session | None = None
    _right = BY_HAND

    def __init__(self) -> None:
        self.reporter = Reporter(Hook("transformers.callback"), self._right, self._begin, self._tell)
        for hook, name in zip(_MARKS, PASSING_ON.values(), strict=True):
            with Hook.guard(f"marking the copies that {name} passes on"):  # another version may have no such place
                mark(hook, integration_utils, name)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Finish the run."""
        if self.reporter.end(state) and self._session is not None:
            self._session.end()

    def _begin(self, args: Any, state: Any, model: object, optimizer: object) -> None:
        """Begin the run."""
        parameters = described(args, model) if state.is_world_process_zero else {}
        self._opened(args).begin(model, parameters, state.global_step)
        emit(events.Training(ORIGIN, step=state.global_step))

    def _tell(self, event: object) -> None:
        """Record what the Trainer told; values of an evaluation after the training go to the run that ended."""
        if isinstance(event, events.Scalars) and _state.tracer is None:
            self._opened(None).log(event.values, event.step or 0)
        else:
            emit(event)

    def _opened(self, args: Any) -> Session:
        """Return what begins and ends runs; a callback that was only named learns of its run from the arguments."""
        if self._session is None:
            named = getattr(args, "project", None)
            project = Config.load({}).project_name if named in (None, _NO_PROJECT) else str(named)
            self._session = Session(project, getattr(args, "run_name", None), {})
        return self._session

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Begin anew where it was sent to."""
        self.__dict__.update(state)
        self.reporter = Reporter(Hook("transformers.callback"), self._right, self._begin, self._tell)


class TransformersCallback(_Recording):
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
        super().__init__()
        self._session = Session(project, run_name, {"checkpoint_interval": checkpoint_interval, **kwargs})


class ReportTo(_Recording):
    """What `report_to="tracer"` adds: the run is named as the training arguments say.

    The project is `TrainingArguments.project` where there is such a thing and somebody set it, else `TRACER_PROJECT`;
    the name is `TrainingArguments.run_name`.
    """

    _right = ASKED


#: While a callback of ours speaks, what transformers passes on to other trackers is a copy.
_MARKS = [Hook(f"transformers.callback.{tracker}") for tracker in PASSING_ON]

integration_utils.INTEGRATION_TO_CALLBACK["tracer"] = ReportTo
TracerCallback = TransformersCallback

__all__ = ["ReportTo", "TracerCallback", "TransformersCallback"]
