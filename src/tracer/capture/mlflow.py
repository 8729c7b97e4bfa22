"""What a program says to MLflow: metrics, parameters, tags and files, as it says them.

Listened at the methods of `MlflowClient`, in which the fluent functions and automatic logging end too. The program's
own run goes on unchanged. Only the fluent functions and a client inside the process are heard, of course.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from tracer import events
from tracer.capture.origins import fed_by
from tracer.capture.patching import Hook, Patch, patches

ORIGIN = "mlflow"
#: Tags that MLflow gives itself.
_INTERNAL = "mlflow."
#: A file in the folder for temporary files is gone after the call; up to this size its bytes are kept at once.
_MAX_BYTES = 32 << 20
_MEDIA = {
    ".png": "image", ".jpg": "image", ".jpeg": "image", ".gif": "image", ".svg": "image", ".webp": "image",
    ".html": "html", ".mp4": "video", ".wav": "audio", ".json": "text", ".yaml": "text", ".yml": "text", ".txt": "text",
    ".md": "text", ".csv": "text",
}  # fmt: skip

metrics = Hook("mlflow.log_metric")
batches = Hook("mlflow.log_batch")
parameters = Hook("mlflow.log_param")
tags = Hook("mlflow.set_tag")
files = Hook("mlflow.log_artifact")
folders = Hook("mlflow.log_artifacts")


class Steps:
    """The step of a value that came without one.

    MLflow writes step 0 then, and people log whole curves so: values that come again at step 0 are counted on.

    Example:
        >>> steps = Steps()
        >>> [steps.of("run", "loss", step) for step in (0, 0, 0)]
        [0, 1, 2]
        >>> [steps.of("run", "accuracy", step) for step in (0, 5, 0)]
        [0, 5, 0]
    """

    def __init__(self) -> None:
        self._next: dict[tuple[str, str], int | None] = {}

    def of(self, run: str, name: str, step: int) -> int:
        """Return the step of a value."""
        key = run, name
        following = self._next.get(key, 0)
        if step != 0 or following is None:
            self._next[key] = None  # it is given steps
            return step
        self._next[key] = following + 1
        return following


_steps = Steps()
_prefixes: dict[str, str] = {}


def _prefix(run: str) -> str:
    """Return what stands before the names of a run: nothing for the first, its id's beginning for the others."""
    return _prefixes.setdefault(run, f"{run[:8]}/" if _prefixes else "")


def _tell_metrics(hook: Hook, run: str, values: Mapping[tuple[str, int], float], time: float | None) -> None:
    """Pass on values by name and step."""
    if fed_by() is not None:
        return  # a framework says the same to us itself
    prefix = _prefix(run)
    by_step: dict[int, dict[str, object]] = {}
    for (name, step), value in values.items():
        by_step.setdefault(_steps.of(run, name, step), {})[prefix + name] = value
    for step, one in by_step.items():
        hook.emit(events.Scalars(one, step, time, origin=ORIGIN))


def _tell_parameters(run: str, values: Mapping[str, object]) -> None:
    """Pass on parameters."""
    prefix = _prefix(run)
    parameters.emit(events.Parameters({prefix + name: value for name, value in values.items()}, ORIGIN))


def _tell_tags(run: str, values: Mapping[str, object]) -> None:
    """Pass on tags: names with values, which ours are not, so they stand apart."""
    own = {name: str(value) for name, value in values.items() if not name.startswith(_INTERNAL)}
    if own:
        tags.emit(events.Metadata({"labels": {_prefix(run) + name: value for name, value in own.items()}}))


