"""What is active in this process: the seed documents' `tracer.state._state`, kept by `run.py`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tracer.config import Config


class GlobalState:
    """The active run and its settings; `tracer` is None when no run is active."""

    __slots__ = ("config", "tracer")

    # `Any`, because the run stands above this room; the documents call `_state.tracer.attach_hooks(model)`.
    tracer: Any
    config: Config | None

    def __init__(self) -> None:
        self.reset()

    @property
    def run_id(self) -> str | None:
        """The id of the active run."""
        return None if self.tracer is None else str(self.tracer.run_id)

    @property
    def step_count(self) -> int:
        """The steps of the active run; 0 without one."""
        return 0 if self.tracer is None else int(self.tracer.step_count)

    @property
    def is_initialized(self) -> bool:
        """Whether a run is active."""
        return self.tracer is not None

    def reset(self) -> None:
        """Forget the active run, without finishing it."""
        self.config = None
        self.tracer = None


_state = GlobalState()

__all__ = ["GlobalState", "_state"]
