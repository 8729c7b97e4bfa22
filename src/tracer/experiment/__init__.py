"""Experiments: a run in the words of the Tracelet documents, begun in one call.

starting.py       start_logging, stop_logging, get_active_experiment, configure
experiments.py    the experiment: a run with further names
settings.py       TraceletSettings, read from argument, environment, `.env` and file
options.py        what an experiment is told, and which settings of the run that makes
listening.py      which frameworks are listened to
backends.py       the back ends by name; lanes.py takes values to them
artifacts.py      artifacts as values; artifact_store.py keeps and finds them
automagic.py      what is found by looking: detectors.py, frameworks.py, collectors.py, packages.py
"""

from tracer.experiment.experiments import Experiment
from tracer.experiment.options import ExperimentConfig
from tracer.experiment.settings import TraceletSettings
from tracer.experiment.starting import configure, get_active_experiment, start_logging, stop_logging

__all__ = [
    "Experiment",
    "ExperimentConfig",
    "TraceletSettings",
    "configure",
    "get_active_experiment",
    "start_logging",
    "stop_logging",
]