def _tell_file(hook: Hook, run: str, path: str, below: str | None) -> None:
    """Pass on a file or folder: by reference, or its bytes where it is only there for the moment."""
    path = os.path.abspath(path)
    name = _prefix(run) + "/".join(part for part in (below, os.path.basename(path)) if part)
    suffix = os.path.splitext(path)[1].lower()
    if path.startswith(os.path.join(tempfile.gettempdir(), "")) and os.path.isfile(path) and suffix in _MEDIA:
        if os.path.getsize(path) <= _MAX_BYTES:
            with open(path, "rb") as file:
                hook.emit(events.Media(name, _MEDIA[suffix], data=file.read(), suffix=suffix, origin=ORIGIN))
        return
    hook.emit(events.Artifact(path, name=name, origin=ORIGIN))


def _listening(hook: Hook, attribute: str, tell: Callable[..., None], leading: tuple[str, ...]) -> Patch:
    """Return the row for a method: what it was given is passed on after it has returned."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def heard(self: Any, run_id: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 -- theirs
            result = original(self, run_id, *args, **kwargs)
            if hook.is_on:
                with hook:
                    tell(run_id, *args, **kwargs)
            return result

        return heard

    def install(module: ModuleType) -> Callable[[], None]:
        return hook.wrap(module.MlflowClient, attribute, make, parameters=("self", "run_id", *leading))

    return Patch(
        hook,
        module="mlflow.tracking.client",
        attribute=f"MlflowClient.{attribute}",
        package="mlflow",
        tested=("3.17.2", "3.17.2"),
        install=install,
    )


def _metric(run: str, key: str, value: float, timestamp: int | None = None, step: int | None = None, **_: Any) -> None:  # noqa: ANN401
    _tell_metrics(metrics, run, {(key, step or 0): value}, timestamp / 1000 if timestamp else None)


def _batch(run: str, metrics: Any = (), params: Any = (), tags: Any = (), *_: Any, **__: Any) -> None:  # noqa: ANN401
    """Pass on a batch: metrics of the same moment together."""
    if _repeats_tensorboard():
        return
    by_time: dict[float, dict[tuple[str, int], float]] = {}
    for one in metrics:
        by_time.setdefault(one.timestamp / 1000, {})[one.key, one.step] = one.value
    for time, values in by_time.items():
        _tell_metrics(batches, run, values, time)
    if params:
        _tell_parameters(run, {one.key: _read(one.value) for one in params})
    if tags:
        _tell_tags(run, {one.key: one.value for one in tags})


def _repeats_tensorboard() -> bool:
    """Tell whether automatic logging is flushing what a TensorBoard writer was given, which we hear there."""
    queue = sys.modules.get("mlflow.utils.autologging_utils.metrics_queue")
    lock = getattr(queue, "_metrics_queue_lock", None)  # held by the thread that flushes
    return lock is not None and patches.is_on("tensorboard") and bool(lock._is_owned())  # noqa: SLF001 -- an RLock's own


def _read(text: str) -> object:
    """Return the number or the truth value that a text is: batches make texts of all parameters."""
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        with contextlib.suppress(ValueError, TypeError):
            return kind(text)
    return text


def _parameter(run: str, key: str, value: object, *_: Any, **__: Any) -> None:  # noqa: ANN401
    _tell_parameters(run, {key: value})


def _tag(run: str, key: str, value: object, *_: Any, **__: Any) -> None:  # noqa: ANN401
    _tell_tags(run, {key: value})


PATCHES = (
    _listening(metrics, "log_metric", _metric, ("key", "value", "timestamp", "step")),
    _listening(batches, "log_batch", _batch, ("metrics", "params", "tags")),
    _listening(parameters, "log_param", _parameter, ("key", "value")),
    _listening(tags, "set_tag", _tag, ("key", "value")),
    _listening(
        files,
        "log_artifact",
        lambda run, local_path, artifact_path=None: _tell_file(files, run, local_path, artifact_path),
        ("local_path", "artifact_path"),
    ),
    _listening(
        folders,
        "log_artifacts",
        lambda run, local_dir, artifact_path=None: _tell_file(folders, run, local_dir, artifact_path),
        ("local_dir", "artifact_path"),
    ),
)

__all__ = ["ORIGIN", "PATCHES", "Steps"]
