"""An experiment in one call."""

from tracer.experiment import configure, get_active_experiment, start_logging, stop_logging

__all__ = ["configure", "get_active_experiment", "start_logging", "stop_logging"]
