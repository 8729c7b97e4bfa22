"""Stored events → findings: anomalies, comparison, statistics, questions.

Importing the room is light; numpy and the store are loaded with the class that is asked for.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tracer.analysis.anomaly_detection import AnomalyDetector
    from tracer.analysis.query import QueryEngine

_LATER = {"AnomalyDetector": "tracer.analysis.anomaly_detection", "QueryEngine": "tracer.analysis.query"}

__all__ = ["AnomalyDetector", "QueryEngine"]


def __getattr__(name: str) -> object:
    """Load a public class when it is first used."""
    if name not in _LATER:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    import importlib

    return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
