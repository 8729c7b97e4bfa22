"""The experiment that is active in this process, if any."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tracer.experiment.experiments import Experiment

_active: Experiment | None = None


def active() -> Experiment | None:
    """Return the active experiment, or None."""
    return _active


def enter(experiment: Experiment) -> None:
    """Make an experiment the active one."""
    global _active  # noqa: PLW0603 -- one per process, like the run underneath
    _active = experiment


def leave(experiment: Experiment) -> None:
    """Forget an experiment that has ended, if it is the active one."""
    global _active  # noqa: PLW0603 -- as above
    if _active is experiment:
        _active = None


__all__ = ["active", "enter", "leave"]
