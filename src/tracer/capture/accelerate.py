"""What an accelerate program reports: `Accelerator.log`, once for all its trackers, and `log_with="tracer"`.

`Accelerator.log` hands the same values to each tracker. They are heard there, and what the trackers pass on meanwhile
to TensorBoard and others is marked as a copy. A tracker that the program calls by itself is heard at its own method.
"""

# ruff: noqa: ANN401 -- the framework decides what it hands over, and of what type

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from types import ModuleType
from typing import Any

from tracer import events
from tracer.capture.accelerate_values import ORIGIN, tell, tell_images
from tracer.capture.hyperparameters import plain
from tracer.capture.origins import fed_by, feeding
from tracer.capture.patching import Hook, Patch
from tracer.state import _state

NAME = "tracer"

logs = Hook("accelerate.log")
configs = Hook("accelerate.init_trackers")
tensorboard = Hook("accelerate.tensorboard")
trackers = Hook("accelerate.trackers")
names = Hook("accelerate.log_with")
logs.is_on = False  # until it is put in: a tracker of ours asks


def is_told_already() -> bool:
    """Tell whether `Accelerator.log` is being heard, so that a tracker of ours has nothing to add."""
    return logs.is_on and fed_by() == ORIGIN


class Tracker:
    """The methods of a tracker of accelerate, which speaks for the active run; completed by its base class."""

    name = NAME
    requires_logging_directory = False
    main_process_only = True

    def __init__(self, run_name: str, **settings: Any) -> None:
        self.run_name, self.settings = run_name, settings

    @property
    def tracker(self) -> Any:
        """The run."""
        return _state.tracer

    def start(self) -> None:
        """Begin; the run is there already, or begins with the first value."""

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Record hyper-parameters."""
        if trackers.is_on:
            with trackers:
                trackers.emit(events.Parameters(plain(values), ORIGIN))

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:  # noqa: ARG002 -- as they call it
        """Record values."""
        if trackers.is_on and not is_told_already():
            with trackers:
                tell(trackers.emit, values, step)

    def log_images(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:  # noqa: ARG002 -- as above
        """Record pictures."""
        if trackers.is_on:
            with trackers:
                tell_images(trackers.emit, values, step)

    def finish(self) -> None:
        """End; the run goes on until the program ends it."""


@cache
def _completed() -> type:
    """Return the tracker with the framework's base class."""
    base = sys.modules["accelerate.tracking"].GeneralTracker
    return type("TracerTracker", (Tracker, base), {"__module__": __name__, "__doc__": Tracker.__doc__})


def register(module: ModuleType, tracker: type, *, replace: bool = True) -> None:
    """Make the name `tracer` known to `log_with`, and have `"all"` include it.

    Args:
        module: `accelerate.tracking`.
        tracker: The class behind the name.
        replace: Whether it takes the place of one that stands there.
    """
    if replace or NAME not in module.LOGGER_TYPE_TO_CLASS:
        module.LOGGER_TYPE_TO_CLASS[NAME] = tracker
    if NAME not in module._available_trackers:  # noqa: SLF001 -- there is no other way into "all"
        module._available_trackers.append(NAME)  # noqa: SLF001 -- as above


def _install_trackers(module: ModuleType) -> Callable[[], None]:
    """Register our tracker; one that begins runs itself may stand there already."""
    tracker = _completed()
    trackers.is_on = True
    register(module, tracker, replace=False)

    def undo() -> None:
        trackers.is_on = False
        if module.LOGGER_TYPE_TO_CLASS.get(NAME) is tracker:
            del module.LOGGER_TYPE_TO_CLASS[NAME]
            module._available_trackers.remove(NAME)  # noqa: SLF001 -- as above

    return undo


