"""What a back end, a collector and a framework can be asked for."""

from tracer.plugins.interfaces import BackendInterface, CollectorInterface, FrameworkInterface

__all__ = ["BackendInterface", "CollectorInterface", "FrameworkInterface"]
