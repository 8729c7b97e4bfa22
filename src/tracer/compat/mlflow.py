"""`import tracer.compat.mlflow as mlflow`: the fluent calls of MLflow, recorded by Tracer on this machine.

A program written for `mlflow` keeps its lines; only the import changes. Runs, metrics, parameters, tags, files, texts,
pictures and automatic logging are served. Model flavours, the registry and clients are not: they need their server.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import SimpleNamespace, TracebackType
from typing import Any, Self

from tracer import events
from tracer.active import init as begin
from tracer.capture.frameworks import FRAMEWORKS
from tracer.capture.mlflow import Steps
from tracer.capture.patching import patches
from tracer.compat.media import Image, Table, as_json
from tracer.errors import UsageError
from tracer.run import Run

_FAILED = ("FAILED", "KILLED")
_TEXTS = {".html": "html"}


class ActiveRun:
    """A run, as `mlflow.start_run` gives it; `tracer` is the run beneath.

    Example:
        >>> with start_run(run_name="compat") as run:
        ...     log_metric("loss", 0.5, step=1)
        ...     run.info.run_name
        'compat'
    """

    def __init__(self, beneath: Run, prefix: str) -> None:
        self.tracer, self.prefix = beneath, prefix
        self.steps = Steps()
        self.info = SimpleNamespace(
            run_id=beneath.run_id,
            run_name=beneath.name,
            experiment_id=beneath.config.project_name,
            artifact_uri=os.path.join(beneath.folder, "artifacts"),
            status="RUNNING",
        )
        self.data = SimpleNamespace(metrics={}, params={}, tags={})

    def __enter__(self) -> Self:
        """Give the run itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run; an exception marks it failed."""
        if error is not None and not self.prefix:
            self.tracer.__exit__(kind, error, trace)
        end_run("FAILED" if error is not None else "FINISHED")


_stack: list[ActiveRun] = []
_project: str | None = os.environ.get("MLFLOW_EXPERIMENT_NAME")


def set_tracking_uri(uri: object) -> None:
    """Say where the server is: there is none, the store of `TRACER_STORAGE` or `./.tracer` is used."""


def get_tracking_uri() -> str:
    """Return where runs are kept."""
    return f"file://{os.path.abspath(os.environ.get('TRACER_STORAGE', '.tracer'))}"


def set_experiment(
    experiment_name: str | None = None, experiment_id: str | None = None, **_: object
) -> SimpleNamespace:
    """Choose the project of the runs that follow."""
    global _project  # noqa: PLW0603 -- theirs is a state of the module too
    _project = experiment_name or experiment_id
    return SimpleNamespace(name=_project, experiment_id=_project)


def start_run(
    run_id: str | None = None,
    experiment_id: str | None = None,
    run_name: str | None = None,
    nested: bool = False,  # noqa: FBT001, FBT002 -- theirs
    tags: Mapping[str, object] | None = None,
    description: str | None = None,
    **_: object,
) -> ActiveRun:
    """Begin a run, or continue one.

    Args:
        run_id: A run to continue.
        experiment_id: Its project, where `set_experiment` chose none.
        run_name: Its name.
        nested: Whether it belongs to the active run: its metrics stand there, under its name.
        tags: Names and values.
        description: Free text.
        **_: What else theirs takes has no meaning here.

    Returns:
        The run; also a context manager.

    Raises:
        UsageError: A run is active already and `nested` is not set.
    """
    if _stack and not nested:
        message = f"Run {_stack[-1].info.run_name!r} is active. End it with mlflow.end_run(), or pass nested=True."
        raise UsageError(message)
    if _stack:
        outer = _stack[-1]
        child = ActiveRun(outer.tracer, f"{outer.prefix}{run_name or f'child-{len(_stack)}'}/")
        child.info.run_name = run_name or child.prefix.rstrip("/")
        _stack.append(child)
    else:
        settings: dict[str, Any] = {"notes": description} if description else {}
        beneath = begin(_project or experiment_id, run_name, resume=run_id, **settings)
        _stack.append(ActiveRun(beneath, ""))
    if tags:
        set_tags(tags)
    return _stack[-1]


def end_run(status: str = "FINISHED") -> None:
    """End the active run, if there is one."""
    if not _stack:
        return
    ended = _stack.pop()
    ended.info.status = status
    if not ended.prefix:
        ended.tracer.finish(events.FAILED if status in _FAILED else events.COMPLETED)


def active_run() -> ActiveRun | None:
    """Return the active run, or None."""
    return _stack[-1] if _stack else None


def last_active_run() -> ActiveRun | None:
    """Return the active run, or None: those that ended are read with `tracer list`."""
    return active_run()


def _current() -> ActiveRun:
    """Return the active run; the first call begins one, as theirs does."""
    return _stack[-1] if _stack else start_run()


def log_metric(key: str, value: float, step: int | None = None, timestamp: int | None = None, **_: object) -> None:
    """Record a value; without steps, values of one name count on."""
    log_metrics({key: value}, step, timestamp=timestamp)


def log_metrics(
    metrics: Mapping[str, float], step: int | None = None, timestamp: int | None = None, **_: object
) -> None:
    """Record several values of one step."""
    run = _current()
    run.data.metrics.update(metrics)
    for name, value in metrics.items():
        at = run.steps.of("", name, step or 0)
        time = timestamp / 1000 if timestamp else None
        run.tracer.take(events.Scalars({run.prefix + name: float(value)}, at, time))


def log_param(key: str, value: object, **_: object) -> object:
    """Record a parameter."""
    log_params({key: value})
    return value


def log_params(params: Mapping[str, object], **_: object) -> None:
    """Record parameters."""
    run = _current()
    run.data.params.update(params)
    run.tracer.change({"config": {run.prefix + name: value for name, value in params.items()}})


def set_tag(key: str, value: object, **_: object) -> None:
    """Record a tag: a name with a value."""
    set_tags({key: value})


def set_tags(tags: Mapping[str, object], **_: object) -> None:
    """Record tags."""
    run = _current()
    run.data.tags.update(tags)
    run.tracer.change({"labels": {run.prefix + name: str(value) for name, value in tags.items()}})


def log_artifact(local_path: str | os.PathLike[str], artifact_path: str | None = None, **_: object) -> None:
    """Keep a file with the run."""
    run, path = _current(), os.fspath(local_path)
    run.tracer.log_artifact(path, name=run.prefix + _below(artifact_path, os.path.basename(path.rstrip(os.sep))))


def log_artifacts(local_dir: str | os.PathLike[str], artifact_path: str | None = None, **_: object) -> None:
    """Keep a folder with the run."""
    log_artifact(local_dir, artifact_path)


def log_text(text: str, artifact_file: str, **_: object) -> None:
    """Keep a text."""
    _keep(artifact_file, text.encode(), _TEXTS.get(os.path.splitext(artifact_file)[1], "text"))


def log_dict(dictionary: Mapping[str, object], artifact_file: str, **_: object) -> None:
    """Keep an object as JSON, or as YAML where the name says so."""
    if artifact_file.endswith((".yaml", ".yml")):
        import yaml

        _keep(artifact_file, yaml.safe_dump(dict(dictionary)).encode(), "text")
    else:
        _keep(artifact_file, as_json(dictionary), "text")


def log_figure(figure: object, artifact_file: str, **_: object) -> None:
    """Keep a figure as a picture."""
    _keep(artifact_file, Image(figure).medium().data or b"", "image", ".png")


def log_image(
    image: object, artifact_file: str | None = None, key: str | None = None, step: int | None = None, **_: object
) -> None:
    """Keep a picture, under a file's name or as one of a series."""
    medium = Image(image).medium()
    _keep(artifact_file or key or "image", medium.data or b"", "image", medium.suffix, step)