def allow_name(hook: Hook, module: ModuleType) -> Callable[[], None]:
    """Let `log_with="tracer"` pass where accelerate knows its own names only: before its 1.13.

    Args:
        hook: The hook that goes in.
        module: One that holds `filter_trackers`: `accelerate.tracking`, and `accelerate.accelerator` which imports it.
    """

    def make(original: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
        def filter_trackers(log_with: Any, logging_dir: Any = None) -> list[Any]:
            wanted = list(log_with) if isinstance(log_with, (list, tuple)) else [log_with]
            if not hook.is_on or not any(isinstance(one, str) and one == NAME for one in wanted):
                return original(log_with, logging_dir)
            rest = [one for one in wanted if not (isinstance(one, str) and one == NAME)]
            found = original(rest, logging_dir)
            return found if NAME in found else [*found, NAME]

        return filter_trackers

    return hook.wrap(module, "filter_trackers", make, parameters=("log_with", "logging_dir"))


def _install_names(module: ModuleType) -> Callable[[], None]:
    """Let the name pass where accelerate does not know of registered trackers."""
    if hasattr(sys.modules["accelerate.tracking"], "register_tracker_class"):
        names.is_on = True
        return lambda: None
    return allow_name(names, module)


def _log_arguments(
    values: Mapping[str, object], step: int | None = None, *_: object, **__: object
) -> tuple[Mapping[str, object], int | None]:
    """Return what matters of the arguments of `Accelerator.log`."""
    return values, step


def _install_logs(module: ModuleType) -> Callable[[], None]:
    """Listen at `Accelerator.log`."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def log(self: Any, *args: Any, **kwargs: Any) -> Any:
            if not logs.is_on:
                return original(self, *args, **kwargs)
            with feeding(ORIGIN):
                result = original(self, *args, **kwargs)
            with logs:
                if self.is_main_process:
                    tell(logs.emit, *_log_arguments(*args, **kwargs))
            return result

        return log

    return logs.wrap(module.Accelerator, "log", make)  # its decorator hides what it takes


def _install_configs(module: ModuleType) -> Callable[[], None]:
    """Listen at `Accelerator.init_trackers`, for the configuration."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def init_trackers(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs)
            if configs.is_on:
                with configs:
                    config = args[1] if len(args) > 1 else kwargs.get("config")
                    if config and self.is_main_process:
                        configs.emit(events.Parameters(plain(config), ORIGIN))
            return result

        return init_trackers

    return configs.wrap(module.Accelerator, "init_trackers", make)


def _install_tensorboard(module: ModuleType) -> Callable[[], None]:
    """Listen at the TensorBoard tracker, which a program may call by itself."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def log(self: Any, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> Any:
            if not tensorboard.is_on or fed_by() == ORIGIN:
                return original(self, values, step, **kwargs)
            with feeding(ORIGIN):
                result = original(self, values, step, **kwargs)
            with tensorboard:
                if hasattr(self, "writer"):  # made on the main process only
                    tell(tensorboard.emit, values, step)
            return result

        return log

    return tensorboard.wrap(module.TensorBoardTracker, "log", make, parameters=("self", "values", "step"))


def mark(hook: Hook, module: ModuleType) -> Callable[[], None]:
    """Mark what `Accelerator.log` makes other trackers pass on, for a tracker of ours that hears the same from it.

    Args:
        hook: The hook that goes in.
        module: `accelerate.accelerator`.
    """

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def log(self: Any, *args: Any, **kwargs: Any) -> Any:
            if not hook.is_on or not any(getattr(one, "name", None) == NAME for one in self.trackers):
                return original(self, *args, **kwargs)
            with feeding(ORIGIN):
                return original(self, *args, **kwargs)

        return log

    return hook.wrap(module.Accelerator, "log", make)


def _row(hook: Hook, module: str, attribute: str, install: Callable[[ModuleType], Callable[[], None]]) -> Patch:
    """Return a row of the table."""
    tested = ("1.10.1", "1.15.0")
    return Patch(hook, module=module, attribute=attribute, package="accelerate", tested=tested, install=install)


PATCHES = (
    _row(trackers, "accelerate.tracking", "LOGGER_TYPE_TO_CLASS", _install_trackers),
    _row(tensorboard, "accelerate.tracking", "TensorBoardTracker.log", _install_tensorboard),
    _row(names, "accelerate.accelerator", "filter_trackers", _install_names),
    _row(configs, "accelerate.accelerator", "Accelerator.init_trackers", _install_configs),
    _row(logs, "accelerate.accelerator", "Accelerator.log", _install_logs),
)

__all__ = ["NAME", "PATCHES", "Tracker", "allow_name", "is_told_already", "mark", "register"]
