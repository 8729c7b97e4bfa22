"""Figures of the system and facts of git, on request."""

from tracer.experiment.collectors import GitCollector, SystemMetricsCollector

__all__ = ["GitCollector", "SystemMetricsCollector"]