def log_table(data: Any, artifact_file: str, **_: object) -> None:  # noqa: ANN401 -- a dictionary of columns, or a data frame
    """Keep a table."""
    if isinstance(data, Mapping):
        columns: Sequence[str] = list(data)
        table = Table(columns, [list(row) for row in zip(*data.values(), strict=True)])
    else:
        table = Table(dataframe=data)
    _keep(artifact_file, as_json({"columns": table.columns, "rows": table.data}), "table", ".json")


def autolog(*_: object, disable: bool = False, **__: object) -> None:
    """Listen to every framework, as `tracer run` does; with `disable`, no more."""
    if disable:
        patches.stop()
    else:
        _current()
        patches.start(name for name in FRAMEWORKS if name not in ("mlflow", "arguments"))


def _keep(name: str, data: bytes, kind: str, suffix: str = "", step: int | None = None) -> None:
    """Keep bytes under a file's name."""
    run = _current()
    suffix = suffix or os.path.splitext(name)[1]
    run.tracer.take(events.Media(run.prefix + name, kind, data=data, suffix=suffix, step=step))


def _below(folder: str | None, name: str) -> str:
    """Return a file's name below a folder."""
    return f"{folder.strip('/')}/{name}" if folder else name


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- whatever was asked for
    """Say what is not served."""
    message = (
        f"tracer.compat.mlflow has no {name!r}: it serves runs, metrics, parameters, tags and files. "
        "Import mlflow itself for the rest; Tracer listens to it beside (`tracer run`)."
    )
    raise AttributeError(message)


__all__ = [
    "ActiveRun", "active_run", "autolog", "end_run", "get_tracking_uri", "last_active_run", "log_artifact",
    "log_artifacts", "log_dict", "log_figure", "log_image", "log_metric", "log_metrics", "log_param", "log_params",
    "log_table", "log_text", "set_experiment", "set_tag", "set_tags", "set_tracking_uri", "start_run",
]  # fmt: skip
