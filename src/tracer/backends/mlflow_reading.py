"""Runs that stand in MLflow: a server, a SQLite database, or the files of a folder `mlruns`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from tracer.backends import mlflow_facts as facts
from tracer.backends import mlflow_kept as kept
from tracer.backends.base import Source
from tracer.backends.mlflow_database import Database
from tracer.backends.mlflow_errors import without_credentials
from tracer.backends.mlflow_folder import Folder
from tracer.backends.mlflow_found import Found, Model, info, parsed, points
from tracer.backends.mlflow_remote import Remote
from tracer.transfer import Event, RunInfo

_LARGEST_FACTS = 16 << 20


class MLflowSource(Source):
    """Runs of MLflow.

    Args:
        uri: `http(s)://…`, `sqlite:///path`, the path of a database or of a folder `mlruns`. Empty: what
            `MLFLOW_TRACKING_URI` names, else `mlflow.db` or `mlruns` in the working folder.
        options: `include_deleted`; `artifact_root`, below which a database's artifacts may lie (default: its folder);
            `api_key`, a bearer token.
    """

    name: ClassVar[str] = "mlflow"

    def __init__(self, uri: str, options: Mapping[str, object] | None = None) -> None:
        super().__init__(uri, options)
        uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or ("mlflow.db" if os.path.isfile("mlflow.db") else "mlruns")
        self._reader: Database | Folder | Remote
        path = _local(uri)
        if path is None:
            self._reader = Remote(uri, str(self.options.get("api_key") or ""), self.notes)
        elif os.path.isdir(path) and not uri.startswith("sqlite:"):
            self._reader = Folder(path, self.notes)
        else:
            self._reader = Database(path, self.notes)
        self._found: dict[str, Found] = {}
        self._shown = without_credentials(uri)

    def runs(self) -> Iterator[RunInfo]:
        """Yield the runs; those in the trash only where `include_deleted` is set."""
        origins: set[str] = set()
        for found in self._reader.runs(deleted=bool(self.options.get("include_deleted"))):
            self._found[found.id] = found
            made = info(found, self._whole(found))
            if made.origin in origins:
                self.notes.append(
                    f"{found.name}: a second copy of {made.origin} in MLflow; imported as a run of its own."
                )
                made = _with_origin(made, f"mlflow:{found.id}")
            origins.add(made.origin)
            yield made

    def events(self, run: RunInfo) -> Iterator[Event]:
        """Yield a run's points, then what its artifacts hold."""
        found = self._found[run.uid] if run.uid in self._found else self._found[run.origin.partition(":")[2]]
        with tempfile.TemporaryDirectory(prefix="tracer-mlflow-") as aside:
            renamed = self._renamed(found, aside)
            yield from points(found, self._reader.series(found), renamed, self.notes)
            root = self._root(found, aside)
            if root is not None:
                yield from kept.events(found, root)
            for turn, model in enumerate(found.models):
                folder = self._model_folder(found, model, os.path.join(aside, "models", str(turn)))
                files = kept.plain_files(folder) if folder else {}
                if files:
                    yield kept.artifact(model.name, files, "model", metadata={"mlflow.model_id": model.id})

    def _whole(self, found: Found) -> Mapping[str, Any]:
        """Return what our own file says of a run that we wrote."""
        with tempfile.TemporaryDirectory(prefix="tracer-mlflow-") as aside:
            return self._parsed(found, facts.RUN_FILE, aside)

    def _renamed(self, found: Found, aside: str) -> dict[str, str]:
        """Return MLflow's names → ours, of a run that we wrote."""
        held = self._parsed(found, facts.NAMES_FILE, aside)
        return {sent: name for name, sent in held.items() if isinstance(sent, str)}

    def _parsed(self, found: Found, path: str, aside: str) -> Mapping[str, Any]:
        """Return a JSON file among the artifacts of a run of ours."""
        if not found.is_ours:
            return {}
        if isinstance(self._reader, Remote) and _local(found.artifacts) is None:
            local = self._reader.one(found, path, aside)
        else:
            root = self._root(found, aside, say=False)
            local = (
                None
                if root is None
                else kept.plain_files(os.path.dirname(os.path.join(root, path))).get(os.path.basename(path))
            )
        return {} if local is None else parsed(kept.read(local, _LARGEST_FACTS))

    def _root(self, found: Found, aside: str, *, say: bool = True) -> str | None:
        """Return the folder with a run's artifacts; None where there is none that may be read."""
        if isinstance(self._reader, Remote) and _local(found.artifacts) is None:
            folder = os.path.join(aside, "artifacts")
            os.makedirs(folder)
            self._reader.fetch(found, folder)
            return folder
        if not isinstance(self._reader, Folder):
            return self._allowed(found, found.artifacts, say=say)
        # A folder that was moved still names its old place; it makes an empty one for artifacts that lie elsewhere.
        own = _inside(self._reader.path, self._reader.artifacts(found))
        has_own = own is not None and bool(kept.plain_files(own))
        return self._allowed(found, found.artifacts, say=say and not has_own) or own

    def _model_folder(self, found: Found, model: Model, aside: str) -> str | None:
        """Return the folder with a model's files; None where there is none that may be read."""
        if isinstance(self._reader, Remote) and _local(model.location) is None:
            os.makedirs(aside, exist_ok=True)
            self._reader.fetch_model(found, model, aside)
            return aside
        return self._allowed(found, model.location)

    def _allowed(self, found: Found, location: str, *, say: bool = True) -> str | None:
        """Return a folder that a database or file names, if it lies where artifacts may lie."""
        root = str(self.options.get("artifact_root") or self._base())
        parts = urlsplit(location)
        if parts.scheme == "mlflow-artifacts":  # a path below `--artifacts-destination` of a server
            below = root if self.options.get("artifact_root") else os.path.join(root, "mlartifacts")
            folder = os.path.join(below, unquote(parts.path).lstrip("/"))
        else:
            folder = _local(location) or ""
        landed = _inside(root, os.path.join(root, folder)) if folder and root else None
        if landed is None and location and say:
            place = without_credentials(location)
            where = f" {place} does not lie in {root}." if root else f" {place} is a folder of this machine."
            self.notes.append(f"{found.name}: artifacts are not read:{where} Set `artifact_root` to allow it.")
        return landed if landed is not None and os.path.isdir(landed) else None

    def _base(self) -> str:
        """Return below which folder artifacts may lie, unless `artifact_root` says another; a server's have none."""
        if isinstance(self._reader, Folder):
            return self._reader.path
        return os.path.dirname(self._reader.path) if isinstance(self._reader, Database) else ""


def _local(uri: str) -> str | None:
    """Return the path that an address means; None for one of a server.

    Example:
        >>> _local("sqlite:////data/mlflow.db"), _local("mlruns"), _local("http://localhost:5000")
        ('/data/mlflow.db', 'mlruns', None)
    """
    parts = urlsplit(uri)
    if parts.scheme == "sqlite":
        return unquote(uri.partition("?")[0].removeprefix("sqlite:///"))
    if parts.scheme == "file":
        return unquote(parts.path)
    return uri if "://" not in uri and not uri.startswith(("databricks", "mlflow-artifacts:")) else None


def _inside(root: str, folder: str) -> str | None:
    """Return a folder with its links resolved, if it lies in a root."""
    root, landed = os.path.realpath(root), os.path.realpath(folder)
    return landed if landed.startswith(root.rstrip(os.sep) + os.sep) else None


def _with_origin(run: RunInfo, origin: str) -> RunInfo:
    """Return a run under another origin."""
    from dataclasses import replace

    return replace(run, origin=origin)
