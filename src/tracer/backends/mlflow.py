"""Runs in MLflow: a server or a database, through its client and never through its fluent functions.

Those hold their state for the whole process, and the program may use them itself. What has no place in MLflow becomes
an artifact: see `mlflow_files`. Reading is `mlflow_reading`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from tracer import events as vocabulary
from tracer.backends import mlflow_facts as facts
from tracer.backends.base import Backend, Limits, Refused, RemoteIds
from tracer.backends.mlflow_client import Connection
from tracer.backends.mlflow_errors import is_missing
from tracer.backends.mlflow_files import Artifacts
from tracer.backends.mlflow_models import Models
from tracer.backends.mlflow_nonfinite import Special
from tracer.backends.names import ranked
from tracer.transfer import KINDS, Event, File, Histogram, LogLine, Media, Points, RunInfo, Span, Text

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

_BATCH, _PARAMS = 1000, 100


class MLflowBackend(Backend):
    """Mirrors a run to MLflow.

    Args:
        options: `tracking_uri` (default: `MLFLOW_TRACKING_URI`, else a database in `storage_path`), `experiment_name`
            (default: the project), `run_name`, `api_key` (a bearer token), `register_models` (a name in the registry).
    """

    name: ClassVar[str] = "mlflow"
    kinds: ClassVar[frozenset[str]] = frozenset(KINDS)
    limits: ClassVar[Limits] = Limits(
        batch=_BATCH,
        losses={
            "±Inf": "stored as ±1.797e308; the tag tracer.nonfinite lists the steps, an import maps them back",
            "-0.0": "SQLite stores 0.0; the tag tracer.negative_zeros lists the steps, an import maps them back",
            "times": "whole milliseconds; values of one step keep their order",
            "names with other characters than letters, digits and `_-. :/`": "escaped as `_xHH_`, mapped back",
            "types of parameters, and changed ones": "text, the first one kept; `tracer/run.json` has all as they are, "
            "a tag `tracer.param.<name>` the new value",
            "text, histograms, output, other media": "artifacts under text/, histograms/, logs/ and media/",
            "earlier versions of an artifact": "listed in `tracer/artifacts/`; the last one's files stand",
        },
    )

    def __init__(self, options: Mapping[str, object]) -> None:
        super().__init__(options)
        uri = str(options.get("tracking_uri") or options.get("url") or os.environ.get("MLFLOW_TRACKING_URI") or "")
        self._connection = Connection(uri or self._own_database(), str(options.get("api_key") or ""))
        self._names = facts.names()
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._special = Special()
        self._whole = b""
        self._told_names: dict[str, str] = {}

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Create the run, or go on with the one that a crash left open."""
        with self._connection.calls():
            found = self._remote(remote["run_id"]) if "run_id" in remote else self._found_or_created(run)
            self._run, self._experiment = str(found.info.run_id), str(found.info.experiment_id)
            if found.info.status != "RUNNING":
                self._connection.client.update_run(self._run, status="RUNNING")
            self._name = str(found.info.run_name or "")
            self._params, self._tags = dict(found.data.params), dict(found.data.tags)
            self._special = Special(*(self._tags.get(tag, "") for tag in Special.TAGS))
            self._artifacts = Artifacts(self._connection, self._run)
            self._models = Models(self._connection, self._experiment, self._run, self.options)
            self._tell(run)
        return {"run_id": self._run, "experiment_id": self._experiment}

    def write(self, events: Sequence[Event]) -> None:
        """Hand over a batch; a repeated one changes nothing, since everything carries its own time."""
        with self._connection.calls():
            self._points([event for event in events if isinstance(event, Points)])
            self._artifacts_of(events)
            spans = [event for event in events if isinstance(event, Span)]
            if spans:
                from tracer.backends import mlflow_spans

                mlflow_spans.send(self._connection, self._experiment, self._run, spans)
            for event in events:
                if isinstance(event, RunInfo):
                    self._tell(event)

    def close(self, status: str, ended: int | None) -> None:
        """End the run; one that is running stays open."""
        with self._connection.calls():
            self._set_tags({facts.STATUS: status})
            self._tell_names()
            if status != vocabulary.RUNNING:
                milliseconds = None if ended is None else ended // 1000
                self._connection.client.set_terminated(self._run, facts.STATUSES.get(status, "FAILED"), milliseconds)

    def url(self) -> str | None:
        """Return the page of the run; a database has none."""
        if not self._connection.is_server or not hasattr(self, "_run"):
            return None
        return f"{self._connection.shown}/#/experiments/{self._experiment}/runs/{self._run}"

    def renamed(self) -> Mapping[str, str]:
        """Return our names → MLflow's, where they differ."""
        return self._names.changed

    def readable(self) -> str:
        """Return the address of the server or database."""
        return self._connection.uri

    def _own_database(self) -> str:
        """Return the address of the database in the store's folder."""
        folder = os.path.abspath(str(self.options.get("storage_path", ".")))
        os.makedirs(folder, exist_ok=True)
        return "sqlite:///" + os.path.join(folder, "mlflow.db").replace(os.sep, "/")

    def _remote(self, run_id: str) -> Run:
        """Return the run as MLflow has it.

        Raises:
            Refused: It is gone, or in the trash.
        """
        from mlflow.exceptions import MlflowException

        try:
            found: Run = self._connection.client.get_run(run_id)
        except MlflowException as error:
            if not is_missing(error):
                raise
            message = f"MLflow at {self._connection.shown} has no run {run_id!r} any more, so it cannot go on there."
            raise Refused(message) from error
        if found.info.lifecycle_stage == "deleted":
            message = f"The run {run_id!r} is deleted in MLflow. Restore it: mlflow runs restore --run-id {run_id}"
            raise Refused(message)
        return found

    def _found_or_created(self, run: RunInfo) -> Run:
        """Return the run that an earlier beginning left, or a new one."""
        client, experiment = self._connection.client, self._experiment_id(run)
        mine = client.search_runs([experiment], f"tags.`{facts.RUN_ID}` = '{run.uid}'", max_results=1)
        if mine:
            found: Run = mine[0]
            return found
        created: Run = client.create_run(
            experiment,
            start_time=run.started // 1000,
            tags={facts.RUN_ID: run.uid},
            run_name=self._shown_name(run) or None,
        )
        return created

    def _experiment_id(self, run: RunInfo) -> str:
        """Return the experiment, made where there is none.

        Raises:
            Refused: It is in the trash.
        """
        from mlflow.exceptions import MlflowException

        client = self._connection.client
        name = str(self.options.get("experiment_name") or run.project)
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(client.create_experiment(name, artifact_location=self._artifact_location()))
            except MlflowException:
                found = client.get_experiment_by_name(name)  # another process was faster
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            restore = f"mlflow experiments restore --experiment-id {found.experiment_id}"
            message = f"The experiment {name!r} is deleted in MLflow. Restore it ({restore}) or set `experiment_name`."
            raise Refused(message)
        return str(found.experiment_id)

    def _artifact_location(self) -> str | None:
        """Return where a database's artifacts go: beside it, and not into the working folder as MLflow's default."""
        kind, _, path = self._connection.uri.partition(":///")
        if kind != "sqlite" or not path:
            return None
        from pathlib import Path

        return (Path(path).absolute().parent / "mlartifacts").as_uri()

    def _tell(self, run: RunInfo) -> None:
        """Send what is known of the run, as far as MLflow does not have it."""
        from mlflow.entities import Param

        name = self._shown_name(run)
        if name and name != self._name:
            self._connection.client.update_run(self._run, name=name)
            self._name = name
        new, told = facts.params(run, self._names, self._params)
        pairs = list(new.items())
        for first in range(0, len(pairs), _PARAMS):
            batch = pairs[first : first + _PARAMS]
            self._connection.client.log_batch(self._run, params=[Param(name, value) for name, value in batch])
            self._params.update(batch)
        self._set_tags(facts.tags(run, self._names) | told)
        whole = facts.whole(run)
        if whole != self._whole:
            self._artifacts.put(facts.RUN_FILE, whole)
            self._whole = whole
        self._tell_names()

    def _shown_name(self, run: RunInfo) -> str:
        """Return the run's name in MLflow."""
        return str(self.options.get("run_name") or run.name)[: facts.LONGEST]

    def _set_tags(self, tags: Mapping[str, str]) -> None:
        """Set the tags that are new or changed."""
        from mlflow.entities import RunTag

        new = [(name, value) for name, value in tags.items() if self._tags.get(name) != value]
        for first in range(0, len(new), _PARAMS):
            batch = new[first : first + _PARAMS]
            self._connection.client.log_batch(self._run, tags=[RunTag(name, value) for name, value in batch])
            self._tags.update(batch)

    def _tell_names(self) -> None:
        """Keep the table of names that MLflow does not take as they are."""
        if self._names.changed != self._told_names:
            told = json.dumps(self._names.changed, ensure_ascii=False, indent=1)
            self._artifacts.put(facts.NAMES_FILE, told.encode("utf-8", "replace"))
            self._told_names = dict(self._names.changed)

    def _points(self, points: Iterable[Points]) -> None:
        """Send points, in batches that MLflow takes."""
        from mlflow.entities import Metric

        batch: list[Metric] = []
        for series in points:
            name = self._names.sent(ranked(series.name, series.rank))
            self._special.see(name, series)
            times = (series.times // 1000).tolist()
            for value, time, step in zip(series.values.tolist(), times, series.steps.tolist(), strict=True):
                batch.append(Metric(name, value, time, step))
                if len(batch) == _BATCH:
                    self._connection.client.log_batch(self._run, metrics=batch)
                    batch = []
        if batch:
            self._connection.client.log_batch(self._run, metrics=batch)
        self._set_tags(self._special.changed())

    def _artifacts_of(self, events: Sequence[Event]) -> None:
        """Send what becomes an artifact."""
        histograms = [event for event in events if isinstance(event, Histogram)]
        if histograms:
            self._artifacts.histograms(histograms)
        lines = [event for event in events if isinstance(event, LogLine)]
        if lines:
            self._artifacts.output(lines)
        for event in events:
            if isinstance(event, Text):
                self._artifacts.text(event)
            elif isinstance(event, Media):
                self._artifacts.media(event)
            elif isinstance(event, File):
                self._artifacts.file(event)
                self._models.tell(event)
