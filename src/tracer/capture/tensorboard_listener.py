"""What becomes of an event that a TensorBoard writer was given: a scalar of ours, a picture, parameters.

Called on the thread that writes, after the writer has taken the event. A scalar costs three reads; of everything else
the bytes and lists are copied as they are.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from tracer import clock, events, sink
from tracer.capture import tensorboard_events as decoding
from tracer.capture.origins import fed_by
from tracer.capture.patching import Hook
from tracer.capture.tensorboard_names import Names, Series

ORIGIN = "tensorboard"


class Several:
    """A call of `add_scalars`: each of its values goes to a writer of its own, in a folder below the caller's."""

    __slots__ = ("_writer", "tag")

    def __init__(self, writer: Any, tag: str) -> None:  # noqa: ANN401 -- a `SummaryWriter`
        self._writer, self.tag = writer, tag

    @property
    def folder(self) -> str:
        """Where the caller writes itself."""
        return str(self._writer.file_writer.get_logdir())

    def key(self, folder: str) -> str:
        """Return which of the values a folder belongs to: torch and tensorboardX build its name differently."""
        for begin in (f"{self.folder}/{self.tag.replace('/', '_')}_", os.path.join(self.folder, self.tag, "")):
            if folder.startswith(begin):
                return folder[len(begin) :]
        return os.path.basename(folder)


class Session:
    """A call of `add_hparams`: what it writes is gathered, and told once it has ended."""

    __slots__ = ("folder", "metrics", "parameters", "time")

    def __init__(self) -> None:
        self.parameters: dict[str, object] = {}
        self.metrics: dict[str, object] = {}
        self.folder, self.time = "", clock.now()


#: What the name of an artifact cannot hold, and how much of a tag it takes.
_NOT_IN_NAMES, _MAX_TAG = re.compile(r"[:\x00-\x1f\x7f]"), 100
#: Inside which of those calls an event is written.
within: ContextVar[Several | Session | None] = ContextVar("tracer_tensorboard_call", default=None)


#: A parameter that the writer itself has left out: tensorboardX does so with what it does not know.
_NOT_SAID = object()
#: Writer, event, step as the caller gave it, and the event's time.
Call = tuple[Any, Any, Any, float]


class Listener:
    """Turns events into ours; what it knows of names and steps is of one run."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew: what comes next belongs to another run."""
        self._guard = Hook.guard
        self._scalars = Names()
        self._media: defaultdict[str, Names] = defaultdict(Names)
        self._fractions = 0

    def hear(self, hook: Hook, writer: Any, event: Any, step: Any, time: float) -> None:  # noqa: ANN401 -- theirs
        """Pass on what an event holds; it is not changed.

        Args:
            hook: Where it was heard.
            writer: The `FileWriter`.
            event: The `Event`, or what is read like one.
            step: What the caller gave, or None.
            time: The time of the event.
        """
        if self._guard is not Hook.guard:
            self.forget()
        values = event.summary.value
        if len(values) == 1:  # by its place: an iterator costs a scalar as much again as reading it
            value = values[0]
            if value.HasField("simple_value"):
                self._number(hook, (writer, event, step, time), value.tag, value.simple_value)
            else:
                self._other(hook, (writer, event, step, time), value)
        elif not values:
            self._media_of(hook, (writer, event, step, time), decoding.graphs(event))
        else:
            for value in values:
                if value.HasField("simple_value"):
                    self._number(hook, (writer, event, step, time), value.tag, value.simple_value)
                else:
                    self._other(hook, (writer, event, step, time), value)

    def _number(self, hook: Hook, call: Call, tag: str, number: float) -> None:
        """Pass on a number, unless a framework tells it itself."""
        writer, event, step, time = call
        folder = writer.get_logdir()
        series = self._scalars.known.get((folder, tag))
        outer = within.get()
        if fed_by() is not None:
            return
        if type(outer) is Session:
            outer.metrics[tag], outer.folder, outer.time = number, folder, time
            return
        if series is None:
            series = self._new_series(folder, tag, outer)
        if type(step) is not int:
            step = self._number_step(series, writer, event, step)
        hook.emit(events.Scalars({series.name: number}, step, time, ORIGIN))
        self._guard = Hook.guard  # the first number of a program may have begun its run

    def _other(self, hook: Hook, call: Call, value: Any) -> None:  # noqa: ANN401 -- theirs
        """Pass on a value that is no number in the older way of writing them."""
        kind = value.WhichOneof("value")
        if kind == "tensor" and decoding.is_scalar(value):
            self._number(hook, call, value.tag, decoding.scalar(value))
        elif kind is None:
            self._hyperparameters(hook, value)
        else:
            self._media_of(hook, call, decoding.media(value))

    def _new_series(self, folder: str, tag: str, outer: object) -> Series:
        """Name a series, and say which folder it comes from."""
        if isinstance(outer, Several):
            series = self._scalars.new(folder, tag, of=outer.folder, name=f"{outer.tag}/{outer.key(folder)}")
        else:
            series = self._scalars.new(folder, tag)
        sink.emit(events.Metadata({ORIGIN: {"folders": {series.name: series.folder}}}))
        return series

    def _number_step(self, series: Series, writer: Any, event: Any, step: Any) -> int:  # noqa: ANN401 -- theirs
        """Return the step of a number, and say once which series go without one."""
        was_given, step = series.is_given, self._step(series, writer, event, step)
        if was_given and not series.is_given:
            sink.emit(events.Metadata({ORIGIN: {"automatic_steps": {series.name: True}}}))
        return int(step)

    def _step(self, series: Series, writer: Any, event: Any, step: Any) -> int:  # noqa: ANN401 -- theirs
        """Return the step of a value where it is no plain number."""
        if step is not None:
            whole = int(event.step) or int(step)  # a writer that writes nothing leaves the event as it was
            if _is_fraction(step, whole):
                self._fractions += 1
                sink.emit(events.Metadata({ORIGIN: {"fractional_steps": self._fractions}}))
            return whole
        given = getattr(writer, "_default_metadata", None)  # tensorboardX: `use_metadata(global_step=...)`
        if event.step or (given and given.get("global_step") is not None):
            return int(event.step)
        series.is_given = False
        return next(series.steps)

    def _media_of(self, hook: Hook, call: Call, found: Iterator[events.Media]) -> None:
        """Pass on what is no scalar."""
        writer, event, step, time = call
        folder = writer.get_logdir()
        for one in found:
            names = self._media[one.kind]
            series = names.known.get((folder, one.name)) or names.new(folder, one.name)
            one.name, one.origin, one.time = series.name, ORIGIN, time
            one.step = step if type(step) is int else self._step(series, writer, event, step)
            automatic = {} if series.is_given else {"automatic_step": True}
            one.fields = {**one.fields, "folder": series.folder, **automatic}
            hook.emit(one)
            self._guard = Hook.guard

    @staticmethod
    def _hyperparameters(hook: Hook, value: Any) -> None:  # noqa: ANN401 -- theirs
        """Pass on hyper-parameters, or gather them for the call that writes them."""
        if value.metadata.plugin_data.plugin_name != "hparams":
            return
        found, outer = decoding.hyperparameters(value), within.get()
        if isinstance(outer, Session):
            outer.parameters.update(found)
        elif found:
            hook.emit(events.Parameters(found, ORIGIN))


