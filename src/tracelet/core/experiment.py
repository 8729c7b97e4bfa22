"""The experiment."""

from tracer.experiment import Experiment, ExperimentConfig

__all__ = ["Experiment", "ExperimentConfig"]
