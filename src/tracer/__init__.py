"""Watch a model train: every metric, every layer, the system under it, kept on this machine and never lost."""

from tracer.active import finish, get_run_id, get_step, init, log, step, watch
from tracer.state import _state
from tracer.version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tracer.config import Config
    from tracer.config import Config as TracerConfig
    from tracer.errors import TracerError
    from tracer.run import Run
    from tracer.run import Run as TrainingTracer

#: Opened when the name is used: `import tracer` stays light. The second column is what the name is called there.
_LATER = {
    "Config": ("tracer.config", "Config"),
    "Run": ("tracer.run", "Run"),
    "TracerConfig": ("tracer.config", "Config"),  # what older programs call the two
    "TracerError": ("tracer.errors", "TracerError"),
    "TrainingTracer": ("tracer.run", "Run"),
}

__all__ = [
    "Config",
    "Run",
    "TracerConfig",
    "TracerError",
    "TrainingTracer",
    "__version__",
    "_state",
    "finish",
    "get_run_id",
    "get_step",
    "init",
    "log",
    "step",
    "watch",
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
