"""A tracker for accelerate: what a program gives to `Accelerator.log`, at the steps it says.

Importing this module also makes `log_with="tracer"` known to accelerate.
"""

# ruff: noqa: ANN401 -- the framework decides what it hands over, and of what type

from __future__ import annotations

import os
from typing import Any

from tracer import active, events
from tracer.capture import accelerate as heard
from tracer.capture.accelerate_values import ORIGIN, tell, tell_images
from tracer.capture.hyperparameters import plain
from tracer.capture.patching import Hook
from tracer.plugins import needs
from tracer.run import Run
from tracer.sink import Guard, emit
from tracer.state import _state

with needs("accelerate", extra="hf", purpose="TracerTracker"):
    from accelerate import PartialState, accelerator, tracking  # type: ignore[import-untyped]  # it ships no types


class TracerTracker(heard.Tracker, tracking.GeneralTracker):  # type: ignore[misc]  # as above
    """Records what an accelerate program logs.

    The run begins with `init_trackers` and ends with `end_training`; a run that the program began itself is joined and
    left open. Where several processes train together, the first of them records.

    Args:
        run_name: The project: what `init_trackers` is given as `project_name`.
        **settings: Arguments of `tracer.init`, such as `run_name`, `tags` or `storage_path`: what `init_trackers` is
            given as `init_kwargs={"tracer": {...}}`.

    Example:
        >>> from accelerate import Accelerator
        >>> accelerator = Accelerator(log_with="tracer", cpu=True)
        >>> accelerator.init_trackers("my-project", config={"lr": 0.1}, init_kwargs={"tracer": {"quiet": True}})
        >>> accelerator.log({"loss": 0.5}, step=3)
        >>> accelerator.end_training()
    """

    def __init__(self, run_name: str = "", **settings: Any) -> None:
        tracking.GeneralTracker.__init__(self)
        heard.Tracker.__init__(self, run_name, **settings)
        self._guard = Guard(strict=os.environ.get("TRACER_STRICT", "") in ("1", "true"))
        self._run: Run | None = None
        self._owned = False

    @property
    def tracker(self) -> Run | None:
        """The run, for what `Accelerator.log` cannot say: `accelerator.get_tracker("tracer", unwrap=True)`."""
        return self._run

    def start(self) -> None:
        """Begin the run, or join the active one."""
        if not _is_first():
            return
        settings = dict(self.settings)
        project = self.run_name or settings.pop("project", None)
        self._owned = _state.tracer is None
        name = settings.pop("name", None)
        self._run = active.init(project, name, **settings) if self._owned else _state.tracer

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Record hyper-parameters."""
        if not _is_first():
            return
        with self._guard("recording hyper-parameters"):
            emit(events.Parameters(plain(values), ORIGIN))

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:  # noqa: ARG002 -- as they call it
        """Record values at a step; without one, at the last that was given."""
        if _is_first() and not heard.is_told_already():
            with self._guard("recording metrics"):
                tell(emit, values, step)

    def log_images(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:  # noqa: ARG002 -- as above
        """Record pictures: name → arrays, tensors or those of Pillow."""
        if not _is_first():
            return
        with self._guard("recording pictures"):
            tell_images(emit, values, step)

    def finish(self) -> None:
        """Finish the run if it was begun here."""
        run, self._run = self._run, None
        if run is not None and self._owned:
            with self._guard("finishing the run"):
                run.finish()


def _is_first() -> bool:
    """Tell whether this is the first of the processes that train together."""
    return bool(PartialState().is_main_process)


with Hook.guard('making log_with="tracer" known to accelerate'):  # another version may have no such place
    heard.register(tracking, TracerTracker)
    heard.mark(Hook("accelerate.tracker"), accelerator)
    if not hasattr(tracking, "register_tracker_class"):
        for _module in (tracking, accelerator):
            heard.allow_name(Hook("accelerate.tracker.log_with"), _module)

__all__ = ["TracerTracker"]
