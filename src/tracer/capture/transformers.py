"""The Trainer of transformers, and whatever subclasses it: how our callbacks come to be called.

    Trainer ──► our callbacks ──► Reporter ──► events
                (a default one, that of `report_to="tracer"`, one added by hand)

What they tell is in `transformers_reporter.py`. What callbacks of transformers pass on to TensorBoard, MLflow and W&B
meanwhile is marked as a copy.
"""

# ruff: noqa: ANN401 -- the framework decides what it hands over, and of what type

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import ModuleType
from typing import Any

from tracer.capture.origins import feeding
from tracer.capture.patching import Hook, Patch
from tracer.capture.transformers_reporter import AUTOMATIC, ORIGIN, Listener, Reporter, claims

defaults = Hook("transformers.trainer")
late = Hook("transformers.late")
report_to = Hook("transformers.report_to")


class _Automatic(Listener):
    """A callback that nobody added by hand: it speaks for the active run."""

    hook = defaults

    def __init__(self) -> None:
        self.reporter = Reporter(self.hook, AUTOMATIC)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Begin anew where it was sent to."""
        self.__dict__.update(state)
        self.reporter = Reporter(self.hook, AUTOMATIC)


@cache
def _completed(name: str) -> type:
    """Return an automatic callback with the framework's base class; two names, since a Trainer warns of two of one."""
    from transformers.trainer_callback import TrainerCallback

    hook = report_to if name == "TracerReport" else defaults
    names = {"__module__": __name__, "__qualname__": name, "__doc__": _Automatic.__doc__, "hook": hook}
    return type(name, (_Automatic, TrainerCallback), names)


def __getattr__(name: str) -> Any:
    """Find an automatic callback by its name, as `pickle` does."""
    if name not in ("TracerCapture", "TracerReport"):
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return _completed(name)


def _install_defaults(module: ModuleType) -> Callable[[], None]:
    """Give every Trainer that is made from now on a callback of ours."""
    callback, listed = _completed("TracerCapture"), module.DEFAULT_CALLBACKS
    defaults.is_on = True
    if callback not in listed:
        listed.append(callback)

    def undo() -> None:
        defaults.is_on = False
        if callback in listed:
            listed.remove(callback)

    return undo


def _install_late(module: ModuleType) -> Callable[[], None]:
    """Join the Trainers that were made before, as they begin to train, to report or to predict."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def told(self: Any, *args: Any, **kwargs: Any) -> Any:
            if late.is_on:
                with late:
                    if not any(isinstance(callback, Listener) for callback in self.callbacks):
                        self.callbacks.append(_completed("TracerCapture")())
            return original(self, *args, **kwargs)

        return told

    known = ("self", "args", "state", "control")
    undone = [
        late.wrap(module.CallbackHandler, attribute, make, parameters=known)
        for attribute in ("on_train_begin", "on_log", "on_predict")
    ]

    def undo() -> None:
        for one in reversed(undone):
            one()

    return undo


def _install_report_to(module: ModuleType) -> Callable[[], None]:
    """Make the name `tracer` known to `report_to`; a callback that begins runs itself may stand there already."""
    known, callback = module.INTEGRATION_TO_CALLBACK, _completed("TracerReport")
    report_to.is_on = True
    known.setdefault("tracer", callback)

    def undo() -> None:
        report_to.is_on = False
        if known.get("tracer") is callback:
            del known["tracer"]

    return undo


def mark(hook: Hook, module: ModuleType, name: str) -> Callable[[], None]:
    """Mark the calls in which a callback of transformers passes on to another tracker what we are told ourselves.

    Args:
        hook: The hook that goes in.
        module: `transformers.integrations.integration_utils`.
        name: The callback's class.

    Returns:
        What takes the mark out.
    """

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def on_log(self: Any, args: Any, state: Any, *rest: Any, **kwargs: Any) -> Any:
            if not hook.is_on or claims.holder(state) is None:
                return original(self, args, state, *rest, **kwargs)
            with feeding(ORIGIN):
                return original(self, args, state, *rest, **kwargs)

        return on_log

    return hook.wrap(getattr(module, name), "on_log", make, parameters=("self", "args", "state", "control"))


#: Those that pass on to something that is listened to as well.
PASSING_ON = {"tensorboard": "TensorBoardCallback", "mlflow": "MLflowCallback", "wandb": "WandbCallback"}


def _row(hook: Hook, module: str, attribute: str, install: Callable[[ModuleType], Callable[[], None]]) -> Patch:
    """Return a row of the table."""
    tested = ("4.57.6", "5.23.0")
    return Patch(hook, module=module, attribute=attribute, package="transformers", tested=tested, install=install)


def _marking(tracker: str, name: str) -> Patch:
    """Return the row for a callback that passes on."""
    hook = Hook(f"transformers.{tracker}")
    module = "transformers.integrations.integration_utils"
    return _row(hook, module, f"{name}.on_log", lambda found: mark(hook, found, name))


PATCHES = (
    _row(defaults, "transformers.trainer", "DEFAULT_CALLBACKS", _install_defaults),
    _row(late, "transformers.trainer", "CallbackHandler.on_train_begin, on_log, on_predict", _install_late),
    _row(report_to, "transformers.integrations.integration_utils", "INTEGRATION_TO_CALLBACK", _install_report_to),
    *(_marking(tracker, name) for tracker, name in PASSING_ON.items()),
)

__all__ = ["PASSING_ON", "PATCHES", "mark"]
