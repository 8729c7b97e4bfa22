"""Figures of the system."""

from tracer.capture.system import SystemMetrics

__all__ = ["SystemMetrics"]
