"""What can go wrong before an experiment begins."""

from tracer.errors import ConfigError, MissingDependency, TracerError, UsageError

ConfigurationError = ConfigError
TraceletError = TracerError

__all__ = ["ConfigurationError", "MissingDependency", "TraceletError", "UsageError"]
