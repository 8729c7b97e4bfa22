"""What programs write for TensorBoard, through torch's writer and tensorboardX; their event files are left as they are.

    tensorboard.py            the places that are listened at
    tensorboard_listener.py   what becomes of an event
    tensorboard_names.py      names and steps of ours for their tags
    tensorboard_events.py     everything that is no scalar
    tensorboard_tensors.py    their tensors in NumPy

All writers of either package end in `FileWriter.add_event`. Three methods of `SummaryWriter` are listened at besides:
`add_scalars` and `add_hparams` make writers of their own, and `add_embedding` writes files without an event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from tracer import clock
from tracer.capture.patching import Hook, Patch
from tracer.capture.tensorboard_listener import Listener, Session, Several, tell_embedding, tell_session, within

listener = Listener()


def _events(hook: Hook) -> Callable[[Any], Any]:
    """Return what wraps `FileWriter.add_event`: the event is heard once it has been taken, with its final time."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def add_event(self: Any, event: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- theirs
            result = original(self, event, *args, **kwargs)
            if hook.is_on:
                with hook:
                    listener.hear(hook, self, event, args[0] if args else kwargs.get("step"), event.wall_time)
            return result

        return add_event

    return make


class _Unwritten:
    """A summary given to a writer that writes nothing, which makes no event of it."""

    __slots__ = ("step", "summary")

    def __init__(self, summary: Any) -> None:  # noqa: ANN401 -- theirs
        self.summary, self.step = summary, 0

    def WhichOneof(self, _: str) -> str:  # noqa: N802 -- theirs
        """Say what it holds, as an event does."""
        return "summary"


def _unwritten(hook: Hook) -> Callable[[Any], Any]:
    """Return what wraps `DummyFileWriter.add_summary` and `add_event`: nobody gives a time to what is not written."""

    def tell(writer: Any, what: Any, step: Any = None, time: Any = None, *_: Any, **named: Any) -> None:  # noqa: ANN401
        event = _Unwritten(what) if hasattr(what, "value") else what
        step, time = named.get("step", named.get("global_step", step)), named.get("walltime", time)
        listener.hear(hook, writer, event, step, clock.now() if time is None else time)

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def add(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- theirs
            result = original(*args, **kwargs)
            if hook.is_on:
                with hook:
                    what = kwargs.pop("summary", None) or kwargs.pop("event", None)
                    tell(*args, *([what] if what is not None else []), **kwargs)
            return result

        return add

    return make


def _several(hook: Hook) -> Callable[[Any], Any]:
    """Return what wraps `SummaryWriter.add_scalars`: its values are heard as `main/key`."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def add_scalars(self: Any, main_tag: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- theirs
            if not hook.is_on:
                return original(self, main_tag, *args, **kwargs)
            mark = within.set(Several(self, main_tag))
            try:
                return original(self, main_tag, *args, **kwargs)
            finally:
                within.reset(mark)

        return add_scalars

    return make


def _session(hook: Hook) -> Callable[[Any], Any]:
    """Return what wraps `SummaryWriter.add_hparams`: parameters and final values of the run, no series."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def add_hparams(self: Any, hparam_dict: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- theirs
            if not hook.is_on:
                return original(self, hparam_dict, *args, **kwargs)
            session = Session()
            mark = within.set(session)
            try:
                result = original(self, hparam_dict, *args, **kwargs)
            finally:
                within.reset(mark)
            with hook:
                tell_session(hook, session, hparam_dict)
            return result

        return add_hparams

    return make


def _embedding(hook: Hook) -> Callable[[Any], Any]:
    """Return what wraps `SummaryWriter.add_embedding`: the files are kept once they are written."""

    def tell(
        writer: Any,  # noqa: ANN401
        mat: Any,  # noqa: ANN401, ARG001
        metadata: Any = None,  # noqa: ANN401, ARG001
        label_img: Any = None,  # noqa: ANN401, ARG001
        global_step: Any = None,  # noqa: ANN401
        tag: str = "default",
        *_: Any,  # noqa: ANN401
        **__: Any,  # noqa: ANN401
    ) -> None:
        tell_embedding(hook, writer, global_step, tag)

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def add_embedding(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- theirs
            result = original(*args, **kwargs)
            if hook.is_on:
                with hook:
                    tell(*args, **kwargs)
            return result

        return add_embedding

    return make


#: Class and method, what wraps it, and the parameters that are relied on.
_PLACES: Mapping[str, tuple[Callable[[Hook], Callable[[Any], Any]], tuple[str, ...]]] = {
    "FileWriter.add_event": (_events, ("self", "event", "step", "walltime")),
    "DummyFileWriter.add_event": (_unwritten, ("self", "event", "step", "walltime")),
    "DummyFileWriter.add_summary": (_unwritten, ("self", "summary", "global_step", "walltime")),
    "SummaryWriter.add_scalars": (_several, ("self", "main_tag", "tag_scalar_dict", "global_step", "walltime")),
    "SummaryWriter.add_hparams": (_session, ("self", "hparam_dict", "metric_dict")),
    "SummaryWriter.add_embedding": (
        _embedding,
        ("self", "mat", "metadata", "label_img", "global_step", "tag", "metadata_header"),
    ),
}


def _patch(name: str, module: str, package: str, tested: tuple[str, str], attribute: str) -> Patch:
    """Return the row for one place of one package."""
    wrap, parameters = _PLACES[attribute]
    owner, method = attribute.split(".")
    is_main = attribute == "FileWriter.add_event"
    hook = Hook(f"tensorboard.{name}" if is_main else f"tensorboard.{name}.{attribute}")

    def install(loaded: ModuleType) -> Callable[[], None]:
        undo = hook.wrap(getattr(loaded, owner), method, wrap(hook), parameters=parameters)

        def take_out() -> None:
            undo()
            listener.forget()

        return take_out

    return Patch(hook, module=module, attribute=attribute, package=package, tested=tested, install=install)


PATCHES: tuple[Patch, ...] = (
    *(
        _patch("torch", "torch.utils.tensorboard.writer", "torch", ("2.13.0", "2.13.0"), attribute)
        for attribute in _PLACES
        if not attribute.startswith("Dummy")
    ),
    *(_patch("tensorboardX", "tensorboardX.writer", "tensorboardX", ("2.6.5", "2.6.5"), place) for place in _PLACES),
)

__all__ = ["PATCHES", "listener"]
