"""`import tracer.compat.wandb as wandb`: the calls of Weights & Biases, recorded by Tracer on this machine.

A program written for `wandb` keeps its lines; only the import changes. Runs, metrics, media, tables, config, summary
and files are served. Sweeps, reports, teams and the public API are not: they are services of theirs.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from tracer import events, sink
from tracer.active import init as begin
from tracer.capture.wandb_values import split
from tracer.compat.media import Audio, Histogram, Html, Image, Table, Video
from tracer.errors import UsageError
from tracer.run import Run as TracerRun

#: Modes in which theirs records nothing.
_DISABLED = "disabled"


class Config:
    """Hyper-parameters: read and set as attributes or keys; every change is recorded.

    Example:
        >>> config = Config({"lr": 0.1})
        >>> config.epochs = 3
        >>> dict(config.items())
        {'lr': 0.1, 'epochs': 3}
    """

    def __init__(self, values: Mapping[str, object] | None = None) -> None:
        object.__setattr__(self, "_values", dict(values or {}))

    def update(self, values: Mapping[str, object], allow_val_change: bool | None = None) -> None:  # noqa: ARG002, FBT001 -- theirs
        """Set several values."""
        self._values.update(values)
        sink.emit(events.Metadata({"config": dict(values)}))

    def setdefaults(self, values: Mapping[str, object]) -> None:
        """Set those that are not set yet."""
        self.update({name: value for name, value in values.items() if name not in self._values})

    def as_dict(self) -> dict[str, Any]:
        """Return all values."""
        return dict(self._values)

    def get(self, name: str, default: object = None) -> Any:  # noqa: ANN401 -- whatever was set
        """Return a value, or the default."""
        return self._values.get(name, default)

    def keys(self) -> list[str]:
        """Return the names."""
        return list(self._values)

    def items(self) -> list[tuple[str, Any]]:
        """Return names and values."""
        return list(self._values.items())

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 -- as above
        return self._values[name]

    def __setitem__(self, name: str, value: object) -> None:
        self.update({name: value})

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- as above
        try:
            return object.__getattribute__(self, "_values")[name]
        except KeyError:
            message = f"The config has no {name!r}. Known: {', '.join(self._values) or 'nothing yet'}."
            raise AttributeError(message) from None

    def __setattr__(self, name: str, value: object) -> None:
        self.update({name: value})

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)


class Summary(Config):
    """Final values, beside the last one of each metric.

    Example:
        >>> summary = Summary()
        >>> summary["best"] = 0.9
        >>> summary.best
        0.9
    """

    def update(self, values: Mapping[str, object], allow_val_change: bool | None = None) -> None:  # noqa: ARG002, FBT001 -- theirs
        """Set several values."""
        self._values.update(values)
        sink.emit(events.Metadata({"summary": dict(values)}))


class Artifact:
    """Files that belong together; kept when `log_artifact` gets it.

    Args:
        name: Its name.
        type: What it is: `model`, `dataset` or another word.
        description: A sentence about it.
        metadata: What else is known.

    Example:
        >>> artifact = Artifact("weights", type="model")
        >>> artifact.name
        'weights'
    """

    def __init__(
        self,
        name: str,
        type: str,  # noqa: A002 -- their name
        description: str | None = None,
        metadata: Mapping[str, object] | None = None,
        **_: object,
    ) -> None:
        self.name, self.type, self.description, self.metadata = name, type, description, dict(metadata or {})
        self.paths: list[str] = []

    def add_file(self, local_path: str | os.PathLike[str], name: str | None = None, **_: object) -> None:  # noqa: ARG002 -- theirs
        """Add a file."""
        self.paths.append(os.fspath(local_path))

    def add_dir(self, local_path: str | os.PathLike[str], name: str | None = None, **_: object) -> None:  # noqa: ARG002 -- theirs
        """Add the files of a folder."""
        self.paths.append(os.fspath(local_path))


class Run:
    """A run, as a program written for `wandb` drives it; `tracer` is the run beneath.

    Example:
        >>> with init(project="docs", name="compat", config={"lr": 0.1}) as run:
        ...     run.log({"loss": 0.5})
        ...     run.step
        1
    """

    def __init__(self, beneath: TracerRun | None, config: Mapping[str, object], project: str) -> None:
        self.tracer, self.project, self.disabled = beneath, project, beneath is None
        self.config, self.summary = Config(config), Summary()
        self._step = beneath.step_count if beneath is not None else 0

    @property
    def id(self) -> str:
        """The id of the run."""
        return self.tracer.run_id if self.tracer is not None else _DISABLED

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.tracer.name if self.tracer is not None else _DISABLED

    @property
    def dir(self) -> str:
        """The folder of the run."""
        return self.tracer.folder if self.tracer is not None else os.getcwd()

    @property
    def step(self) -> int:
        """The step of the next call."""
        return self._step

    @property
    def url(self) -> None:
        """Theirs has an address; ours is a folder, see `dir`."""
        return

    def log(self, data: Mapping[str, Any], step: int | None = None, commit: bool | None = None, **_: object) -> None:  # noqa: FBT001 -- theirs
        """Record values; steps count on by themselves, and may also go backwards.

        Args:
            data: Name → number, text, picture, table, histogram.
            step: The step; the next one when absent.
            commit: Whether the step ends; it does when no step is given.
        """
        if step is not None:
            self._step = int(step)
        if self.tracer is not None:
            values, media = split(data, "")
            if values:
                self.tracer.log(values, step=self._step)
            for name, one in media:
                self.tracer.take(events.Media(name, one.kind, data=one.data, suffix=one.suffix, step=self._step,
                                              caption=one.caption, fields=one.fields))  # fmt: skip
        if commit or (commit is None and step is None):
            self._step += 1
            if self.tracer is not None:
                self.tracer.take(events.Steps(self._step, events.USER))

    def log_artifact(
        self,
        artifact_or_path: Artifact | str | os.PathLike[str],
        name: str | None = None,
        type: str | None = None,  # noqa: A002 -- their name
        aliases: Sequence[str] | None = None,
        **_: object,
    ) -> Artifact:
        """Keep files with the run."""
        if isinstance(artifact_or_path, Artifact):
            artifact = artifact_or_path
        else:
            path = os.fspath(artifact_or_path)
            artifact = Artifact(name or os.path.basename(path), type or "file")
            artifact.paths.append(path)
        for path in artifact.paths if self.tracer is not None else ():
            called = artifact.name if len(artifact.paths) == 1 else f"{artifact.name}/{os.path.basename(path)}"
            self.tracer.log_artifact(  # type: ignore[union-attr]  # seen by the condition above
                path, name=called, type=artifact.type, metadata=artifact.metadata, aliases=tuple(aliases or ())
            )
        return artifact

    def save(self, glob_str: str | os.PathLike[str], *_: object, **__: object) -> bool:
        """Keep a file with the run."""
        import glob

        for path in glob.glob(os.fspath(glob_str)):
            self.log_artifact(path)
        return True

    def watch(self, models: Any, *_: object, **__: object) -> None:  # noqa: ANN401 -- a module, or several
        """Watch a model: gradients, weights, updates; see `tracer.watch`."""
        for model in models if isinstance(models, (list, tuple)) else [models]:
            if self.tracer is not None:
                self.tracer.watch(model)

    def define_metric(self, name: str, *_: object, goal: str | None = None, **__: object) -> None:
        """Say in which direction a metric is better."""
        if goal and self.tracer is not None:
            self.tracer.change({"goals": {name: {"minimize": "min", "maximize": "max"}.get(goal, goal)}})

    def alert(self, title: str, text: str = "", level: str = "INFO", **_: object) -> None:
        """Record a message."""
        sink.emit(events.Entry("event", text, name=title, level=str(level).lower()))

    def finish(self, exit_code: int | None = None, **_: object) -> None:
        """End the run."""
        global run  # noqa: PLW0603 -- theirs is a variable of the module too
        if self.tracer is not None:
            self.tracer.finish(events.FAILED if exit_code else events.COMPLETED, None, exit_code or 0)
        run = None if run is self else run

    def __enter__(self) -> Self:
        """Give the run itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run; an exception marks it failed."""
        if self.tracer is not None:
            self.tracer.__exit__(kind, error, trace)
        self.finish()


run: Run | None = None
config: Config = Config()
summary: Summary = Summary()


def init(  # noqa: PLR0913 -- theirs
    project: str | None = None,
    name: str | None = None,
    *,
    config: Mapping[str, object] | None = None,
    notes: str | None = None,
    tags: Sequence[str] | None = None,
    group: str | None = None,
    job_type: str | None = None,
    id: str | None = None,  # noqa: A002 -- their name
    mode: str | None = None,
    resume: bool | str | None = None,
    **_: object,
) -> Run:
    """Begin a run.

    Args:
        project: Its project; `WANDB_PROJECT` when absent.
        name: Its name; `WANDB_NAME` when absent.
        config: Hyper-parameters.
        notes: Free text.
        tags: Its tags.
        group: Name that several runs share.
        job_type: What it does in its group.
        id: Serves as name where none is given.
        mode: `disabled` records nothing; the others are all the same here.
        resume: Whether the newest run of that name is continued.
        **_: What else theirs takes has no meaning here.

    Returns:
        The run; also a context manager.
    """
    global run  # noqa: PLW0603 -- theirs is a variable of the module too
    project, name = project or os.environ.get("WANDB_PROJECT"), name or os.environ.get("WANDB_NAME") or id
    if (mode or os.environ.get("WANDB_MODE")) == _DISABLED:
        run = Run(None, config or {}, project or "")
    else:
        given = {"notes": notes, "tags": list(tags or ()), "group": group, "job_type": job_type}
        settings = {key: value for key, value in given.items() if value}
        beneath = begin(project, name, config=dict(config or {}), resume=bool(resume and name) or None, **settings)
        run = Run(beneath, config or {}, project or beneath.config.project_name)
    globals().update(config=run.config, summary=run.summary)
    atexit.register(run.finish)
    return run


def _current() -> Run:
    """Return the run, or say that there is none."""
    if run is None:
        message = "No run is active. Call `wandb.init(project=...)` first."
        raise UsageError(message)
    return run


def log(data: Mapping[str, Any], step: int | None = None, commit: bool | None = None, **_: object) -> None:  # noqa: FBT001 -- theirs
    """Record values in the current run; see `Run.log`."""
    _current().log(data, step, commit)


def finish(exit_code: int | None = None, **_: object) -> None:
    """End the current run, if there is one."""
    if run is not None:
        run.finish(exit_code)


def watch(models: Any, *arguments: object, **options: object) -> None:  # noqa: ANN401 -- as `Run.watch`
    """Watch a model; see `Run.watch`."""
    _current().watch(models, *arguments, **options)


def unwatch(models: Any = None) -> None:  # noqa: ANN401 -- a module
    """Watch a model no more."""
    beneath = _current().tracer
    if beneath is not None and models is not None:
        beneath.unwatch(models)


def log_artifact(artifact_or_path: Artifact | str | os.PathLike[str], *arguments: Any, **options: Any) -> Artifact:  # noqa: ANN401 -- as `Run.log_artifact`
    """Keep files with the current run; see `Run.log_artifact`."""
    return _current().log_artifact(artifact_or_path, *arguments, **options)


def save(glob_str: str | os.PathLike[str], *_: object, **__: object) -> bool:
    """Keep a file with the current run."""
    return _current().save(glob_str)


def define_metric(name: str, *arguments: object, **options: Any) -> None:  # noqa: ANN401 -- as `Run.define_metric`
    """Say in which direction a metric is better."""
    _current().define_metric(name, *arguments, **options)


def alert(title: str, text: str = "", level: str = "INFO", **_: object) -> None:
    """Record a message in the current run."""
    _current().alert(title, text, level)


def login(*_: object, **__: object) -> bool:
    """Log in: there is nowhere to log in to."""
    return True


def __getattr__(name: str) -> Any:  # noqa: ANN401 -- whatever was asked for
    """Say what is not served."""
    message = (
        f"tracer.compat.wandb has no {name!r}: it serves runs, metrics, media, config and files. "
        "Import wandb itself for the rest; Tracer listens to it beside (`tracer run`)."
    )
    raise AttributeError(message)


__all__ = [
    "Artifact", "Audio", "Config", "Histogram", "Html", "Image", "Run", "Summary", "Table", "Video", "alert", "config",
    "define_metric", "finish", "init", "log", "log_artifact", "login", "run", "save", "summary", "unwatch", "watch",
]  # fmt: skip
