"""What is active in this process: the Tracer documents' `tracer.state._state`, kept by `run.py`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tracer.config import Config


class GlobalState:
    """The active run and its settings; `tracer` is None when no run is active."""

    __slots__ = ("_run_id", "_step_count", "config", "tracer")

    # `Any`, because the run stands above this room; the documents call `_state.tracer.attach_hooks(model)`.
    tracer: Any
    config: Config | None
    _run_id: str | None
    _step_count: int | None

    def __init__(self) -> None:
        self.reset()

    @property
    def run_id(self) -> str | None:
        """The id of the active run, or what a program said it is."""
        if self._run_id is None and self.tracer is not None:
            return str(self.tracer.run_id)
        return self._run_id

    @run_id.setter
    def run_id(self, run_id: str | None) -> None:
        self._run_id = run_id

    @property
    def step_count(self) -> int:
        """The steps of the active run, or what a program said they are; 0 without either."""
        if self.tracer is not None:
            return int(self.tracer.step_count)
        return self._step_count or 0

    @step_count.setter
    def step_count(self, step_count: int) -> None:
        self._step_count = step_count

    @property
    def is_initialized(self) -> bool:
        """Whether a run is active."""
        return self.tracer is not None

    def reset(self) -> None:
        """Forget the active run, without finishing it."""
        self.config = None
        self.tracer = None
        self._run_id = self._step_count = None


_state = GlobalState()

__all__ = ["GlobalState", "_state"]
