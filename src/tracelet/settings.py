"""The settings of an experiment."""

from tracer.errors import ConfigError
from tracer.experiment.settings import TraceletSettings

ConfigurationError = ConfigError

__all__ = ["ConfigurationError", "TraceletSettings"]