def tell_session(hook: Hook, session: Session, given: Mapping[str, object]) -> None:
    """Pass on a call of `add_hparams`: parameters and final values of the run, and the session as it was.

    Args:
        hook: Where it was heard.
        session: What was gathered during the call.
        given: The hyper-parameters as the program gave them: the events know no whole numbers.
    """
    read = session.parameters
    parameters = {name: value if _is_plain(value) else read.get(name, _NOT_SAID) for name, value in given.items()}
    parameters = {name: value for name, value in parameters.items() if value is not _NOT_SAID}
    hook.emit(events.Parameters(parameters, ORIGIN))
    if session.metrics:
        sink.emit(events.Metadata({"summary": session.metrics}))
    fields = {"parameters": parameters, "metrics": session.metrics, "folder": session.folder}
    sink.emit(events.Entry("event", name="hparams", fields=fields, time=session.time))


def tell_embedding(hook: Hook, writer: Any, step: Any, tag: str) -> None:  # noqa: ANN401 -- theirs
    """Pass on the files of an embedding: there is no event of it.

    Args:
        hook: Where it was heard.
        writer: The `SummaryWriter`.
        step: What the program gave, or None.
        tag: The name of the embedding.
    """
    log_folder = os.path.abspath(str(writer.file_writer.get_logdir()))
    step = 0 if step is None else step
    folder = os.path.join(log_folder, str(step).zfill(5), writer._encode(tag))  # noqa: SLF001 -- theirs
    if os.path.isdir(folder):
        about = {"tag": tag, "folder": log_folder}
        name = f"embedding/{_NOT_IN_NAMES.sub('_', tag)[:_MAX_TAG]}"
        hook.emit(events.Artifact(folder, name=name, type="embedding", step=int(step), metadata=about, origin=ORIGIN))


def _is_fraction(step: Any, whole: int) -> bool:  # noqa: ANN401 -- theirs
    """Tell whether a step lies between two; a tensor on a device is taken at its word."""
    device = getattr(step, "device", None)
    return getattr(device, "type", "cpu") == "cpu" and bool(step != whole)


def _is_plain(value: object) -> bool:
    """Tell whether a hyper-parameter can be told as it was given."""
    return value is None or type(value) in {bool, int, float, str}


__all__ = ["ORIGIN", "Listener", "Session", "Several", "tell_embedding", "tell_session", "within"]
