"""What a program says to Weights & Biases: metrics, media, files and parameters, as it says them.

Listened at the methods of its `Run`, which every call ends in: those of `wandb.log`, of the run that `init` returned,
and of the loggers of frameworks. The program's own run goes on unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from tracer import events
from tracer.capture.origins import fed_by
from tracer.capture.patching import Hook, Patch
from tracer.capture.wandb_values import split

ORIGIN = "wandb"
_INTERNAL = "_"

logs = Hook("wandb.log")
files = Hook("wandb.log_artifact")
models = Hook("wandb.watch")
ends = Hook("wandb.finish")


class _Known:
    """What is known of one run of theirs: its prefix, its step, the parameters and metrics that were passed on."""

    def __init__(self, run: Any, prefix: str) -> None:  # noqa: ANN401 -- their class
        self.prefix = prefix
        self.names: set[str] = set()
        self.parameters: dict[str, object] = {}
        self.run, self.config = run, run.config
        self._step = int(run.step)  # once: asking for it costs as much as a call of `log`

    def at(self, step: int | None, commit: bool | None) -> int:  # noqa: FBT001 -- as theirs
        """Return the step of a call, and count on as theirs does: without a step each call is one."""
        if step is not None:
            self._step = int(step)
        at = self._step
        if commit or (commit is None and step is None):
            self._step += 1
        return at


_known: dict[int, _Known] = {}


def _of(run: Any) -> _Known:  # noqa: ANN401 -- their class
    """Return what is known of a run; the second one of a process keeps its metrics apart by its name."""
    found = _known.get(id(run))  # it is kept, so its identity is; asking for its own id is slow
    if found is None:
        found = _known[id(run)] = _Known(run, f"{run.name or run.id}/" if _known else "")
        named = {
            "name": run.name,
            "id": run.id,
            "project": run.project,
            "group": run.group,
            "tags": list(run.tags or ()),
        }
        logs.emit(events.Metadata({"wandb": {run.id: {key: value for key, value in named.items() if value}}}))
    return found


def _tell_parameters(known: _Known) -> None:
    """Pass on what the run's config holds by now and did not before."""
    config = known.config.as_dict()
    new = {name: value for name, value in config.items() if known.parameters.get(name, known) != value}
    if new:
        known.parameters.update(new)
        own = {known.prefix + name: value for name, value in new.items() if not name.startswith(_INTERNAL)}
        logs.emit(events.Parameters(own, ORIGIN))


def _tell(run: Any, data: Mapping[str, Any], given: int | None, commit: bool | None) -> None:  # noqa: ANN401, FBT001 -- theirs
    """Pass on one call: numbers and texts together, media one by one."""
    known = _of(run)
    if len(known.config.keys()) != len(known.parameters):
        _tell_parameters(known)
    values, media = split(data, known.prefix)
    known.names.update(values)
    step = known.at(given, commit)
    if values and fed_by() is None:  # else a framework says the same to us itself
        logs.emit(events.Scalars(values, step, origin=ORIGIN))
    for name, one in media:
        logs.emit(events.Media(name, one.kind, data=one.data, suffix=one.suffix, step=step, caption=one.caption,
                               fields=one.fields, origin=ORIGIN))  # fmt: skip


def _install_log(module: ModuleType) -> Callable[[], None]:
    """Listen at `Run.log`."""

    def make(original: Callable[..., None]) -> Callable[..., None]:
        def log(self: Any, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:  # noqa: ANN401, FBT001
            if logs.is_on:  # before theirs, which moves the files of media
                with logs:
                    _tell(self, data, step, commit)
            original(self, data, step, commit)

        return log

    return logs.wrap(module.Run, "log", make, parameters=("self", "data", "step", "commit"))


def _install_finish(module: ModuleType) -> Callable[[], None]:
    """Listen at the end of a run, also that of a `with` block: the summary and the last parameters."""

    def make(original: Callable[..., None]) -> Callable[..., None]:
        def finish(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            if ends.is_on:
                with ends:
                    known = _of(self)
                    _tell_parameters(known)
                    said = {
                        known.prefix + name: value
                        for name, value in self.summary._as_dict().items()  # noqa: SLF001 -- the public ones need a key
                        if not name.startswith(_INTERNAL) and known.prefix + name not in known.names
                    }
                    values, _ = split(said, "")
                    if values:
                        ends.emit(events.Metadata({"summary": values}))
            original(self, *args, **kwargs)

        return finish

    return ends.wrap(module.Run, "_finish", make, parameters=("self",))


def _install_files(module: ModuleType) -> Callable[[], None]:
    """Listen at `Run.log_artifact`: files by reference, as they lie on this machine."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def log_artifact(self: Any, artifact_or_path: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            if files.is_on:
                with files:
                    _tell_files(artifact_or_path, *args, **kwargs)
            return original(self, artifact_or_path, *args, **kwargs)

        return log_artifact

    return files.wrap(module.Run, "log_artifact", make, parameters=("self", "artifact_or_path", "name", "type"))


def _tell_files(
    said: Any,  # noqa: ANN401 -- a path, or their Artifact
    name: str | None = None,
    type: str | None = None,  # noqa: A002 -- their name
    aliases: list[str] | None = None,
    **_: object,
) -> None:
    """Pass on a file, or those of an artifact."""
    if isinstance(said, (str, os.PathLike)):
        path = os.fspath(said)
        called = name or os.path.basename(path.rstrip(os.sep))
        files.emit(
            events.Artifact(
                os.path.abspath(path), name=called, type=type or "file", aliases=aliases or (), origin=ORIGIN
            )
        )
        return
    for entry, path in _entries(said):
        called = f"{said.name.partition(':')[0]}/{entry}"
        files.emit(
            events.Artifact(
                path, name=called, type=said.type, aliases=aliases or (), metadata=dict(said.metadata), origin=ORIGIN
            )
        )


def _entries(artifact: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 -- their class
    """Yield the files of an artifact that lie on this machine."""
    for entry, held in artifact.manifest.entries.items():
        if held.local_path:
            yield entry, os.path.abspath(held.local_path)


def _install_watch(module: ModuleType) -> Callable[[], None]:
    """Listen at `Run.watch`: the model is watched by us too."""

    def make(original: Callable[..., None]) -> Callable[..., None]:
        def watch(self: Any, models_: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            if models.is_on:
                with models:
                    for model in models_ if isinstance(models_, (list, tuple)) else [models_]:
                        models.emit(events.Training(ORIGIN, model))
            original(self, models_, *args, **kwargs)

        return watch

    return models.wrap(module.Run, "watch", make, parameters=("self", "models"))


_AT = {"module": "wandb.sdk.wandb_run", "package": "wandb", "tested": ("0.31.0", "0.31.0")}

PATCHES = (
    Patch(logs, attribute="Run.log", install=_install_log, **_AT),  # type: ignore[arg-type]  # a row in two parts
    Patch(ends, attribute="Run._finish", install=_install_finish, **_AT),  # type: ignore[arg-type]  # as above
    Patch(files, attribute="Run.log_artifact", install=_install_files, **_AT),  # type: ignore[arg-type]  # as above
    Patch(models, attribute="Run.watch", install=_install_watch, **_AT),  # type: ignore[arg-type]  # as above
)

__all__ = ["ORIGIN", "PATCHES"]
