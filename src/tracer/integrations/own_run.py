"""The run of a callback that is no framework's `Session`: the active one, else one that the callback begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tracer.active import init
from tracer.run import Run
from tracer.state import _state


class OwnRun:
    """Begins a run with a training where none is active, and ends it with the training; an active one is left alone.

    Args:
        project: Project of the run.
        run_name: Name of the run.
        settings: Further arguments of `tracer.init`.
    """

    def __init__(self, project: str, run_name: str | None, settings: Mapping[str, Any]) -> None:
        self.project, self.run_name, self.settings = project, run_name, dict(settings)
        self._run: Run | None = None
        self._ended_id: str | None = None

    def begin(self) -> None:
        """Begin a run, unless one is active."""
        if _state.tracer is None:
            self._run = init(self.project, self.run_name, **self.settings)

    def end(self) -> None:
        """Finish the run if it is this callback's own."""
        run, self._run = self._run, None
        if run is not None and run is _state.tracer:
            self._ended_id = run.run_id
            run.finish()

    @contextmanager
    def reopened(self) -> Iterator[None]:
        """Have a run active for this block: what comes after a training belongs to its run."""
        if _state.tracer is not None:
            yield
            return
        settings = {name: value for name, value in self.settings.items() if name not in ("config", "resume")}
        with init(self.project, self.run_name, resume=self._ended_id, **{**settings, "quiet": True}) as run:
            self._ended_id = run.run_id
            yield

    def __getstate__(self) -> dict[str, Any]:
        """Leave the live run behind when a callback is sent to another process."""
        return {**self.__dict__, "_run": None}


__all__ = ["OwnRun"]
