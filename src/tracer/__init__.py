"""Watch a model train: every metric, every layer, the system under it, kept on this machine and never lost."""

from tracer.active import (
    finish,
    get_run_id,
    get_step,
    init,
    log,
    log_artifact,
    log_media,
    rows,
    step,
    unwatch,
    use_artifact,
    watch,
)
from tracer.state import _state
from tracer.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tracer.capture.rows import with_rows
    from tracer.config import Config
    from tracer.config import Config as TracerConfig
    from tracer.errors import TracerError, TrainingAnomaly
    from tracer.experiment import get_active_experiment, start_logging, stop_logging
    from tracer.flight.capsule import load_capsule
    from tracer.flight.recorder import FlightRecorder
    from tracer.flight.settings import FlightConfig
    from tracer.plugins.lifecycle import register_plugin
    from tracer.run import Run
    from tracer.run import Run as TrainingTracer

#: Opened when the name is used: `import tracer` stays light. The second column is what the name is called there.
_LATER = {
    "Config": ("tracer.config", "Config"),
    "FlightConfig": ("tracer.flight.settings", "FlightConfig"),
    "FlightRecorder": ("tracer.flight.recorder", "FlightRecorder"),
    "Run": ("tracer.run", "Run"),
    "TracerConfig": ("tracer.config", "Config"),  # what older programs call the two
    "TracerError": ("tracer.errors", "TracerError"),
    "TrainingAnomaly": ("tracer.errors", "TrainingAnomaly"),
    "TrainingTracer": ("tracer.run", "Run"),
    "get_active_experiment": ("tracer.experiment", "get_active_experiment"),
    "load_capsule": ("tracer.flight.capsule", "load_capsule"),
    "register_plugin": ("tracer.plugins.lifecycle", "register_plugin"),
    "start_logging": ("tracer.experiment", "start_logging"),
    "stop_logging": ("tracer.experiment", "stop_logging"),
    "with_rows": ("tracer.capture.rows", "with_rows"),
}

__all__ = [
    "Config",
    "FlightConfig",
    "FlightRecorder",
    "Run",
    "TracerConfig",
    "TracerError",
    "TrainingAnomaly",
    "TrainingTracer",
    "__version__",
    "_state",
    "finish",
    "get_active_experiment",
    "get_run_id",
    "get_step",
    "init",
    "load_capsule",
    "log",
    "log_artifact",
    "log_media",
    "register_plugin",
    "rows",
    "start_logging",
    "step",
    "stop_logging",
    "unwatch",
    "use_artifact",
    "watch",
    "with_rows",
]


def __getattr__(name: str) -> object:
    """Open the room that holds a name, at its first use."""
    if name not in _LATER:
        message = f"module 'tracer' has no attribute {name!r}"
        raise AttributeError(message)
    import importlib

    room, called = _LATER[name]
    value = getattr(importlib.import_module(room), called)
    globals()[name] = value
    return value
