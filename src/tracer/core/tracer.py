"""The live run, under the name of the documents."""

from tracer.config import Config
from tracer.run import Run

TrainingTracer = Run
TracerConfig = Config

__all__ = ["TracerConfig", "TrainingTracer"]
