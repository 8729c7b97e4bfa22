"""Back ends as the Tracelet documents use them by hand: a class to start, to give values and files, and to stop.

An experiment mirrors by itself; these are for programs that hold a back end in their own hands. Each is the one back
end of that name, with the documents' methods.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tracer.backends.base import Backend
    from tracer.transfer import Event, RunInfo

import os

from tracer import clock, events, runfile
from tracer.backends import table
from tracer.errors import UsageError
from tracer.plugins.kinds import BackendPlugin, PluginMetadata, PluginType
from tracer.version import __version__

#: What of a configuration names the run and is no option of the peer.
_NAMES = frozenset({"project", "experiment_name", "run_id", "api_key", "backend_url"})


class Peer(BackendPlugin):
    """A back end of the table in the program's own hands."""

    _name = ""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.remote: dict[str, str] = {}
        self._backend: Backend | None = None
        self._run: RunInfo | None = None
        self._readable = ""

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """Return what it says of itself."""
        shown = table.entry(cls._name).shown
        return PluginMetadata(cls._name, __version__, PluginType.BACKEND, f"Mirrors a run to {shown}.", "Tracer")

    def initialize(self, config: dict[str, Any]) -> None:
        """See that the client is installed, and keep what it is told.

        Args:
            config: `project`, `experiment_name`, `run_id`, and the back end's options by name.

        Raises:
            MissingDependency: The client is not installed; the message names the command that brings it.
        """
        table.check_client(self._name)
        self.config = dict(config)

    def start(self) -> None:
        """Create the run in the peer."""
        from tracer.transfer import RunInfo

        told = self.config
        own = {key: value for key, value in told.items() if key not in _NAMES}
        options = table.merged(self._name, own, url=told.get("backend_url"), api_key=told.get("api_key"))
        project, uid = str(told.get("project") or "default"), str(told.get("run_id") or runfile.new_id())
        name = str(told.get("run_name") or told.get("experiment_name") or uid[:8])
        self._run = RunInfo(uid, project, name, started=clock.now_us(), status=events.RUNNING)
        self._backend = table.backend(self._name, options)
        self.remote = dict(self._backend.open(self._run, {}))

    def log_metric(self, name: str, value: Any, iteration: Any = None) -> None:  # noqa: ANN401 -- as the base has it
        """Give it a value."""
        import numpy as np

        from tracer.transfer import Points

        step = np.array([int(iteration or 0)], np.int64)
        self.take(Points(name, step, np.array([clock.now_us()], np.int64), np.array([float(value)])))

    def log_params(self, params: dict[str, Any]) -> None:
        """Give it parameters."""
        from dataclasses import replace

        run = self.run
        self._run = replace(run, params={**run.params, **params})
        self.take(self._run)

    def log_artifact(self, local_path: str, artifact_path: str | None = None) -> None:
        """Give it a file or a folder.

        Args:
            local_path: The file or folder.
            artifact_path: Name of the artifact; the file's own when absent.
        """
        from tracer.transfer import File

        name = artifact_path or os.path.basename(os.path.abspath(local_path))
        self.take(File(name, "file", "v0", tuple(parts_of(local_path)), clock.now_us()))

    def save_experiment(self, experiment_data: dict[str, Any]) -> None:
        """Give it what is known of the experiment at its end, as the run's summary."""
        from dataclasses import replace

        self._run = replace(self.run, summary={**self.run.summary, **experiment_data})
        self.take(self._run)

    def stop(self) -> None:
        """End the run in the peer."""
        if self._backend is not None:
            self._backend.close(events.COMPLETED, clock.now_us())
            self._readable = self._backend.readable()
            self._backend = None

    def get_status(self) -> dict[str, object]:
        """Say whether it is started, what the peer calls the run and where it is seen."""
        url = self._backend.url() if self._backend is not None else None
        is_installed = table.is_installed(self._name)
        state = {"active": self._backend is not None, "client_installed": is_installed}
        return {"name": self._name, **state, "remote": dict(self.remote), "url": url}

    @property
    def run(self) -> RunInfo:
        """What the peer was told of the run.

        Raises:
            UsageError: It was not started.
        """
        if self._run is None:
            message = f"The back end {self._name!r} was not started. Call initialize(config) and start() first."
            raise UsageError(message)
        return self._run

    def readable(self) -> str:
        """Return where the run can be read back; empty while the back end is not started."""
        return self._backend.readable() if self._backend is not None else self._readable

    def take(self, event: Event) -> None:
        """Hand over one event.

        Raises:
            UsageError: It is not started, or was stopped.
        """
        if self._backend is None:
            message = f"The back end {self._name!r} is not started, or was stopped. Call start() first."
            raise UsageError(message)
        if event.KIND in self._backend.kinds:
            self._backend.write([event])


def parts_of(path: str) -> list[Any]:
    """Return the files at a path as the parts of an artifact.

    Raises:
        FileNotFoundError: There is nothing.
    """
    from tracer.transfer import Part, sha256

    if os.path.isdir(path):
        found = sorted(os.path.join(at, name) for at, _, names in os.walk(path) for name in names)
        named = [(os.path.relpath(one, path).replace(os.sep, "/"), one) for one in found]
    else:
        named = [(os.path.basename(path), path)]
    return [Part(name, local, os.path.getsize(local), sha256(local)) for name, local in named]


class MLflowBackend(Peer):
    """MLflow."""

    _name = "mlflow"


class WandbBackend(Peer):
    """Weights & Biases."""

    _name = "wandb"


class ClearMLBackend(Peer):
    """ClearML."""

    _name = "clearml"


class AimBackend(Peer):
    """Aim."""

    _name = "aim"


__all__ = ["AimBackend", "ClearMLBackend", "MLflowBackend", "Peer", "WandbBackend", "parts_of"]
